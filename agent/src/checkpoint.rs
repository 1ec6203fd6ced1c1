//! What the agent works from when no hub answers: the accepted desired state, its content, and how far each assignment is.
//!
//! Records live in one small embedded store, larger contents in plain files beside it. A change of desired state is one
//! atomic batch, written only after all of its content. Everything read back is checked; what is damaged is forgotten and
//! asked for again, never used. Calls block on the disk: async callers go through [`Checkpoint::run`].

mod blobs;
mod store;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use windlass_engine::ResumePoint;
use windlass_protocol::{
    codec,
    ids::{Digest, Epoch, Generation, NamespacedName},
    message::{Assignment, BundleIndex, Tombstone},
    session::{BLOB_BYTES_MAX, DesiredChange},
};

use self::{
    blobs::BlobFiles,
    store::{Scanned, Store},
};

/// Largest record: an assignment with its policy, or the resume point of 10,000 objects.
const RECORD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The checkpoint of one agent. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    blobs: BlobFiles,
}

/// Everything that a start needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Restored {
    /// Newest accepted desired state; zero where something was damaged, so that the hub sends everything.
    pub position: Position,
    /// Accepted assignments.
    pub assignments: Vec<AssignmentRecord>,
    /// Tombstones that are not carried out, or whose receipt is not acknowledged.
    pub tombstones: Vec<Tombstone>,
    /// Where each assignment is, by application and uid.
    pub resume: BTreeMap<(NamespacedName, String), ResumePoint>,
}

/// A point in the order of desired states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Raised by restore of the hub.
    pub epoch: Epoch,
    /// Within the epoch.
    pub generation: Generation,
}

/// An assignment on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AssignmentRecord {
    /// As the hub sent it.
    pub assignment: Assignment,
    /// The hub's epoch does not know it: kept, reported, not ended.
    pub orphaned: bool,
}

/// Forms of [`AssignmentRecord`] on disk; append-only.
#[derive(Debug, Serialize, Deserialize)]
enum StoredAssignment {
    V1 { assignment: Assignment, orphaned: bool },
}

#[derive(Debug, Serialize, Deserialize)]
enum StoredPosition {
    V1(Position),
}

#[derive(Debug, Serialize, Deserialize)]
enum StoredTombstone {
    V1(Tombstone),
}

/// Why the checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointError {
    /// The store cannot be opened or written.
    #[error("{what} in {path}")]
    Store {
        /// What was being done.
        what: &'static str,
        /// The folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A record does not have its checksum, or is not what it should be.
    #[error("{record} is damaged: {reason}")]
    Damaged {
        /// Which record.
        record: String,
        /// How it was noticed.
        reason: String,
    },
    /// The task that did the work was cancelled: the process is stopping.
    #[error("the process is stopping")]
    Stopping,
}

impl Checkpoint {
    /// Opens or creates the checkpoint in a folder, which one process at a time may use.
    ///
    /// # Errors
    /// The folder cannot be written, or another process uses it.
    pub(crate) fn open(folder: &Path, cache_bytes: u64) -> Result<Self, CheckpointError> {
        let store = Store::open(&folder.join("state"), cache_bytes)?;
        let blobs = BlobFiles::open(&folder.join("blobs"))?;
        Ok(Self { inner: Arc::new(Inner { store, blobs }) })
    }

    /// Runs disk work off the async threads.
    ///
    /// # Errors
    /// Those of the work.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, CheckpointError> + Send + 'static,
    ) -> Result<T, CheckpointError> {
        let checkpoint = self.clone();
        tokio::task::spawn_blocking(move || work(&checkpoint)).await.map_err(|_| CheckpointError::Stopping)?
    }

    /// Reads everything back. Damaged records are removed and make [`Restored::position`] zero.
    ///
    /// # Errors
    /// The store cannot be read at all.
    pub(crate) fn restore(&self) -> Result<Restored, CheckpointError> {
        let mut restored = Restored::default();
        let mut damaged = 0_usize;
        let mut forget = |key: &str, error: &CheckpointError| -> Result<(), CheckpointError> {
            tracing::warn!(record = key, %error, "a record of the checkpoint is damaged; asking the hub for everything");
            damaged += 1;
            self.inner.store.commit(&[(key.to_owned(), None)])
        };
        if let Some(Scanned { key, record: Err(error) }) = self.scan::<StoredPosition>(POSITION)?.into_iter().next() {
            forget(&key, &error)?;
        } else if let Some(StoredPosition::V1(position)) = self.read_record(POSITION)? {
            restored.position = position;
        }
        for Scanned { key, record } in self.scan::<StoredAssignment>("assignment/")? {
            match record {
                Ok(StoredAssignment::V1 { assignment, orphaned }) => {
                    restored.assignments.push(AssignmentRecord { assignment, orphaned });
                }
                Err(error) => forget(&key, &error)?,
            }
        }
        for Scanned { key, record } in self.scan::<StoredTombstone>("tombstone/")? {
            match record {
                Ok(StoredTombstone::V1(tombstone)) => restored.tombstones.push(tombstone),
                Err(error) => forget(&key, &error)?,
            }
        }
        for Scanned { key, record: bytes } in self.inner.store.scan("resume/")? {
            let point = bytes.and_then(|bytes| {
                serde_json::from_slice::<StoredResume>(&bytes)
                    .map_err(|error| CheckpointError::Damaged { record: key.clone(), reason: error.to_string() })
            });
            match point {
                Ok(stored) => {
                    restored.resume.insert((stored.application, stored.point.uid.clone()), stored.point);
                }
                Err(error) => forget(&key, &error)?,
            }
        }
        if damaged > 0 {
            restored.position = Position::default();
            self.reset_position()?;
        }
        Ok(restored)
    }

    /// Makes a change of desired state durable, in one batch, after its content. Gives the assignments that the hub's epoch
    /// does not know (any more) although nothing has ended them.
    ///
    /// # Errors
    /// The disk refuses, or content of the change is missing; nothing of the change is then in force.
    pub(crate) fn accept(&self, change: &DesiredChange) -> Result<BTreeSet<NamespacedName>, CheckpointError> {
        self.inner.blobs.sync()?;
        if let Some(missing) = change.content.iter().find(|digest| !self.inner.blobs.contains(**digest)) {
            let reason = format!("content {missing} is not on the disk");
            return Err(CheckpointError::Damaged { record: "the change of desired state".to_owned(), reason });
        }
        let position = Position { epoch: change.epoch, generation: change.to };
        let mut batch = vec![(POSITION.to_owned(), Some(encode(&StoredPosition::V1(position))?))];
        for (application, assignment) in &change.assignments {
            let record = StoredAssignment::V1 { assignment: assignment.clone(), orphaned: false };
            batch.push((assignment_key(application), Some(encode(&record)?)));
        }
        for tombstone in &change.tombstones {
            batch.push((tombstone_key(tombstone), Some(encode(&StoredTombstone::V1(tombstone.clone()))?)));
        }
        let orphans = self.orphans(change)?;
        for assignment in &orphans {
            let record = StoredAssignment::V1 { assignment: assignment.clone(), orphaned: true };
            batch.push((assignment_key(&assignment.application), Some(encode(&record)?)));
        }
        self.commit(&batch)?;
        Ok(orphans.into_iter().map(|assignment| assignment.application).collect())
    }

    fn orphans(&self, change: &DesiredChange) -> Result<Vec<Assignment>, CheckpointError> {
        let Some(known) = &change.known else { return Ok(Vec::new()) };
        let mut ending: BTreeSet<(NamespacedName, String)> =
            change.tombstones.iter().map(|tombstone| (tombstone.application.clone(), tombstone.uid.clone())).collect();
        for Scanned { record, .. } in self.scan::<StoredTombstone>("tombstone/")? {
            let StoredTombstone::V1(tombstone) = record?;
            ending.insert((tombstone.application, tombstone.uid));
        }
        let mut orphans = Vec::new();
        for Scanned { record, .. } in self.scan::<StoredAssignment>("assignment/")? {
            let StoredAssignment::V1 { assignment, .. } = record?;
            let key = (assignment.application.clone(), assignment.uid.clone());
            let named = known.contains(&key.0) || change.assignments.contains_key(&key.0);
            if !named && !ending.contains(&key) {
                orphans.push(assignment);
            }
        }
        Ok(orphans)
    }

    /// Forgets how far the desired state is, so that the hub sends everything again.
    ///
    /// # Errors
    /// The disk refuses.
    pub(crate) fn reset_position(&self) -> Result<(), CheckpointError> {
        self.commit(&[(POSITION.to_owned(), None)])
    }

    /// Makes an assignment's resume point durable.
    ///
    /// # Errors
    /// The disk refuses.
    pub(crate) fn save_resume(&self, application: &NamespacedName, point: &ResumePoint) -> Result<(), CheckpointError> {
        let stored = StoredResume { application: application.clone(), point: point.clone() };
        let bytes = serde_json::to_vec(&stored).map_err(|error| CheckpointError::Damaged {
            record: format!("resume point of {application}"),
            reason: error.to_string(),
        })?;
        self.commit(&[(resume_key(application, &point.uid), Some(bytes))])
    }

    /// The assignment with this uid is gone from the cluster: only its tombstone stays, until the hub has heard of it.
    ///
    /// # Errors
    /// The disk refuses.
    pub(crate) fn forget_assignment(&self, application: &NamespacedName, uid: &str) -> Result<(), CheckpointError> {
        let mut batch = vec![(resume_key(application, uid), None)];
        let key = assignment_key(application);
        if let Some(StoredAssignment::V1 { assignment, .. }) = self.read_record(&key)?
            && assignment.uid == uid
        {
            batch.push((key, None));
        }
        self.commit(&batch)
    }

    /// The hub knows that a tombstone is carried out.
    ///
    /// # Errors
    /// The disk refuses.
    pub(crate) fn forget_tombstone(&self, application: &NamespacedName, uid: &str) -> Result<(), CheckpointError> {
        self.commit(&[(format!("tombstone/{}/{}/{uid}", application.namespace, application.name), None)])
    }

    /// Keeps content under its address; durable with the next [`Self::accept`].
    ///
    /// # Errors
    /// The disk refuses.
    pub(crate) fn put_blob(&self, digest: Digest, content: &[u8]) -> Result<(), CheckpointError> {
        self.inner.blobs.put(digest, content)
    }

    /// Content by address; `None` also for damaged content, which is removed.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub(crate) fn blob(&self, digest: Digest) -> Result<Option<Vec<u8>>, CheckpointError> {
        self.inner.blobs.read(digest)
    }

    /// Those of the addresses that have no content here.
    #[must_use]
    pub(crate) fn missing(&self, digests: &[Digest]) -> Vec<Digest> {
        digests.iter().copied().filter(|digest| !self.inner.blobs.contains(*digest)).collect()
    }

    /// The manifests of a bundle, or which part of it is not here.
    ///
    /// # Errors
    /// The disk cannot be read, content is missing or damaged, or over a limit.
    pub(crate) fn bundle(
        &self,
        digest: Digest,
        limits: &crate::limits::Limits,
    ) -> Result<Vec<serde_json::Value>, BundleError> {
        let index = self.blob(digest)?.ok_or(BundleError::Missing(digest))?;
        let index = codec::from_bytes::<BundleIndex>(&index, BLOB_BYTES_MAX)
            .map_err(|error| BundleError::Unreadable { digest, reason: error.to_string() })?;
        let BundleIndex::V1 { resources } = index;
        let count = u64::try_from(resources.len()).unwrap_or(u64::MAX);
        let bytes: u64 = resources.iter().map(|resource| u64::from(resource.size)).sum();
        for (name, value, limit) in [
            ("bundle_resources", count, limits.bundle_resources),
            ("bundle_bytes", bytes, limits.bundle_bytes),
            (
                "manifest_bytes",
                resources.iter().map(|resource| u64::from(resource.size)).max().unwrap_or(0),
                limits.manifest_bytes,
            ),
        ] {
            if value > limit {
                return Err(BundleError::Limit { name, value, limit });
            }
        }
        resources
            .iter()
            .map(|resource| {
                let content = self.blob(resource.digest)?.ok_or(BundleError::Missing(resource.digest))?;
                serde_json::from_slice(&content)
                    .map_err(|error| BundleError::Unreadable { digest: resource.digest, reason: error.to_string() })
            })
            .collect()
    }

    /// Removes content that no assignment references any more; gives how many files went.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub(crate) fn collect_garbage(&self) -> Result<usize, CheckpointError> {
        let mut referenced = BTreeSet::new();
        for Scanned { record, .. } in self.scan::<StoredAssignment>("assignment/")? {
            // With a damaged record nothing can be told: the next start asks the hub for everything.
            let StoredAssignment::V1 { assignment, .. } = record?;
            let asked = assignment.operation.as_ref().and_then(|operation| operation.bundle.as_ref());
            let named = [&assignment.target, &assignment.released, &assignment.last_good];
            referenced.extend(named.into_iter().flatten().chain(asked).map(|bundle| bundle.digest));
        }
        for Scanned { record: bytes, .. } in self.inner.store.scan("resume/")? {
            if let Ok(stored) = serde_json::from_slice::<StoredResume>(&bytes?) {
                let running = stored.point.running.map(|running| running.bundle);
                referenced.extend(running.into_iter().chain(stored.point.applied).map(|bundle| bundle.digest));
            }
        }
        let indexes: Vec<Digest> = referenced.iter().copied().collect();
        for digest in indexes {
            let Some(content) = self.blob(digest)? else { continue };
            if let Ok(BundleIndex::V1 { resources }) = codec::from_bytes::<BundleIndex>(&content, BLOB_BYTES_MAX) {
                referenced.extend(resources.iter().map(|resource| resource.digest));
            }
        }
        self.inner.blobs.retain(&referenced)
    }

    fn commit(&self, batch: &[(String, Option<Vec<u8>>)]) -> Result<(), CheckpointError> {
        self.inner.store.commit(batch)
    }

    fn read_record<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Option<T>, CheckpointError> {
        self.inner.store.read(key)?.map(|bytes| decode(key, &bytes)).transpose()
    }

    fn scan<T: serde::de::DeserializeOwned>(&self, prefix: &str) -> Result<Vec<Scanned<T>>, CheckpointError> {
        let records = self.inner.store.scan(prefix)?.into_iter();
        Ok(records
            .map(|Scanned { key, record }| {
                let record = record.and_then(|bytes| decode(&key, &bytes));
                Scanned { key, record }
            })
            .collect())
    }
}

/// A resume point with the name that it belongs to; JSON, as the engine asks.
#[derive(Debug, Serialize, Deserialize)]
struct StoredResume {
    application: NamespacedName,
    point: ResumePoint,
}

/// Why a bundle cannot be handed to the engine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    /// A part is not on the disk.
    #[error("content {0} is not on the disk of this agent")]
    Missing(Digest),
    /// A part is not what it should be.
    #[error("content {digest} cannot be read: {reason}")]
    Unreadable {
        /// Its address.
        digest: Digest,
        /// Why.
        reason: String,
    },
    /// The bundle is larger than this agent takes.
    #[error("the bundle exceeds limit {name} of this agent: {value} > {limit}")]
    Limit {
        /// Name of the limit.
        name: &'static str,
        /// What the bundle has.
        value: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The disk cannot be read.
    #[error(transparent)]
    Disk(#[from] CheckpointError),
}

const POSITION: &str = "position";

fn assignment_key(application: &NamespacedName) -> String {
    format!("assignment/{}/{}", application.namespace, application.name)
}

fn tombstone_key(tombstone: &Tombstone) -> String {
    let NamespacedName { namespace, name } = &tombstone.application;
    format!("tombstone/{namespace}/{name}/{}", tombstone.uid)
}

fn resume_key(application: &NamespacedName, uid: &str) -> String {
    format!("resume/{}/{}/{uid}", application.namespace, application.name)
}

fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, CheckpointError> {
    codec::to_bytes(record, RECORD_BYTES_MAX)
        .map_err(|error| CheckpointError::Damaged { record: "new record".to_owned(), reason: error.to_string() })
}

fn decode<T: serde::de::DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, CheckpointError> {
    codec::from_bytes(bytes, RECORD_BYTES_MAX)
        .map_err(|error| CheckpointError::Damaged { record: key.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests;
