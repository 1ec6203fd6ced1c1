//! The agent: its cluster port against a real API server, and whole agents against a hub that only speaks the protocol.

mod hub;
mod life;
mod port;
