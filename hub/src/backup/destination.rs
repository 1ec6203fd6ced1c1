//! Where backups are kept: a directory, or S3. Each is written under an unfinished name or not at all, read back, and pruned.

use std::{
    fs,
    io::{self, BufReader, BufWriter, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use windlass_protocol::backup::is_file_name;

use super::{Backup, BackupError, S3Settings, Summary, channel, s3::S3, verify};
use crate::{sealing::Sealer, store::disk};

/// Ends the name of a file that is not whole yet.
const PARTIAL: &str = ".partial";
/// Bytes read or written at once.
const BUFFER_BYTES: usize = 256 << 10;

/// One place.
#[derive(Clone, Debug)]
pub(super) enum Destination {
    Directory(PathBuf),
    S3(S3),
}

impl Destination {
    /// `/backups/NAME` or `s3://bucket/prefix/NAME`.
    pub(super) fn address(&self, name: &str) -> String {
        match self {
            Self::Directory(directory) => directory.join(name).display().to_string(),
            Self::S3(s3) => s3.address(name),
        }
    }

    /// Writes a backup, reads it back from there and verifies it to its last byte.
    pub(super) async fn save(&self, name: &str, backup: &Arc<Backup>) -> Result<Summary, BackupError> {
        let written = match self {
            Self::Directory(directory) => {
                let (directory, name, backup) = (directory.clone(), name.to_owned(), Arc::clone(backup));
                blocking(move || write_file(&directory, &name, &backup)).await?
            }
            Self::S3(s3) => upload(s3, name, backup).await?,
        };
        let read = self.verify(name, &backup.sealer).await?;
        if read == written {
            return Ok(read);
        }
        let address = self.address(name);
        Err(BackupError::damaged(&format!("{address} does not hold what was written to it")))
    }

    async fn verify(&self, name: &str, sealer: &Arc<Sealer>) -> Result<Summary, BackupError> {
        let sealer = Arc::clone(sealer);
        match self {
            Self::Directory(directory) => {
                let path = directory.join(name);
                blocking(move || verify(open_file(&path)?, &sealer)).await
            }
            Self::S3(s3) => {
                let (pieces, reader) = channel::reader();
                let verifying = blocking(move || verify(reader, &sealer));
                let ((), verified) = tokio::join!(s3.get(name, pieces), verifying);
                verified
            }
        }
    }

    /// Removes all but the newest backups, by name; nothing else. Returns those that stay, newest first.
    pub(super) async fn prune(&self, keep: usize) -> Result<Vec<String>, BackupError> {
        let mut names = match self {
            Self::Directory(directory) => names_in(directory)?,
            Self::S3(s3) => s3.names().await?,
        };
        names.sort_unstable_by(|left, right| right.cmp(left));
        for name in names.split_off(keep.min(names.len())) {
            self.remove(&name).await?;
            tracing::info!(backup = self.address(&name), "old backup removed");
        }
        Ok(names)
    }

    /// Removes one backup; one that is not there is fine.
    pub(super) async fn remove(&self, name: &str) -> Result<(), BackupError> {
        match self {
            Self::Directory(directory) => Ok(disk::remove_file(&directory.join(name))?),
            Self::S3(s3) => Ok(s3.delete(name).await?),
        }
    }
}

/// Opens a backup for a restore: `FILE`, `-` for standard input, or `s3://bucket/NAME`.
///
/// # Errors
/// [`BackupError`] when it is not there.
pub(crate) fn open_source(source: &str, s3: &S3Settings) -> Result<Box<dyn Read + Send>, BackupError> {
    if source == "-" {
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, io::stdin())));
    }
    let Some(address) = source.strip_prefix("s3://") else { return Ok(Box::new(open_file(Path::new(source))?)) };
    let bad = || {
        BackupError::S3(super::S3Error::Settings {
            name: "address",
            message: format!("{source:?} is no address of an object: write s3://BUCKET/PREFIX/NAME"),
        })
    };
    let (bucket, path) = address.split_once('/').ok_or_else(bad)?;
    let (prefix, name) = path.rsplit_once('/').unwrap_or(("", path));
    if bucket.is_empty() || name.is_empty() {
        return Err(bad());
    }
    let s3 = S3::open(&S3Settings { bucket: bucket.to_owned(), prefix: prefix.to_owned(), ..s3.clone() })?;
    let (pieces, reader) = channel::reader();
    let name = name.to_owned();
    tokio::runtime::Handle::current().spawn(async move { s3.get(&name, pieces).await });
    Ok(Box::new(reader))
}

fn open_file(path: &Path) -> Result<BufReader<fs::File>, BackupError> {
    let file = fs::File::open(path).map_err(BackupError::file("open the backup", path))?;
    Ok(BufReader::with_capacity(BUFFER_BYTES, file))
}

fn write_file(directory: &Path, name: &str, backup: &Backup) -> Result<Summary, BackupError> {
    if !directory.is_dir() {
        return Err(BackupError::NoDirectory(directory.to_owned()));
    }
    let path = directory.join(name);
    if path.exists() {
        return Err(BackupError::Exists(path.display().to_string()));
    }
    remove_partial(directory)?;
    let partial = directory.join(format!("{name}{PARTIAL}"));
    let result = (|| {
        let file = fs::File::create(&partial).map_err(BackupError::file("create", &partial))?;
        let (out, summary) = backup.write(BufWriter::with_capacity(BUFFER_BYTES, file))?;
        let file = out.into_inner().map_err(|error| BackupError::from_io(error.into_error()))?;
        disk::publish(&file, &partial, &path)?;
        Ok(summary)
    })();
    result.map_err(|error| {
        // Nothing unfinished stays; the next run tries again.
        let _ = fs::remove_file(&partial);
        match error {
            BackupError::Outside(windlass_protocol::backup::BackupError::Io(source)) => {
                BackupError::file("write", &partial)(source)
            }
            error => error,
        }
    })
}

/// What an interrupted run left.
fn remove_partial(directory: &Path) -> Result<(), BackupError> {
    for entry in fs::read_dir(directory).map_err(BackupError::file("list", directory))? {
        let path = entry.map_err(BackupError::file("list", directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(PARTIAL));
        if name.is_some_and(is_file_name) {
            disk::remove_file(&path)?;
        }
    }
    Ok(())
}

fn names_in(directory: &Path) -> Result<Vec<String>, BackupError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(BackupError::file("list", directory))? {
        let name = entry.map_err(BackupError::file("list", directory))?.file_name();
        names.extend(name.to_str().filter(|name| is_file_name(name)).map(str::to_owned));
    }
    Ok(names)
}

async fn upload(s3: &S3, name: &str, backup: &Arc<Backup>) -> Result<Summary, BackupError> {
    let (out, pieces) = channel::writer();
    let backup = Arc::clone(backup);
    let (done, whole) = tokio::sync::oneshot::channel();
    let writing = blocking(move || {
        let written = backup.write(out).map(|(out, summary)| {
            drop(out);
            summary
        });
        let _ = done.send(written.is_ok());
        written
    });
    let whole = async { whole.await.unwrap_or(false) };
    let (uploaded, written) = tokio::join!(s3.put(name, pieces, whole), writing);
    match (uploaded, written) {
        (Ok(_), Ok(summary)) => Ok(summary),
        // A writer without a reader only says so; the reason is the upload's.
        (Err(super::S3Error::GivenUp), Err(error)) => Err(error),
        (Err(error), _) => Err(error.into()),
        (Ok(_), Err(error)) => Err(error),
    }
}

/// Runs blocking work off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| BackupError::Worker(error.to_string()))?
}
