//! What a transport between hubs must offer, and the adapter that makes openraft use it.
//!
//! A transport carries bytes: one request with one response, and one stream of a snapshot with one response. It knows
//! nothing of Raft. It authenticates the other side (mutual TLS, cluster, node and store id) before it carries
//! anything; the envelope inside of the bytes names cluster, sender and receiver once more, so that a wrong address
//! ends in a refusal and never in a wrong vote.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::error::{Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{RaftNetwork, RaftNetworkFactory, Snapshot};
use tokio::io::{AsyncRead, AsyncSeekExt};

use super::types::{Config, NodeId, Peer, Vote};
use super::wire::{Envelope, Offer, Request, Response};

/// A boxed future of a link.
pub type PeerFuture<'a> = Pin<Box<dyn Future<Output = Result<Bytes, LinkError>> + Send + 'a>>;

/// The bytes of a snapshot, from where the receiver asked for.
pub type SnapshotStream = Box<dyn AsyncRead + Send + Sync + Unpin>;

/// Makes links to peers.
pub trait PeerNetwork: Send + Sync + 'static {
    /// A link to `node`. Must not connect yet: openraft asks for links to nodes that may be down, and asks again when
    /// an address changes.
    fn link(&self, node: NodeId, peer: &Peer) -> Arc<dyn PeerLink>;
}

/// A way to one peer. Used by several tasks at once.
pub trait PeerLink: Send + Sync + 'static {
    /// Sends `request` (at most 1 MiB plus one entry) and waits for the response, at most for `limit`. On the other
    /// side the bytes go to [`super::RaftNode::serve`].
    fn call(&self, request: Bytes, limit: Duration) -> PeerFuture<'_>;

    /// Sends `header` and then all of `content` on one stream and waits for the response, with no limit but that it
    /// must make progress. On the other side: [`super::RaftNode::serve_snapshot`].
    fn stream(&self, header: Bytes, content: SnapshotStream) -> PeerFuture<'_>;
}

/// Why a peer did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It cannot be reached: wait before trying again.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// This call failed (cut stream, time is up): another may succeed at once.
    #[error("failed: {0}")]
    Failed(String),
    /// The peer refused: wrong cluster, node or version.
    #[error("refused: {0}")]
    Refused(String),
}

/// The network of a group of one: there is nobody to reach.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPeers;

impl PeerNetwork for NoPeers {
    fn link(&self, _: NodeId, _: &Peer) -> Arc<dyn PeerLink> {
        Arc::new(Self)
    }
}

impl PeerLink for NoPeers {
    fn call(&self, _: Bytes, _: Duration) -> PeerFuture<'_> {
        Box::pin(async { Err(no_peers()) })
    }

    fn stream(&self, _: Bytes, _: SnapshotStream) -> PeerFuture<'_> {
        Box::pin(async { Err(no_peers()) })
    }
}

fn no_peers() -> LinkError {
    LinkError::Unreachable("this hub was started without a peer network".into())
}

/// Makes openraft's clients from a [`PeerNetwork`].
pub(super) struct Factory {
    pub(super) network: Arc<dyn PeerNetwork>,
    pub(super) cluster: [u8; 16],
    pub(super) node: NodeId,
}

impl RaftNetworkFactory<Config> for Factory {
    type Network = Client;

    async fn new_client(&mut self, target: NodeId, peer: &Peer) -> Client {
        let envelope = Envelope { cluster: self.cluster, from: self.node, to: target };
        Client { link: self.network.link(target, peer), envelope }
    }
}

/// One peer, as openraft sees it.
pub(super) struct Client {
    link: Arc<dyn PeerLink>,
    envelope: Envelope,
}

type RpcError<E = RaftError<NodeId>> = RPCError<NodeId, Peer, E>;
type SendError = StreamingError<Config, Fatal<NodeId>>;

impl Client {
    async fn call(&self, request: Request, limit: Duration) -> Result<Response, LinkError> {
        let bytes = self.link.call(request.encode(&self.envelope).into(), limit).await?;
        match Response::decode(&bytes) {
            Ok(Response::Failed(reason)) => Err(LinkError::Refused(reason)),
            Ok(response) => Ok(response),
            Err(error) => Err(LinkError::Refused(error.to_string())),
        }
    }

    async fn send(&self, vote: Vote, snapshot: Snapshot<Config>, limit: Duration) -> Result<Vote, SendError> {
        let file = snapshot.snapshot;
        let offer = Offer { vote, meta: snapshot.meta, length: file.length };
        // Where to start: a broken stream leaves its bytes on the receiver.
        let from = match self.call(Request::Offer(offer.clone()), limit).await.map_err(send_error)? {
            Response::Offered { vote: theirs, from } if theirs <= vote => from.min(file.length),
            Response::Offered { vote: theirs, .. } => return Ok(theirs),
            _ => return Err(send_error(unexpected())),
        };
        let read_failed = |error: &std::io::Error| {
            openraft::StorageIOError::read_snapshot(Some(offer.meta.signature()), openraft::AnyError::new(error))
        };
        let mut content = tokio::fs::File::open(&file.path).await.map_err(|error| {
            // Replaced by a newer snapshot meanwhile: not a damaged store, the next attempt sends that one.
            if error.kind() == std::io::ErrorKind::NotFound {
                send_error(LinkError::Failed("the snapshot was replaced by a newer one".into()))
            } else {
                StreamingError::StorageError(read_failed(&error).into())
            }
        })?;
        content
            .seek(std::io::SeekFrom::Start(from))
            .await
            .map_err(|error| StreamingError::StorageError(read_failed(&error).into()))?;
        let header = Request::Stream { offer, from }.encode(&self.envelope);
        let bytes = self.link.stream(header.into(), Box::new(content)).await.map_err(send_error)?;
        match Response::decode(&bytes) {
            Ok(Response::Installed(vote)) => Ok(vote),
            Ok(Response::Failed(reason)) => Err(send_error(LinkError::Refused(reason))),
            Ok(_) => Err(send_error(unexpected())),
            Err(error) => Err(send_error(LinkError::Refused(error.to_string()))),
        }
    }
}

impl RaftNetwork<Config> for Client {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Config>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, RpcError> {
        match self.call(Request::Append(request), option.hard_ttl()).await.map_err(rpc_error)? {
            Response::Append(response) => Ok(response),
            _ => Err(rpc_error(unexpected())),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<NodeId>,
        option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, RpcError> {
        match self.call(Request::Vote(request), option.hard_ttl()).await.map_err(rpc_error)? {
            Response::Vote(response) => Ok(response),
            _ => Err(rpc_error(unexpected())),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Config>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, SendError> {
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = self.send(vote, snapshot, option.hard_ttl()) => sent.map(SnapshotResponse::new),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(UNREACHABLE_PAUSE))
    }
}

fn unexpected() -> LinkError {
    LinkError::Refused("the response is not one to this request".into())
}

fn rpc_error(error: LinkError) -> RpcError {
    match error {
        LinkError::Failed(_) => RPCError::Network(NetworkError::new(&error)),
        LinkError::Unreachable(_) | LinkError::Refused(_) => RPCError::Unreachable(Unreachable::new(&error)),
    }
}

fn send_error(error: LinkError) -> SendError {
    match error {
        LinkError::Failed(_) => StreamingError::Network(NetworkError::new(&error)),
        LinkError::Unreachable(_) | LinkError::Refused(_) => StreamingError::Unreachable(Unreachable::new(&error)),
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("envelope", &self.envelope).finish_non_exhaustive()
    }
}

/// Pause before an unreachable peer is tried again: two heartbeats, so that a peer that is back is noticed before it
/// stands for election.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(200);
