//! The hub: the IO shell around `windlass-hub-core`.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | file, environment and flags become one validated `Config` |
//! | [`store`], [`raft`] | sled, blobs, the log and openraft |
//! | [`machine`], [`replica`], [`events`] | the replicated state in this process, and the way to change it |
//! | [`sealing`], [`trust`] | secrets at rest, root and issuing keys |
//! | [`source`] | Git |

pub mod events;
pub mod machine;
pub mod raft;
pub mod replica;
pub mod sealing;
pub mod source;
pub mod store;
