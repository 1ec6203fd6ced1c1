//! Files that survive a power cut: write aside, sync, rename, sync the folder.
//!
//! All functions block.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::StoreError;

/// Replaces `path` by `content` so that a crash leaves either the old or the new file, whole.
pub fn replace_file(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside).map_err(StoreError::io("create", &aside))?;
    file.write_all(content).map_err(StoreError::io("write", &aside))?;
    publish(&file, &aside, path)
}

/// Syncs `file`, which lies at `from`, and gives it its final name `to` in the same folder, durably.
pub fn publish(file: &File, from: &Path, to: &Path) -> Result<(), StoreError> {
    file.sync_all().map_err(StoreError::io("sync", from))?;
    std::fs::rename(from, to).map_err(StoreError::io("rename", from))?;
    match to.parent() {
        Some(folder) => sync_directory(folder),
        None => Ok(()),
    }
}

/// Makes `folder` and what is missing above it, so that their names survive a power cut: what is synced inside of a
/// folder is lost with the folder's own name.
pub fn create_directory(folder: &Path) -> Result<(), StoreError> {
    let mut missing = Vec::new();
    let mut at = folder;
    while !at.as_os_str().is_empty() && !at.exists() {
        missing.push(at);
        match at.parent() {
            Some(parent) => at = parent,
            None => break,
        }
    }
    std::fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
    // A run that was cut off may have made it without syncing its name, so the last step is never left out.
    if missing.is_empty() {
        missing.push(folder);
    }
    for made in missing {
        match made.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent)?,
            _ => sync_directory(Path::new("."))?,
        }
    }
    Ok(())
}

/// Makes renames, creations and deletions in `folder` durable.
pub fn sync_directory(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|handle| handle.sync_all()).map_err(StoreError::io("sync the folder", folder))
}

/// Syncs every file of `folder` (not of folders below it) and the folder. Returns how many files there were.
pub fn sync_files(folder: &Path) -> Result<usize, StoreError> {
    let mut count = 0;
    for entry in std::fs::read_dir(folder).map_err(StoreError::io("list", folder))? {
        let path = entry.map_err(StoreError::io("list", folder))?.path();
        if path.is_file() {
            File::open(&path).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", &path))?;
            count += 1;
        }
    }
    sync_directory(folder)?;
    Ok(count)
}

/// Refuses a disk with less than `needed` bytes free, before anything is written to it. `folder` need not exist yet.
pub fn check_free(folder: &Path, needed: u64) -> Result<(), StoreError> {
    let existing = folder.ancestors().find(|ancestor| ancestor.exists()).unwrap_or_else(|| Path::new("."));
    let found = rustix::fs::statvfs(existing).map_err(|error| StoreError::io("look at", existing)(error.into()))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if free < needed {
        return Err(StoreError::NoSpace { directory: folder.into(), free, needed });
    }
    Ok(())
}

/// Removes `path`; a file that is not there is fine.
pub fn remove_file(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// What a hub needs to start, 64 MiB: some segments of the journal and a small snapshot. One that runs out of space later
/// stops and says so.
pub const START_BYTES: u64 = 64 << 20;
