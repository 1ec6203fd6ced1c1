//! The receiving side of a peer's requests.
//!
//! A transport hands the bytes of an authenticated peer to [`RaftNode::serve`] and [`RaftNode::serve_snapshot`] and
//! sends back what they return. An error means that the bytes were not for this node: the transport closes the
//! connection.

use std::collections::BTreeSet;
use std::io::Read;

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::Snapshot;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::node::RaftNode;
use super::snapshot;
use super::types::{NodeId, Vote};
use super::wire::{Envelope, Offer, Request, Response};

/// Why a peer's bytes were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// They cannot be decoded.
    #[error("the request cannot be decoded ({0}); the peer runs a release that this one does not understand")]
    Malformed(String),
    /// Another group's member is talking.
    #[error("the request is for another cluster; check the peer addresses")]
    OtherCluster,
    /// Somebody has a wrong address.
    #[error("the request is for node {wanted}, this is node {this}; check the peer addresses")]
    OtherNode {
        /// Whom the sender wanted.
        wanted: u64,
        /// Who got it.
        this: u64,
    },
    /// The sender is not who it says, as far as the transport knows.
    #[error("the request says it is from node {claimed}, the connection is that of node {authenticated}")]
    OtherSender {
        /// Node in the request.
        claimed: u64,
        /// Node of the connection.
        authenticated: u64,
    },
}

/// Opens the state in a received snapshot for reading. Blocks.
pub type OpenSnapshot = Box<dyn FnOnce() -> std::io::Result<Box<dyn Read + Send>> + Send>;

/// Asked before a received snapshot is installed: has this node everything else that the state needs?
pub trait SnapshotGate: Send + Sync + 'static {
    /// Returns when the snapshot may be installed; an error is a sentence why it may not, and the sender tries again.
    /// `members` are those that the snapshot knows. Dropped when the sender gives up.
    fn before_install(
        &self,
        from: NodeId,
        members: BTreeSet<NodeId>,
        open: OpenSnapshot,
    ) -> BoxFuture<'_, Result<(), String>>;
}

impl RaftNode {
    /// Answers one request of the authenticated peer `from`.
    pub async fn serve(&self, from: u64, request: &[u8]) -> Result<Bytes, ServeError> {
        let response = match self.accept(from, request)? {
            Request::Append(request) => match self.raft().append_entries(request).await {
                Ok(response) => Response::Append(response),
                Err(error) => Response::Failed(error.to_string()),
            },
            Request::Vote(request) => match self.raft().vote(request).await {
                Ok(response) => Response::Vote(response),
                Err(error) => Response::Failed(error.to_string()),
            },
            Request::Offer(offer) => self.consider(&offer).await.unwrap_or_else(Response::Failed),
            Request::Stream { .. } => {
                return Err(ServeError::Malformed("a snapshot outside of a stream".into()));
            }
        };
        Ok(response.encode().into())
    }

    /// Receives a snapshot from the authenticated peer `from` and installs it. A stream that breaks leaves what it
    /// brought, and the next one continues there.
    pub async fn serve_snapshot(
        &self,
        from: u64,
        header: &[u8],
        content: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<Bytes, ServeError> {
        let sender = from;
        let Request::Stream { offer, from } = self.accept(sender, header)? else {
            return Err(ServeError::Malformed("a stream that is not a snapshot".into()));
        };
        // One at a time: two streams would write into one file.
        let _receiving = self.receiving().lock().await;
        let response = self.receive(sender, offer, from, content).await.unwrap_or_else(|reason| {
            tracing::warn!(reason, "a snapshot was not installed");
            Response::Failed(reason)
        });
        Ok(response.encode().into())
    }

    fn accept(&self, authenticated: u64, request: &[u8]) -> Result<Request, ServeError> {
        let (Envelope { cluster, from, to }, request) =
            Request::decode(request).map_err(|error| ServeError::Malformed(error.to_string()))?;
        let identity = self.identity();
        if cluster != *identity.cluster.as_bytes() {
            return Err(ServeError::OtherCluster);
        }
        if to != identity.node {
            return Err(ServeError::OtherNode { wanted: to, this: identity.node });
        }
        if from != authenticated {
            return Err(ServeError::OtherSender { claimed: from, authenticated });
        }
        Ok(request)
    }

    async fn own_vote(&self) -> Result<Vote, String> {
        self.raft().with_raft_state(|state| *state.vote_ref()).await.map_err(|error| error.to_string())
    }

    async fn consider(&self, offer: &Offer) -> Result<Response, String> {
        let vote = self.own_vote().await?;
        if vote > offer.vote {
            return Ok(Response::Offered { vote, from: 0 });
        }
        let _receiving = self.receiving().lock().await;
        let (folder, id, length) = (self.folder(), offer.meta.snapshot_id.clone(), offer.length);
        let from = blocking(move || {
            let (file, partial) = folder.resume(&id).map_err(|error| error.to_string())?;
            if partial.length > length {
                // Not a part of this snapshot, whatever it is.
                file.set_len(0).map_err(|error| error.to_string())?;
                return Ok(0);
            }
            Ok(partial.length)
        })
        .await?;
        Ok(Response::Offered { vote, from })
    }

    async fn receive(
        &self,
        sender: NodeId,
        offer: Offer,
        from: u64,
        content: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<Response, String> {
        let vote = self.own_vote().await?;
        if vote > offer.vote {
            return Ok(Response::Installed(vote));
        }
        let (folder, id) = (self.folder(), offer.meta.snapshot_id.clone());
        let (file, mut partial) = blocking(move || folder.resume(&id).map_err(|error| error.to_string())).await?;
        if partial.length != from {
            return Err(format!("the stream starts at byte {from}, {} are here", partial.length));
        }
        let mut file = tokio::fs::File::from_std(file);
        let mut chunk = vec![0; CHUNK_BYTES];
        while partial.length < offer.length {
            let read = tokio::time::timeout(self.config().snapshot_timeout, content.read(&mut chunk));
            let count = match read.await {
                Ok(Ok(0)) => {
                    return Err(format!("the stream ended at byte {} of {}", partial.length, offer.length));
                }
                Ok(Ok(count)) => count,
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err("the stream made no progress".into()),
            };
            partial.length += u64::try_from(count).unwrap_or(u64::MAX);
            if partial.length > offer.length {
                return Err("the stream is longer than the snapshot".into());
            }
            file.write_all(chunk.get(..count).unwrap_or_default()).await.map_err(|error| error.to_string())?;
            // Buffered bytes would be lost for the next stream if this one breaks.
            file.flush().await.map_err(|error| error.to_string())?;
        }
        drop(file);
        let path = partial.path.clone();
        // A damaged file handed to the library would stop this node; here it only costs another transfer.
        blocking(move || {
            snapshot::verify(&path).map(|_| ()).map_err(|error| {
                drop(std::fs::remove_file(&path));
                error.to_string()
            })
        })
        .await?;
        if let Some(gate) = self.gate() {
            let path = partial.path.clone();
            let open: OpenSnapshot = Box::new(move || match snapshot::open(&path) {
                Ok((_, state)) => Ok(Box::new(state)),
                Err(error) => Err(std::io::Error::other(error)),
            });
            let members = offer.meta.last_membership.nodes().map(|(node, _)| *node).collect();
            gate.before_install(sender, members, open).await?;
        }
        // Only now: what the gate refuses is offered again, and goes on from here.
        let folder = self.folder();
        let accepted = blocking(move || folder.accept(&partial).map_err(|error| error.to_string())).await?;
        let snapshot = Snapshot { meta: offer.meta, snapshot: Box::new(accepted) };
        let installed =
            self.raft().install_full_snapshot(offer.vote, snapshot).await.map_err(|error| error.to_string())?;
        Ok(Response::Installed(installed.vote))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}

/// Bytes read from a stream at once.
const CHUNK_BYTES: usize = 256 << 10;
