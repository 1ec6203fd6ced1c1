//! What has to survive the end of the process for one assignment: small, self-describing (store it as JSON), and enough that
//! nothing is repeated that must not be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use windlass_protocol::{
    ids::{Digest, OperationId},
    manifest::ResourceKey,
    message::{BundleRef, Cascade, Operation, OperationReport},
    time::Millis,
};

/// The state of one assignment between two processes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResumePoint {
    /// `metadata.uid` of the Application: a resume point of another uid is not used.
    pub uid: String,
    /// What we applied or found tracked by us. Written before the first object of an operation is created.
    pub inventory: Vec<InventoryItem>,
    /// The bundle of the last successful whole sync.
    pub applied: Option<BundleRef>,
    /// The newest asked operation that was begun; it runs once.
    pub last_asked: OperationId,
    /// The last automatic attempt: one per (digest, parameters).
    pub attempt: Option<Attempt>,
    /// Raised with each operation of any cause; part of the names of generated hooks.
    pub sequence: u64,
    /// The operation under way; continued after a restart.
    pub running: Option<RunningPoint>,
    /// The newest operation's report.
    pub report: Option<OperationReport>,
    /// What the API server makes of manifests, where that differs from what was sent.
    pub baselines: Vec<Baseline>,
    /// Set once the assignment is being ended.
    pub ending: Option<Cascade>,
}

/// An object that is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InventoryItem {
    /// Which object.
    pub key: ResourceKey,
    /// Its uid; empty while its creation is only intended.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// An automatic attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Of the released bundle.
    pub digest: Digest,
    /// Of the assignment's policy.
    pub parameters: u64,
    /// The prune approval that held.
    pub approval: Option<String>,
    /// Whether the attempt ended well.
    pub succeeded: bool,
}

/// An operation under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunningPoint {
    /// Number in [`ResumePoint::sequence`].
    pub sequence: u64,
    /// Why it runs.
    pub cause: Cause,
    /// What it applies.
    pub bundle: BundleRef,
    /// Retries so far.
    pub retries: u32,
    /// The agent's clock.
    pub started_at: Millis,
    /// Hooks of this attempt that are done and may have been deleted.
    #[serde(default)]
    pub done: Vec<String>,
    /// Why this attempt failed, while `SyncFail` hooks run and failed hooks are deleted.
    #[serde(default)]
    pub failure: Option<String>,
}

/// Why an operation runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Cause {
    /// Somebody asked for it.
    Asked(Box<Operation>),
    /// A new released bundle, automated.
    Automatic,
    /// Drift; only these objects.
    Heal(Vec<ResourceKey>),
}

/// Fields of one object that the API server keeps otherwise than they were sent (admission webhooks, pruned or rewritten fields).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Baseline {
    /// Which object.
    pub key: ResourceKey,
    /// Of the manifest as sent.
    pub sent: Digest,
    /// JSON pointer to digest of the live value.
    pub fields: BTreeMap<String, Digest>,
}
