//! The API as its clients see it: requests through the router, over a replica with a real Raft node of one.
//!
//! Nothing sleeps: watches are read until the expected event is there.

mod deletes;
mod fixture;
mod objects;
mod serving;
mod watches;
