//! The types openraft is instantiated with.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::snapshot::SnapshotFile;

/// A member's number, given once and never again, also not after a disk was wiped.
pub type NodeId = u64;

/// A member of the group, as membership entries carry it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Name for people.
    pub name: String,
    /// Where its peers reach it, `host:port` (7444/udp by default).
    pub address: String,
}

/// The application data of one log entry: commands that were proposed at about the same time. One entry costs one sync
/// on every node, so a group of writers shares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Commands(pub(super) Vec<Arc<[u8]>>);

/// The answers to the commands of one entry, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answers(pub(super) Vec<Vec<u8>>);

openraft::declare_raft_types!(
    /// Windlass' instance of openraft.
    pub(super) Config:
        D = Commands,
        R = Answers,
        NodeId = NodeId,
        Node = Peer,
        SnapshotData = SnapshotFile,
);

pub(super) type Entry = openraft::Entry<Config>;
pub(super) type LogId = openraft::LogId<NodeId>;
pub(super) type Vote = openraft::Vote<NodeId>;
pub(super) type Membership = openraft::Membership<NodeId, Peer>;
pub(super) type StoredMembership = openraft::StoredMembership<NodeId, Peer>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<NodeId, Peer>;
pub(super) type StorageError = openraft::StorageError<NodeId>;
pub(super) type StorageIoError = openraft::StorageIOError<NodeId>;
pub(super) type Raft = openraft::Raft<Config>;
