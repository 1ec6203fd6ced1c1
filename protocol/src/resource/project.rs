//! `argoproj.io/v1alpha1` AppProject.

use serde::{Deserialize, Serialize};

use super::Destination;
use crate::{json::Json, message::KindPattern};

/// `spec` of an AppProject.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AppProjectSpec {
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Globs of repositories; a leading `!` denies.
    pub source_repos: Vec<String>,
    /// Globs of destinations; a leading `!` denies.
    pub destinations: Vec<Destination>,
    /// Cluster-scoped kinds that are allowed; none when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cluster_resource_whitelist: Vec<KindPattern>,
    /// Cluster-scoped kinds that are denied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cluster_resource_blacklist: Vec<KindPattern>,
    /// Namespaced kinds that are allowed; all when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_resource_whitelist: Option<Vec<KindPattern>>,
    /// Namespaced kinds that are denied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespace_resource_blacklist: Vec<KindPattern>,
    /// RBAC roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Json>,
    /// When syncs may run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sync_windows: Vec<Json>,
    /// Namespaces whose Applications may use the project, besides the control namespace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_namespaces: Vec<String>,
    /// Warn about objects that no application owns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orphaned_resources: Option<Json>,
    /// Only clusters of the project.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub permit_only_project_scoped_clusters: bool,
    /// Service accounts to act as.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_service_accounts: Vec<Json>,
    /// Keys that commits must be signed with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signature_keys: Vec<Json>,
}

impl AppProjectSpec {
    /// The project `default`, which allows everything.
    #[must_use]
    pub fn allow_all() -> Self {
        let any = || "*".to_owned();
        Self {
            source_repos: vec![any()],
            destinations: vec![Destination { server: any(), name: String::new(), namespace: any() }],
            cluster_resource_whitelist: vec![KindPattern { group: any(), kind: any() }],
            ..Self::default()
        }
    }
}
