//! The journal: append-only segments, and a table in memory of where each record lies.
//!
//! A commit is one frame at the end of the newest segment, followed by one sync; nothing that was written is ever
//! overwritten, and nothing is removed before what replaces it is on disk. That makes recovery a matter of reading: see
//! [`recover`]. Bytes on disk: see [`frame`].
//!
//! A segment that is full is followed by the next one. Its first frame may carry the few records that still count in
//! the oldest segments, and says from which segment on the journal counts; then the older ones are removed. The Raft log
//! is written and purged from one end to the other, so there is almost nothing to carry.
//!
//! Records that may wait for the next synced commit stay in memory until then: an unsynced frame never lies on the disk
//! before a synced one.

mod frame;
mod recover;
mod table;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::committer::Operation;
use super::{StoreError, StoreId, SyncHook, Visit, disk};

pub(super) use self::recover::Recovered;

use self::frame::{FrameWriter, Seal, Sum};
use self::table::{Location, Segment, Table};

/// The readers' side. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Records {
    directory: PathBuf,
    table: Arc<RwLock<Table>>,
}

/// The writer's side: one thread owns it.
#[derive(Debug)]
pub(super) struct Journal {
    records: Records,
    store: StoreId,
    active: u64,
    file: Arc<File>,
    end: u64,
    sequence: u64,
    previous: Sum,
    segment_bytes: u64,
    /// Applied, but only to the table.
    waiting: Vec<Operation>,
}

/// Tree, key, place in the frame, and checksum of a written record; none for a removed one.
type Place = (String, Vec<u8>, std::ops::Range<usize>, Option<Sum>);

impl Records {
    pub(super) fn get(&self, tree: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            table.get(tree, key).map(|location| (location.clone(), file_of(&table, location)))
        };
        found.map(|(location, file)| load(&self.directory, tree, key, &location, file.as_deref())).transpose()
    }

    pub(super) fn scan(&self, tree: &str, keys: RangeInclusive<Vec<u8>>, visit: Visit<'_>) -> Result<(), StoreError> {
        // Files are opened handles, so what is removed meanwhile can still be read.
        let found: Vec<_> = {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            let records = table.range(tree, keys).into_iter();
            records.map(|(key, location)| (key, file_of(&table, &location), location)).collect()
        };
        for (key, file, location) in found {
            let content = load(&self.directory, tree, &key, &location, file.as_deref())?;
            visit(&key, content)?;
        }
        Ok(())
    }
}

impl Journal {
    /// Makes an empty journal in `directory`, with one frame of `operations`, durably.
    pub(super) fn create(
        directory: &Path,
        store: StoreId,
        operations: Vec<Operation>,
        segment_bytes: u64,
    ) -> Result<Self, StoreError> {
        disk::create_directory(directory)?;
        let mut table = Table::default();
        let segment = create_segment(directory, Seal { store, segment: 0 })?;
        table.segments.insert(0, segment);
        let mut journal = Self::resume(directory.into(), store, table, 0, [0; frame::SUM_BYTES], 0, segment_bytes)?;
        journal.commit(operations, None)?;
        journal.file.sync_all().map_err(StoreError::io("sync", directory))?;
        disk::sync_directory(directory)?;
        Ok(journal)
    }

    fn resume(
        directory: PathBuf,
        store: StoreId,
        table: Table,
        sequence: u64,
        previous: Sum,
        active: u64,
        segment_bytes: u64,
    ) -> Result<Self, StoreError> {
        let Some(segment) = table.segments.get(&active) else {
            return Err(StoreError::Damaged { what: format!("the journal in {}", directory.display()) });
        };
        let (file, end) = (Arc::clone(&segment.file), segment.bytes);
        let records = Records { directory, table: Arc::new(RwLock::new(table)) };
        Ok(Self { records, store, active, file, end, sequence, previous, segment_bytes, waiting: Vec::new() })
    }

    pub(super) fn records(&self) -> Records {
        self.records.clone()
    }

    /// The newest frame.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Makes `operations` readable; they are on disk with the next commit.
    pub(super) fn apply(&mut self, operations: Vec<Operation>) {
        let mut table = self.records.table.write().unwrap_or_else(PoisonError::into_inner);
        for operation in &operations {
            match &operation.content {
                Some(content) => {
                    table.put(operation.tree, &operation.key, Location::Memory(content.as_slice().into()));
                }
                None => table.remove(operation.tree, &operation.key),
            }
        }
        drop(table);
        self.waiting.extend(operations);
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Writes `operations`, behind those that wait, as one frame, and syncs it. After an error nothing may be written
    /// any more.
    pub(super) fn commit(&mut self, operations: Vec<Operation>, hook: Option<&SyncHook>) -> Result<(), StoreError> {
        let mut writer = FrameWriter::new();
        let mut places = Vec::new();
        let mut replaced = None;
        if self.end >= self.segment_bytes {
            replaced = Some(self.rotate(&mut writer, &mut places)?);
        }
        let waiting = std::mem::take(&mut self.waiting);
        for operation in waiting.into_iter().chain(operations) {
            let encoded = match &operation.content {
                Some(content) => frame::Operation::Put { tree: operation.tree, key: &operation.key, content },
                None => frame::Operation::Remove { tree: operation.tree, key: &operation.key },
            };
            let place = writer.add(&encoded);
            let sum = operation.content.as_deref().map(frame::sum_of);
            places.push((operation.tree.to_owned(), operation.key, place, sum));
        }
        let seal = Seal { store: self.store, segment: self.active };
        let (bytes, sum) = writer.finish(seal, self.sequence + 1, &self.previous);
        let path = segment_path(&self.records.directory, self.active);
        self.file.write_all_at(&bytes, self.end).map_err(StoreError::io("write", &path))?;
        if let Some(SyncHook(before)) = hook {
            before().map_err(StoreError::io("sync", &path))?;
        }
        self.file.sync_data().map_err(StoreError::io("sync", &path))?;
        if replaced.is_some() {
            disk::sync_directory(&self.records.directory)?;
        }
        let start = self.end;
        self.end += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.sequence += 1;
        self.previous = sum;
        self.publish(start, places);
        replaced.map_or(Ok(()), |base| self.drop_below(base))
    }

    /// Shows readers what was committed.
    fn publish(&self, start: u64, places: Vec<Place>) {
        let mut table = self.records.table.write().unwrap_or_else(PoisonError::into_inner);
        for (tree, key, place, sum) in places {
            let Some(sum) = sum else {
                table.remove(&tree, &key);
                continue;
            };
            let offset = start + u64::try_from(place.start).unwrap_or(u64::MAX);
            table.put(&tree, &key, Location::Disk { segment: self.active, offset, length: place.len(), sum });
        }
        if let Some(segment) = table.segments.get_mut(&self.active) {
            segment.bytes = self.end;
        }
    }

    /// Starts the next segment, whose first frame carries on what counts in the segments that are given up; gives the
    /// oldest segment that is kept.
    fn rotate(&mut self, writer: &mut FrameWriter, places: &mut Places) -> Result<u64, StoreError> {
        let base = self.base_after();
        let next = self.active + 1;
        writer.add(&frame::Operation::Base(base));
        let carried = {
            let table = self.records.table.read().unwrap_or_else(PoisonError::into_inner);
            table.records_of(&(0..base))
        };
        for (tree, key, location) in carried {
            let content = self.records.get(&tree, &key)?.unwrap_or_default();
            let place = writer.add(&frame::Operation::Put { tree: &tree, key: &key, content: &content });
            if let Location::Disk { sum, .. } = location {
                places.push((tree, key, place, Some(sum)));
            }
        }
        let segment = create_segment(&self.records.directory, Seal { store: self.store, segment: next })?;
        self.file = Arc::clone(&segment.file);
        self.end = segment.bytes;
        self.active = next;
        self.records.table.write().unwrap_or_else(PoisonError::into_inner).segments.insert(next, segment);
        Ok(base)
    }

    /// The oldest segment that is worth keeping.
    fn base_after(&self) -> u64 {
        let table = self.records.table.read().unwrap_or_else(PoisonError::into_inner);
        let mut carried = 0;
        for (number, segment) in &table.segments {
            carried += segment.live;
            // A quarter of the segments that go is the most that is worth copying, and never much at once.
            if segment.live > segment.bytes / 4 || carried > CARRIED_BYTES_MAX {
                return *number;
            }
        }
        self.active + 1
    }

    /// Removes the segments below `base`. They count for nothing since the last commit, so a crash in between costs
    /// nothing but their space until the next start.
    fn drop_below(&self, base: u64) -> Result<(), StoreError> {
        let mut table = self.records.table.write().unwrap_or_else(PoisonError::into_inner);
        let kept = table.segments.split_off(&base);
        let gone = std::mem::replace(&mut table.segments, kept);
        drop(table);
        gone.keys().try_for_each(|number| disk::remove_file(&segment_path(&self.records.directory, *number)))
    }
}

type Places = Vec<(String, Vec<u8>, std::ops::Range<usize>, Option<Sum>)>;

fn load(
    directory: &Path,
    tree: &str,
    key: &[u8],
    location: &Location,
    file: Option<&File>,
) -> Result<Vec<u8>, StoreError> {
    let (offset, length, sum) = match location {
        Location::Memory(content) => return Ok(content.to_vec()),
        Location::Disk { offset, length, sum, .. } => (*offset, *length, sum),
    };
    let damaged = || {
        let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        StoreError::Damaged { what: format!("record {key} of {tree} in {}", directory.display()) }
    };
    let file = file.ok_or_else(damaged)?;
    let mut content = vec![0; length];
    match file.read_exact_at(&mut content, offset) {
        Ok(()) if frame::sum_of(&content) == *sum => Ok(content),
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            Err(StoreError::io("read", directory)(error))
        }
        _ => Err(damaged()),
    }
}

fn file_of(table: &Table, location: &Location) -> Option<Arc<File>> {
    match location {
        Location::Memory(_) => None,
        Location::Disk { segment, .. } => table.segments.get(segment).map(|segment| Arc::clone(&segment.file)),
    }
}

/// A new segment with its head; the first commit syncs it.
fn create_segment(directory: &Path, seal: Seal) -> Result<Segment, StoreError> {
    let path = segment_path(directory, seal.segment);
    let file = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(StoreError::io("create", &path))?;
    let head = frame::segment_head(seal);
    file.write_all_at(&head, 0).map_err(StoreError::io("write", &path))?;
    Ok(Segment { file: Arc::new(file), bytes: u64::try_from(head.len()).unwrap_or(u64::MAX), live: 0 })
}

fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("segment-{number:016x}.journal"))
}

fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("segment-")?.strip_suffix(".journal")?;
    u64::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 16)
}

/// Most that the first frame of a segment carries on from older ones.
const CARRIED_BYTES_MAX: u64 = 1 << 20;
