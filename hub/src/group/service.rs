//! Answers the other hubs: Raft, forwarded writes and reads, and hubs that want to join.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::io::AsyncRead;

use super::{
    join::Joins,
    members::yield_leadership,
    wire::{self, Ask, MemberStatus, Told},
};
use crate::{
    blobs::Bundles,
    gateway::Registry,
    peers::{CallKind, PeerService},
    raft::{ProposeError, ReadError},
    replica::Replica,
};

/// This hub's answers to the others.
#[derive(Debug)]
pub struct GroupService {
    /// State and proposals.
    pub replica: Replica,
    /// Admits new hubs.
    pub joins: Joins,
    /// Counted for the status.
    pub registry: Arc<Registry>,
    /// Serves and takes blobs.
    pub bundles: Bundles,
}

impl GroupService {
    async fn told(&self, ask: Ask) -> Told {
        let raft = self.replica.raft();
        match ask {
            Ask::Propose(envelope) => match raft.propose(envelope).await {
                Ok(answer) => Told::Answer(answer),
                Err(ProposeError::NotLeader { .. }) => Told::NotLeader,
                Err(ProposeError::Overloaded { .. }) => Told::Overloaded,
                Err(ProposeError::TooLarge { size, maximum }) => {
                    let bytes = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
                    Told::TooLarge { size: bytes(size), maximum: bytes(maximum) }
                }
                Err(error @ (ProposeError::Timeout | ProposeError::Stopped { .. })) => Told::Unknown(error.to_string()),
            },
            Ask::ReadIndex => match raft.read_index().await {
                Ok(index) => Told::Index(index),
                Err(ReadError::NotLeader { .. }) => Told::NotLeader,
                Err(error) => Told::Unknown(error.to_string()),
            },
            Ask::Campaign => match raft.campaign().await {
                Ok(()) => Told::Done,
                Err(error) => Told::Failed(error.to_string()),
            },
            Ask::Yield { to } => match yield_leadership(&self.replica, to).await {
                Ok(()) => Told::Done,
                Err(reason) => Told::Failed(reason),
            },
            Ask::Status => Told::Status(self.status()),
        }
    }

    /// What this hub says about itself.
    pub fn status(&self) -> MemberStatus {
        let status = self.replica.raft().status().borrow().clone();
        MemberStatus {
            last_log: status.last_log,
            applied: status.applied,
            snapshot: status.snapshot,
            sessions: u64::try_from(self.registry.count()).unwrap_or(u64::MAX),
            software: super::announce::SOFTWARE.to_owned(),
            hash: self.replica.machine().hashed(),
        }
    }
}

impl PeerService for GroupService {
    fn call(&self, from: u64, kind: CallKind, request: Bytes) -> BoxFuture<'_, Result<Bytes, String>> {
        Box::pin(async move {
            match kind {
                CallKind::Raft => self.replica.raft().serve(from, &request).await.map_err(|error| error.to_string()),
                CallKind::Service => {
                    let ask = wire::decode_ask(&request)?;
                    Ok(wire::encode(&self.told(ask).await)?.into())
                }
                CallKind::Bulk => self.bundles.serve_peer(from, request).await,
            }
        })
    }

    fn snapshot<'a>(
        &'a self,
        from: u64,
        header: Bytes,
        content: &'a mut (dyn AsyncRead + Send + Unpin),
    ) -> BoxFuture<'a, Result<Bytes, String>> {
        Box::pin(async move {
            let received = self.replica.raft().serve_snapshot(from, &header, content).await;
            received.map_err(|error| error.to_string())
        })
    }

    fn stranger(&self, remote: SocketAddr, request: Bytes) -> BoxFuture<'_, Bytes> {
        Box::pin(async move {
            let answer = self.joins.answer(&self.replica, remote, &request).await;
            wire::encode(&answer).unwrap_or_default().into()
        })
    }
}
