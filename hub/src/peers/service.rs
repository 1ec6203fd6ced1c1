//! What answers peers, and what is expected of them.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::io::AsyncRead;

use crate::raft::NodeId;
use crate::store::StoreId;

/// What a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallKind {
    /// For [`crate::raft::RaftNode::serve`].
    Raft,
    /// A small request of another part of the hub.
    Service,
    /// A large one, sent behind everything else.
    Bulk,
}

/// What the replicated state says of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// A member with this store.
    Known(StoreId),
    /// Not (yet) known here: its certificate suffices.
    Unknown,
    /// It was removed, and never comes back under this number.
    Removed,
}

/// Answers peers. Called from many tasks at once, on the threads of the peer transport.
pub trait PeerService: Send + Sync + 'static {
    /// Answers a request of the authenticated peer `from`. An error is a sentence for the caller, which gets it as
    /// [`crate::raft::LinkError::Refused`]. Dropped when the peer disconnects.
    fn call(&self, from: NodeId, kind: CallKind, request: Bytes) -> BoxFuture<'_, Result<Bytes, String>>;

    /// Receives a snapshot: see [`crate::raft::RaftNode::serve_snapshot`].
    fn snapshot<'a>(
        &'a self,
        from: NodeId,
        header: Bytes,
        content: &'a mut (dyn AsyncRead + Send + Unpin),
    ) -> BoxFuture<'a, Result<Bytes, String>>;

    /// Answers somebody who has no certificate: a hub that wants to join. Trust nothing in the request.
    fn stranger(&self, remote: SocketAddr, request: Bytes) -> BoxFuture<'_, Bytes>;
}
