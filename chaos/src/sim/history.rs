//! The truth: what the log has said about each assignment, taken from the first application of each entry. Invariants judge agents
//! and replicas by it.

use std::collections::{BTreeMap, BTreeSet};

use windlass_hub_core::State;
use windlass_protocol::{
    ids::{Digest, OperationId},
    message::Cascade,
};

/// What was said about all Applications, by uid.
#[derive(Debug, Default)]
pub(crate) struct History {
    applications: BTreeMap<String, Said>,
}

#[derive(Debug, Default)]
struct Said {
    targets: BTreeSet<Digest>,
    /// Bundles that were released, or asked for, while pruning was allowed.
    prunable: BTreeSet<Digest>,
    automated: bool,
    operations: BTreeSet<OperationId>,
    /// A tombstone asked for the deletion of everything.
    cascade: bool,
}

impl History {
    /// Takes in a state that nobody had before.
    pub(crate) fn observe(&mut self, state: &State) {
        for (_, record) in state.assignments() {
            let said = self.applications.entry(record.uid.clone()).or_default();
            said.targets.extend(record.target.as_ref().map(|target| target.digest));
            if let Some(automated) = record.policy.automated {
                said.automated = true;
                if automated.prune {
                    said.prunable.extend(record.released.as_ref().map(|released| released.digest));
                }
            }
            if let Some(operation) = &record.operation {
                said.operations.insert(operation.id);
                if operation.prune {
                    let bundle = operation.bundle.as_ref().or(record.released.as_ref());
                    said.prunable.extend(bundle.map(|bundle| bundle.digest));
                }
            }
        }
        for tombstone in state.clusters().flat_map(|(_, cluster)| cluster.tombstones.values()) {
            if tombstone.cascade != Cascade::Orphan {
                self.applications.entry(tombstone.uid.clone()).or_default().cascade = true;
            }
        }
    }

    pub(crate) fn was_target(&self, uid: &str, digest: Digest) -> bool {
        self.applications.get(uid).is_some_and(|said| said.targets.contains(&digest))
    }

    pub(crate) fn was_automated(&self, uid: &str) -> bool {
        self.applications.get(uid).is_some_and(|said| said.automated)
    }

    pub(crate) fn has_operation(&self, uid: &str, operation: OperationId) -> bool {
        self.applications.get(uid).is_some_and(|said| said.operations.contains(&operation))
    }

    pub(crate) fn may_cascade(&self, uid: &str) -> bool {
        self.applications.get(uid).is_some_and(|said| said.cascade)
    }

    pub(crate) fn prunable_bundles(&self, uid: &str) -> impl Iterator<Item = Digest> + '_ {
        self.applications.get(uid).into_iter().flat_map(|said| said.prunable.iter().copied())
    }
}
