//! The closed list of what shells may be asked to do after an apply.

use std::sync::Arc;

use windlass_protocol::{
    ids::{Epoch, Generation, NamespacedName, StateRevision},
    resource::Kind,
};

use crate::state::{Hashes, ObjectKey, ObjectRecord};

/// Something that an apply has brought about. Every node gets every effect; each shell acts on what concerns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// An object of the API changed: watchers and planners want to know.
    Object(Change),
    /// A cluster's desired state has a newer generation: tell its agent.
    Desired {
        /// uid of the Cluster.
        cluster: String,
        /// Epoch.
        epoch: Epoch,
        /// Its newest generation.
        generation: Generation,
    },
    /// The agent of this cluster must be cut off now: revoked, superseded or removed.
    Disconnect {
        /// uid of the Cluster.
        cluster: String,
        /// Only sessions of other certificates than this one; `None` for all.
        keep_serial: Option<[u8; 16]>,
        /// Why.
        reason: String,
    },
    /// The agent of this cluster should compare an application again.
    Refresh {
        /// uid of the Cluster.
        cluster: String,
        /// Which.
        application: NamespacedName,
        /// Forget cached discovery too.
        hard: bool,
    },
    /// A hub joined, moved, was upgraded or removed.
    Hubs,
    /// What everybody trusts has changed.
    Trust {
        /// Its version.
        version: u64,
    },
    /// A replica has stated the hash of its state.
    Hashes(Hashes),
}

/// A change of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub change: ChangeType,
    /// Which object.
    pub key: ObjectKey,
    /// The state's revision of this change.
    pub revision: StateRevision,
    /// The object afterwards; for a deletion, as it last was, at this revision.
    pub object: Arc<ObjectRecord>,
    /// The object before, so that selectors can tell coming from going.
    pub previous: Option<Arc<ObjectRecord>>,
}

impl Change {
    /// Kind of the object.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.key.kind
    }
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeType {
    /// It is new.
    Added,
    /// It is different.
    Modified,
    /// It is gone.
    Deleted,
}
