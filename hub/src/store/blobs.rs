//! Content-addressed blobs: one file and one sync per batch.
//!
//! A batch becomes a *pack*: the contents, then a footer that lists them, then a trailer; it is written aside, synced
//! and renamed, so a pack with its final name is whole, and one that is not was damaged later. The index lives in
//! memory and is rebuilt from the footers at open. Every read is verified against the hash of the stored bytes: a
//! flipped bit is an error, never content.
//!
//! A blob is named by its caller: the blake3 of the content for plain content, a keyed hash for sealed content.
//! What was put, or found present, stays leased against collection until the [`BlobLease`] is dropped.
//!
//! Everything here blocks on the disk: call it from `spawn_blocking` or a thread of your own.

mod collect;
mod pack;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;

pub use self::collect::Collected;

use self::pack::{Location, Pack};
use super::{StoreError, disk};

/// The name of a blob: 32 bytes, as `windlass_protocol` digests are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobDigest(pub [u8; 32]);

impl BlobDigest {
    /// The name of plain content.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(*blake3::hash(content).as_bytes())
    }
}

impl std::fmt::Display for BlobDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Limits of the blob store.
#[derive(Debug, Clone)]
pub struct BlobOptions {
    /// Largest blob: a manifest.
    pub blob_bytes_max: usize,
    /// Largest batch: the manifests of one bundle.
    pub batch_bytes_max: usize,
}

impl Default for BlobOptions {
    fn default() -> Self {
        Self { blob_bytes_max: 3 << 20, batch_bytes_max: 64 << 20 }
    }
}

/// Why a blob could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// A limit; nothing was stored.
    #[error("{what} has {size} bytes, the limit {limit} is {maximum}")]
    TooLarge { what: String, size: usize, limit: &'static str, maximum: usize },
    /// The stored bytes are not what was stored.
    #[error("blob {digest} in {} is damaged: its bytes do not match their hash; it will be fetched again from another hub, check this disk", pack.display())]
    Damaged { digest: BlobDigest, pack: PathBuf },
    /// The folder or a file in it failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An open folder of blobs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BlobStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    options: BlobOptions,
    index: RwLock<Index>,
    leases: Mutex<BTreeMap<BlobDigest, usize>>,
    /// Held by a collection: there is one at a time.
    collecting: Mutex<()>,
}

#[derive(Debug, Default)]
struct Index {
    blobs: BTreeMap<BlobDigest, Location>,
    packs: BTreeMap<u64, Pack>,
    next_pack: u64,
}

/// Keeps the blobs of one batch from being collected, until it is dropped: hold it until what references them is
/// committed.
#[derive(Debug)]
#[must_use = "without its lease a blob that nothing references yet may be collected"]
pub struct BlobLease {
    inner: Arc<Inner>,
    digests: Vec<BlobDigest>,
    stored: usize,
}

impl BlobLease {
    /// The blobs that it keeps.
    #[must_use]
    pub fn digests(&self) -> &[BlobDigest] {
        &self.digests
    }

    /// How many blobs of the batch were new.
    #[must_use]
    pub fn stored(&self) -> usize {
        self.stored
    }
}

impl Drop for BlobLease {
    fn drop(&mut self) {
        let mut leases = self.inner.leases.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in &self.digests {
            if let Some(count) = leases.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    leases.remove(digest);
                }
            }
        }
    }
}

impl BlobStore {
    /// Opens the folder (made when missing) and reads every pack's footer. A pack that is cut or damaged is set aside
    /// as `*.damaged` with a warning, its blobs are then missing; leftovers of interrupted writes are removed.
    pub fn open(directory: &Path, options: BlobOptions) -> Result<Self, StoreError> {
        disk::create_directory(directory)?;
        let mut index = Index::default();
        for entry in std::fs::read_dir(directory).map_err(StoreError::io("list", directory))? {
            let path = entry.map_err(StoreError::io("list", directory))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.ends_with(pack::UNFINISHED) {
                disk::remove_file(&path)?;
                continue;
            }
            let Some(number) = pack::number(name) else {
                continue;
            };
            index.next_pack = index.next_pack.max(number + 1);
            match Pack::load(&path, number)? {
                Ok((pack, blobs)) => index.add(pack, blobs),
                Err(reason) => {
                    tracing::warn!(pack = %path.display(), reason, "blob pack is damaged; set aside, its blobs are missing");
                    std::fs::rename(&path, path.with_extension("damaged")).map_err(StoreError::io("rename", &path))?;
                }
            }
        }
        disk::sync_directory(directory)?;
        let inner = Inner {
            directory: directory.into(),
            options,
            index: RwLock::new(index),
            leases: Mutex::default(),
            collecting: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Most bytes of one batch.
    #[must_use]
    pub fn batch_bytes_max(&self) -> usize {
        self.inner.options.batch_bytes_max
    }

    /// Stores a batch durably; blobs that are already here are not written again. The name is not checked against the
    /// content (sealed content has keyed names).
    pub fn put_batch(&self, blobs: Vec<(BlobDigest, Bytes)>) -> Result<BlobLease, BlobError> {
        self.check_limits(&blobs)?;
        let digests: BTreeSet<BlobDigest> = blobs.iter().map(|(digest, _)| *digest).collect();
        // Leased before looking: what is found present cannot be collected any more.
        let mut lease = self.lease(digests.iter().copied().collect());
        let missing: BTreeSet<BlobDigest> = self.missing(&lease.digests).into_iter().collect();
        let new: BTreeMap<BlobDigest, Bytes> =
            blobs.into_iter().filter(|(digest, _)| missing.contains(digest)).collect();
        lease.stored = new.len();
        if !new.is_empty() {
            let number = self.inner.reserve_pack();
            let (pack, located) =
                Pack::write(&self.inner.directory, number, new.iter().map(|(d, b)| (*d, b.as_ref())))?;
            self.inner.index.write().unwrap_or_else(PoisonError::into_inner).add(pack, located);
        }
        Ok(lease)
    }

    /// Keeps `digests`, present or not, from being collected.
    pub fn lease(&self, digests: Vec<BlobDigest>) -> BlobLease {
        let mut leases = self.inner.leases.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in &digests {
            *leases.entry(*digest).or_insert(0) += 1;
        }
        drop(leases);
        BlobLease { inner: Arc::clone(&self.inner), digests, stored: 0 }
    }

    /// Reads a blob and verifies it. `None` when it is not here.
    ///
    /// A damaged blob is forgotten after the error, so that [`BlobStore::missing`] names it and a later
    /// [`BlobStore::put_batch`] stores it again.
    pub fn get(&self, digest: &BlobDigest) -> Result<Option<Bytes>, BlobError> {
        // A collection may move a blob between the look-up and the read; the second look finds it in its new place.
        for _ in 0..READ_ATTEMPTS {
            let Some((location, path)) = self.inner.locate(digest) else {
                return Ok(None);
            };
            match pack::read(&path, &location) {
                Ok(Some(content)) => return Ok(Some(content)),
                Ok(None) => {
                    let mut index = self.inner.index.write().unwrap_or_else(PoisonError::into_inner);
                    if index.blobs.get(digest) == Some(&location) {
                        index.forget(digest);
                    }
                    return Err(BlobError::Damaged { digest: *digest, pack: path });
                }
                Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        let path = self.inner.directory.clone();
        Err(BlobError::Damaged { digest: *digest, pack: path })
    }

    /// Whether the blob is here.
    #[must_use]
    pub fn has(&self, digest: &BlobDigest) -> bool {
        self.inner.index.read().unwrap_or_else(PoisonError::into_inner).blobs.contains_key(digest)
    }

    /// Those of `digests` that are not here, in their order.
    #[must_use]
    pub fn missing(&self, digests: &[BlobDigest]) -> Vec<BlobDigest> {
        let index = self.inner.index.read().unwrap_or_else(PoisonError::into_inner);
        digests.iter().filter(|digest| !index.blobs.contains_key(*digest)).copied().collect()
    }

    /// Number of blobs, of packs, and of bytes on disk.
    #[must_use]
    pub fn usage(&self) -> BlobUsage {
        let index = self.inner.index.read().unwrap_or_else(PoisonError::into_inner);
        BlobUsage {
            blobs: index.blobs.len(),
            packs: index.packs.len(),
            bytes: index.packs.values().map(|pack| pack.file_bytes).sum(),
        }
    }

    fn check_limits(&self, blobs: &[(BlobDigest, Bytes)]) -> Result<(), BlobError> {
        let options = &self.inner.options;
        let mut total = 0;
        for (digest, content) in blobs {
            total += content.len();
            if content.len() > options.blob_bytes_max {
                let (what, size) = (format!("blob {digest}"), content.len());
                return Err(BlobError::TooLarge {
                    what,
                    size,
                    limit: "blobs.blob_bytes",
                    maximum: options.blob_bytes_max,
                });
            }
        }
        if total > options.batch_bytes_max {
            let (what, maximum) = ("a batch of blobs".to_owned(), options.batch_bytes_max);
            return Err(BlobError::TooLarge { what, size: total, limit: "blobs.batch_bytes", maximum });
        }
        Ok(())
    }
}

/// How much is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobUsage {
    /// Blobs that can be read.
    pub blobs: usize,
    /// Files.
    pub packs: usize,
    /// Bytes of all packs, with dead blobs and footers.
    pub bytes: u64,
}

impl Inner {
    fn reserve_pack(&self) -> u64 {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.next_pack += 1;
        index.next_pack - 1
    }

    fn locate(&self, digest: &BlobDigest) -> Option<(Location, PathBuf)> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let location = index.blobs.get(digest)?;
        Some((*location, index.packs.get(&location.pack)?.path.clone()))
    }
}

impl Index {
    /// Adds a pack; of a blob in two packs the newer pack's copy counts, the other becomes dead weight.
    fn add(&mut self, pack: Pack, blobs: Vec<(BlobDigest, Location)>) {
        self.next_pack = self.next_pack.max(pack.number + 1);
        self.packs.insert(pack.number, pack);
        for (digest, location) in blobs {
            if self.blobs.get(&digest).is_some_and(|present| present.pack > location.pack) {
                continue;
            }
            self.forget(&digest);
            self.blobs.insert(digest, location);
            if let Some(pack) = self.packs.get_mut(&location.pack) {
                pack.live_bytes += u64::from(location.length);
                pack.live_blobs += 1;
            }
        }
    }

    fn forget(&mut self, digest: &BlobDigest) {
        let Some(location) = self.blobs.remove(digest) else {
            return;
        };
        if let Some(pack) = self.packs.get_mut(&location.pack) {
            pack.live_bytes = pack.live_bytes.saturating_sub(u64::from(location.length));
            pack.live_blobs = pack.live_blobs.saturating_sub(1);
        }
    }
}

const READ_ATTEMPTS: usize = 3;
