//! Why the store refused, and what an operator does about it.

use std::path::{Path, PathBuf};

use super::StoreId;

/// Every message names the thing and says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory was never initialised.
    #[error("{} holds no store; run `windlass-hub init` for a new cluster, or join one with `serve --join`", directory.display())]
    NotAStore { directory: PathBuf },
    /// Creation where something already is.
    #[error("{} already holds a store or the rest of an interrupted `init`; choose an empty directory, or delete this one if nothing in it is needed", directory.display())]
    Exists { directory: PathBuf },
    /// Too little room to start with.
    #[error("{} has {} MiB free, a hub needs {} MiB to start; free space on that disk, or choose another --data directory", directory.display(), free >> 20, needed >> 20)]
    NoSpace { directory: PathBuf, free: u64, needed: u64 },
    /// Another process has it.
    #[error("{} is in use by another process; stop that hub first, two processes on one directory would destroy it", directory.display())]
    Locked { directory: PathBuf },
    /// Written by a later release.
    #[error("{} has store format {found}, this release reads up to {supported}; start the newer release, a downgrade is not possible", directory.display())]
    Newer { directory: PathBuf, found: u32, supported: u32 },
    /// The directory of another cluster or node.
    #[error("{} belongs to {found}, but {expected} was expected; name this node's own directory", directory.display())]
    Foreign { directory: PathBuf, found: String, expected: String },
    /// The identity file is there, the journal is not.
    #[error("{}: the journal of store {store} is gone or empty, the disk was wiped; run `windlass hub remove` for this node on another hub, empty its data directory and join it again (the only hub of a group: restore a backup)", directory.display())]
    Wiped { directory: PathBuf, store: StoreId },
    /// The identity file and the journal do not belong together.
    #[error("{}: the journal belongs to another store than the file STORE says; put the whole directory back as it was, or run `windlass hub remove` for this node on another hub, empty its data directory and join it again (the only hub of a group: restore a backup)", directory.display())]
    Swapped { directory: PathBuf },
    /// Acknowledged commits are missing.
    #[error("{}: the journal ends at commit {found}, but commit {acknowledged} was acknowledged; the newest writes are lost (damaged or cut file), so this node may not vote: run `windlass hub remove` for this node on another hub, empty its data directory and join it again (the only hub of a group: restore a backup)", directory.display())]
    LostCommits { directory: PathBuf, found: u64, acknowledged: u64 },
    /// A checksum does not match, or the structure is broken.
    #[error(
        "{what} is damaged (checksum or structure does not match); do not start from it: replace the disk if it reports errors, then run `windlass hub remove` for this node on another hub, empty its data directory and join it again (the only hub of a group: restore a backup)"
    )]
    Damaged { what: String },
    /// A record that breaks a limit.
    #[error("{what} has {size} bytes, the limit {limit} is {maximum}")]
    TooLarge { what: &'static str, size: usize, limit: &'static str, maximum: usize },
    /// The operating system failed.
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    /// An earlier write failed; nothing is written any more.
    #[error("the store stopped after a failed write ({reason}); free space or replace the disk, then restart this hub")]
    Stopped { reason: String },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// For `map_err`: an IO error with its verb and path.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    pub(super) fn from_database(path: &Path, error: sled::Error) -> Self {
        match error {
            sled::Error::Io(source) if source.kind() == std::io::ErrorKind::InvalidData => {
                Self::Damaged { what: format!("the database in {} ({source})", path.display()) }
            }
            sled::Error::Io(source) => Self::Io { action: "use the database in", path: path.into(), source },
            sled::Error::Corruption { .. } | sled::Error::ReportableBug(_) => {
                Self::Damaged { what: format!("the database in {} ({error})", path.display()) }
            }
            sled::Error::CollectionNotFound(_) | sled::Error::Unsupported(_) => {
                Self::Stopped { reason: error.to_string() }
            }
        }
    }
}
