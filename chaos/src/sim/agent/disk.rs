//! The agent's disk: atomic batches, and content that becomes durable only with the next checkpoint.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;
use windlass_engine::ResumePoint;
use windlass_protocol::{
    codec,
    ids::{Digest, Epoch, Generation, NamespacedName},
    message::{Assignment, BundleIndex, Tombstone},
    session::{BLOB_BYTES_MAX, DesiredChange},
};

use crate::sim::event::Key;

/// What survives the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) position: (Epoch, Generation),
    /// With whether the hub's epoch does not know it.
    pub(crate) assignments: BTreeMap<NamespacedName, (Assignment, bool)>,
    pub(crate) tombstones: BTreeMap<Key, Tombstone>,
    pub(crate) resume: BTreeMap<Key, ResumePoint>,
    blobs: BTreeMap<Digest, Arc<Vec<u8>>>,
    staged: BTreeMap<Digest, Arc<Vec<u8>>>,
}

impl Disk {
    /// Content by address, durable or not.
    pub(crate) fn blob(&self, digest: Digest) -> Option<&Arc<Vec<u8>>> {
        self.staged.get(&digest).or_else(|| self.blobs.get(&digest))
    }

    pub(crate) fn stage(&mut self, digest: Digest, content: Vec<u8>) {
        self.staged.insert(digest, Arc::new(content));
    }

    /// The process ended before a checkpoint.
    pub(crate) fn lose_staged(&mut self) {
        self.staged.clear();
    }

    /// Makes a change durable, in one batch, after its content; gives the assignments that became orphans.
    pub(crate) fn accept(&mut self, change: &DesiredChange) -> Result<BTreeSet<NamespacedName>, String> {
        self.blobs.append(&mut self.staged);
        if let Some(missing) = change.content.iter().find(|digest| !self.blobs.contains_key(digest)) {
            return Err(format!("content {missing} is not on the disk"));
        }
        self.position = (change.epoch, change.to);
        let mut orphans = BTreeSet::new();
        if let Some(known) = &change.known {
            for (name, (assignment, orphaned)) in &mut self.assignments {
                let named = known.contains(name) || change.assignments.contains_key(name);
                let key = (name.clone(), assignment.uid.clone());
                let ends = self.tombstones.contains_key(&key)
                    || change.tombstones.iter().any(|it| (&it.application, &it.uid) == (name, &key.1));
                if !named && !ends {
                    *orphaned = true;
                    orphans.insert(name.clone());
                }
            }
        }
        for (name, assignment) in &change.assignments {
            self.assignments.insert(name.clone(), (assignment.clone(), false));
        }
        for tombstone in &change.tombstones {
            let key = (tombstone.application.clone(), tombstone.uid.clone());
            self.tombstones.insert(key, tombstone.clone());
        }
        Ok(orphans)
    }

    /// The assignment is gone from the cluster: only its tombstone stays until the hub has heard of it.
    pub(crate) fn forget(&mut self, key: &Key) {
        self.resume.remove(key);
        if self.assignments.get(&key.0).is_some_and(|(assignment, _)| assignment.uid == key.1) {
            self.assignments.remove(&key.0);
        }
    }

    /// The manifests of a bundle.
    pub(crate) fn bundle(&self, digest: Digest) -> Result<Vec<Value>, String> {
        let missing = |digest: Digest| format!("content {digest} is not on the disk of this agent");
        let index = self.blob(digest).ok_or_else(|| missing(digest))?;
        let BundleIndex::V1 { resources } =
            codec::from_bytes(index, BLOB_BYTES_MAX).map_err(|error| error.to_string())?;
        let read = |digest: Digest| {
            let content = self.blob(digest).ok_or_else(|| missing(digest))?;
            serde_json::from_slice(content).map_err(|error| error.to_string())
        };
        resources.into_iter().map(|resource| read(resource.digest)).collect()
    }
}
