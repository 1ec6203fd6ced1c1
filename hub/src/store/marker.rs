//! The acknowledgement marker: a few bytes beside the journal that say which commit was acknowledged last.
//!
//! A damaged frame at the very end of the journal looks like a write that a crash cut short. The marker is written after
//! a commit was synced and before it is acknowledged, so a journal that is behind its marker has lost acknowledged
//! writes. The marker itself is not synced on each commit: after a power cut it may be older than the truth, which only
//! makes it a weaker witness, never a false one.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::StoreError;

#[derive(Debug)]
pub(super) struct Marker {
    path: PathBuf,
    file: File,
}

impl Marker {
    /// What the marker at `path` says, 0 when there is none. Changes nothing.
    pub(super) fn peek(path: &Path) -> Result<u64, StoreError> {
        match File::open(path) {
            Ok(file) => Ok(newest(&file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(StoreError::io("open", path)(error)),
        }
    }

    /// Opens or makes the marker at `path`.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(StoreError::io("open", path))?;
        Ok(Self { path: path.into(), file })
    }

    pub(super) fn write(&mut self, commit: u64) -> Result<(), StoreError> {
        let number = commit.to_be_bytes();
        let mut slot = [0; SLOT_BYTES];
        let (head, tail) = slot.split_at_mut(8);
        head.copy_from_slice(&number);
        tail.copy_from_slice(&checksum(number));
        let offset = (commit % SLOTS) * SLOT_STRIDE;
        self.file.write_all_at(&slot, offset).map_err(StoreError::io("write", &self.path))
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(StoreError::io("sync", &self.path))
    }
}

/// Two slots are written in turn: a torn write spoils one of them, the other is one commit older.
fn newest(file: &File) -> u64 {
    (0..SLOTS).filter_map(|slot| read_slot(file, slot)).max().unwrap_or(0)
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
