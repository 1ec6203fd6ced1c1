//! What the journal holds, in memory: where each record lies, and how much of each segment still counts.

use std::{
    collections::BTreeMap,
    fs::File,
    ops::{Range, RangeInclusive},
    sync::Arc,
};

use super::frame::Sum;

/// Where the content of a record is.
#[derive(Debug, Clone)]
pub(super) enum Location {
    /// Not written yet: it goes with the next frame.
    Memory(Arc<[u8]>),
    Disk {
        segment: u64,
        offset: u64,
        length: usize,
        sum: Sum,
    },
}

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file: Arc<File>,
    /// Bytes that were written.
    pub(super) bytes: u64,
    /// Bytes of content that still count.
    pub(super) live: u64,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    trees: BTreeMap<String, BTreeMap<Vec<u8>, Location>>,
    pub(super) segments: BTreeMap<u64, Segment>,
}

impl Table {
    pub(super) fn get(&self, tree: &str, key: &[u8]) -> Option<&Location> {
        self.trees.get(tree)?.get(key)
    }

    pub(super) fn range(&self, tree: &str, keys: RangeInclusive<Vec<u8>>) -> Vec<(Vec<u8>, Location)> {
        let Some(records) = self.trees.get(tree).filter(|_| !keys.is_empty()) else {
            return Vec::new();
        };
        records.range(keys).map(|(key, location)| (key.clone(), location.clone())).collect()
    }

    pub(super) fn put(&mut self, tree: &str, key: &[u8], location: Location) {
        if let Location::Disk { segment, length, .. } = &location
            && let Some(segment) = self.segments.get_mut(segment)
        {
            segment.live += record_bytes(key, *length);
        }
        if !self.trees.contains_key(tree) {
            self.trees.insert(tree.to_owned(), BTreeMap::new());
        }
        let old = self.trees.get_mut(tree).and_then(|records| records.insert(key.to_vec(), location));
        self.release(key, old.as_ref());
    }

    pub(super) fn remove(&mut self, tree: &str, key: &[u8]) {
        let old = self.trees.get_mut(tree).and_then(|records| records.remove(key));
        self.release(key, old.as_ref());
    }

    /// Every record whose content lies in one of `segments`.
    pub(super) fn records_of(&self, segments: &Range<u64>) -> Vec<(String, Vec<u8>, Location)> {
        let mut found = Vec::new();
        for (tree, records) in &self.trees {
            for (key, location) in records {
                if matches!(location, Location::Disk { segment, .. } if segments.contains(segment)) {
                    found.push((tree.clone(), key.clone(), location.clone()));
                }
            }
        }
        found
    }

    fn release(&mut self, key: &[u8], old: Option<&Location>) {
        if let Some(Location::Disk { segment, length, .. }) = old
            && let Some(segment) = self.segments.get_mut(segment)
        {
            segment.live = segment.live.saturating_sub(record_bytes(key, *length));
        }
    }
}

/// What a record counts, so that an empty one counts as well.
fn record_bytes(key: &[u8], length: usize) -> u64 {
    u64::try_from(key.len() + length).unwrap_or(u64::MAX).saturating_add(1)
}
