//! The hubs as a group: asking the leader, joining, and keeping Raft's members equal to the hubs that the state knows.
//!
//! | module | what it does |
//! |---|---|
//! | [`wire`] | what hubs ask each other beside Raft |
//! | [`service`] | answers it |
//! | [`join`] | a new hub: token, issuing key, node id |
//! | [`announce`] | this hub says where it is and what it runs |
//! | [`members`] | the leader adds, promotes and removes nodes, and raises the state's version |
//! | [`compare`] | replicas state the hash of their state; one that differs stops |
//!
//! Membership is decided in the state (by commands that `apply` checks); Raft's own configuration follows it, level by
//! level, so that a leader that dies in the middle leaves the rest to the next one.

pub mod announce;
pub mod compare;
pub mod join;
pub mod members;
mod service;
#[cfg(test)]
mod tests;
pub mod wire;

pub use self::service::GroupService;
