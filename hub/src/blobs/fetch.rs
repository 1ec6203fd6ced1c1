//! Blobs from another hub: in pieces, verified, and many with one sync.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::sync::Semaphore;
use windlass_protocol::{codec, ids::Digest};

use super::{
    BundleError, Bundles, blocking,
    group::Group,
    wire::{Answer, GET_DIGESTS_MAX, MESSAGE_BYTES_MAX, Piece, Request},
};
use crate::{
    raft::{LinkError, NodeId},
    store::blobs::BlobDigest,
};

/// One answer with pieces comes within this time.
const GET: Duration = Duration::from_secs(10);
/// Stored with one sync; also what a fetch holds in memory, next to one blob.
const BATCH_BYTES: usize = 8 << 20;
/// Fetches at a time, so at most 8 x (8 + 16) MiB.
const FETCHES_MAX: usize = 8;
/// Digests that one fetch of a repair takes.
const GROUP: usize = 256;
/// Fetches of one repair at a time.
const GROUPS_MAX: usize = 4;

/// What a fetch did not bring.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// The other side does not have them, or has them damaged.
    pub(super) absent: Vec<Digest>,
}

/// What no source has brought.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// With whether every source answered that it does not have it.
    pub(super) blobs: BTreeMap<Digest, bool>,
    /// Sources that did not answer, and why.
    pub(super) silent: BTreeMap<NodeId, String>,
}

/// Places for fetches.
pub(super) fn places() -> Semaphore {
    Semaphore::new(FETCHES_MAX)
}

/// Blobs on their way in.
#[derive(Default)]
struct Incoming {
    /// Of the first blob that is still wanted.
    partial: Vec<u8>,
    batch: Vec<(Digest, Vec<u8>)>,
    batch_bytes: usize,
}

impl Bundles {
    /// Sends a request to another hub.
    pub(super) async fn ask(
        &self,
        group: &Group,
        node: NodeId,
        request: &Request,
        limit: Duration,
    ) -> Result<Answer, LinkError> {
        let encoded =
            codec::to_bytes(request, MESSAGE_BYTES_MAX).map_err(|error| LinkError::Refused(error.to_string()))?;
        let answer = group.ask(node, encoded.into(), limit).await?;
        codec::from_bytes(&answer, MESSAGE_BYTES_MAX).map_err(|error| LinkError::Refused(error.to_string()))
    }

    /// Brings what `from` has of `digests` to this disk. When it returns, all but the absent ones are synced, and kept
    /// from collection for ten minutes.
    pub(super) async fn fetch(
        &self,
        group: &Group,
        from: NodeId,
        digests: Vec<Digest>,
    ) -> Result<Fetched, BundleError> {
        let mut fetched = Fetched::default();
        if digests.is_empty() {
            return Ok(fetched);
        }
        let _place = self.shared.fetches.acquire().await.map_err(|error| BundleError::Worker(error.to_string()))?;
        let mut wanted: VecDeque<Digest> = digests.into();
        let mut incoming = Incoming::default();
        while !wanted.is_empty() {
            let digests = wanted.iter().take(GET_DIGESTS_MAX).copied().collect();
            let offset = u64::try_from(incoming.partial.len()).unwrap_or(u64::MAX);
            let answer = self.ask(group, from, &Request::Get { digests, offset }, GET).await;
            let answer = match answer {
                Ok(Answer::Pieces(pieces)) => incoming.take(pieces, &mut wanted, &mut fetched.absent),
                Ok(_) => Err("it answered something else".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(reason) = answer {
                // What came whole is kept.
                self.store(&mut incoming).await?;
                return Err(BundleError::Peer { node: from, reason });
            }
            if incoming.batch_bytes >= BATCH_BYTES {
                fetched.absent.extend(self.store(&mut incoming).await?);
            }
        }
        fetched.absent.extend(self.store(&mut incoming).await?);
        Ok(fetched)
    }

    /// Brings `digests` from whichever source has them; the load is spread over the sources.
    pub(super) async fn fetch_from_any(&self, group: &Group, digests: Vec<Digest>, sources: &[NodeId]) -> Left {
        let groups = digests.chunks(GROUP).enumerate().map(|(number, some)| {
            let mut sources = sources.to_vec();
            if !sources.is_empty() {
                let first = number % sources.len();
                sources.rotate_left(first);
            }
            (some.to_vec(), sources)
        });
        let groups: Vec<_> = groups.collect();
        let fetching = stream::iter(groups).map(|(some, sources)| self.fetch_group(group, some, sources));
        let parts: Vec<Left> = fetching.buffer_unordered(GROUPS_MAX).collect().await;
        let mut left = Left::default();
        for part in parts {
            left.blobs.extend(part.blobs);
            left.silent.extend(part.silent);
        }
        left
    }

    async fn fetch_group(&self, group: &Group, digests: Vec<Digest>, sources: Vec<NodeId>) -> Left {
        let (mut wanted, mut silent) = (digests, BTreeMap::new());
        for source in sources {
            match self.fetch(group, source, wanted.clone()).await {
                Ok(Fetched { absent }) => wanted = absent,
                Err(error) => {
                    silent.insert(source, error.to_string());
                    wanted = self.missing(&wanted);
                }
            }
            if wanted.is_empty() {
                break;
            }
        }
        let everywhere_absent = silent.is_empty();
        Left { blobs: wanted.into_iter().map(|digest| (digest, everywhere_absent)).collect(), silent }
    }

    /// Stores what has come, with one sync. Returns what was not what its name says.
    async fn store(&self, incoming: &mut Incoming) -> Result<Vec<Digest>, BundleError> {
        incoming.batch_bytes = 0;
        let batch = std::mem::take(&mut incoming.batch);
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let this = self.clone();
        blocking(move || {
            let (sound, wrong): (Vec<_>, Vec<_>) =
                batch.into_iter().partition(|(digest, content)| this.is_named(digest, content));
            for (digest, _) in &wrong {
                tracing::error!(%digest, "a hub sent content that is not what its name says; it was dropped");
            }
            let (mut some, mut bytes) = (Vec::new(), 0);
            for (digest, content) in sound {
                // The limit of a batch may be set lower than what comes at a time.
                if bytes + content.len() > this.blobs.batch_bytes_max() && !some.is_empty() {
                    this.keep_lease(this.blobs.put_batch(std::mem::take(&mut some))?);
                    bytes = 0;
                }
                bytes += content.len();
                some.push((BlobDigest(digest.0), Bytes::from(content)));
            }
            this.keep_lease(this.blobs.put_batch(some)?);
            Ok(wrong.into_iter().map(|(digest, _)| digest).collect())
        })
        .await
    }

    /// Plain content is named by its hash; sealed content opens only under its name.
    fn is_named(&self, digest: &Digest, content: &[u8]) -> bool {
        Digest::of(content) == *digest || self.sealer.open(&digest.0, content).is_ok()
    }
}

impl Incoming {
    /// Takes pieces for the first of `wanted`.
    fn take(
        &mut self,
        pieces: Vec<Piece>,
        wanted: &mut VecDeque<Digest>,
        absent: &mut Vec<Digest>,
    ) -> Result<(), String> {
        let mut progress = false;
        for piece in pieces {
            let Some(digest) = wanted.front().copied() else {
                return Err("it sent more than was asked for".to_owned());
            };
            let Piece::Part { total, content } = piece else {
                self.partial.clear();
                absent.push(digest);
                wanted.pop_front();
                progress = true;
                continue;
            };
            let total = usize::try_from(total).unwrap_or(usize::MAX);
            if total > windlass_protocol::session::BLOB_BYTES_MAX || self.partial.len() + content.len() > total {
                return Err(format!("it sent a blob of {total} bytes in a way that makes no sense"));
            }
            progress |= !content.is_empty() || total == 0;
            self.partial.extend_from_slice(&content);
            if self.partial.len() == total {
                let content = std::mem::take(&mut self.partial);
                self.batch_bytes += content.len();
                self.batch.push((digest, content));
                wanted.pop_front();
            }
        }
        if progress { Ok(()) } else { Err("it sent nothing".to_owned()) }
    }
}

/// Distinct members of a list, in order.
pub(super) fn distinct(nodes: impl IntoIterator<Item = NodeId>, except: NodeId) -> Vec<NodeId> {
    let mut seen = BTreeSet::from([except]);
    nodes.into_iter().filter(|node| seen.insert(*node)).collect()
}
