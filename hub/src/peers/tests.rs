//! Hubs over loopback QUIC: a Raft group, calls and their bounds, and everybody who is turned away.

mod calls;
pub(crate) mod fixture;
mod group;
mod joining;
mod refusals;
