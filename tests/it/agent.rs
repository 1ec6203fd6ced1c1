//! The agent: its cluster port against a real API server, and whole agents against a hub that only speaks the protocol.

mod embedded;
mod hub;
mod life;
mod port;
