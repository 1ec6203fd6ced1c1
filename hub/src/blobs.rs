//! Bundles over the blob store: manifests by digest, Secrets sealed, details of receipts; and who may fetch what.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use serde_json::Value;
use windlass_hub_core::State;
use windlass_protocol::{
    codec,
    ids::Digest,
    manifest::{self, ResourceKey},
    message::{BundleIndex, ResourceRef},
    session::BLOB_BYTES_MAX,
};

use crate::{
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
}

/// The blobs that a state names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Indexes of bundles, and what they list.
    pub needed: BTreeSet<Digest>,
    /// What agents have reported: nice to have.
    pub details: BTreeSet<Digest>,
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
    /// A worker thread was lost.
    #[error("the worker of the blob store ended: {0}")]
    Worker(String),
}

impl Bundles {
    /// Over an open blob store.
    #[must_use]
    pub fn new(blobs: BlobStore, sealer: Arc<Sealer>, limits: BundleLimits) -> Self {
        Self { blobs, sealer, indexes: Arc::default(), limits }
    }

    /// Stores manifests; gives the address of their index, and a lease to hold until it is committed. Blocks.
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

    /// Stores a detail that an agent sent.
    ///
    /// # Errors
    /// [`BundleError`] when the store fails.
    pub async fn put_detail(&self, digest: Digest, content: Vec<u8>) -> Result<BlobLease, BundleError> {
        let blobs = self.blobs.clone();
        blocking(move || Ok(blobs.put_batch(vec![(BlobDigest(digest.0), Bytes::from(content))])?)).await
    }

    /// Reads a detail; `None` when it is not here or no JSON.
    #[must_use]
    pub fn detail(&self, digest: &Digest) -> Option<Value> {
        let content = self.blobs.get(&BlobDigest(digest.0)).ok()??;
        serde_json::from_slice(&content).ok()
    }

    /// The manifests of a bundle, Secrets in clear. Blocks.
    ///
    /// # Errors
    /// [`BundleError`] when a manifest is missing or damaged.
    pub fn manifests(&self, index: &Digest) -> Result<Vec<Value>, BundleError> {
        let missing = |digest: Digest| BundleError::Content { digest, message: "it is not on this node".to_owned() };
        let resources = self.index(index)?.ok_or_else(|| missing(*index))?;
        let read = |resource: &ResourceRef| {
            let content = self.content(resource)?.ok_or_else(|| missing(resource.digest))?;
            serde_json::from_slice(&content)
                .map_err(|error| BundleError::Content { digest: resource.digest, message: error.to_string() })
        };
        resources.iter().map(read).collect()
    }

    /// The blobs that an agent asked for, `None` for those that its assignments do not reference or that are not here.
    ///
    /// # Errors
    /// [`BundleError`] when the store fails.
    pub async fn serve(
        self,
        state: Arc<State>,
        cluster: String,
        digests: Vec<Digest>,
    ) -> Result<Vec<(Digest, Option<Arc<Vec<u8>>>)>, BundleError> {
        blocking(move || {
            let wanted: BTreeSet<Digest> = digests.iter().copied().collect();
            let mut found = BTreeMap::new();
            for (_, assignment) in state.assignments_of(&cluster) {
                for bundle in assignment.bundles() {
                    if wanted.contains(&bundle.digest)
                        && !found.contains_key(&bundle.digest)
                        && let Some(content) = self.blobs.get(&BlobDigest(bundle.digest.0))?
                    {
                        found.insert(bundle.digest, Arc::new(content.to_vec()));
                    }
                    let Some(resources) = self.index(&bundle.digest)? else { continue };
                    for resource in resources.iter().filter(|resource| wanted.contains(&resource.digest)) {
                        if let Entry::Vacant(place) = found.entry(resource.digest)
                            && let Some(content) = self.content(resource)?
                        {
                            place.insert(Arc::new(content));
                        }
                    }
                }
            }
            Ok(digests.into_iter().map(|digest| (digest, found.get(&digest).cloned())).collect())
        })
        .await
    }

    /// Every blob that a state names, as far as the indexes are here. Blocks.
    ///
    /// # Errors
    /// [`BundleError`] when the store fails, or an index cannot be read.
    pub fn contents(&self, state: &State) -> Result<Contents, BundleError> {
        let mut contents = Contents::default();
        for (_, assignment) in state.assignments() {
            for bundle in assignment.bundles() {
                // Assignments of one set often share a bundle.
                if contents.needed.insert(bundle.digest)
                    && let Some(resources) = self.index(&bundle.digest)?
                {
                    contents.needed.extend(resources.iter().map(|resource| resource.digest));
                }
            }
        }
        contents.details = state.referenced().filter(|digest| !contents.needed.contains(digest)).collect();
        Ok(contents)
    }

    /// Keeps blobs, present or not, from being collected.
    pub fn lease(&self, needed: &BTreeSet<Digest>, details: &BTreeSet<Digest>) -> BlobLease {
        self.blobs.lease(needed.union(details).map(|digest| BlobDigest(digest.0)).collect())
    }

    /// The blobs as they are stored.
    pub(crate) const fn store(&self) -> &BlobStore {
        &self.blobs
    }

    /// Removes what nothing references. Blocks.
    ///
    /// # Errors
    /// [`BundleError`] when the store fails; nothing that is kept is ever lost.
    pub fn collect(&self, state: &State) -> Result<Collected, BundleError> {
        let contents = self.contents(state)?;
        let keep: BTreeSet<Digest> = contents.needed.into_iter().chain(contents.details).collect();
        self.indexes.lock().unwrap_or_else(PoisonError::into_inner).retain(|digest, _| keep.contains(digest));
        Ok(self.blobs.collect(&|digest| keep.contains(&Digest(digest.0)))?)
    }

    fn index(&self, digest: &Digest) -> Result<Option<Arc<Vec<ResourceRef>>>, BundleError> {
        if let Some(known) = self.indexes.lock().unwrap_or_else(PoisonError::into_inner).get(digest) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(content) = self.blobs.get(&BlobDigest(digest.0))? else { return Ok(None) };
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
        let Some(content) = self.blobs.get(&BlobDigest(resource.digest.0))? else { return Ok(None) };
        if resource.sealed {
            return Ok(Some(self.sealer.open(&resource.digest.0, &content)?));
        }
        Ok(Some(content.to_vec()))
    }
}

/// Runs blocking work off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BundleError> + Send + 'static,
) -> Result<T, BundleError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| BundleError::Worker(error.to_string()))?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::blobs::BlobOptions;

    fn bundles(folder: &std::path::Path) -> Bundles {
        let blobs = BlobStore::open(folder, BlobOptions::default()).unwrap();
        let limits = BundleLimits { resources: 3, manifest_bytes: 10_000, bundle_bytes: 20_000 };
        Bundles::new(blobs, Arc::new(Sealer::new(&[1; 32]).unwrap()), limits)
    }

    #[test]
    fn secrets_are_sealed_on_disk_and_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let bundles = bundles(folder.path());
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "aHVudGVyMg=="}});
        let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
        let manifests = vec![secret, config];
        let (digest, _lease) = bundles.put(&manifests).unwrap();
        assert_eq!(bundles.manifests(&digest).unwrap(), manifests);
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let content = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!content.windows(12).any(|part| part == b"aHVudGVyMg=="), "the secret is readable on disk");
        }
        assert_eq!(bundles.put(&manifests).unwrap().0, digest, "the same content has the same address");
    }

    #[test]
    fn limits_name_the_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let bundles = bundles(folder.path());
        let large = json!({"kind": "ConfigMap", "metadata": {"name": "big"}, "data": {"x": "y".repeat(20_000)}});
        let error = bundles.put(&[large]).unwrap_err().to_string();
        assert!(error.contains("ConfigMap big") && error.contains("limits.manifest_bytes"), "{error}");
        assert!(bundles.put(&vec![json!({}); 4]).unwrap_err().to_string().contains("limits.bundle_resources"));
    }
}
