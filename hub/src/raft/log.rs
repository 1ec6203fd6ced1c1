//! The Raft log, the vote and the committed index as records of the store.
//!
//! Order on disk is what makes a crash harmless: entries are written upwards, truncated from the end down, and the
//! purge point is written before the entries under it go; each prefix of those writes is a sound log. Writes reach the
//! committer thread in the order openraft makes them, and an append is reported when its sync is done.
//!
//! The committed index is written without waiting: it is on disk no later than the next append. It only says how far a
//! restart may replay at once, and that a log which ends before it has lost something.

mod index;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, RaftLogId, RaftLogReader};

use self::index::LogIndex;
use super::codec;
use super::types::{Config, Entry, LogId, StorageError, StorageIoError, Vote};
use crate::store::{Batch, Durability, Store, StoreError};

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store failed, or found damage.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record that is whole but means nothing.
    #[error(
        "{what} of the Raft log cannot be decoded; it was written by a newer release or is damaged: start the newer release, or run `windlass hub remove` for this node on another hub, empty its data directory and join it again (the only hub of a group: restore a backup)"
    )]
    Malformed { what: String },
    /// Entries are missing in the middle.
    #[error(
        "the Raft log has a hole: entry {expected} is missing before entry {found}; this node may not vote: run `windlass hub remove` for this node on another hub, empty its data directory and join it again (the only hub of a group: restore a backup)"
    )]
    Hole { expected: u64, found: u64 },
    /// Entries are missing at the end.
    #[error(
        "the Raft log ends at entry {last}, but entry {committed} was committed; this node lost acknowledged entries and may not vote: run `windlass hub remove` for this node on another hub, empty its data directory and join it again (the only hub of a group: restore a backup)"
    )]
    Short { last: u64, committed: u64 },
    /// Terms go back.
    #[error(
        "entry {at} of the Raft log is of an older term than the entry before it; the log is damaged: run `windlass hub remove` for this node on another hub, empty its data directory and join it again (the only hub of a group: restore a backup)"
    )]
    Unordered { at: u64 },
}

/// The log of one node. Clones share everything.
#[derive(Debug, Clone)]
pub(super) struct LogStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    index: Mutex<LogIndex>,
}

impl LogStore {
    /// Reads and verifies the whole log. Blocks; the log is bounded by the compaction limits.
    pub(super) fn load(store: Store) -> Result<Self, LogError> {
        let purged = read_log_id(&store, PURGED)?;
        let committed = read_log_id(&store, COMMITTED)?;
        let mut index = LogIndex::new(purged, committed);
        let mut stale = Batch::new();
        let mut broken = None;
        store.scan(LOG, key(0)..=key(u64::MAX), &mut |at, bytes| {
            let entry = codec::decode_entry(&bytes).ok().filter(|entry| key(entry.log_id.index) == at);
            match entry {
                None => broken = broken.take().or_else(|| Some(malformed("an entry"))),
                // What a crash left behind in the middle of a purge.
                Some(entry) if index.is_purged(entry.log_id.index) => stale.remove(LOG, at),
                Some(entry) => {
                    if broken.is_none() {
                        broken = index.load(entry.log_id, bytes.len()).err();
                    }
                }
            }
            Ok(())
        })?;
        if let Some(error) = broken {
            return Err(error);
        }
        store.commit(stale)?;
        Ok(Self { shared: Arc::new(Shared { store, index: Mutex::new(index) }) })
    }

    /// Gives up a log that does not lead to `snapshot`, the last entry in the newest good snapshot: what a crash leaves
    /// between a snapshot of another leader and the removal of the entries that it replaces. Blocks.
    pub(super) fn reconcile(&self, snapshot: Option<&LogId>) -> Result<(), LogError> {
        let mut index = self.index();
        let Some(snapshot) = snapshot.filter(|snapshot| index.purged.as_ref() < Some(snapshot)) else {
            return Ok(());
        };
        if index.leads_to(snapshot) {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.put(META, PURGED, codec::encode_log_id(Some(snapshot)));
        for at in index.truncate(0) {
            batch.remove(LOG, &key(at));
        }
        index.purge(*snapshot);
        tracing::warn!(index = snapshot.index, "the log was replaced by a newer snapshot");
        Ok(self.shared.store.commit(batch)?)
    }

    /// Refuses a log that does not continue at `snapshot`, the last entry in the newest good snapshot, or that ends
    /// before what was committed.
    pub(super) fn check_against(&self, snapshot: Option<&LogId>) -> Result<(), LogError> {
        let index = self.index();
        let next = |id: Option<&LogId>| id.map_or(0, |id| id.index + 1);
        if next(index.purged.as_ref()) > next(snapshot) {
            return Err(LogError::Hole { expected: next(snapshot), found: next(index.purged.as_ref()) });
        }
        let last = index.last_id();
        let end = last.as_ref().max(snapshot).map(|id| id.index);
        match index.committed {
            Some(committed) if end.is_none_or(|end| end < committed.index) => {
                Err(LogError::Short { last: end.unwrap_or(0), committed: committed.index })
            }
            _ => Ok(()),
        }
    }

    /// Bytes of the entries behind `index` (`None`: of all).
    pub(super) fn bytes_after(&self, index: Option<u64>) -> u64 {
        self.index().bytes_after(index)
    }

    fn index(&self) -> MutexGuard<'_, LogIndex> {
        self.shared.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads entries of `[start, end)`, stopping before `bytes_max` is exceeded but never before the first entry. On
    /// the caller's thread: almost always from the cache, else from the journal.
    fn read(&self, start: u64, end: u64, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        // What is found only on disk is read without the lock: the committer needs it to report.
        let found = self.index().lookup(start, end, bytes_max);
        let mut entries = Vec::with_capacity(found.len());
        for (at, cached) in found {
            if let Some(entry) = cached {
                entries.push(entry);
            } else if let Some(bytes) = self.shared.store.get(LOG, &key(at))? {
                // What is not there any more was purged since the look-up.
                entries.push(codec::decode_entry(&bytes).map_err(|_| malformed("an entry"))?);
            }
        }
        Ok(entries)
    }

    async fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.shared.store.write(batch, Durability::Synced).await
    }

    async fn remove_entries(&self, indexes: Vec<u64>) -> Result<(), StoreError> {
        for some in indexes.chunks(REMOVE_BATCH) {
            let mut batch = Batch::new();
            some.iter().for_each(|at| batch.remove(LOG, &key(*at)));
            self.write(batch).await?;
        }
        Ok(())
    }
}

impl RaftLogReader<Config> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start, end, usize::MAX).map_err(read_failed)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.read(start, end, MESSAGE_BYTES).map_err(read_failed)
    }
}

impl RaftLogStorage<Config> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Config>, StorageError> {
        let index = self.index();
        Ok(LogState { last_purged_log_id: index.purged, last_log_id: index.last_id() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let mut batch = Batch::new();
        batch.put(META, VOTE, codec::encode_vote(vote));
        self.write(batch).await.map_err(|error| StorageIoError::write_vote(AnyError::new(&error)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let read = || -> Result<Option<Vote>, LogError> {
            let Some(bytes) = self.shared.store.get(META, VOTE)? else {
                return Ok(None);
            };
            let vote = codec::decode_vote(&bytes).map_err(|_| malformed("the vote"))?;
            // The library lets a leader that restarts lead on without an election, and then answers linearizable reads
            // up to the committed index that it remembers, which may be behind what it acknowledged before. As one that
            // only stood for election it has to win a new term, as any other.
            let own = vote.committed && vote.leader_id.node_id == self.shared.store.identity().node;
            Ok(Some(if own { Vote::new(vote.leader_id.term, vote.leader_id.node_id) } else { vote }))
        };
        read().map_err(|error| StorageIoError::read_vote(AnyError::new(&error)).into())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.index().committed = committed;
        let mut batch = Batch::new();
        batch.put(META, COMMITTED, codec::encode_log_id(committed.as_ref()));
        // A failure stops the store, so the next append reports it.
        self.shared.store.submit(batch, Durability::Ordered, Box::new(|_| ())).await.map_err(write_failed)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.index().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Config>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut batch = Batch::new();
        let mut last = None;
        {
            let mut index = self.index();
            for entry in entries {
                // Covered by an installed snapshot: committed and applied already.
                if index.is_purged(entry.log_id.index) {
                    continue;
                }
                let bytes = codec::encode_entry(&entry);
                let at = *entry.get_log_id();
                index
                    .append(entry, bytes.len())
                    .map_err(|error| StorageIoError::write_log_entry(at, AnyError::new(&error)))?;
                batch.put(LOG, &key(at.index), bytes);
                last = Some(at.index);
            }
        }
        let Some(last) = last else {
            callback.log_io_completed(Ok(()));
            return Ok(());
        };
        let log = self.clone();
        let done = Box::new(move |outcome: Result<(), StoreError>| {
            if outcome.is_ok() {
                log.index().flushed(last);
            }
            callback.log_io_completed(outcome.map_err(std::io::Error::other));
        });
        self.shared.store.submit(batch, Durability::Synced, done).await.map_err(write_failed)
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let mut indexes = self.index().truncate(log_id.index);
        indexes.reverse();
        self.remove_entries(indexes).await.map_err(write_failed)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let indexes = self.index().purge(log_id);
        let mut batch = Batch::new();
        batch.put(META, PURGED, codec::encode_log_id(Some(&log_id)));
        self.write(batch).await.map_err(write_failed)?;
        self.remove_entries(indexes).await.map_err(write_failed)
    }
}

fn read_log_id(store: &Store, name: &'static [u8]) -> Result<Option<LogId>, LogError> {
    let Some(bytes) = store.get(META, name)? else {
        return Ok(None);
    };
    codec::decode_log_id(&bytes).map_err(|_| malformed("a log position"))
}

fn malformed(what: &str) -> LogError {
    LogError::Malformed { what: what.into() }
}

fn read_failed(error: LogError) -> StorageError {
    StorageIoError::read_logs(AnyError::new(&error)).into()
}

fn write_failed(error: StoreError) -> StorageError {
    StorageIoError::write_logs(AnyError::new(&error)).into()
}

fn key(index: u64) -> Vec<u8> {
    index.to_be_bytes().to_vec()
}

/// Tree of the entries, by index.
const LOG: &str = "raft-log";
/// Tree of vote, committed index and purge point.
const META: &str = "raft-meta";
const VOTE: &[u8] = b"vote";
const COMMITTED: &[u8] = b"committed";
const PURGED: &[u8] = b"purged";
/// Entries removed in one commit: bounds how long an append waits behind a purge.
const REMOVE_BATCH: usize = 512;
/// Entries sent to a peer in one message: a frame between hubs is 1 MiB plus one entry's excess.
const MESSAGE_BYTES: usize = 1 << 20;
