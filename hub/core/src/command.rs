//! What may be proposed: versioned, append-only commands in an envelope with an idempotent request id and preconditions.

use serde::{Deserialize, Serialize};
use windlass_protocol::{
    ids::{Digest, Epoch, Generation, Incarnation, NamespacedName, ReceiptSeq, Release, RequestId, StateRevision},
    json::Json,
    message::{AssignmentPolicy, BundleRef, Operation, Receipt},
    resource::RolloutCause,
    status::Condition,
    time::Millis,
};

use crate::state::{HubRecord, ObjectKey, TrustRecord};

/// Largest encoded envelope (DESIGN.md section 4).
pub const ENVELOPE_BYTES_MAX: usize = 1024 * 1024;
/// Objects changed by one envelope (DESIGN.md section 4).
pub const ENVELOPE_OBJECTS_MAX: usize = 500;
/// How long request ids are remembered.
pub const REQUEST_MEMORY: Millis = Millis::from_secs(600);
/// How many request ids are remembered at most.
pub const REQUESTS_MAX: usize = 100_000;

/// A command on its way into Raft.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Applied at most once; a repetition gets the first answer.
    pub request: RequestId,
    /// Who asked: `user:admin`, `hub:1`, `cluster:prod`.
    pub subject: String,
    /// Where from: an address, or a task of the hub.
    pub source: String,
    /// The proposer's wall clock.
    pub proposed_at: Millis,
    /// All must hold, or nothing is changed.
    pub preconditions: Vec<Precondition>,
    /// What to do.
    pub command: Command,
}

/// Something that the proposer has seen and relies on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precondition {
    /// The object is there with this uid and, if given, this revision.
    Object {
        /// Which.
        key: ObjectKey,
        /// `metadata.uid`; empty for any.
        uid: String,
        /// `metadata.resourceVersion`.
        revision: Option<StateRevision>,
    },
    /// The epoch has not changed.
    Epoch(Epoch),
    /// The assignment still has this release.
    Release {
        /// Which.
        application: NamespacedName,
        /// Its release.
        release: Release,
    },
    /// The rollout is still at this step.
    RolloutStep {
        /// Which.
        rollout: NamespacedName,
        /// Its step.
        step: u32,
    },
}

/// A change of state. Append only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// First entry of a group.
    Bootstrap {
        /// Made at `init`.
        cluster_id: String,
        /// Made at `init`.
        trust_domain: String,
        /// One uid for each object that is made, in order.
        uids: Vec<String>,
    },
    /// Time has passed on the leader.
    Tick {
        /// Since the last tick; at most [`crate::apply::TICK_MAX`] is taken.
        elapsed: Millis,
    },
    /// Every member announces a newer meaning of the state.
    RaiseVersion {
        /// The new version.
        version: u32,
    },
    /// Writes of the resource API; all or none.
    Write {
        /// At most [`ENVELOPE_OBJECTS_MAX`].
        writes: Vec<Write>,
    },
    /// A join token for a cluster.
    AddToken {
        /// Hash of the secret.
        hash: Digest,
        /// Name of the Cluster.
        cluster: String,
        /// Wall time.
        expires_at: Millis,
    },
    /// An agent redeems a token for a key.
    RedeemToken {
        /// Hash of the secret.
        hash: Digest,
        /// Fingerprint of the public key.
        key: Digest,
        /// Serial of the certificate that will be signed.
        serial: [u8; 16],
    },
    /// An agent gets a new certificate for its key.
    RenewCertificate {
        /// uid of the Cluster.
        cluster: String,
        /// Fingerprint of the public key.
        key: Digest,
        /// Serial of the new certificate.
        serial: [u8; 16],
    },
    /// Sessions of agents, batched.
    Sessions {
        /// Node id of the hub.
        hub: u64,
        /// What happened.
        changes: Vec<SessionChange>,
    },
    /// What the planner found for Applications of one owner: the start of a Rollout where digests change.
    Targets {
        /// Name of the Rollout, if one is needed.
        rollout: NamespacedName,
        /// Its uid.
        rollout_uid: String,
        /// ApplicationSet or Application that the change belongs to.
        owner: ObjectKey,
        /// Why.
        cause: RolloutCause,
        /// The members.
        changes: Vec<TargetChange>,
    },
    /// An operation for an assignment, asked for by a person; takes `operation` out of the Application.
    Operate {
        /// The Application.
        application: NamespacedName,
        /// Its uid.
        uid: String,
        /// The operation; its id is set by `apply`.
        operation: Operation,
    },
    /// An `operation` that cannot be started; takes it out of the Application and says why.
    RefuseOperation {
        /// The Application.
        application: NamespacedName,
        /// Its uid.
        uid: String,
        /// Why.
        message: String,
    },
    /// A refresh that was asked for is done.
    Refreshed {
        /// The Application.
        application: NamespacedName,
        /// Its uid.
        uid: String,
        /// Forget cached discovery too.
        hard: bool,
    },
    /// What an agent proves, in order.
    Receipts {
        /// uid of the Cluster.
        cluster: String,
        /// Process of the agent.
        incarnation: Incarnation,
        /// Number of the last receipt.
        up_to: ReceiptSeq,
        /// At most [`ENVELOPE_OBJECTS_MAX`].
        receipts: Vec<Receipt>,
    },
    /// A join token for a hub. State version 2, as all that follow.
    AddHubToken {
        /// Hash of the secret.
        hash: Digest,
        /// Wall time.
        expires_at: Millis,
    },
    /// A new hub redeems a token; answers with its node id and the cluster id.
    AdmitHub {
        /// Hash of the secret.
        hash: Digest,
        /// Fingerprint of its issuing key's public key.
        key: Digest,
        /// Id of its store.
        store: [u8; 16],
        /// Where it is and what it runs.
        hub: HubAnnouncement,
    },
    /// A hub says where it is and what it runs, at each start that changes it.
    AnnounceHub {
        /// Node id.
        node: u64,
        /// Id of its store.
        store: [u8; 16],
        /// Fingerprint of its issuing key's public key.
        key: Digest,
        /// Where it is and what it runs.
        hub: HubAnnouncement,
    },
    /// A hub leaves for ever.
    RemoveHub {
        /// Node id.
        node: u64,
    },
    /// New roots, or fewer.
    SetTrust {
        /// Its version is the current one plus one.
        trust: TrustRecord,
    },
    /// What a replica's state hashes to after so many envelopes.
    StateHash {
        /// Node id.
        node: u64,
        /// Number of applied envelopes.
        applied: u64,
        /// Hash of the state at that point.
        hash: Digest,
    },
    /// First entry of a group that begins with the state of a backup.
    Restored {
        /// Id of the new group.
        cluster_id: String,
        /// Node id of its first hub.
        node: u64,
        /// Its first hub.
        hub: HubRecord,
    },
    /// Sessions and receipts of several agents, by the hub that holds them; each takes effect or not by itself.
    Batch {
        /// Node id of the hub.
        hub: u64,
        /// At most [`ENVELOPE_OBJECTS_MAX`].
        sessions: Vec<SessionChange>,
        /// At most [`ENVELOPE_OBJECTS_MAX`] receipts in all.
        receipts: Vec<ReceiptBatch>,
    },
}

impl Command {
    /// The state version from which on every build knows this command: before, it must not be proposed.
    #[must_use]
    pub const fn since_version(&self) -> u32 {
        match self {
            Self::AddHubToken { .. }
            | Self::AdmitHub { .. }
            | Self::AnnounceHub { .. }
            | Self::RemoveHub { .. }
            | Self::SetTrust { .. }
            | Self::StateHash { .. }
            | Self::Restored { .. }
            | Self::Batch { .. } => 2,
            _ => 1,
        }
    }
}

/// The receipts of one agent in a [`Command::Batch`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptBatch {
    /// uid of the Cluster.
    pub cluster: String,
    /// Process of the agent.
    pub incarnation: Incarnation,
    /// Number of the last receipt.
    pub up_to: ReceiptSeq,
    /// What it proves, in order.
    pub receipts: Vec<Receipt>,
}

/// Where a hub is and what it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubAnnouncement {
    /// For people.
    pub name: String,
    /// `host:port` (UDP) that the other hubs dial.
    pub address: String,
    /// `host:port` that agents and users dial.
    pub agents: Vec<String>,
    /// Release.
    pub software: String,
    /// Newest state version that it understands.
    pub state_version: u32,
}

/// A write of the resource API. Bodies are JSON text of the whole object; patches are computed before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// A new object.
    Create {
        /// Which.
        key: ObjectKey,
        /// `metadata.uid` for it.
        uid: String,
        /// The object.
        body: String,
        /// Sealed content of a Secret.
        sealed: Option<Vec<u8>>,
    },
    /// A new content of an existing object.
    Replace {
        /// Which.
        key: ObjectKey,
        /// Which part of the body counts.
        part: Part,
        /// The object.
        body: String,
        /// Sealed content of a Secret; `None` keeps what is there.
        sealed: Option<Vec<u8>>,
    },
    /// Begin, and without finalizers end, the life of an object.
    Delete {
        /// Which.
        key: ObjectKey,
    },
}

/// The part of an object that a write means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// Everything but `status`.
    Main,
    /// Only `status`.
    Status,
}

/// What happened to an agent's session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionChange {
    /// It is up.
    Connected {
        /// uid of the Cluster.
        cluster: String,
        /// Process of the agent.
        incarnation: Incarnation,
        /// Serial of the certificate that it used.
        serial: [u8; 16],
    },
    /// It is down.
    Disconnected {
        /// uid of the Cluster.
        cluster: String,
        /// Process of the agent.
        incarnation: Incarnation,
    },
    /// The agent has this on its disk.
    Acknowledged {
        /// uid of the Cluster.
        cluster: String,
        /// Epoch.
        epoch: Epoch,
        /// Generation.
        generation: Generation,
    },
    /// What the agent says about its cluster.
    Facts {
        /// uid of the Cluster.
        cluster: String,
        /// JSON, at most 16 KiB.
        facts: Json,
    },
}

/// What the planner found for one Application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetChange {
    /// The Application.
    pub application: NamespacedName,
    /// Its uid.
    pub uid: String,
    /// uid of the Cluster that the destination resolves to; `None` when it does not.
    pub cluster: Option<String>,
    /// Name in tracking annotations.
    pub tracking_name: String,
    /// Destination namespace.
    pub namespace: String,
    /// The rendered bundle; `None` keeps what there is (the conditions say why).
    pub target: Option<BundleRef>,
    /// How to apply.
    pub policy: AssignmentPolicy,
    /// Conditions that the hub sees; the agent's are kept beside them.
    pub conditions: Vec<Condition>,
    /// `Directory`, `Kustomize`, ...
    pub source_type: String,
    /// Images of the bundle, for `status.summary`.
    pub images: Vec<String>,
}

/// The answer to an applied envelope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The state's revision afterwards.
    pub revision: StateRevision,
    /// Objects that were written (API writes only), in order, as they are now; empty for one that is gone.
    pub bodies: Vec<String>,
    /// For identity commands: name and uid of the Cluster; for [`Command::AdmitHub`], node id and cluster id.
    pub cluster: Option<(String, String)>,
}

/// Why an envelope changed nothing. The texts are for people and part of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    /// HTTP 409, reason AlreadyExists.
    #[error("{kind} \"{name}\" already exists")]
    AlreadyExists {
        /// Plural with group.
        kind: String,
        /// Name.
        name: String,
    },
    /// HTTP 404.
    #[error("{kind} \"{name}\" not found")]
    NotFound {
        /// Plural with group.
        kind: String,
        /// Name.
        name: String,
    },
    /// HTTP 409, reason Conflict.
    #[error("Operation cannot be fulfilled on {kind} \"{name}\": {message}")]
    Conflict {
        /// Plural with group.
        kind: String,
        /// Name.
        name: String,
        /// What is in the way.
        message: String,
    },
    /// HTTP 422.
    #[error("{0}")]
    Invalid(String),
    /// HTTP 403.
    #[error("{0}")]
    Forbidden(String),
    /// A safety rule or an outdated proposer.
    #[error("{0}")]
    Precondition(String),
    /// Not a valid identity; never says which part is wrong.
    #[error("{0}")]
    Identity(String),
}
