//! `windlass.io/v1alpha1` Cluster: one managed cluster, set up by an administrator, reported on by its agent.

use serde::{Deserialize, Serialize};

use crate::json::Json;

/// The URL that Argo CD users write for the cluster that the hub belongs to: the Cluster named `in-cluster`.
pub const IN_CLUSTER_SERVER: &str = "https://kubernetes.default.svc";
/// Name of the Cluster that [`IN_CLUSTER_SERVER`] stands for.
pub const IN_CLUSTER_NAME: &str = "in-cluster";

/// `spec` of a Cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterSpec {
    /// API server URLs that Applications may name in `destination.server`; no two Clusters share one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// Project that the cluster is reserved for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub project: String,
}

/// `status` of a Cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterStatus {
    /// `Pending` (never enrolled), `Connected`, `Disconnected` or `Revoked`.
    pub phase: ClusterPhase,
    /// When the phase changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
    /// Newest generation that the agent has on its disk.
    pub generation: u64,
    /// Number of assignments.
    pub assignments: usize,
    /// Hub node that holds the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hub: Option<u64>,
    /// What the agent says about itself: version, Kubernetes version, nodes. No selector reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facts: Option<Json>,
}

/// Where a Cluster stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ClusterPhase {
    /// No agent has redeemed the token yet.
    #[default]
    Pending,
    /// The agent's session is up.
    Connected,
    /// The agent's session is down.
    Disconnected,
    /// The agent is shut out.
    Revoked,
}

impl ClusterPhase {
    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Connected => "Connected",
            Self::Disconnected => "Disconnected",
            Self::Revoked => "Revoked",
        }
    }
}
