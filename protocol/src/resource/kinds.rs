//! The closed list of kinds that the hub's API serves, with their names in URLs, tables and short forms.

use serde::{Deserialize, Serialize};

/// A kind of the hub's API. Append only: the order is part of stored keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Core `v1`.
    Namespace,
    /// Core `v1`; sealed.
    Secret,
    /// Core `v1`.
    ConfigMap,
    /// Core `v1`.
    Event,
    /// `argoproj.io/v1alpha1`.
    Application,
    /// `argoproj.io/v1alpha1`.
    ApplicationSet,
    /// `argoproj.io/v1alpha1`.
    AppProject,
    /// `windlass.io/v1alpha1`.
    Cluster,
    /// `windlass.io/v1alpha1`.
    Rollout,
    /// `windlass.io/v1alpha1`.
    RolloutPolicy,
}

/// What discovery says about a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindInfo {
    /// The kind.
    pub kind: Kind,
    /// API group; empty for core.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Name in manifests.
    pub name: &'static str,
    /// Name in URLs.
    pub plural: &'static str,
    /// Name for people.
    pub singular: &'static str,
    /// Short names.
    pub short: &'static [&'static str],
    /// Lives in a namespace.
    pub namespaced: bool,
    /// Has a `status` sub-resource.
    pub status: bool,
}

const ARGO: &str = "argoproj.io";
const WINDLASS: &str = "windlass.io";

/// Every kind, in the order of [`Kind`].
pub const KINDS: &[KindInfo] = &[
    info(Kind::Namespace, "", "Namespace", "namespaces", "namespace", &["ns"], false, true),
    info(Kind::Secret, "", "Secret", "secrets", "secret", &[], true, false),
    info(Kind::ConfigMap, "", "ConfigMap", "configmaps", "configmap", &["cm"], true, false),
    info(Kind::Event, "", "Event", "events", "event", &["ev"], true, false),
    info(Kind::Application, ARGO, "Application", "applications", "application", &["app", "apps"], true, true),
    info(
        Kind::ApplicationSet,
        ARGO,
        "ApplicationSet",
        "applicationsets",
        "applicationset",
        &["appset", "appsets"],
        true,
        true,
    ),
    info(Kind::AppProject, ARGO, "AppProject", "appprojects", "appproject", &["appproj", "appprojs"], true, true),
    info(Kind::Cluster, WINDLASS, "Cluster", "clusters", "cluster", &["cl"], false, true),
    info(Kind::Rollout, WINDLASS, "Rollout", "rollouts", "rollout", &["ro"], true, true),
    info(Kind::RolloutPolicy, WINDLASS, "RolloutPolicy", "rolloutpolicies", "rolloutpolicy", &[], true, false),
];

#[allow(clippy::too_many_arguments, reason = "one line per kind in the table above")]
const fn info(
    kind: Kind,
    group: &'static str,
    name: &'static str,
    plural: &'static str,
    singular: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
    status: bool,
) -> KindInfo {
    let version = if group.is_empty() { "v1" } else { "v1alpha1" };
    KindInfo { kind, group, version, name, plural, singular, short, namespaced, status }
}

impl KindInfo {
    /// `apiVersion` of manifests.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
}

impl Kind {
    /// What discovery says about the kind.
    #[must_use]
    pub fn info(self) -> &'static KindInfo {
        KINDS.iter().find(|info| info.kind == self).expect("the table has every kind; a test counts them")
    }

    /// The kind of a manifest's `apiVersion` and `kind`.
    #[must_use]
    pub fn of(api_version: &str, name: &str) -> Option<Self> {
        KINDS.iter().find(|info| info.name == name && info.api_version() == api_version).map(|info| info.kind)
    }

    /// The kind at `/apis/GROUP/VERSION/PLURAL`.
    #[must_use]
    pub fn of_path(group: &str, version: &str, plural: &str) -> Option<Self> {
        let found = KINDS.iter().find(|info| info.group == group && info.version == version && info.plural == plural);
        found.map(|info| info.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_follows_the_enum() {
        for (index, info) in KINDS.iter().enumerate() {
            assert_eq!(info.kind as usize, index);
            assert_eq!(Kind::of(&info.api_version(), info.name), Some(info.kind));
            assert_eq!(Kind::of_path(info.group, info.version, info.plural), Some(info.kind));
            assert_eq!(info.kind.info(), info);
        }
        assert_eq!(KINDS.len(), Kind::RolloutPolicy as usize + 1);
    }
}
