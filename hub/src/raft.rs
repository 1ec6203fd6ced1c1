//! Raft: the replicated log under the hub's state.
//!
//! ```text
//! propose() -> batcher -> openraft core -> log store -> store committer (one sync per group)
//!                              |  ^
//!                              v  | PeerLink (opaque bytes; QUIC in production, memory in tests)
//!                     state machine adapter -> Machine::apply (the pure core, in order)
//!                              |
//!                              v
//!                     snapshot files (checksummed blocks) -> compaction of the log
//! ```
//!
//! The rest of the hub sees [`RaftNode`], the trait [`Machine`] that it implements, and the traits [`PeerNetwork`] and
//! [`PeerLink`] that a transport implements; commands, answers and messages between peers are bytes here.
//!
//! Architecture invariants: no other module of the hub names openraft; every byte on disk and between peers has a
//! version and is encoded by this module's own [`codec`], never by a derived format of the library; nothing here
//! assumes that the group has one node.

mod codec;
mod compaction;
mod config;
mod contact;
mod log;
mod machine;
mod members;
#[cfg(test)]
mod memory_network;
mod network;
mod node;
mod propose;
mod restored;
mod serve;
mod snapshot;
mod state_machine;
mod status;
#[cfg(test)]
mod tests;
mod types;
mod wire;

pub use self::config::RaftConfig;
pub use self::log::LogError;
pub use self::machine::{Machine, RestoreError, SnapshotSource};
pub use self::members::MembersError;
pub use self::network::{LinkError, NoPeers, PeerFuture, PeerLink, PeerNetwork, SnapshotStream};
pub use self::node::{BootstrapError, RaftNode, ReadError, StartError};
pub use self::propose::ProposeError;
pub(crate) use self::restored::found_from;
pub use self::serve::{OpenSnapshot, ServeError, SnapshotGate};
pub use self::snapshot::SnapshotError;
pub use self::state_machine::InstallError;
pub use self::status::{Role, Status};
pub use self::types::{NodeId, Peer};
