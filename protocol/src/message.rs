//! The messages between agent and hub: append-only enums, carried as bincode frames on independent ordered streams.
//!
//! | stream | opened by | agent to hub | hub to agent |
//! |---|---|---|---|
//! | control | agent | [`AgentControl`] | [`HubControl`] |
//! | blobs | agent | [`BlobRequest`] | [`BlobReply`] |
//! | receipts | agent | [`ReceiptUpload`] | [`ReceiptReply`] |
//! | enrolment | agent, without a certificate | [`EnrolRequest`] | [`EnrolReply`] |
//!
//! Rules: a variant is never removed, reordered or changed; a new meaning is a new variant behind a capability of the handshake.
//! Manifests travel as bytes. Golden bytes are in `protocol/tests/golden.rs`.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{Digest, Epoch, Generation, Incarnation, NamespacedName, OperationId, ReceiptSeq, Release},
    json::Json,
    manifest::ResourceKey,
    status::{HealthStatus, OperationPhase, SyncStatus},
    time::Millis,
};

/// The newest protocol version that this build speaks.
pub const PROTOCOL_VERSION: u16 = 1;
/// The oldest protocol version that this build speaks.
pub const PROTOCOL_VERSION_MIN: u16 = 1;
/// Bytes of content in one [`BlobReply::Chunk`] or [`ReceiptUpload::Detail`].
pub const CHUNK_BYTES: usize = 256 * 1024;
/// Digests in one [`BlobRequest`]; keeps the request far below the frame limit.
pub const WANT_MAX: usize = 1024;
/// Encoded size of one receipt; longer messages are cut, the whole text is in the detail.
pub const RECEIPT_BYTES_MAX: usize = 512;
/// Characters of a message inside a receipt.
pub const RECEIPT_MESSAGE_MAX: usize = 160;

/// First frame on every stream that an agent opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamOpen {
    /// Without a certificate: redeem a join token.
    Enrol,
    /// Hello, desired state, trust.
    Control,
    /// Content by address.
    Blobs,
    /// Numbered facts and details.
    Receipts,
}

/// What both sides say first on the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest version spoken.
    pub version_min: u16,
    /// Newest version spoken.
    pub version_max: u16,
    /// Optional features; unknown ones are ignored.
    pub capabilities: Vec<String>,
    /// Release of the program, for people.
    pub software: String,
}

/// Agent to hub, control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentControl {
    /// First frame. The incarnation settles clones: the newer one wins.
    Hello { hello: Hello, incarnation: Incarnation },
    /// The desired state that is on the agent's disk; asks for what came after it.
    Have { epoch: Epoch, generation: Generation },
    /// What the agent says about its cluster, as JSON; goes to `status.facts`, no selector reads it.
    Facts { facts: Json },
    /// Asks for a new certificate for the key of this signing request (DER).
    Renew { signing_request: Vec<u8> },
}

/// Hub to agent, control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HubControl {
    /// "Connected": nothing before this frame means so.
    Hello { hello: Hello, hub: u64, epoch: Epoch },
    /// The agent is not admitted; says why and whether trying again can help.
    Refused { reason: String, retry: Retry },
    /// A change of desired state, whole or in parts.
    Desired(Delta),
    /// The agent should leave for another hub.
    GoAway { reason: GoAway },
    /// Answer to [`AgentControl::Renew`]: PEM chain, leaf first.
    Certificate { chain: String },
    /// Roots to trust from now on (PEM), and the hubs to dial.
    Trust { roots: String, hubs: Vec<String> },
    /// Compare again now; `hard` also forgets cached discovery.
    Refresh { application: NamespacedName, hard: bool },
}

/// Whether an attempt may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Retry {
    /// Later, with backoff.
    Later,
    /// Never with this identity: it was revoked or superseded.
    Never,
}

/// Why a hub sends an agent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GoAway {
    /// This hub has had no leader for too long.
    NoQuorum,
    /// This hub shuts down.
    Drain,
    /// Another hub has more room.
    Rebalance,
}

/// Changes of desired state after `from`, up to `to`. Parts of one delta are sent in order; only the last is `complete`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Epoch of both generations.
    pub epoch: Epoch,
    /// The generation that the agent said it has; zero for everything.
    pub from: Generation,
    /// The generation that the agent has after all parts.
    pub to: Generation,
    /// New and changed assignments.
    pub assignments: Vec<Assignment>,
    /// Assignments to end. Absence is never deletion.
    pub tombstones: Vec<Tombstone>,
    /// With a full delta: every assignment that this epoch knows. What the agent has beyond them is `Orphaned`: kept and reported.
    pub known: Option<Vec<NamespacedName>>,
    /// No further part follows.
    pub complete: bool,
}

/// What one cluster should run of one application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Namespace and name of the Application in the hub.
    pub application: NamespacedName,
    /// `metadata.uid` of the Application: tells a new one of the same name from the old.
    pub uid: String,
    /// The application's name in the tracking annotation (`<name>`, or `<ns>_<name>` outside of the control namespace).
    pub tracking_name: String,
    /// `spec.destination.namespace`: where namespaced manifests without a namespace go.
    pub namespace: String,
    /// What is compared against: gives the sync status.
    pub target: Option<BundleRef>,
    /// What may be applied.
    pub released: Option<BundleRef>,
    /// What last passed its gate.
    pub last_good: Option<BundleRef>,
    /// Raised at each change of `released`.
    pub release: Release,
    /// How to apply, heal and prune.
    pub policy: AssignmentPolicy,
    /// The current operation asked for by a person or by the hub; runs once.
    pub operation: Option<Operation>,
}

/// The rendered manifests of one assignment, named by the digest of their index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BundleRef {
    /// Address of the encoded [`BundleIndex`].
    pub digest: Digest,
    /// Git commit that it was rendered from, for people and for `status.sync.revision`.
    pub revision: String,
}

/// The list of resources of a bundle: a blob itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BundleIndex {
    /// First form.
    V1 {
        /// In the order of rendering.
        resources: Vec<ResourceRef>,
    },
}

/// One manifest of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceRef {
    /// Which object it is, with the namespace as rendered (may be empty).
    pub key: ResourceKey,
    /// Address of the canonical JSON.
    pub digest: Digest,
    /// Bytes of the canonical JSON.
    pub size: u32,
    /// The address is keyed: the content is a Secret, stored sealed by the hub.
    pub sealed: bool,
}

/// The rules under which an assignment is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignmentPolicy {
    /// `None`: nothing is applied until an operation.
    pub automated: Option<Automated>,
    /// `syncPolicy.syncOptions`, as written.
    pub sync_options: Vec<String>,
    /// Retries of a failed operation.
    pub retry: RetryPolicy,
    /// `spec.ignoreDifferences[]`, as JSON of the Application.
    pub ignore_differences: Vec<Json>,
    /// Labels of a namespace made by `CreateNamespace=true`.
    pub namespace_labels: Vec<(String, String)>,
    /// Annotations of a namespace made by `CreateNamespace=true`.
    pub namespace_annotations: Vec<(String, String)>,
    /// The project's rules on kinds and namespaces: enforced once more where scope is really known.
    pub permitted: Permitted,
    /// A sync window or a freeze holds automatic operations until further notice; the reason.
    pub held: Option<String>,
    /// The brake: this digest may be applied although it prunes beyond the budget.
    pub prune_approval: Option<String>,
    /// Hash of the generation inputs beyond the digest, so that "one attempt per (revision, parameters)" can be told.
    pub parameters: u64,
}

/// `syncPolicy.automated`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Automated {
    /// Delete what is no longer desired.
    pub prune: bool,
    /// Undo drift.
    pub self_heal: bool,
    /// A sync may remove the last resource.
    pub allow_empty: bool,
}

/// `syncPolicy.retry`, resolved to numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Attempts after the first; negative is forever.
    pub limit: i64,
    /// Before the first retry.
    pub initial: Millis,
    /// Each wait is this many hundredths of the one before.
    pub factor_percent: u32,
    /// No wait is longer.
    pub max: Millis,
}

impl Default for RetryPolicy {
    /// Argo CD's: 5 retries after 5, 10, 20, 40 and 80 s, capped at 3 minutes.
    fn default() -> Self {
        Self { limit: 5, initial: Millis(5_000), factor_percent: 200, max: Millis(180_000) }
    }
}

/// What a project permits, in Argo CD's shape: white lists and black lists of kinds, and destination namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permitted {
    /// Name of the project, for messages.
    pub project: String,
    /// `clusterResourceWhitelist`.
    pub cluster_allow: Vec<KindPattern>,
    /// `clusterResourceBlacklist`.
    pub cluster_deny: Vec<KindPattern>,
    /// `namespaceResourceWhitelist`; `None` permits all.
    pub namespace_allow: Option<Vec<KindPattern>>,
    /// `namespaceResourceBlacklist`.
    pub namespace_deny: Vec<KindPattern>,
    /// Globs of namespaces of this cluster that the project may write to; a leading `!` denies.
    pub namespaces: Vec<String>,
}

/// Group and kind, each a glob.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KindPattern {
    /// API group glob.
    pub group: String,
    /// Kind glob.
    pub kind: String,
}

/// A numbered sync that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Raised with each operation of the assignment.
    pub id: OperationId,
    /// What to apply; the released bundle when `None`.
    pub bundle: Option<BundleRef>,
    /// Delete what is no longer desired.
    pub prune: bool,
    /// Only say what would happen.
    pub dry_run: bool,
    /// Replace or re-create where needed.
    pub force: bool,
    /// Only these objects; all when empty.
    pub resources: Vec<ResourceKey>,
    /// Options of this operation, besides the assignment's.
    pub sync_options: Vec<String>,
    /// Stop the running operation instead of starting one.
    pub terminate: bool,
    /// Who asked, for people.
    pub initiated_by: String,
}

/// Ends an assignment on its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// Which one.
    pub application: NamespacedName,
    /// Only the assignment of this Application uid ends.
    pub uid: String,
    /// What becomes of its objects.
    pub cascade: Cascade,
}

/// What becomes of the objects of an assignment that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cascade {
    /// They stay, without tracking.
    Orphan,
    /// They are deleted, dependents after their owners.
    Background,
    /// They are deleted, dependents first.
    Foreground,
}

/// Agent to hub, blobs stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobRequest {
    /// Asks for content by address; at most [`WANT_MAX`] addresses, only of what the assignments reference.
    Want { digests: Vec<Digest> },
}

/// Hub to agent, blobs stream; in the order asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobReply {
    /// A part of at most [`CHUNK_BYTES`]; the blob is whole when `offset + content` reaches `total`.
    Chunk { digest: Digest, offset: u64, total: u64, content: Vec<u8> },
    /// Not referenced by the agent's assignments, or not here.
    Unavailable { digest: Digest },
}

/// Agent to hub, receipts stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReceiptUpload {
    /// Numbered receipts, oldest first.
    Receipts { receipts: Vec<(ReceiptSeq, Receipt)> },
    /// Content that a later receipt's `detail` names; in parts of at most [`CHUNK_BYTES`].
    Detail { digest: Digest, offset: u64, total: u64, content: Vec<u8> },
}

/// Hub to agent, receipts stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReceiptReply {
    /// Everything up to this number is committed.
    Committed { up_to: ReceiptSeq },
    /// The hub cannot commit now; keep the receipts and send them again later.
    Busy,
}

/// What an agent proves about one assignment, at most [`RECEIPT_BYTES_MAX`] encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "nearly every receipt is the large one: a box would only cost")]
pub enum Receipt {
    /// State of an assignment.
    V1(AssignmentReceipt),
    /// A tombstone is carried out: the assignment is gone from the cluster.
    Ended { application: NamespacedName, uid: String },
    /// The agent has an assignment that the hub's epoch does not know.
    Orphaned { application: NamespacedName, uid: String },
    /// A tombstone cannot be carried out; why.
    EndFailed { application: NamespacedName, uid: String, message: String },
}

/// State of an assignment, bound to exact digests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignmentReceipt {
    /// Namespace and name of the Application.
    pub application: NamespacedName,
    /// Its uid.
    pub uid: String,
    /// The release that the agent works on.
    pub release: Release,
    /// What it compared against.
    pub target: Option<Digest>,
    /// The bundle of the last successful sync.
    pub applied: Option<Digest>,
    /// Compared with `target`.
    pub sync: SyncStatus,
    /// Worst of all resources, now.
    pub health: HealthStatus,
    /// Worst since the last acknowledged receipt: a short failure still breaks a soak.
    pub worst_health: HealthStatus,
    /// Why the health or the comparison is as it is; cut at [`RECEIPT_MESSAGE_MAX`].
    pub message: String,
    /// The newest operation.
    pub operation: Option<OperationReport>,
    /// Address of the detail: [`Detail`] as JSON.
    pub detail: Option<Digest>,
    /// The agent's clock, for display only.
    pub observed_at: Millis,
}

/// How far an operation is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationReport {
    /// The number of the asked operation; `None` for one that the agent started by itself (automated, self-heal).
    pub id: Option<OperationId>,
    /// What it applies.
    pub bundle: Digest,
    /// How far.
    pub phase: OperationPhase,
    /// Cut at [`RECEIPT_MESSAGE_MAX`].
    pub message: String,
    /// The agent's clock, for display only.
    pub started_at: Millis,
    /// Set once the phase is final.
    pub finished_at: Option<Millis>,
    /// Retries so far.
    pub retries: u32,
}

/// Resource tree and messages of an assignment; a JSON blob, its digest enters Raft at most once per 10 s.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Detail {
    /// `status.resources[]`.
    pub resources: Vec<crate::status::ResourceStatus>,
    /// `status.operationState.syncResult.resources[]` of the newest operation.
    pub sync_result: Vec<SyncResultResource>,
    /// `status.conditions[]` seen by the agent.
    pub conditions: Vec<crate::status::Condition>,
}

/// What an operation did to one object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyncResultResource {
    /// API group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `Synced`, `SyncFailed`, `Pruned` or `PruneSkipped`.
    pub status: String,
    /// The API server's own words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// `PreSync`, `Sync`, `PostSync` or `SyncFail`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sync_phase: String,
    /// For hooks.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hook_phase: String,
}

/// What a peer without a certificate may ask for. The same token and key may ask again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnrolRequest {
    /// First form: the secret and a PKCS#10 signing request (DER) of the agent's own key.
    V1 { token: String, signing_request: Vec<u8>, software: String },
    /// An agent whose certificate is not accepted any more (expired while it was offline, or issued below a root that is gone)
    /// asks for a new one: the signing request proves the key, the state knows whose it is. It may do nothing else.
    Renew { cluster_uid: String, signing_request: Vec<u8>, software: String },
}

/// Answer to [`EnrolRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnrolReply {
    /// Welcome.
    Accepted(Enrolled),
    /// Not accepted; the reason never says which part of a wrong token is wrong.
    Refused { reason: String, retry: Retry },
}

/// An agent's identity, and what it needs to come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Name of the Cluster object.
    pub cluster: String,
    /// Its uid.
    pub cluster_uid: String,
    /// Certificate chain (PEM), leaf first.
    pub chain: String,
    /// Roots to trust (PEM).
    pub roots: String,
    /// Hubs to dial, `host:port`.
    pub hubs: Vec<String>,
}
