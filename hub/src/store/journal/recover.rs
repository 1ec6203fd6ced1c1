//! Reading a journal back: what is whole, what a crash cut, and what is damaged. Nothing is changed before all of it
//! is known to be good.
//!
//! At most one frame is ever on its way to the disk, so whatever lies behind the last whole frame was never
//! acknowledged, unless a later whole frame, a later segment or the acknowledgement marker says otherwise.

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::super::{StoreError, StoreId, disk};
use super::Journal;
use super::frame::{self, Frame, Operation, Seal, SegmentHead, Sum};
use super::table::{Location, Segment, Table};

/// A journal that was read and found good, up to a tail that a crash may have left.
#[derive(Debug)]
pub(in crate::store) struct Recovered {
    directory: PathBuf,
    store: StoreId,
    table: Table,
    sequence: u64,
    previous: Sum,
    active: u64,
    /// Behind the last whole frame of the active segment: where to cut.
    torn_at: Option<u64>,
    /// Segment, offset and length of the newest frame.
    last_frame: (u64, u64, usize),
    /// Files that count for nothing any more, or that were never finished.
    leftovers: Vec<PathBuf>,
}

/// One segment as it was read.
struct Found {
    path: PathBuf,
    bytes: Vec<u8>,
    head: SegmentHead,
}

impl Recovered {
    /// Reads the journal in `directory`. `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] and its kin, one for each reason not to start from it.
    pub(in crate::store) fn read(directory: &Path, store: StoreId) -> Result<Option<Self>, StoreError> {
        let mut files = list(directory)?;
        let Some(newest) = files.last_key_value().map(|(number, _)| *number) else {
            return Ok(None);
        };
        let base = base_of(&files, store)?;
        let kept = files.split_off(&base);
        let mut this = Self {
            directory: directory.into(),
            store,
            table: Table::default(),
            sequence: 0,
            previous: [0; frame::SUM_BYTES],
            active: base,
            torn_at: None,
            last_frame: (base, 0, 0),
            leftovers: files.into_values().collect(),
        };
        let mut is_first = true;
        for number in base..=newest {
            let Some(path) = kept.get(&number) else {
                return Err(this.damaged(&format!("segment {number:016x} is missing")));
            };
            let found = Found::read(path, Seal { store, segment: number })?;
            this.take(number, &found, number == newest, &mut is_first)?;
        }
        if is_first {
            return Err(this.damaged("it holds nothing at all"));
        }
        Ok(Some(this))
    }

    /// The newest frame.
    pub(in crate::store) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Reads one record.
    pub(in crate::store) fn get(&self, tree: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(location) = self.table.get(tree, key) else {
            return Ok(None);
        };
        super::load(&self.directory, tree, key, location, super::file_of(&self.table, location).as_deref()).map(Some)
    }

    /// Cuts what a crash left behind the last frame, and makes the journal writable.
    pub(in crate::store) fn start(self, segment_bytes: u64) -> Result<Journal, StoreError> {
        for path in &self.leftovers {
            disk::remove_file(path)?;
        }
        if let Some(end) = self.torn_at {
            let path = super::segment_path(&self.directory, self.active);
            tracing::warn!(segment = %path.display(), end, "a write that a crash cut short is dropped; it was never acknowledged");
            let file = File::options().write(true).open(&path).map_err(StoreError::io("open", &path))?;
            file.set_len(end).and_then(|()| file.sync_all()).map_err(StoreError::io("cut", &path))?;
        }
        self.write_again()?;
        disk::sync_directory(&self.directory)?;
        Journal::resume(
            self.directory,
            self.store,
            self.table,
            self.sequence,
            self.previous,
            self.active,
            segment_bytes,
        )
    }

    /// Writes the newest frame once more, as it is: after a sync that failed, a frame may be readable here and not be on
    /// the disk, and no later sync would write it.
    fn write_again(&self) -> Result<(), StoreError> {
        let path = super::segment_path(&self.directory, self.last_frame.0);
        let failed = || StoreError::io("write", &path);
        let file = File::options().read(true).write(true).open(&path).map_err(failed())?;
        let mut bytes = vec![0; self.last_frame.2];
        file.read_exact_at(&mut bytes, self.last_frame.1).map_err(failed())?;
        file.write_all_at(&bytes, self.last_frame.1).and_then(|()| file.sync_all()).map_err(failed())
    }

    fn take(&mut self, number: u64, found: &Found, newest: bool, is_first: &mut bool) -> Result<(), StoreError> {
        let seal = Seal { store: self.store, segment: number };
        if found.head != SegmentHead::Whole {
            let lost = frame::is_followed(&found.bytes, 0, self.sequence, seal);
            if !newest || lost || *is_first {
                return Err(self.damaged(&format!("the head of segment {number:016x} is not readable")));
            }
            // It was being made when the power went: nothing was ever acknowledged in it.
            self.leftovers.push(found.path.clone());
            return Ok(());
        }
        let file = File::options().read(true).write(true).open(&found.path);
        let file = Arc::new(file.map_err(StoreError::io("open", &found.path))?);
        self.table.segments.insert(number, Segment { file, bytes: 0, live: 0 });
        self.active = number;
        let mut at = frame::SEGMENT_HEAD_BYTES;
        while let Some(frame) = frame::read_frame(&found.bytes, at, seal) {
            if !*is_first && (frame.sequence != self.sequence + 1 || frame.previous != self.previous) {
                let (expected, found) = (self.sequence + 1, frame.sequence);
                return Err(self.damaged(&format!("frame {expected} is missing before frame {found}")));
            }
            self.last_frame = (number, u64::try_from(at).unwrap_or(u64::MAX), frame.end - at);
            at = frame.end;
            self.add(number, &frame, &found.bytes);
            *is_first = false;
        }
        if at < found.bytes.len() {
            if !newest || frame::is_followed(&found.bytes, at, self.sequence, seal) {
                let next = self.sequence + 1;
                return Err(self.damaged(&format!("frame {next} in segment {number:016x} is changed or cut")));
            }
            self.torn_at = Some(u64::try_from(at).unwrap_or(u64::MAX));
        }
        if let Some(segment) = self.table.segments.get_mut(&number) {
            segment.bytes = u64::try_from(at).unwrap_or(u64::MAX);
        }
        Ok(())
    }

    fn add(&mut self, segment: u64, frame: &Frame<'_>, bytes: &[u8]) {
        self.sequence = frame.sequence;
        self.previous = frame.sum;
        for (operation, place) in &frame.operations {
            match operation {
                Operation::Put { tree, key, .. } => {
                    let content = bytes.get(place.clone()).unwrap_or_default();
                    let location = Location::Disk {
                        segment,
                        offset: u64::try_from(place.start).unwrap_or(u64::MAX),
                        length: content.len(),
                        sum: frame::sum_of(content),
                    };
                    self.table.put(tree, key, location);
                }
                Operation::Remove { tree, key } => self.table.remove(tree, key),
                Operation::Base(_) => {}
            }
        }
    }

    fn damaged(&self, what: &str) -> StoreError {
        StoreError::Damaged { what: format!("the journal in {} ({what})", self.directory.display()) }
    }
}

impl Found {
    fn read(path: &Path, seal: Seal) -> Result<Self, StoreError> {
        let bytes = std::fs::read(path).map_err(StoreError::io("read", path))?;
        let head = frame::read_segment_head(&bytes, seal);
        match head {
            SegmentHead::Newer(found) => {
                Err(StoreError::Newer { directory: path.into(), found, supported: frame::SUPPORTED })
            }
            SegmentHead::Other(store) if store != seal.store => Err(StoreError::Swapped { directory: path.into() }),
            head => Ok(Self { path: path.into(), bytes, head }),
        }
    }
}

/// The segments of a folder by number.
fn list(directory: &Path) -> Result<BTreeMap<u64, PathBuf>, StoreError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(StoreError::io("list", directory)(error)),
    };
    let mut files = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(StoreError::io("list", directory))?.path();
        let number = path.file_name().and_then(|name| name.to_str()).and_then(super::segment_number);
        if let Some(number) = number {
            files.insert(number, path);
        }
    }
    Ok(files)
}

/// The oldest segment that counts. Segments below it may be left over from an interrupted removal, any of them.
fn base_of(files: &BTreeMap<u64, PathBuf>, store: StoreId) -> Result<u64, StoreError> {
    let mut base = 0;
    // A base is written into the first frame of a segment, so that one look at each is enough.
    for (number, path) in files {
        let seal = Seal { store, segment: *number };
        let found = Found::read(path, seal)?;
        let first = frame::read_frame(&found.bytes, frame::SEGMENT_HEAD_BYTES, seal);
        for (operation, _) in first.iter().flat_map(|frame| &frame.operations) {
            if let Operation::Base(number) = operation {
                base = base.max(*number);
            }
        }
    }
    Ok(base)
}
