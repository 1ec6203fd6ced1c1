//! The replicated state: everything a hub must agree on, in ordered persistent maps, so that a clone is cheap and equal
//! histories are equal bytes. Changed only by [`crate::apply`].

mod hubs;

use std::{collections::BTreeMap, fmt, sync::Arc};

use rpds::RedBlackTreeMapSync;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use windlass_protocol::{
    ids::{
        Digest, Epoch, Generation, Incarnation, NamespacedName, OperationId, ReceiptSeq, Release, RequestId,
        StateRevision,
    },
    message::{Assignment, AssignmentPolicy, AssignmentReceipt, BundleRef, Operation, Tombstone},
    resource::{Kind, RolloutPhase, RolloutSpec},
    time::Millis,
};

pub use self::hubs::{Hashes, HubRecord, HubTokenRecord, TrustRecord};

/// A map whose clone is cheap.
pub(crate) type Map<K, V> = RedBlackTreeMapSync<K, Arc<V>>;

/// Names one object of the hub's API.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Kind.
    pub kind: Kind,
    /// Namespace (empty for cluster-scoped kinds) and name.
    pub name: NamespacedName,
}

impl ObjectKey {
    /// From its parts.
    #[must_use]
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind, name: NamespacedName::new(namespace, name) }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.info().name, self.name)
    }
}

/// An object of the hub's API, as its JSON text: compact in memory, and ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRecord {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub revision: StateRevision,
    /// `metadata.generation`: raised when anything but metadata and status changes.
    pub generation: u64,
    /// `metadata.labels`, for selectors without parsing.
    pub labels: BTreeMap<String, String>,
    /// uids of `metadata.ownerReferences`.
    pub owners: Vec<String>,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// The object; for a Secret without its data.
    pub body: String,
    /// Sealed content of a Secret; opaque here.
    pub sealed: Option<Vec<u8>>,
}

impl ObjectRecord {
    /// The object as JSON.
    #[must_use]
    pub fn value(&self) -> Value {
        // The text was made by `serde_json`, so it always parses; Null would only ever hide a broken record.
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// What the state knows of one managed cluster besides its Cluster object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// Name of the Cluster object.
    pub name: String,
    /// Newest generation of desired state.
    pub generation: Generation,
    /// Newest generation that the agent has on its disk, in this epoch.
    pub acknowledged: Generation,
    /// Fingerprint of the agent's public key, once a token is redeemed.
    pub key: Option<Digest>,
    /// Serial of the current certificate.
    pub serial: Option<[u8; 16]>,
    /// Serial of the certificate before: valid until the current one is used.
    pub previous_serial: Option<[u8; 16]>,
    /// Newest process of the agent.
    pub incarnation: Incarnation,
    /// Hub node that holds the session.
    pub session: Option<u64>,
    /// Newest committed receipt of the incarnation.
    pub receipts: ReceiptSeq,
    /// Ended assignments that the agent has not carried out, by the generation that ended them.
    pub tombstones: BTreeMap<Generation, Tombstone>,
    /// Assignments that the agent has and this epoch does not know.
    pub orphaned: BTreeMap<NamespacedName, String>,
}

/// A join token, kept as a hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The cluster that it admits.
    pub cluster: String,
    /// Wall time after which it is refused.
    pub expires_at: Millis,
    /// The key that redeemed it; only this key may use it again.
    pub redeemed_by: Option<Digest>,
}

/// One application on one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignmentRecord {
    /// uid of the Application.
    pub uid: String,
    /// uid of the Cluster.
    pub cluster: String,
    /// Name in tracking annotations.
    pub tracking_name: String,
    /// Destination namespace.
    pub namespace: String,
    /// What is compared against.
    pub target: Option<BundleRef>,
    /// What may be applied.
    pub released: Option<BundleRef>,
    /// What last passed its gate.
    pub last_good: Option<BundleRef>,
    /// Raised at each change of `released`.
    pub release: Release,
    /// How to apply.
    pub policy: AssignmentPolicy,
    /// The newest operation that was asked for.
    pub operation: Option<Operation>,
    /// Raised with each operation.
    pub last_operation: OperationId,
    /// The cluster's generation at the last change of what the agent sees.
    pub changed_at: Generation,
    /// The newest receipt.
    pub receipt: Option<AssignmentReceipt>,
    /// The Rollout that last changed `target`.
    pub rollout: Option<NamespacedName>,
}

impl AssignmentRecord {
    /// As the agent sees it.
    #[must_use]
    pub fn assignment(&self, application: &NamespacedName) -> Assignment {
        Assignment {
            application: application.clone(),
            uid: self.uid.clone(),
            tracking_name: self.tracking_name.clone(),
            namespace: self.namespace.clone(),
            target: self.target.clone(),
            released: self.released.clone(),
            last_good: self.last_good.clone(),
            release: self.release,
            policy: self.policy.clone(),
            operation: self.operation.clone(),
        }
    }

    /// Addresses of the bundles that it names.
    pub fn bundles(&self) -> impl Iterator<Item = &BundleRef> {
        let operation = self.operation.as_ref().and_then(|operation| operation.bundle.as_ref());
        [self.target.as_ref(), self.released.as_ref(), self.last_good.as_ref(), operation].into_iter().flatten()
    }
}

/// A Rollout: its frozen plan and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutRecord {
    /// Frozen at creation.
    pub spec: RolloutSpec,
    /// Where it stands.
    pub phase: RolloutPhase,
    /// The step that is being proven.
    pub step: usize,
    /// Members of the step that have proven their digest, or need not.
    pub done: BTreeMap<NamespacedName, MemberState>,
    /// `state.now` at creation.
    pub created_at: Millis,
}

/// Where a member of a Rollout stands; members not listed are in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberState {
    /// A receipt proves the digest, Synced and Healthy.
    Proven,
    /// The application syncs by hand: released, but a person decides when.
    Manual,
    /// A newer change of the same assignment took over, or it is gone.
    Superseded,
    /// A receipt says Degraded, or the operation failed.
    Failed,
}

/// Facts about the group as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Version of the state's meaning.
    pub version: u32,
    /// Made at `init`.
    pub cluster_id: String,
    /// Trust domain of all certificates.
    pub trust_domain: String,
    /// Orders desired state before generations.
    pub epoch: Epoch,
    /// Raised once per changed object.
    pub revision: StateRevision,
    /// Monotonic time of the group; time without a quorum does not count.
    pub now: Millis,
    /// The newest wall time that a proposer has stated; for timestamps and token expiry.
    pub wall: Millis,
    /// Number of applied envelopes.
    pub applied: u64,
}

/// Everything a hub must agree on.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub(crate) meta: Meta,
    pub(crate) objects: Map<ObjectKey, ObjectRecord>,
    /// By uid of the Cluster object.
    pub(crate) clusters: Map<String, ClusterRecord>,
    pub(crate) tokens: Map<Digest, TokenRecord>,
    /// By Application.
    pub(crate) assignments: Map<NamespacedName, AssignmentRecord>,
    pub(crate) rollouts: Map<NamespacedName, RolloutRecord>,
    /// Remembered requests, and the order in which to forget them.
    pub(crate) requests: Map<RequestId, RequestRecord>,
    pub(crate) requests_by_time: Map<(Millis, RequestId), ()>,
    /// By node id, removed ones included.
    pub(crate) hubs: Map<u64, HubRecord>,
    pub(crate) hub_tokens: Map<Digest, HubTokenRecord>,
    pub(crate) trust: Arc<TrustRecord>,
    pub(crate) hashes: Arc<Hashes>,
    /// Clusters, by uid, whose agent may hold a newer certificate than this state knows: after a restore.
    pub(crate) unproven: Map<String, ()>,
}

/// What became of a request, so that a repetition gets the same answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// `state.now` when it was applied.
    pub at: Millis,
    /// The answer.
    pub result: Result<crate::Reply, crate::Rejection>,
}

impl State {
    /// Facts about the group.
    #[must_use]
    pub const fn meta(&self) -> &Meta {
        &self.meta
    }

    /// One object.
    #[must_use]
    pub fn object(&self, key: &ObjectKey) -> Option<&Arc<ObjectRecord>> {
        self.objects.get(key)
    }

    /// The objects of a kind, sorted by namespace and name; of one namespace if given.
    pub fn objects<'a>(
        &'a self,
        kind: Kind,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a Arc<ObjectRecord>)> + 'a {
        let from = ObjectKey::new(kind, namespace.unwrap_or_default(), "");
        let same = move |key: &ObjectKey| key.kind == kind && namespace.is_none_or(|name| key.name.namespace == name);
        self.objects.range(from..).take_while(move |(key, _)| same(key))
    }

    /// What is known of a cluster, by uid.
    #[must_use]
    pub fn cluster(&self, uid: &str) -> Option<&Arc<ClusterRecord>> {
        self.clusters.get(uid)
    }

    /// All clusters, by uid.
    pub fn clusters(&self) -> impl Iterator<Item = (&String, &Arc<ClusterRecord>)> {
        self.clusters.iter()
    }

    /// uid and record of the cluster with this name.
    #[must_use]
    pub fn cluster_named(&self, name: &str) -> Option<(&str, &Arc<ClusterRecord>)> {
        let object = self.object(&ObjectKey::new(Kind::Cluster, "", name))?;
        let (uid, record) = self.clusters.get_key_value(&object.uid)?;
        Some((uid, record))
    }

    /// The assignment of an Application.
    #[must_use]
    pub fn assignment(&self, application: &NamespacedName) -> Option<&Arc<AssignmentRecord>> {
        self.assignments.get(application)
    }

    /// All assignments, by Application.
    pub fn assignments(&self) -> impl Iterator<Item = (&NamespacedName, &Arc<AssignmentRecord>)> {
        self.assignments.iter()
    }

    /// The assignments of one cluster.
    pub fn assignments_of<'a>(
        &'a self,
        cluster: &'a str,
    ) -> impl Iterator<Item = (&'a NamespacedName, &'a Arc<AssignmentRecord>)> + 'a {
        self.assignments.iter().filter(move |(_, record)| record.cluster == cluster)
    }

    /// A rollout.
    #[must_use]
    pub fn rollout(&self, name: &NamespacedName) -> Option<&Arc<RolloutRecord>> {
        self.rollouts.get(name)
    }

    /// All rollouts.
    pub fn rollouts(&self) -> impl Iterator<Item = (&NamespacedName, &Arc<RolloutRecord>)> {
        self.rollouts.iter()
    }

    /// A join token, by its hash.
    #[must_use]
    pub fn token(&self, hash: &Digest) -> Option<&Arc<TokenRecord>> {
        self.tokens.get(hash)
    }

    /// Addresses of every bundle index and detail that must not be collected.
    pub fn referenced(&self) -> impl Iterator<Item = Digest> + '_ {
        self.assignments.iter().flat_map(|(_, record)| {
            let detail = record.receipt.as_ref().and_then(|receipt| receipt.detail);
            record.bundles().map(|bundle| bundle.digest).chain(detail).collect::<Vec<_>>()
        })
    }
}

/// Whether a receipt proves the released bundle of an assignment: exactly this release and digest, Synced and Healthy.
#[must_use]
pub fn is_proven(record: &AssignmentRecord, receipt: &AssignmentReceipt) -> bool {
    use windlass_protocol::status::{HealthStatus, SyncStatus};

    let released = record.released.as_ref().map(|bundle| bundle.digest);
    released.is_some()
        && receipt.release == record.release
        && receipt.applied == released
        && receipt.target == released
        && receipt.sync == SyncStatus::Synced
        && receipt.health == HealthStatus::Healthy
}
