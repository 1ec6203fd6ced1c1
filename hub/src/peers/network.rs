//! The peer transport as Raft sees it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Shared;
use super::link::Slot;
use super::wire::Class;
use crate::raft::{NodeId, Peer, PeerFuture, PeerLink, PeerNetwork, SnapshotStream};

pub(super) struct Network(pub(super) Arc<Shared>);

impl PeerNetwork for Network {
    fn link(&self, node: NodeId, peer: &Peer) -> Arc<dyn PeerLink> {
        let slot = self.0.slot(node);
        slot.move_to(&peer.address);
        Arc::new(Link { shared: Arc::clone(&self.0), slot })
    }
}

struct Link {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
}

impl PeerLink for Link {
    fn call(&self, request: Bytes, limit: Duration) -> PeerFuture<'_> {
        Box::pin(async move { self.slot.call(&self.shared, Class::Raft, &request, limit).await })
    }

    fn stream(&self, header: Bytes, mut content: SnapshotStream) -> PeerFuture<'_> {
        Box::pin(async move { self.slot.stream(&self.shared, &header, &mut content).await })
    }
}
