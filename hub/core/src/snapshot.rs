//! The state as a sequence of records and back: the content of a snapshot, and what the state hash is taken of.
//!
//! Each record is one versioned enum value, so that a later build reads an earlier snapshot. The shell frames, checksums and
//! writes them; nothing here touches a disk.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use windlass_protocol::{
    codec,
    ids::{Digest, NamespacedName, RequestId},
};

use crate::state::{
    AssignmentRecord, ClusterRecord, Hashes, HubRecord, HubTokenRecord, Meta, ObjectKey, ObjectRecord, RequestRecord,
    RolloutRecord, State, TokenRecord, TrustRecord,
};

/// Largest encoded record: an object of 1 MiB with its metadata, sealed content beside it.
pub const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One record of a snapshot. Append only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Record {
    Meta(Meta),
    Object(ObjectKey, ObjectRecord),
    Cluster(String, ClusterRecord),
    Token(Digest, TokenRecord),
    Assignment(NamespacedName, Box<AssignmentRecord>),
    Rollout(NamespacedName, RolloutRecord),
    Request(RequestId, RequestRecord),
    /// Always last in a snapshot: proves that nothing was cut off.
    End {
        records: u64,
    },
    Hub(u64, HubRecord),
    HubToken(Digest, HubTokenRecord),
    Trust(TrustRecord),
    Hashes(Hashes),
    Unproven(String),
}

/// A snapshot cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// A record cannot be decoded.
    #[error("record {index} of the snapshot cannot be read: {message}")]
    Record {
        /// Which one, from zero.
        index: u64,
        /// Why not.
        message: String,
    },
    /// The last record is missing or does not count what came before.
    #[error("the snapshot is incomplete: {read} records read, {announced} announced")]
    Incomplete {
        /// Records read.
        read: u64,
        /// Records announced by the last one.
        announced: u64,
    },
    /// Written by a newer build.
    #[error("the snapshot has state version {found}, this build reads up to {known}: upgrade this node")]
    TooNew {
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
}

/// Hands out the encoded records of a state, in a fixed order.
///
/// # Errors
/// Whatever `write` returns, and an encoding error as [`SnapshotError::Record`].
pub fn write<E: From<SnapshotError>>(state: &State, mut write: impl FnMut(Vec<u8>) -> Result<(), E>) -> Result<(), E> {
    let mut records = 0_u64;
    let mut put = |record: &Record| -> Result<(), E> {
        let encoded = codec::to_bytes(record, RECORD_BYTES_MAX)
            .map_err(|error| E::from(SnapshotError::Record { index: records, message: error.to_string() }))?;
        records += 1;
        write(encoded)
    };
    put(&Record::Meta(state.meta.clone()))?;
    for (key, record) in &state.objects {
        put(&Record::Object(key.clone(), (**record).clone()))?;
    }
    for (uid, record) in &state.clusters {
        put(&Record::Cluster(uid.clone(), (**record).clone()))?;
    }
    for (hash, record) in &state.tokens {
        put(&Record::Token(*hash, (**record).clone()))?;
    }
    for (name, record) in &state.assignments {
        put(&Record::Assignment(name.clone(), Box::new((**record).clone())))?;
    }
    for (name, record) in &state.rollouts {
        put(&Record::Rollout(name.clone(), (**record).clone()))?;
    }
    for (request, record) in &state.requests {
        put(&Record::Request(*request, (**record).clone()))?;
    }
    // What a group of an earlier state version cannot have takes no space: its snapshots stay as they were.
    for (node, record) in &state.hubs {
        put(&Record::Hub(*node, (**record).clone()))?;
    }
    for (hash, record) in &state.hub_tokens {
        put(&Record::HubToken(*hash, (**record).clone()))?;
    }
    if state.trust.version > 0 {
        put(&Record::Trust((*state.trust).clone()))?;
    }
    if state.hashes.applied > 0 {
        put(&Record::Hashes((*state.hashes).clone()))?;
    }
    for (uid, _) in &state.unproven {
        put(&Record::Unproven(uid.clone()))?;
    }
    let end = Record::End { records };
    let encoded = codec::to_bytes(&end, RECORD_BYTES_MAX)
        .map_err(|error| E::from(SnapshotError::Record { index: records, message: error.to_string() }))?;
    write(encoded)
}

/// Builds a state from the records of a snapshot.
///
/// # Errors
/// [`SnapshotError`] when a record cannot be read, the end is missing, or the snapshot is of a newer build.
pub fn read<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Result<State, SnapshotError> {
    let mut reader = Reader::default();
    for record in records {
        reader.record(record)?;
    }
    reader.finish()
}

/// Builds a state record by record.
#[derive(Debug, Default)]
pub struct Reader {
    state: State,
    read: u64,
    announced: Option<u64>,
}

impl Reader {
    /// The next encoded record.
    ///
    /// # Errors
    /// [`SnapshotError`] when it cannot be read.
    pub fn record(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let index = self.read;
        let bad = |message: String| SnapshotError::Record { index, message };
        if self.announced.is_some() {
            return Err(bad("there is content after the end".to_owned()));
        }
        let record = codec::from_bytes::<Record>(bytes, RECORD_BYTES_MAX).map_err(|error| bad(error.to_string()))?;
        let state = &mut self.state;
        match record {
            Record::Meta(meta) => {
                let (found, known) = (meta.version, crate::STATE_VERSION);
                if found > known {
                    return Err(SnapshotError::TooNew { found, known });
                }
                state.meta = meta;
            }
            Record::Object(key, record) => state.objects.insert_mut(key, Arc::new(record)),
            Record::Cluster(uid, record) => state.clusters.insert_mut(uid, Arc::new(record)),
            Record::Token(hash, record) => state.tokens.insert_mut(hash, Arc::new(record)),
            Record::Assignment(name, record) => state.assignments.insert_mut(name, Arc::new(*record)),
            Record::Rollout(name, record) => state.rollouts.insert_mut(name, Arc::new(record)),
            Record::Request(request, record) => {
                state.requests_by_time.insert_mut((record.at, request), Arc::new(()));
                state.requests.insert_mut(request, Arc::new(record));
            }
            Record::Hub(node, record) => state.hubs.insert_mut(node, Arc::new(record)),
            Record::HubToken(hash, record) => state.hub_tokens.insert_mut(hash, Arc::new(record)),
            Record::Trust(record) => state.trust = Arc::new(record),
            Record::Hashes(record) => state.hashes = Arc::new(record),
            Record::Unproven(uid) => state.unproven.insert_mut(uid, Arc::new(())),
            Record::End { records } => {
                self.announced = Some(records);
                return Ok(());
            }
        }
        self.read += 1;
        Ok(())
    }

    /// The state, when everything has arrived.
    ///
    /// # Errors
    /// [`SnapshotError::Incomplete`] when the end is missing.
    pub fn finish(self) -> Result<State, SnapshotError> {
        let (read, announced) = (self.read, self.announced.unwrap_or_default());
        if self.announced != Some(read) {
            return Err(SnapshotError::Incomplete { read, announced });
        }
        Ok(self.state)
    }
}

/// The bundles that one record of a snapshot references.
///
/// # Errors
/// [`SnapshotError::Record`] when it cannot be read.
pub fn bundles_in(record: &[u8]) -> Result<Vec<Digest>, SnapshotError> {
    let decoded = codec::from_bytes::<Record>(record, RECORD_BYTES_MAX);
    match decoded.map_err(|error| SnapshotError::Record { index: 0, message: error.to_string() })? {
        Record::Assignment(_, record) => Ok(record.bundles().map(|bundle| bundle.digest).collect()),
        _ => Ok(Vec::new()),
    }
}

/// The hash of a state: equal on every replica that has applied the same entries.
#[must_use]
pub fn hash(state: &State) -> Digest {
    let mut whole = blake3::Hasher::new();
    let result = write::<SnapshotError>(state, |record| {
        whole.update(&(record.len() as u64).to_le_bytes());
        whole.update(&record);
        Ok(())
    });
    // A record that cannot be encoded must not look like any real state.
    if result.is_err() {
        return Digest([0; 32]);
    }
    Digest(*whole.finalize().as_bytes())
}
