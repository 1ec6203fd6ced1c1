//! The log's table of contents in memory, and its newest entries.
//!
//! The table knows each entry's id and size, so that log state, compaction by bytes and the check for holes cost no
//! read. Entries stay cached at least until they are on disk, and beyond that up to a few megabytes: what is applied
//! and replicated is almost always what was just appended.

use std::collections::BTreeMap;

use super::super::types::{Entry, LogId};
use super::LogError;

#[derive(Debug)]
pub(super) struct LogIndex {
    pub(super) purged: Option<LogId>,
    pub(super) committed: Option<LogId>,
    entries: BTreeMap<u64, Position>,
    cache: BTreeMap<u64, Entry>,
    cache_bytes: usize,
    /// Newest entry on disk.
    flushed: u64,
    /// Bytes of all entries ever seen by this process: the end of the newest position.
    end: u64,
}

#[derive(Debug, Clone, Copy)]
struct Position {
    id: LogId,
    bytes: usize,
    /// Running total behind this entry; differences between two positions are sizes of ranges.
    end: u64,
}

impl LogIndex {
    pub(super) fn new(purged: Option<LogId>, committed: Option<LogId>) -> Self {
        Self { purged, committed, entries: BTreeMap::new(), cache: BTreeMap::new(), cache_bytes: 0, flushed: 0, end: 0 }
    }

    pub(super) fn is_purged(&self, index: u64) -> bool {
        self.purged.is_some_and(|purged| index <= purged.index)
    }

    /// The newest entry, or the purge point of an empty log.
    pub(super) fn last_id(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, position)| position.id).or(self.purged)
    }

    /// Whether the entry `id` is part of this log, so that what follows it here follows it rightly.
    pub(super) fn leads_to(&self, id: &LogId) -> bool {
        self.entries.get(&id.index).is_some_and(|position| position.id == *id)
    }

    /// Takes up an entry that was read from disk: nothing may be missing before it.
    pub(super) fn load(&mut self, id: LogId, bytes: usize) -> Result<(), LogError> {
        let expected = self.last_id().map_or(0, |last| last.index + 1);
        if id.index != expected {
            return Err(LogError::Hole { expected, found: id.index });
        }
        self.add(id, bytes)?;
        self.flushed = id.index;
        Ok(())
    }

    /// Takes up a new entry, not on disk yet.
    pub(super) fn append(&mut self, entry: Entry, bytes: usize) -> Result<(), LogError> {
        let id = entry.log_id;
        // An empty log takes any first entry: its purge point may not be known yet.
        if let Some((last, _)) = self.entries.last_key_value()
            && id.index != last + 1
        {
            return Err(LogError::Hole { expected: last + 1, found: id.index });
        }
        self.add(id, bytes)?;
        self.cache_bytes += bytes;
        self.cache.insert(id.index, entry);
        Ok(())
    }

    fn add(&mut self, id: LogId, bytes: usize) -> Result<(), LogError> {
        if self.last_id().is_some_and(|last| id.leader_id < last.leader_id) {
            return Err(LogError::Unordered { at: id.index });
        }
        self.end += u64::try_from(bytes).unwrap_or(u64::MAX);
        self.entries.insert(id.index, Position { id, bytes, end: self.end });
        Ok(())
    }

    /// Everything up to `index` is on disk.
    pub(super) fn flushed(&mut self, index: u64) {
        self.flushed = self.flushed.max(index);
        while self.cache_bytes > CACHE_BYTES {
            let Some(oldest) = self.cache.first_entry().filter(|oldest| *oldest.key() <= self.flushed) else {
                break;
            };
            let at = *oldest.key();
            oldest.remove();
            self.cache_bytes -= self.entries.get(&at).map_or(0, |position| position.bytes);
        }
    }

    /// Entries of `[start, end)` with their cached content, stopping before `bytes_max` but never before the first.
    pub(super) fn lookup(&self, start: u64, end: u64, bytes_max: usize) -> Vec<(u64, Option<Entry>)> {
        let mut found = Vec::new();
        let mut bytes = 0_usize;
        if start >= end {
            return found;
        }
        for (at, position) in self.entries.range(start..end) {
            bytes = bytes.saturating_add(position.bytes);
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push((*at, self.cache.get(at).cloned()));
        }
        found
    }

    /// Forgets the entries from `index` on; returns their indexes, ascending.
    pub(super) fn truncate(&mut self, index: u64) -> Vec<u64> {
        let removed = self.entries.split_off(&index);
        self.cache.split_off(&index);
        self.flushed = self.flushed.min(index.saturating_sub(1));
        self.end = self.entries.last_key_value().map_or(self.end, |(_, position)| position.end);
        self.recount_cache();
        removed.into_keys().collect()
    }

    /// Forgets the entries up to `id`; returns their indexes, ascending.
    pub(super) fn purge(&mut self, id: LogId) -> Vec<u64> {
        let next = id.index.saturating_add(1);
        let kept = self.entries.split_off(&next);
        let removed = std::mem::replace(&mut self.entries, kept);
        self.cache = self.cache.split_off(&next);
        self.purged = self.purged.max(Some(id));
        self.recount_cache();
        removed.into_keys().collect()
    }

    pub(super) fn bytes_after(&self, index: Option<u64>) -> u64 {
        let before = match index {
            Some(index) => self.entries.range(..=index).next_back().map(|(_, position)| position.end),
            None => None,
        };
        // Nothing at or below `index` is left: everything that is left lies behind it.
        let before = before.or_else(|| {
            let (_, first) = self.entries.first_key_value()?;
            Some(first.end.saturating_sub(u64::try_from(first.bytes).unwrap_or(u64::MAX)))
        });
        self.end.saturating_sub(before.unwrap_or(self.end))
    }

    fn recount_cache(&mut self) {
        self.cache_bytes = self.cache.keys().filter_map(|at| self.entries.get(at)).map(|position| position.bytes).sum();
    }
}

/// Cached content beyond what still waits for its sync.
const CACHE_BYTES: usize = 8 << 20;
