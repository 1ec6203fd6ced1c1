//! Garbage collection: packs without a live blob are deleted, packs that are mostly dead, and many small ones, are
//! written together.
//!
//! Invariant: a kept blob is readable at every moment, also when the process dies in between. The new pack is on disk
//! before the index points to it, and the old pack goes away after that; a blob that is in both is the same blob.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use bytes::Bytes;

use super::pack::{self, Pack};
use super::{BlobDigest, BlobError, BlobStore, disk};

/// What a collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs that are gone.
    pub blobs_removed: usize,
    /// Packs that are gone, those written together with others included.
    pub packs_removed: usize,
    /// Bytes that the disk got back.
    pub bytes_freed: u64,
}

impl BlobStore {
    /// Forgets every blob that `keep` does not name and that is not leased, and gives their space back where it is
    /// worth it. Blocks; at most one at a time, a second call waits. `keep` must say yes to everything that committed
    /// state references: take it from one state, after the newest lease that state should know was dropped.
    ///
    /// A forgotten blob whose bytes still lie in a pack is back after a restart, until the next collection.
    ///
    /// A damaged blob in a pack that is to be rewritten keeps that pack in place, with the error in the log.
    pub fn collect(&self, keep: &dyn Fn(&BlobDigest) -> bool) -> Result<Collected, BlobError> {
        let inner = &self.inner;
        let _one_at_a_time = inner.collecting.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.usage();
        let mut collected = Collected { blobs_removed: self.forget_unless(keep), ..Collected::default() };

        for group in self.choose() {
            self.rewrite(&group)?;
        }
        let dead: Vec<Pack> = {
            let mut index = inner.index.write().unwrap_or_else(PoisonError::into_inner);
            let numbers: Vec<u64> =
                index.packs.values().filter(|pack| pack.live_blobs == 0).map(|pack| pack.number).collect();
            numbers.iter().filter_map(|number| index.packs.remove(number)).collect()
        };
        for pack in &dead {
            disk::remove_file(&pack.path)?;
        }
        if !dead.is_empty() {
            disk::sync_directory(&inner.directory)?;
        }
        collected.packs_removed = dead.len();
        collected.bytes_freed = before.bytes.saturating_sub(self.usage().bytes);
        Ok(collected)
    }

    fn forget_unless(&self, keep: &dyn Fn(&BlobDigest) -> bool) -> usize {
        // `keep` may be slow, so it is asked without the lock; the leases are looked at under it, since a lease that
        // is taken before the blob is forgotten must save it.
        let present: Vec<BlobDigest> =
            self.inner.index.read().unwrap_or_else(PoisonError::into_inner).blobs.keys().copied().collect();
        let unwanted: Vec<BlobDigest> = present.into_iter().filter(|digest| !keep(digest)).collect();
        let mut index = self.inner.index.write().unwrap_or_else(PoisonError::into_inner);
        let leases = self.inner.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let mut removed = 0;
        for digest in unwanted.iter().filter(|digest| !leases.contains_key(*digest)) {
            index.forget(digest);
            removed += 1;
        }
        removed
    }

    /// Groups of packs to write together.
    fn choose(&self) -> Vec<BTreeSet<u64>> {
        let index = self.inner.index.read().unwrap_or_else(PoisonError::into_inner);
        let small = index.packs.values().filter(|pack| pack.file_bytes < SMALL_PACK_BYTES).count();
        let mut groups = Vec::new();
        let (mut group, mut bytes) = (BTreeSet::new(), 0);
        for pack in index.packs.values().filter(|pack| pack.live_blobs > 0) {
            let mostly_dead = pack.live_bytes * 2 < pack.file_bytes && pack.file_bytes >= WORTH_BYTES;
            let one_of_many = small > SMALL_PACKS_MAX && pack.file_bytes < SMALL_PACK_BYTES;
            if !mostly_dead && !one_of_many {
                continue;
            }
            if bytes + pack.live_bytes > GROUP_BYTES && !group.is_empty() {
                groups.push(std::mem::take(&mut group));
                bytes = 0;
            }
            group.insert(pack.number);
            bytes += pack.live_bytes;
        }
        if !group.is_empty() {
            groups.push(group);
        }
        groups
    }

    fn rewrite(&self, numbers: &BTreeSet<u64>) -> Result<(), BlobError> {
        let located: Vec<_> = {
            let index = self.inner.index.read().unwrap_or_else(PoisonError::into_inner);
            index
                .blobs
                .iter()
                .filter(|(_, location)| numbers.contains(&location.pack))
                .filter_map(|(digest, location)| {
                    Some((*digest, *location, index.packs.get(&location.pack)?.path.clone()))
                })
                .collect()
        };
        let mut contents: BTreeMap<BlobDigest, Bytes> = BTreeMap::new();
        for (digest, location, path) in &located {
            match pack::read(path, location)? {
                Some(content) => drop(contents.insert(*digest, content)),
                None => {
                    tracing::error!(%digest, pack = %path.display(), "blob is damaged; its pack is kept")
                }
            }
        }
        if contents.is_empty() {
            return Ok(());
        }
        let number = self.inner.reserve_pack();
        let blobs = contents.iter().map(|(digest, content)| (*digest, content.as_ref()));
        let (pack, new) = Pack::write(&self.inner.directory, number, blobs)?;
        let mut index = self.inner.index.write().unwrap_or_else(PoisonError::into_inner);
        // Forgotten meanwhile (damaged on read): must not come back.
        let new = new.into_iter().filter(|(digest, _)| index.blobs.contains_key(digest)).collect();
        index.add(pack, new);
        Ok(())
    }
}

/// Below this a mostly dead pack is not worth a rewrite.
const WORTH_BYTES: u64 = 64 << 10;
/// A pack smaller than this is small.
const SMALL_PACK_BYTES: u64 = 1 << 20;
/// So many small packs are fine; opening a folder of thousands is slow.
const SMALL_PACKS_MAX: usize = 256;
/// Most bytes written together: bounds the memory of a collection.
const GROUP_BYTES: u64 = 64 << 20;
