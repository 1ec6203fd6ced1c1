//! A network of nodes in one process, for tests: bytes go straight to the other node, unless a test cuts the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt;

use super::{LinkError, NodeId, Peer, PeerFuture, PeerLink, PeerNetwork, RaftNode, SnapshotStream};

/// Nodes that can reach each other.
#[derive(Default)]
pub(super) struct MemoryNetwork {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<NodeId, RaftNode>,
    isolated: BTreeSet<NodeId>,
    /// Snapshot streams break after so many bytes, once per number.
    breaks: Vec<u64>,
    /// Bytes of every snapshot stream that was started.
    streams: Vec<u64>,
}

impl MemoryNetwork {
    pub(super) fn join(&self, node: &RaftNode) {
        self.state().nodes.insert(node.identity().node, node.clone());
    }

    pub(super) fn leave(&self, node: NodeId) {
        self.state().nodes.remove(&node);
    }

    pub(super) fn isolate(&self, node: NodeId) {
        self.state().isolated.insert(node);
    }

    pub(super) fn heal(&self) {
        self.state().isolated.clear();
    }

    pub(super) fn break_next_stream_after(&self, bytes: u64) {
        self.state().breaks.push(bytes);
    }

    pub(super) fn streams(&self) -> Vec<u64> {
        self.state().streams.clone()
    }

    /// The network as `node` sees it.
    pub(super) fn of(self: &Arc<Self>, node: NodeId) -> Arc<dyn PeerNetwork> {
        Arc::new(View { network: Arc::clone(self), from: node })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn route(&self, from: NodeId, to: NodeId) -> Result<RaftNode, LinkError> {
        let state = self.state();
        if state.isolated.contains(&from) || state.isolated.contains(&to) {
            return Err(LinkError::Unreachable("isolated".into()));
        }
        state.nodes.get(&to).cloned().ok_or_else(|| LinkError::Unreachable("stopped".into()))
    }
}

struct View {
    network: Arc<MemoryNetwork>,
    from: NodeId,
}

impl PeerNetwork for View {
    fn link(&self, node: NodeId, _: &Peer) -> Arc<dyn PeerLink> {
        Arc::new(Link { network: Arc::clone(&self.network), from: self.from, to: node })
    }
}

struct Link {
    network: Arc<MemoryNetwork>,
    from: NodeId,
    to: NodeId,
}

impl PeerLink for Link {
    fn call(&self, request: Bytes, limit: Duration) -> PeerFuture<'_> {
        Box::pin(async move {
            let node = self.network.route(self.from, self.to)?;
            match tokio::time::timeout(limit, node.serve(self.from, &request)).await {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(error)) => Err(LinkError::Refused(error.to_string())),
                Err(_) => Err(LinkError::Failed("time is up".into())),
            }
        })
    }

    fn stream(&self, header: Bytes, content: SnapshotStream) -> PeerFuture<'_> {
        Box::pin(async move {
            let node = self.network.route(self.from, self.to)?;
            let limit = self.network.state().breaks.pop();
            let mut counted = Counted { inner: content.take(limit.unwrap_or(u64::MAX)), count: 0 };
            let response = node.serve_snapshot(self.from, &header, &mut counted).await;
            self.network.state().streams.push(counted.count);
            match (response, limit) {
                (_, Some(_)) => Err(LinkError::Failed("the stream broke".into())),
                (Ok(response), None) => Ok(response),
                (Err(error), None) => Err(LinkError::Refused(error.to_string())),
            }
        })
    }
}

struct Counted {
    inner: tokio::io::Take<SnapshotStream>,
    count: u64,
}

impl tokio::io::AsyncRead for Counted {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = std::pin::Pin::new(&mut self.inner).poll_read(context, buffer);
        self.count += (buffer.filled().len() - before) as u64;
        polled
    }
}
