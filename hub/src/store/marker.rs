//! The acknowledgement marker: a few bytes beside the database that say which commit was acknowledged last.
//!
//! When the database finds a damaged block near its end it takes it for a torn write and silently forgets everything
//! after it. The marker is written after a commit was synced and before it is acknowledged, so a database that is
//! behind its marker has lost acknowledged writes. The marker itself is not synced on each commit: after a power cut
//! it may be older than the truth, which only makes it a weaker witness, never a false one.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::StoreError;

#[derive(Debug)]
pub(super) struct Marker {
    path: PathBuf,
    file: File,
    last: u64,
}

impl Marker {
    /// Opens or makes the marker of the store in `directory`.
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join("ACKNOWLEDGED");
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        // Two slots written in turn: a torn write spoils one of them, the other is one commit older.
        let last = (0..SLOTS).filter_map(|slot| read_slot(&file, slot)).max().unwrap_or(0);
        Ok(Self { path, file, last })
    }

    /// The newest commit that was acknowledged, 0 for none.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn write(&mut self, commit: u64) -> Result<(), StoreError> {
        let number = commit.to_be_bytes();
        let mut slot = [0; SLOT_BYTES];
        let (head, tail) = slot.split_at_mut(8);
        head.copy_from_slice(&number);
        tail.copy_from_slice(&checksum(number));
        let offset = (commit % SLOTS) * SLOT_STRIDE;
        self.file.write_all_at(&slot, offset).map_err(StoreError::io("write", &self.path))?;
        self.last = commit;
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(StoreError::io("sync", &self.path))
    }
}

fn read_slot(file: &File, slot: u64) -> Option<u64> {
    let mut bytes = [0; SLOT_BYTES];
    file.read_exact_at(&mut bytes, slot * SLOT_STRIDE).ok()?;
    let (number, sum) = bytes.split_first_chunk::<8>()?;
    (sum == checksum(*number)).then(|| u64::from_be_bytes(*number))
}

fn checksum(number: [u8; 8]) -> [u8; 8] {
    let mut sum = [0; 8];
    blake3::Hasher::new_derive_key("windlass store acknowledgement marker 1")
        .update(&number)
        .finalize_xof()
        .fill(&mut sum);
    sum
}

const SLOTS: u64 = 2;
const SLOT_BYTES: usize = 16;
/// Slots lie in different sectors, so that one torn sector cannot spoil both.
const SLOT_STRIDE: u64 = 4_096;
