//! Snapshot files: checksummed blocks, so that a file can be written, sent and verified without ever being in memory.
//!
//! File: magic (8), then blocks of `kind (1), version (1), length (4), payload, checksum (16)`. The checksum covers the
//! one before it, so a missing, repeated or exchanged block is damage. Kinds: 1 header (id, last entry, membership),
//! 2 state (at most 256 KiB each), 3 end (bytes of state). A file without its end is cut. Integers are big-endian.
//!
//! A file gets its final name only after it was synced. At most two are kept: the older one, with the log behind it,
//! is what a node falls back to when the newest turns out to be damaged.

mod block;
mod folder;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{BufReader, BufWriter, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

pub(super) use self::folder::SnapshotFolder;

use self::block::{BlockReader, BlockWriter, Kind};
use super::codec::{Reader, Writer};
use super::machine::SnapshotSource;
use super::types::SnapshotMeta;

/// A snapshot as openraft hands it around: a file, not bytes.
#[derive(Debug, Clone)]
pub(super) struct SnapshotFile {
    /// Where it lies.
    pub(super) path: PathBuf,
    /// Bytes of the whole file.
    pub(super) length: u64,
}

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file is cut, or a checksum does not match.
    #[error("snapshot {} is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    /// Written by a later release.
    #[error("snapshot {} has format {found}, this release reads up to {supported}; start the newer release", path.display())]
    Newer { path: PathBuf, found: u8, supported: u8 },
    /// The operating system failed.
    #[error("cannot {action} snapshot {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    /// Publishing failed.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

impl SnapshotError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| match source.downcast::<Self>() {
            // Verification errors travel through `Read` and come out as themselves.
            Ok(inner) => inner,
            Err(source) => Self::Io { action, path, source },
        }
    }
}

/// Writes a whole snapshot into `file`, unless `stop` becomes true. Blocks. The caller syncs and publishes.
pub(super) fn write(
    file: File,
    path: &Path,
    meta: &SnapshotMeta,
    source: Box<dyn SnapshotSource>,
    stop: &AtomicBool,
) -> Result<File, SnapshotError> {
    let failed = || SnapshotError::io("write", path);
    let mut blocks = BlockWriter::start(BufWriter::new(file), stop).map_err(failed())?;
    blocks.block(Kind::Header, &encode_meta(meta)).map_err(failed())?;
    source.write(&mut blocks).map_err(failed())?;
    let out = blocks.finish().map_err(failed())?;
    out.into_inner().map_err(|error| failed()(error.into_error()))
}

/// Opens a snapshot and reads its header; the reader then yields the state and fails at the first damaged block.
pub(super) fn open(path: &Path) -> Result<(SnapshotMeta, impl Read + use<>), SnapshotError> {
    let file = File::open(path).map_err(SnapshotError::io("open", path))?;
    let mut blocks = BlockReader::start(BufReader::new(file), path)?;
    let header = blocks.header()?;
    let meta = decode_meta(&header)
        .map_err(|error| SnapshotError::Damaged { path: path.into(), reason: error.to_string() })?;
    Ok((meta, blocks))
}

/// Reads the whole file and checks every block. Blocks.
pub(super) fn verify(path: &Path) -> Result<SnapshotMeta, SnapshotError> {
    let (meta, mut state) = open(path)?;
    std::io::copy(&mut state, &mut std::io::sink()).map_err(SnapshotError::io("read", path))?;
    Ok(meta)
}

pub(super) fn encode_meta(meta: &SnapshotMeta) -> Vec<u8> {
    let mut writer = Writer::versioned(META_VERSION);
    writer.bytes(meta.snapshot_id.as_bytes());
    writer.optional_log_id(meta.last_log_id.as_ref());
    writer.stored_membership(&meta.last_membership);
    writer.0
}

pub(super) fn decode_meta(bytes: &[u8]) -> Result<SnapshotMeta, super::codec::Malformed> {
    let mut reader = Reader::versioned(bytes, META_VERSION, "snapshot header")?;
    let meta = SnapshotMeta {
        snapshot_id: reader.text()?,
        last_log_id: reader.optional_log_id()?,
        last_membership: reader.stored_membership()?,
    };
    reader.end()?;
    Ok(meta)
}

const META_VERSION: u8 = 1;
