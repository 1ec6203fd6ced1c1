//! The folder of snapshots of one node.
//!
//! `snapshot-<index>-<term>.windlass` are whole; `*.unfinished` are being written; `incoming-*.partial` are being
//! received and survive a broken stream, so that the next one resumes; `*.damaged` were set aside.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::machine::SnapshotSource;
use super::super::types::{LogId, SnapshotMeta};
use super::{SnapshotError, SnapshotFile};
use crate::store::{StoreError, disk};

#[derive(Debug)]
pub(in crate::raft) struct SnapshotFolder {
    path: PathBuf,
    /// Whole snapshots, oldest first, at most [`KEPT`].
    kept: Mutex<Vec<(SnapshotMeta, SnapshotFile)>>,
    /// Held while a snapshot is written or installed.
    writing: Mutex<()>,
    stop: AtomicBool,
}

impl SnapshotFolder {
    /// Opens the folder and verifies what is in it. A damaged snapshot is set aside with a warning. Blocks.
    ///
    /// # Errors
    /// A snapshot of a newer release, or a folder that cannot be read.
    pub(in crate::raft) fn open(path: &Path) -> Result<Self, SnapshotError> {
        disk::create_directory(path)?;
        let mut kept = Vec::new();
        for entry in std::fs::read_dir(path).map_err(StoreError::io("list", path))? {
            let file = entry.map_err(StoreError::io("list", path))?.path();
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.ends_with(UNFINISHED) {
                disk::remove_file(&file)?;
            } else if name.ends_with(WHOLE) {
                match super::verify(&file) {
                    Ok(meta) => kept.push((meta, SnapshotFile::at(&file)?)),
                    Err(error @ SnapshotError::Damaged { .. }) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "snapshot set aside");
                        let aside = file.with_extension("damaged");
                        std::fs::rename(&file, &aside).map_err(StoreError::io("rename", &file))?;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        kept.sort_by_key(|(meta, _)| meta.last_log_id);
        Ok(Self { path: path.into(), kept: Mutex::new(kept), writing: Mutex::default(), stop: AtomicBool::new(false) })
    }

    /// Ends a write that is under way and waits for it: afterwards nothing in the folder changes any more. Blocks.
    pub(in crate::raft) fn close(&self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.writing.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The newest whole snapshot.
    pub(in crate::raft) fn newest(&self) -> Option<(SnapshotMeta, SnapshotFile)> {
        self.kept().last().cloned()
    }

    /// How far the log may be purged: up to the oldest snapshot that is kept, so that it, too, can be continued.
    pub(in crate::raft) fn purgeable(&self) -> Option<LogId> {
        let kept = self.kept();
        if kept.len() < KEPT { None } else { kept.first().and_then(|(meta, _)| meta.last_log_id) }
    }

    /// Writes a snapshot durably and drops those that are too many. Blocks.
    pub(in crate::raft) fn write(
        &self,
        meta: SnapshotMeta,
        source: Box<dyn SnapshotSource>,
    ) -> Result<SnapshotFile, SnapshotError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path.join(name(&meta));
        let aside = path.with_extension("unfinished");
        let file = File::create(&aside).map_err(SnapshotError::io("create", &aside))?;
        let file = super::write(file, &aside, &meta, source, &self.stop)?;
        disk::publish(&file, &aside, &path)?;
        self.keep(meta, SnapshotFile::at(&path)?, KEPT)
    }

    /// Gives a received and verified snapshot its final name, durably. It is offered to the library only afterwards: the
    /// library purges the log up to a snapshot while that is still being installed, and a crash in between would leave
    /// neither. Blocks.
    pub(in crate::raft) fn accept(&self, file: &SnapshotFile) -> Result<SnapshotFile, SnapshotError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let meta = super::open(&file.path)?.0;
        let path = self.path.join(name(&meta));
        let aside = path.with_extension("unfinished");
        std::fs::rename(&file.path, &aside).map_err(SnapshotError::io("rename", &file.path))?;
        let handle = File::options().write(true).open(&aside).map_err(SnapshotError::io("open", &aside))?;
        disk::publish(&handle, &aside, &path)?;
        self.keep(meta, SnapshotFile::at(&path)?, KEPT)
    }

    /// Makes a snapshot the only one: the log behind older ones does not lead to it. One that lies here was verified
    /// when it came; any other is verified and copied here. Blocks.
    pub(in crate::raft) fn install(&self, file: &SnapshotFile) -> Result<(SnapshotMeta, SnapshotFile), SnapshotError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let is_kept = self.kept().iter().any(|(_, kept)| kept.path == file.path);
        let meta = if is_kept { super::open(&file.path)?.0 } else { super::verify(&file.path)? };
        let path = self.path.join(name(&meta));
        if file.path != path {
            let aside = path.with_extension("unfinished");
            std::fs::copy(&file.path, &aside).map_err(SnapshotError::io("copy", &file.path))?;
            let handle = File::options().write(true).open(&aside).map_err(SnapshotError::io("open", &aside))?;
            disk::publish(&handle, &aside, &path)?;
        }
        let file = self.keep(meta.clone(), SnapshotFile::at(&path)?, 1)?;
        Ok((meta, file))
    }

    /// Opens the partial file of an incoming snapshot for appending; returns it with the bytes that are already there.
    pub(in crate::raft) fn resume(&self, id: &str) -> Result<(File, SnapshotFile), SnapshotError> {
        let path = self.incoming_path(id);
        // Partial files of other snapshots will never be continued: the leader only ever offers its newest.
        for entry in std::fs::read_dir(&self.path).map_err(StoreError::io("list", &self.path))? {
            let other = entry.map_err(StoreError::io("list", &self.path))?.path();
            let name = other.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(INCOMING) && other != path {
                disk::remove_file(&other)?;
            }
        }
        let failed = || SnapshotError::io("open", &path);
        let mut file =
            File::options().create(true).truncate(false).read(true).write(true).open(&path).map_err(failed())?;
        let length = file.seek(SeekFrom::End(0)).map_err(failed())?;
        Ok((file, SnapshotFile { path: path.clone(), length }))
    }

    fn incoming_path(&self, id: &str) -> PathBuf {
        // The id comes from a peer: only its hash becomes a file name.
        self.path.join(format!("{INCOMING}{}.partial", blake3::hash(id.as_bytes()).to_hex()))
    }

    fn keep(&self, meta: SnapshotMeta, file: SnapshotFile, most: usize) -> Result<SnapshotFile, SnapshotError> {
        let mut kept = self.kept();
        kept.retain(|(_, other)| other.path != file.path);
        kept.push((meta, file.clone()));
        kept.sort_by_key(|(meta, _)| meta.last_log_id);
        while kept.len() > most {
            let (_, old) = kept.remove(0);
            disk::remove_file(&old.path)?;
        }
        Ok(file)
    }

    fn kept(&self) -> MutexGuard<'_, Vec<(SnapshotMeta, SnapshotFile)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SnapshotFile {
    fn at(path: &Path) -> Result<Self, SnapshotError> {
        let length = std::fs::metadata(path).map_err(SnapshotError::io("read", path))?.len();
        Ok(Self { path: path.into(), length })
    }
}

fn name(meta: &SnapshotMeta) -> String {
    let (index, term) = meta.last_log_id.map_or((0, 0), |id| (id.index, id.leader_id.term));
    format!("snapshot-{index:020}-{term:010}{WHOLE}")
}

const WHOLE: &str = ".windlass";
const UNFINISHED: &str = ".unfinished";
const INCOMING: &str = "incoming-";
/// Snapshots kept: the newest, and one to fall back to.
const KEPT: usize = 2;
