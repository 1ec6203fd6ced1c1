//! Bundles over the blob store: manifests by digest, Secrets sealed, details of receipts; and who may fetch what.
//!
//! | module | what it does |
//! |---|---|
//! | [`group`] | the other hubs, and what counts as a majority |
//! | `spread` | on a majority before a digest is proposed ([`Bundles::secure`]) |
//! | `fetch`, `serve` | blobs from and for other hubs ([`Bundles::serve_peer`]) |
//! | `read` | for agents and the API; what is not here is fetched |
//! | `kept` | what other hubs count on is not collected |
//! | `repair` | everything referenced is here ([`Bundles::repair`], [`Bundles::completeness`]) |
//! | `gate` | no snapshot is installed before that |
//!
//! Blobs always travel to whom they are missing, who checks them against their names and syncs many at once. What a hub
//! was told to hold it keeps for ten minutes, so that no collection is quicker than the command that references it.

pub mod group;

mod contents;
mod fetch;
mod gate;
mod kept;
mod read;
mod repair;
mod serve;
mod spread;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore};
use windlass_hub_core::State;
use windlass_protocol::{
    codec,
    ids::Digest,
    manifest::{self, ResourceKey},
    message::{BundleIndex, ResourceRef},
    session::BLOB_BYTES_MAX,
};

pub use self::{
    contents::Contents,
    group::{BlobGroup, Hubs, NoQuorum, Referenced},
    repair::{Completeness, Repaired},
};

use self::{group::Group, kept::Kept, spread::Waiting};
use crate::{
    raft::NodeId,
    sealing::{SealError, Sealer},
    store::blobs::{BlobDigest, BlobError, BlobLease, BlobStore, Collected},
};

/// Indexes kept decoded: one per bundle that agents ask for.
const INDEXES_CACHED_MAX: usize = 4_096;

/// Manifests by address. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bundles {
    blobs: BlobStore,
    sealer: Arc<Sealer>,
    indexes: Arc<Mutex<BTreeMap<Digest, Arc<Vec<ResourceRef>>>>>,
    limits: BundleLimits,
    shared: Arc<Shared>,
}

/// What is bounded by time.
#[derive(Clone, Copy, Debug)]
struct Timing {
    /// A round without a majority ends after this time. What was fetched stays: the next attempt goes on from there.
    round: Duration,
    /// How long blobs are kept that this hub was told to hold, or fetched: far longer than a command takes.
    kept: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { round: Duration::from_secs(10), kept: Duration::from_secs(600) }
    }
}

/// What all clones share.
struct Shared {
    timing: Timing,
    group: OnceLock<Group>,
    kept: Mutex<Kept>,
    waiting: Mutex<Waiting>,
    behind: Arc<Semaphore>,
    fetches: Semaphore,
    /// Bundles that were found here with all that they name. Emptied when a blob turns out to be damaged.
    whole: Mutex<BTreeSet<Digest>>,
    /// What no member has, as of the last repair.
    lost: Mutex<BTreeSet<Digest>>,
    wanted: Notify,
}

/// Limits of one bundle (DESIGN.md section 10).
#[derive(Clone, Copy, Debug)]
pub struct BundleLimits {
    /// Resources.
    pub resources: usize,
    /// Bytes of one manifest.
    pub manifest_bytes: usize,
    /// Bytes of all manifests.
    pub bundle_bytes: usize,
}

/// A bundle cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A limit of [`BundleLimits`].
    #[error("{what} is {size}; the limit limits.{limit} is {maximum}")]
    TooLarge {
        /// What.
        what: String,
        /// How large.
        size: usize,
        /// Name of the limit.
        limit: &'static str,
        /// The limit.
        maximum: usize,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] BlobError),
    /// Sealing.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The content is not what it should be.
    #[error("blob {digest}: {message}")]
    Content {
        /// Which.
        digest: Digest,
        /// What is wrong.
        message: String,
    },
    /// Too few hubs have it; nothing may be proposed that references it. Try again.
    #[error(transparent)]
    NoQuorum(#[from] NoQuorum),
    /// Too much waits for other hubs. Try again.
    #[error("too many manifests wait for the other hubs")]
    Overloaded,
    /// Another hub did not give what it was asked for.
    #[error("node {node} did not give its blobs: {reason}")]
    Peer {
        /// Which.
        node: NodeId,
        /// Why not.
        reason: String,
    },
    /// A worker thread was lost.
    #[error("the worker of the blob store ended: {0}")]
    Worker(String),
}

impl Bundles {
    /// Over an open blob store.
    #[must_use]
    pub fn new(blobs: BlobStore, sealer: Arc<Sealer>, limits: BundleLimits) -> Self {
        Self::timed(blobs, sealer, limits, Timing::default())
    }

    fn timed(blobs: BlobStore, sealer: Arc<Sealer>, limits: BundleLimits, timing: Timing) -> Self {
        let shared = Shared {
            timing,
            group: OnceLock::new(),
            kept: Mutex::default(),
            waiting: Mutex::default(),
            behind: spread::behind(),
            fetches: fetch::places(),
            whole: Mutex::default(),
            lost: Mutex::default(),
            wanted: Notify::new(),
        };
        Self { blobs, sealer, indexes: Arc::default(), limits, shared: Arc::new(shared) }
    }

    /// Makes the other hubs known to all clones; once. Until then this node counts as alone.
    pub fn join(&self, group: Arc<dyn BlobGroup>) {
        if self.shared.group.set(group).is_err() {
            tracing::error!("the group of the blob store was set before");
        }
    }

    /// Stores manifests here; gives the address of their index, and a lease to hold until it is committed: pass it to
    /// [`Bundles::secure`] before proposing. Blocks.
    ///
    /// # Errors
    /// [`BundleError`] naming the manifest that is too large, or why the store failed.
    pub fn put(&self, manifests: &[Value]) -> Result<(Digest, BlobLease), BundleError> {
        let limits = self.limits;
        if manifests.len() > limits.resources {
            let (what, size) = ("the number of resources".to_owned(), manifests.len());
            return Err(BundleError::TooLarge { what, size, limit: "bundle_resources", maximum: limits.resources });
        }
        let (mut resources, mut batch, mut total) = (Vec::with_capacity(manifests.len()), Vec::new(), 0_usize);
        let mut seen = BTreeSet::new();
        for manifest in manifests {
            let content = manifest::canonical(manifest);
            let key = ResourceKey::of(manifest);
            let size = content.len();
            if size > limits.manifest_bytes {
                let maximum = limits.manifest_bytes;
                return Err(BundleError::TooLarge { what: key.to_string(), size, limit: "manifest_bytes", maximum });
            }
            total += size;
            if total > limits.bundle_bytes {
                let maximum = limits.bundle_bytes;
                let what = "the bundle".to_owned();
                return Err(BundleError::TooLarge { what, size: total, limit: "bundle_bytes", maximum });
            }
            let sealed = manifest::is_secret(manifest);
            let digest = if sealed { self.sealer.name(&content) } else { Digest::of(&content) };
            resources.push(ResourceRef { key, digest, size: u32::try_from(size).unwrap_or(u32::MAX), sealed });
            if seen.insert(digest) {
                let content = if sealed { self.sealer.seal(&digest.0, &content)? } else { content };
                batch.push((BlobDigest(digest.0), Bytes::from(content)));
            }
        }
        let index = codec::to_bytes(&BundleIndex::V1 { resources }, BLOB_BYTES_MAX)
            .map_err(|error| BundleError::Content { digest: Digest([0; 32]), message: error.to_string() })?;
        let digest = Digest::of(&index);
        batch.push((BlobDigest(digest.0), Bytes::from(index)));
        let lease = self.blobs.put_batch(batch)?;
        Ok((digest, lease))
    }

    /// Keeps a stored bundle from being collected; `None` when it is not wholly here. Blocks.
    ///
    /// # Errors
    /// [`BundleError`] when the store fails.
    pub fn lease(&self, index: &Digest) -> Result<Option<BlobLease>, BundleError> {
        let Some(resources) = self.index(index)? else { return Ok(None) };
        let named = resources.iter().map(|resource| resource.digest);
        let digests: BTreeSet<Digest> = std::iter::once(*index).chain(named).collect();
        let digests: Vec<BlobDigest> = digests.into_iter().map(|digest| BlobDigest(digest.0)).collect();
        // Leased before looking: what is found present cannot be collected any more.
        let lease = self.blobs.lease(digests);
        Ok(self.blobs.missing(lease.digests()).is_empty().then_some(lease))
    }

    /// Stores a detail that an agent sent, here and on a majority.
    ///
    /// # Errors
    /// [`BundleError`] when the store fails, or too few hubs answer.
    pub async fn put_detail(&self, digest: Digest, content: Vec<u8>) -> Result<BlobLease, BundleError> {
        let blobs = self.blobs.clone();
        let stored = blocking(move || Ok(blobs.put_batch(vec![(BlobDigest(digest.0), Bytes::from(content))])?)).await?;
        self.secure([&stored]).await?;
        Ok(stored)
    }

    /// Removes what nothing references and nobody holds. Blocks.
    ///
    /// # Errors
    /// [`BundleError`] when the store fails; nothing that is kept is ever lost.
    pub fn collect(&self, state: &State) -> Result<Collected, BundleError> {
        self.expire_kept();
        let mut keep: BTreeSet<Digest> = state.referenced().collect();
        let bundles: BTreeSet<Digest> = Referenced::of(state).bundles;
        for bundle in &bundles {
            let Some(resources) = self.index(bundle)? else {
                // What it names is not known, so nothing can be told from garbage.
                tracing::info!(%bundle, "blobs are not collected: an index is missing and must be fetched first");
                self.shared.wanted.notify_one();
                return Ok(Collected::default());
            };
            keep.extend(resources.iter().map(|resource| resource.digest));
        }
        self.shared.whole.lock().unwrap_or_else(PoisonError::into_inner).retain(|digest| bundles.contains(digest));
        self.indexes.lock().unwrap_or_else(PoisonError::into_inner).retain(|digest, _| keep.contains(digest));
        Ok(self.blobs.collect(&|digest| keep.contains(&Digest(digest.0)))?)
    }

    fn group(&self) -> Option<Group> {
        self.shared.group.get().cloned()
    }

    /// Reads a blob; a damaged one is as good as none, and is told once: the store forgets it.
    fn read(&self, digest: &BlobDigest) -> Result<Option<Bytes>, BundleError> {
        match self.blobs.get(digest) {
            Err(error @ BlobError::Damaged { .. }) => {
                tracing::error!(%error, "damaged blob");
                self.shared.whole.lock().unwrap_or_else(PoisonError::into_inner).clear();
                self.shared.wanted.notify_one();
                Ok(None)
            }
            read => Ok(read?),
        }
    }

    fn index(&self, digest: &Digest) -> Result<Option<Arc<Vec<ResourceRef>>>, BundleError> {
        if let Some(known) = self.indexes.lock().unwrap_or_else(PoisonError::into_inner).get(digest) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(content) = self.read(&BlobDigest(digest.0))? else { return Ok(None) };
        let BundleIndex::V1 { resources } = codec::from_bytes(&content, BLOB_BYTES_MAX)
            .map_err(|error| BundleError::Content { digest: *digest, message: error.to_string() })?;
        let resources = Arc::new(resources);
        let mut cache = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= INDEXES_CACHED_MAX {
            cache.pop_first();
        }
        cache.insert(*digest, Arc::clone(&resources));
        Ok(Some(resources))
    }

    fn content(&self, resource: &ResourceRef) -> Result<Option<Vec<u8>>, BundleError> {
        let Some(content) = self.read(&BlobDigest(resource.digest.0))? else { return Ok(None) };
        if resource.sealed {
            return Ok(Some(self.sealer.open(&resource.digest.0, &content)?));
        }
        Ok(Some(content.to_vec()))
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("kept", &self.kept).finish_non_exhaustive()
    }
}

/// Runs blocking work off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BundleError> + Send + 'static,
) -> Result<T, BundleError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| BundleError::Worker(error.to_string()))?
}
