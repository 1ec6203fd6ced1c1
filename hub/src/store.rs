//! The hub's durable key-value store: one journal, one committer thread.
//!
//! Everything that a hub must not lose and that is small (Raft log, vote, committed index, identity) is a record in a
//! tree of this store. It is checksummed, and acknowledged only after the journal was synced. Large things (blobs,
//! snapshots) are plain files: see [`blobs`] and `raft::snapshot`.
//!
//! Earlier releases kept these records in an embedded database, which did not open again, or had lost records, after one
//! power cut in a hundred (it makes data safe with `sync_file_range`, and reuses space that it believes free);
//! [`legacy`] carries such a store over.
//!
//! Architecture invariants: no other module of the hub names the database; nobody but the committer thread writes;
//! after one failed write or sync the store refuses every further write, because a sync that failed once may lie the
//! next time.

pub mod blobs;
mod committer;
pub mod disk;
mod error;
mod identity;
mod journal;
mod legacy;
mod marker;
#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

pub use self::committer::{Batch, Durability};
pub use self::error::StoreError;
pub use self::identity::{Identity, StoreId};

use self::committer::{Committer, Request};
use self::journal::{Journal, Records, Recovered};
use self::marker::Marker;

/// What a store may use, and what it is expected to be.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// A segment of the journal that has reached this size is followed by the next one, 16 MiB: space is given back in
    /// such pieces.
    pub segment_bytes: u64,
    /// Commits that may wait for the committer thread before callers wait as well.
    pub queue_commits: usize,
    /// Refuse a directory that belongs to another cluster.
    pub expect_cluster: Option<StoreId>,
    /// Refuse a directory that belongs to another node.
    pub expect_node: Option<u64>,
    /// Called before each sync of the journal, on the committer thread: tests make a disk slow or failing with it.
    pub before_sync: Option<SyncHook>,
}

/// What happens before a sync; an error counts as a failed one.
#[derive(Clone)]
pub struct SyncHook(pub Arc<dyn Fn() -> std::io::Result<()> + Send + Sync>);

impl std::fmt::Debug for SyncHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SyncHook(…)")
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            queue_commits: 1_024,
            expect_cluster: None,
            expect_node: None,
            before_sync: None,
        }
    }
}

/// An open store. Cheap to clone; the directory stays locked until [`Store::close`] or until the last clone is gone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    identity: Identity,
    opened: RwLock<Option<Opened>>,
    committer: Committer,
}

/// What is given back to the operating system on close.
struct Opened {
    records: Records,
    _lock: File,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.committer.stop();
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("directory", &self.inner.directory)
            .field("identity", &self.inner.identity)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Makes a new store for `identity` in `directory` (created when missing) and opens it. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when the directory holds a store or the rest of one, and what [`Store::open`] returns.
    pub fn create(directory: &Path, identity: Identity, options: &StoreOptions) -> Result<Self, StoreError> {
        disk::create_directory(directory)?;
        let lock = lock(directory)?;
        if Identity::load(directory)?.is_some() || is_begun(directory) {
            return Err(StoreError::Exists { directory: directory.into() });
        }
        let journal = create_journal(directory, identity, Batch::new(), options)?;
        let store = Self::start(directory, identity, journal, lock, options)?;
        disk::sync_directory(directory)?;
        // Written last: a directory without this file is not a store, so an interrupted creation is never opened.
        identity.save(directory)?;
        Ok(store)
    }

    /// Opens the store in `directory`. Blocks while the journal is read.
    ///
    /// # Errors
    /// One variant of [`StoreError`] per reason to refuse; each says what to do. A directory that is refused is not
    /// changed.
    pub fn open(directory: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        let identity =
            Identity::load(directory)?.ok_or_else(|| StoreError::NotAStore { directory: directory.into() })?;
        identity.expect(directory, options)?;
        let lock = lock(directory)?;
        if Identity::is_legacy(directory)? {
            legacy::carry_over(directory, identity, options)?;
        }
        let wiped = || StoreError::Wiped { directory: directory.into(), store: identity.store };
        let recovered = Recovered::read(&directory.join(JOURNAL), identity.store)?.ok_or_else(wiped)?;
        let (found, acknowledged) = (recovered.sequence(), Marker::peek(&marker_path(directory))?);
        if found < acknowledged {
            // It would forget what it promised, so it must not vote.
            return Err(StoreError::LostCommits { directory: directory.into(), found, acknowledged });
        }
        match recovered.get(META, IDENTITY)? {
            Some(bytes) if bytes == identity.to_bytes() => {}
            Some(_) => return Err(StoreError::Swapped { directory: directory.into() }),
            None => return Err(wiped()),
        }
        Self::start(directory, identity, recovered.start(options.segment_bytes)?, lock, options)
    }

    /// Reads whose store `directory` holds, without opening or changing it.
    pub fn peek(directory: &Path) -> Result<Option<Identity>, StoreError> {
        Identity::load(directory)
    }

    /// Who this store belongs to.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.inner.identity
    }

    /// Reads one record and verifies its checksum.
    pub fn get(&self, tree: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.records()?.get(tree, key)
    }

    /// Calls `visit` for every record of `tree` whose key lies in `keys`, in key order, verifying each.
    ///
    /// # Errors
    /// The first damaged record, or what `visit` returns.
    pub fn scan(&self, tree: &'static str, keys: RangeInclusive<Vec<u8>>, visit: Visit<'_>) -> Result<(), StoreError> {
        self.records()?.scan(tree, keys, visit)
    }

    /// Writes `batch` durably. Blocks; not for async callers.
    pub fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        batch.check()?;
        let (done, result) = std::sync::mpsc::sync_channel(1);
        let request = Request::new(batch, Durability::Synced, Box::new(move |outcome| drop(done.send(outcome))));
        self.inner.committer.submit_blocking(request)?;
        result.recv().map_err(|_| StoreError::Closed)?
    }

    /// Writes `batch` and returns when it has the asked durability.
    pub async fn write(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        let (done, result) = tokio::sync::oneshot::channel();
        self.submit(batch, durability, Box::new(move |outcome| drop(done.send(outcome)))).await?;
        result.await.map_err(|_| StoreError::Closed)?
    }

    /// Queues `batch`; `done` is called on the committer thread. Batches are applied in the order of submission. Waits
    /// while the queue is full.
    pub async fn submit(&self, batch: Batch, durability: Durability, done: Completion) -> Result<(), StoreError> {
        batch.check()?;
        self.inner.committer.submit(Request::new(batch, durability, done)).await
    }

    /// Finishes queued commits, closes the journal and frees the lock; other clones answer [`StoreError::Closed`]
    /// from then on. Blocks.
    pub fn close(&self) {
        self.inner.committer.stop();
        drop(self.inner.opened.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn start(
        directory: &Path,
        identity: Identity,
        journal: Journal,
        lock: File,
        options: &StoreOptions,
    ) -> Result<Self, StoreError> {
        let opened = RwLock::new(Some(Opened { records: journal.records(), _lock: lock }));
        let marker = Marker::open(&marker_path(directory))?;
        let committer =
            Committer::start(directory, journal, marker, options.before_sync.clone(), options.queue_commits)?;
        Ok(Self { inner: Arc::new(Inner { directory: directory.into(), identity, opened, committer }) })
    }

    fn records(&self) -> Result<Records, StoreError> {
        let opened = self.inner.opened.read().unwrap_or_else(PoisonError::into_inner);
        opened.as_ref().map(|opened| opened.records.clone()).ok_or(StoreError::Closed)
    }
}

/// Called once with the outcome of a commit, on the committer thread: it must not block.
pub type Completion = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Called for each record of a scan with its key and content; an error ends the scan.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], Vec<u8>) -> Result<(), StoreError>;

fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join("LOCK");
    let file =
        File::options().create(true).truncate(false).write(true).open(&path).map_err(StoreError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { directory: directory.into() }),
        Err(TryLockError::Error(source)) => Err(StoreError::io("lock", &path)(source)),
    }
}

/// A journal that holds the identity and the records of `first`.
fn create_journal(
    directory: &Path,
    identity: Identity,
    mut first: Batch,
    options: &StoreOptions,
) -> Result<Journal, StoreError> {
    first.put(META, IDENTITY, identity.to_bytes());
    Journal::create(&directory.join(JOURNAL), identity.store, first.into_operations(), options.segment_bytes)
}

/// Whether something was begun here that has no identity (yet).
fn is_begun(directory: &Path) -> bool {
    directory.join(JOURNAL).exists() || directory.join(legacy::DATABASE).exists()
}

fn marker_path(directory: &Path) -> PathBuf {
    directory.join(JOURNAL).join("ACKNOWLEDGED")
}

/// Folder of the journal inside of the store's directory.
const JOURNAL: &str = "journal";
/// Tree of the store's own records.
const META: &str = "store";
const IDENTITY: &[u8] = b"identity";
