//! The hub's durable key-value store: one embedded database, one committer thread.
//!
//! Everything that a hub must not lose and that is small (Raft log, vote, committed index, identity) is a record in a
//! tree of this store. A record is checksummed, is never larger than 4 KiB on disk (larger ones are cut into parts and
//! become visible with their last write), and is acknowledged only after the database file was synced. Large things
//! (blobs, snapshots) are plain files: see [`blobs`] and `raft::snapshot`.
//!
//! Architecture invariants: no other module of the hub names the database; nobody but the committer thread writes;
//! after one failed write or sync the store refuses every further write, because a sync that failed once may lie the
//! next time.

pub mod blobs;
mod committer;
pub mod disk;
mod error;
mod identity;
mod marker;
mod record;
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

/// What a store may use, and what it is expected to be.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Page cache of the database in bytes. Small on purpose: real memory is a multiple of it.
    pub cache_bytes: u64,
    /// Commits that may wait for the committer thread before callers wait as well.
    pub queue_commits: usize,
    /// Refuse a directory that belongs to another cluster.
    pub expect_cluster: Option<StoreId>,
    /// Refuse a directory that belongs to another node.
    pub expect_node: Option<u64>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { cache_bytes: 32 << 20, queue_commits: 1_024, expect_cluster: None, expect_node: None }
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
    opened: Arc<RwLock<Option<Opened>>>,
    committer: Committer,
}

/// What is given back to the operating system on close. The order of the fields is the order of the drops: the lock
/// must outlive the database.
struct Opened {
    db: sled::Db,
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
        if Identity::load(directory)?.is_some() || directory.join(DATABASE).exists() {
            return Err(StoreError::Exists { directory: directory.into() });
        }
        let db = open_database(directory, options)?;
        let store = Self::start(directory, identity, db, lock, options)?;
        let mut batch = Batch::new();
        batch.put(META, IDENTITY, identity.to_bytes());
        store.commit(batch)?;
        disk::sync_files(&directory.join(DATABASE))?;
        disk::sync_directory(directory)?;
        // Written last: a directory without this file is not a store, so an interrupted creation is never opened.
        identity.save(directory)?;
        Ok(store)
    }

    /// Opens the store in `directory`. Blocks while the database recovers.
    ///
    /// # Errors
    /// One variant of [`StoreError`] per reason to refuse; each says what to do. The directory is not changed when it
    /// is missing, locked, foreign, or of a newer format.
    pub fn open(directory: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        let identity =
            Identity::load(directory)?.ok_or_else(|| StoreError::NotAStore { directory: directory.into() })?;
        identity.expect(directory, options)?;
        let lock = lock(directory)?;
        if !directory.join(DATABASE).join("db").exists() {
            return Err(StoreError::Wiped { directory: directory.into(), store: identity.store });
        }
        let db = open_database(directory, options)?;
        let store = Self::start(directory, identity, db, lock, options)?;
        store.check_contents(&identity)?;
        Ok(store)
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
        self.with_db(|db| record::get(db, tree, key))
    }

    /// Calls `visit` for every record of `tree` whose key lies in `keys`, in key order, verifying each.
    ///
    /// # Errors
    /// The first damaged record, or what `visit` returns.
    pub fn scan(&self, tree: &'static str, keys: RangeInclusive<Vec<u8>>, visit: Visit<'_>) -> Result<(), StoreError> {
        self.with_db(|db| record::scan(db, tree, keys, visit))
    }

    /// Deletes parts of records that never became visible in `tree`: what is left of a write that a crash cut short.
    /// Returns how many records were left over.
    pub fn sweep(&self, tree: &'static str) -> Result<usize, StoreError> {
        self.with_db(|db| record::sweep(db, tree))
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

    /// Finishes queued commits, closes the database and frees the lock; other clones answer [`StoreError::Closed`]
    /// from then on. Blocks.
    pub fn close(&self) {
        self.inner.committer.stop();
        drop(self.inner.opened.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn start(
        directory: &Path,
        identity: Identity,
        db: sled::Db,
        lock: File,
        options: &StoreOptions,
    ) -> Result<Self, StoreError> {
        let opened = Arc::new(RwLock::new(Some(Opened { db, _lock: lock })));
        let committer = Committer::start(directory, Arc::clone(&opened), options.queue_commits)?;
        Ok(Self { inner: Arc::new(Inner { directory: directory.into(), identity, opened, committer }) })
    }

    /// A database that lost its identity or its newest commits must not vote: it would forget what it promised.
    fn check_contents(&self, identity: &Identity) -> Result<(), StoreError> {
        let directory = self.inner.directory.clone();
        match self.get(META, IDENTITY)? {
            Some(bytes) if bytes == identity.to_bytes() => {}
            Some(_) => return Err(StoreError::Swapped { directory }),
            None => {
                return Err(StoreError::Wiped { directory, store: identity.store });
            }
        }
        self.inner.committer.check_marker()
    }

    fn with_db<T>(&self, read: impl FnOnce(&sled::Db) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let opened = self.inner.opened.read().unwrap_or_else(PoisonError::into_inner);
        read(&opened.as_ref().ok_or(StoreError::Closed)?.db)
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

fn open_database(directory: &Path, options: &StoreOptions) -> Result<sled::Db, StoreError> {
    let path = directory.join(DATABASE);
    let config = sled::Config::new()
        .path(&path)
        .cache_capacity(options.cache_bytes)
        // The ticker would hide a missing sync: the committer is the only one who flushes.
        .flush_every_ms(None)
        .use_compression(false)
        .mode(sled::Mode::HighThroughput);
    // The database asserts on some kinds of damage; a refusal with a reason is worth more than a crash.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| config.open())) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(source)) => Err(StoreError::from_database(&path, source)),
        Err(_) => Err(StoreError::Damaged { what: format!("the database in {}", path.display()) }),
    }
}

/// Folder of the database inside of the store's directory.
const DATABASE: &str = "sled";
/// Tree of the store's own records.
const META: &str = "store";
const IDENTITY: &[u8] = b"identity";
