//! Content by address in plain files: written beside, synced, renamed.
//!
//! The addresses of Secrets are keyed by the hub, so that a file carries a checksum of its own. Files are readable by the
//! agent's user only.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Mutex,
};

use windlass_protocol::ids::Digest;

use super::CheckpointError;

/// Bytes of checksum in front of the content.
const CHECKSUM: usize = 32;

/// A folder of content.
#[derive(Debug)]
pub(super) struct BlobFiles {
    folder: PathBuf,
    /// Written since the last sync, under their temporary names.
    unsynced: Mutex<BTreeSet<Digest>>,
}

impl BlobFiles {
    pub(super) fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let files = Self { folder: folder.to_owned(), unsynced: Mutex::new(BTreeSet::new()) };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| files.failed("cannot make the folder of contents", error))?;
        // What a dead process left half-written has no reader.
        for entry in files.entries()? {
            if entry.extension().is_some_and(|extension| extension == "new") {
                fs::remove_file(&entry).map_err(|error| files.failed("cannot remove an old file", error))?;
            }
        }
        Ok(files)
    }

    /// Writes content that counts once [`Self::sync`] has returned.
    pub(super) fn put(&self, digest: Digest, content: &[u8]) -> Result<(), CheckpointError> {
        let write = || -> std::io::Result<()> {
            let mut file =
                File::options().write(true).create(true).truncate(true).mode(0o600).open(self.temporary(digest))?;
            file.write_all(blake3::hash(content).as_bytes())?;
            file.write_all(content)
        };
        write().map_err(|error| self.failed("cannot write content", error))?;
        self.pending().insert(digest);
        Ok(())
    }

    /// Brings everything put so far to the disk, under its name.
    pub(super) fn sync(&self) -> Result<(), CheckpointError> {
        let pending: Vec<Digest> = self.pending().iter().copied().collect();
        if pending.is_empty() {
            return Ok(());
        }
        for digest in &pending {
            let commit = || -> std::io::Result<()> {
                File::open(self.temporary(*digest))?.sync_all()?;
                fs::rename(self.temporary(*digest), self.path(*digest))
            };
            commit().map_err(|error| self.failed("cannot keep content", error))?;
        }
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| self.failed("cannot sync the folder of contents", error))?;
        let mut unsynced = self.pending();
        for digest in &pending {
            unsynced.remove(digest);
        }
        Ok(())
    }

    pub(super) fn contains(&self, digest: Digest) -> bool {
        self.path(digest).exists() || self.pending().contains(&digest)
    }

    /// Checked content. A damaged file is removed: the next delta brings it again.
    pub(super) fn read(&self, digest: Digest) -> Result<Option<Vec<u8>>, CheckpointError> {
        let pending = self.pending().contains(&digest);
        let path = if pending { self.temporary(digest) } else { self.path(digest) };
        let mut whole = match fs::read(&path) {
            Ok(whole) => whole,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("cannot read content", error)),
        };
        let intact = whole
            .split_at_checked(CHECKSUM)
            .is_some_and(|(sum, content)| blake3::hash(content).as_bytes().as_slice() == sum);
        if !intact {
            tracing::warn!(%digest, "content on the disk is damaged; removing it");
            fs::remove_file(&path).map_err(|error| self.failed("cannot remove damaged content", error))?;
            return Ok(None);
        }
        whole.drain(..CHECKSUM);
        Ok(Some(whole))
    }

    /// Removes what is not referenced; content that is not synced yet belongs to a change on its way and stays.
    pub(super) fn retain(&self, referenced: &BTreeSet<Digest>) -> Result<usize, CheckpointError> {
        let unsynced: BTreeSet<Digest> = self.pending().clone();
        let mut removed = 0;
        for entry in self.entries()? {
            let name = entry.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Ok(digest) = name.parse::<Digest>() else { continue };
            if !referenced.contains(&digest) && !unsynced.contains(&digest) {
                fs::remove_file(&entry).map_err(|error| self.failed("cannot remove content", error))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn entries(&self) -> Result<Vec<PathBuf>, CheckpointError> {
        let list = || fs::read_dir(&self.folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
        list().map_err(|error| self.failed("cannot list contents", error))
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, BTreeSet<Digest>> {
        self.unsynced.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(digest.to_string())
    }

    fn temporary(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("{digest}.new"))
    }

    fn failed(&self, what: &'static str, error: std::io::Error) -> CheckpointError {
        CheckpointError::Store { what, path: self.folder.clone(), source: error.into() }
    }
}
