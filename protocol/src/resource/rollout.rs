//! `windlass.io/v1alpha1` Rollout: one change of desired digests, bound to exact digests, released step by step.

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, NamespacedName};

/// `spec` of a Rollout, frozen at creation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutSpec {
    /// Kind and name of the owner: an ApplicationSet, or an Application.
    pub owner_kind: String,
    /// The owner.
    pub owner: NamespacedName,
    /// Why the digests changed.
    pub cause: RolloutCause,
    /// Git commit.
    pub revision: String,
    /// Members in the order of release.
    pub steps: Vec<RolloutStep>,
}

/// Why desired digests changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RolloutCause {
    /// A new commit, or other sources.
    #[default]
    Commit,
    /// The Application or its set changed.
    Spec,
    /// A person asked for an earlier state.
    Rollback,
    /// The renderer's output differs for unchanged inputs.
    RendererChanged,
}

/// A cohort of members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RolloutStep {
    /// The assignments of the step.
    pub members: Vec<RolloutMember>,
}

/// One assignment of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutMember {
    /// The Application.
    pub application: NamespacedName,
    /// uid of the Cluster.
    pub cluster: String,
    /// What is released.
    pub digest: Digest,
    /// What was released before. Never skipped: the type is part of binary records too.
    #[serde(default)]
    pub previous: Option<Digest>,
}

/// Phase of a Rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RolloutPhase {
    /// Not begun.
    #[default]
    Pending,
    /// Members are being released or proven.
    Progressing,
    /// Held by a person or a policy.
    Paused,
    /// Every member has proven its digest.
    Succeeded,
    /// A member failed; the rollout stands.
    Degraded,
    /// Went back to last-good.
    RolledBack,
    /// A newer change of the same assignments took over.
    Superseded,
}

impl RolloutPhase {
    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Progressing => "Progressing",
            Self::Paused => "Paused",
            Self::Succeeded => "Succeeded",
            Self::Degraded => "Degraded",
            Self::RolledBack => "RolledBack",
            Self::Superseded => "Superseded",
        }
    }

    /// Whether nothing more will happen.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::RolledBack | Self::Superseded)
    }
}
