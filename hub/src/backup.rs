//! Backups of a group, and a new group from one.
//!
//! A backup is one file: the state at one revision, every blob that it names, and the root of the trust domain; all of it
//! sealed with the operator key, in the format of [`windlass_protocol::backup`] and `records`. It is written while the hub
//! works: a state is a cheap clone, and the blobs are leased. Nothing is held in memory but a chunk and a record at a time.
//!
//! ```text
//! Backup::take -> write -> chunks -> the API's answer, a file, S3
//!                                     `-> read back -> verify -> older ones go
//! a backup -> restore -> blobs, trust, a Raft snapshot of one voter, then the store's identity
//! ```
//!
//! A restore never deletes anything on a cluster: the epoch is raised, and what the backup does not know is Orphaned.

mod channel;
mod desk;
mod destination;
mod error;
mod records;
mod restore;
mod s3;
mod schedule;
mod stream;
mod task;
#[cfg(test)]
mod tests;

use std::{
    io::{Read, Write},
    path::PathBuf,
    sync::Arc,
};

use windlass_hub_core::{State, snapshot};
use windlass_protocol::{
    backup::{Compression, Header},
    ids::Digest,
    time::Millis,
};

pub(crate) use self::{desk::BackupDesk, destination::open_source, restore::RESTORING};
pub use self::{
    error::BackupError,
    records::TrustMaterial,
    restore::{AdminAccess, Restored, restore},
    s3::{S3Error, S3Settings},
    schedule::{Schedule, ScheduleError},
    task::{BACKUP_OBJECT, Backups, Settings},
};

use self::destination::blocking;
use self::records::{End, Record, RecordReader, RecordWriter};
use crate::{
    blobs::{Bundles, Contents},
    replica::Replica,
    sealing::Sealer,
    store::blobs::{BlobDigest, BlobLease},
    trust,
};

/// Looks for a moment at which every blob of the state is here: a collection may run between two looks.
const TAKE_ATTEMPTS: usize = 3;

/// What backups are made of.
#[derive(Clone, Debug)]
pub struct BackupSource {
    /// The state.
    pub replica: Replica,
    /// The blobs.
    pub bundles: Bundles,
    /// The operator key.
    pub sealer: Arc<Sealer>,
    /// This node's directory: the root key, where the state does not hold it.
    pub data: PathBuf,
}

/// A picture of a group at one revision: whatever happens later, this is what is written.
#[derive(Debug)]
pub struct Backup {
    state: Arc<State>,
    bundles: Bundles,
    sealer: Arc<Sealer>,
    trust: TrustMaterial,
    header: Header,
    contents: Contents,
    _lease: BlobLease,
}

/// What a whole backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// What it says about itself.
    pub header: Header,
    /// Bytes of the file.
    pub bytes: u64,
    /// Records of the state.
    pub records: u64,
    /// Blobs.
    pub blobs: u64,
    /// Blobs that the state names and that were not on the node that wrote it: their manifests are rendered again.
    pub missing: u64,
}

impl Backup {
    /// Takes the picture; blobs that only other hubs hold are fetched first.
    ///
    /// # Errors
    /// [`BackupError`] when the blob store or the root key cannot be read.
    pub async fn take(source: &BackupSource, now: Millis) -> Result<Self, BackupError> {
        let here = source.clone();
        let backup = blocking(move || Self::take_here(&here, now)).await?;
        if backup.missing() == 0 {
            return Ok(backup);
        }
        match source.bundles.repair().await {
            Ok(repaired) => tracing::debug!(?repaired, "blobs fetched for a backup"),
            Err(error) => tracing::warn!(%error, "missing blobs could not be fetched"),
        }
        let here = source.clone();
        blocking(move || Self::take_here(&here, now)).await
    }

    fn take_here(source: &BackupSource, now: Millis) -> Result<Self, BackupError> {
        let mut attempt = 1;
        loop {
            let state = source.replica.state();
            let trust = trust::root_material(&source.data, &source.sealer, state.trust())?;
            let backup = Self::of(Arc::clone(&state), &source.bundles, &source.sealer, trust, now)?;
            // What was collected since the state was taken is in no newer state either.
            let outdated = source.replica.state().meta().revision != state.meta().revision;
            if attempt >= TAKE_ATTEMPTS || !outdated || backup.missing() == 0 {
                return Ok(backup);
            }
            attempt += 1;
        }
    }

    /// The picture of one state. Blocks.
    ///
    /// # Errors
    /// [`BackupError`] when the blob store cannot be read.
    pub fn of(
        state: Arc<State>,
        bundles: &Bundles,
        sealer: &Arc<Sealer>,
        trust: TrustMaterial,
        now: Millis,
    ) -> Result<Self, BackupError> {
        let contents = bundles.contents(&state)?;
        let lease = bundles.lease_contents(&contents);
        let meta = state.meta();
        let header = Header {
            created_at: now,
            cluster_id: meta.cluster_id.clone(),
            trust_domain: meta.trust_domain.clone(),
            epoch: meta.epoch,
            revision: meta.revision,
            applied: meta.applied,
            state_version: meta.version,
            state_hash: snapshot::hash(&state),
            software: env!("CARGO_PKG_VERSION").to_owned(),
            key_id: sealer.key_id(),
            salt: Digest(sealer.random()?),
            compression: Compression::Deflate,
        };
        Ok(Self { state, bundles: bundles.clone(), sealer: Arc::clone(sealer), trust, header, contents, _lease: lease })
    }

    /// What the file says about itself.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    fn missing(&self) -> usize {
        let needed: Vec<BlobDigest> = self.contents.needed.iter().map(|digest| BlobDigest(digest.0)).collect();
        self.bundles.blobs().missing(&needed).len()
    }

    /// Writes the whole file. Blocks.
    ///
    /// # Errors
    /// [`BackupError`] when a blob cannot be read, or the output fails; what was written then has no end.
    pub fn write<W: Write>(&self, out: W) -> Result<(W, Summary), BackupError> {
        let mut writer = RecordWriter::start(out, &self.header, &self.sealer)?;
        writer.trust(&self.trust)?;
        let mut hash = StateHash::default();
        let mut end = End::default();
        snapshot::write::<BackupError>(&self.state, |record| {
            hash.record(&record);
            end.records += 1;
            writer.state(&record)
        })?;
        // The same state twice: whatever else this is, it must never be written down as a backup.
        if hash.finish() != self.header.state_hash {
            return Err(BackupError::damaged("the state does not have the hash that its header says"));
        }
        for digest in self.contents.needed.union(&self.contents.details) {
            match self.bundles.blobs().get(&BlobDigest(digest.0)) {
                Ok(Some(content)) => {
                    end.blobs += 1;
                    end.blob_bytes += content.len() as u64;
                    writer.blob(digest, &content)?;
                }
                // A detail is a report: the agent sends it again.
                Ok(None) if !self.contents.needed.contains(digest) => {}
                Ok(None) => end.missing += 1,
                // One damaged blob must not keep the rest from being saved; it is rendered again.
                Err(error) => {
                    tracing::warn!(%error, "a blob is not in the backup");
                    end.missing += 1;
                }
            }
        }
        let (out, bytes) = writer.finish(&end)?;
        Ok((out, Summary::new(self.header.clone(), bytes, end)))
    }
}

impl Summary {
    fn new(header: Header, bytes: u64, end: End) -> Self {
        Self { header, bytes, records: end.records, blobs: end.blobs, missing: end.missing }
    }
}

/// Reads a backup from its first to its last byte with the key: every chunk opens, everything that was counted is there, and
/// the state has the hash that the header says. Blocks; holds one record in memory.
///
/// # Errors
/// [`BackupError`]: what is wrong with it.
pub fn verify(input: impl Read, sealer: &Sealer) -> Result<Summary, BackupError> {
    let mut reader = RecordReader::start(input, sealer)?;
    let (mut hash, mut seen, mut trust) = (StateHash::default(), End::default(), 0);
    loop {
        match reader.next()? {
            Record::Trust(_) => trust += 1,
            Record::State(record) => {
                hash.record(&record);
                seen.records += 1;
            }
            Record::Blob(_, content) => {
                seen.blobs += 1;
                seen.blob_bytes += content.len() as u64;
            }
            Record::End(end) => {
                if trust != 1 || (End { missing: end.missing, ..seen }) != end {
                    return Err(BackupError::damaged("it does not hold what it counts at its end"));
                }
                if hash.finish() != reader.header().state_hash {
                    return Err(BackupError::damaged("the state does not have the hash that its header says"));
                }
                return Ok(Summary::new(reader.header().clone(), reader.bytes(), end));
            }
        }
    }
}

/// [`snapshot::hash`], record by record.
#[derive(Default)]
struct StateHash(blake3::Hasher);

impl StateHash {
    fn record(&mut self, record: &[u8]) {
        self.0.update(&(record.len() as u64).to_le_bytes());
        self.0.update(record);
    }

    fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}
