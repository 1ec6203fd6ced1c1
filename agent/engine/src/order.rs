//! The order of a sync: phase, wave, kind, name, as Argo CD.

use serde_json::Value;
use windlass_protocol::manifest::{self, ResourceKey};

/// Annotation with the wave of an object; may be negative.
pub const WAVE_ANNOTATION: &str = "argocd.argoproj.io/sync-wave";

/// Phases of a sync, in order. `SyncFail` runs only after a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Hooks before anything is applied.
    PreSync,
    /// The manifests, and hooks beside them.
    #[default]
    Sync,
    /// Hooks after everything is healthy.
    PostSync,
    /// Hooks after a failure.
    SyncFail,
}

impl Phase {
    /// The name, as Argo CD writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PreSync => "PreSync",
            Self::Sync => "Sync",
            Self::PostSync => "PostSync",
            Self::SyncFail => "SyncFail",
        }
    }
}

/// The wave of an object; Helm's hook weight counts only where Argo CD's annotation is absent. Not a number: 0.
#[must_use]
pub fn wave(object: &Value) -> i64 {
    manifest::annotation(object, WAVE_ANNOTATION)
        .or_else(|| manifest::annotation(object, "helm.sh/hook-weight"))
        .and_then(|text| text.trim().parse::<i32>().ok())
        .map_or(0, i64::from)
}

/// Place of a kind inside a wave; kinds that are not listed come last.
#[must_use]
pub fn kind_rank(kind: &str) -> usize {
    KINDS.iter().position(|known| *known == kind).unwrap_or(KINDS.len())
}

/// Sort key of an object inside a wave.
#[must_use]
pub fn rank(key: &ResourceKey) -> (usize, &str, &str, &str, &str) {
    (kind_rank(&key.kind), &key.kind, &key.name, &key.namespace, &key.group)
}

/// Argo CD's order of kinds (gitops-engine, `pkg/sync/sync_tasks.go`).
const KINDS: [&str; 35] = [
    "Namespace",
    "NetworkPolicy",
    "ResourceQuota",
    "LimitRange",
    "PodSecurityPolicy",
    "PodDisruptionBudget",
    "ServiceAccount",
    "Secret",
    "SecretList",
    "ConfigMap",
    "StorageClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleList",
    "ClusterRoleBinding",
    "ClusterRoleBindingList",
    "Role",
    "RoleList",
    "RoleBinding",
    "RoleBindingList",
    "Service",
    "DaemonSet",
    "Pod",
    "ReplicationController",
    "ReplicaSet",
    "Deployment",
    "HorizontalPodAutoscaler",
    "StatefulSet",
    "Job",
    "CronJob",
    "IngressClass",
    "Ingress",
    "APIService",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_and_waves_are_ordered_as_argo_does() {
        assert!(kind_rank("Namespace") < kind_rank("Secret"));
        assert!(kind_rank("CustomResourceDefinition") < kind_rank("Widget"));
        assert!(kind_rank("Ingress") < kind_rank("APIService"));
        let with = |key: &str, value: &str| json!({"metadata": {"annotations": {key: value}}});
        assert_eq!(wave(&with(WAVE_ANNOTATION, "-5")), -5);
        assert_eq!(wave(&with("helm.sh/hook-weight", "3")), 3);
        assert_eq!(wave(&with(WAVE_ANNOTATION, "soon")), 0);
        assert!(Phase::PreSync < Phase::Sync && Phase::Sync < Phase::PostSync);
    }
}
