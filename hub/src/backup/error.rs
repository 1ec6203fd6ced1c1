//! Why a backup was not made, or could not be used: one sentence each, with what to do.

use std::path::PathBuf;

use windlass_hub_core::{Rejection, snapshot::SnapshotError};
use windlass_protocol::backup::BackupError as Outside;

use super::s3::S3Error;
use crate::{blobs::BundleError, sealing::SealError, store::StoreError, store::blobs::BlobError, trust::TrustError};

/// Why a backup was not made, or could not be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file as such: cut, damaged, of a newer format, or not a backup.
    #[error(transparent)]
    Outside(#[from] Outside),
    /// Sealed with another key.
    #[error(
        "the backup was sealed with operator key {found}, the given one is {given}: name the file of the right key with --operator-key-file"
    )]
    WrongKey {
        /// Id of the key that it was sealed with.
        found: String,
        /// Id of the key that was given.
        given: String,
    },
    /// The content was written by a later release.
    #[error(
        "the backup has state version {version} (release {software}), this release reads up to {known}: use that release, or a newer one"
    )]
    NewerState {
        /// Its state version.
        version: u32,
        /// Ours.
        known: u32,
        /// The release that wrote it.
        software: String,
    },
    /// The cipher gave up.
    #[error("the backup could not be sealed")]
    Cipher,
    /// One blob or record is larger than any may be.
    #[error("a record of {bytes} bytes does not fit into a backup; the limit is {maximum}")]
    Record {
        /// Its size.
        bytes: usize,
        /// The limit.
        maximum: usize,
    },
    /// A file or folder.
    #[error("cannot {action} {}: {source}{}", path.display(), advice(source))]
    File {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A directory that must be there.
    #[error("the directory {} does not exist: create it, or mount what belongs there", .0.display())]
    NoDirectory(PathBuf),
    /// A name that is taken.
    #[error("{0} is there already")]
    Exists(String),
    /// The directory to restore into is in use.
    #[error("{} is not empty (it holds {found}): restore into an empty directory", directory.display())]
    NotEmpty {
        /// Which.
        directory: PathBuf,
        /// The first thing in it.
        found: String,
    },
    /// S3.
    #[error(transparent)]
    S3(#[from] S3Error),
    /// The state refused a step of the restore.
    #[error("the state of the backup cannot be taken over: {0}")]
    Refused(#[from] Rejection),
    /// A record of the state.
    #[error("the backup is damaged ({0}): fetch it again, or take the one before")]
    State(#[from] SnapshotError),
    /// A snapshot could not be written.
    #[error(transparent)]
    Snapshot(#[from] crate::raft::SnapshotError),
    /// The blob store.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Sealing.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Keys and certificates.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A worker thread was lost.
    #[error("the worker of the backup ended: {0}")]
    Worker(String),
}

impl BackupError {
    pub(super) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}

/// What to do about an error of a file.
fn advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            "; free space there, or lower `keep` of [backup]"
        }
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            "; let the user of this process write there"
        }
        std::io::ErrorKind::NotFound => "; check the name",
        _ => "",
    }
}
