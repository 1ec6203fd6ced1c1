//! The hub: the IO shell around `windlass-hub-core`.

pub mod raft;
pub mod source;
pub mod store;
