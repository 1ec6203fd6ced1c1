//! `argoproj.io/v1alpha1` Application: the fields of Argo CD 3 (`pkg/apis/application/v1alpha1/types.go`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::json::Json;

/// `spec` of an Application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplicationSpec {
    /// Name of the AppProject; empty means `default`, with a condition that says so.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub project: String,
    /// The one source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<ApplicationSource>,
    /// Several sources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<ApplicationSource>,
    /// Where to.
    pub destination: Destination,
    /// How to sync.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_policy: Option<SyncPolicy>,
    /// Fields that are not compared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore_differences: Vec<IgnoreDifference>,
    /// Shown to people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub info: Vec<Info>,
    /// How much history is kept; 10 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision_history_limit: Option<u32>,
    /// Parsed, not run yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_hydrator: Option<Json>,
}

/// `spec.info[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Info {
    /// What.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// `spec.destination`: `server` or `name`, never both.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Destination {
    /// URL of the cluster's API server.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server: String,
    /// Name of the cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Namespace of manifests that name none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// `spec.source`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplicationSource {
    /// Repository.
    #[serde(rename = "repoURL")]
    pub repo_url: String,
    /// Directory inside of the repository.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Branch, tag, SHA, semver range or `HEAD`; empty means `HEAD`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target_revision: String,
    /// Only tags with this prefix count for a semver range.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tag_prefix: String,
    /// Name of a source among several.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Makes the source referable as `$ref`.
    #[serde(rename = "ref", skip_serializing_if = "String::is_empty")]
    pub reference: String,
    /// Helm chart of a chart repository.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub chart: String,
    /// Kustomize overrides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kustomize: Option<KustomizeSource>,
    /// Plain directory options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<DirectorySource>,
    /// Helm options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helm: Option<Json>,
    /// Config management plugin: refused with a condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<Json>,
}

/// `spec.source.kustomize`: overrides with the meaning of the `kustomize edit` commands that Argo CD runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KustomizeSource {
    /// `kustomize edit set nameprefix`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name_prefix: String,
    /// `kustomize edit set namesuffix`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name_suffix: String,
    /// `[old=]name[:tag|@digest]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// `kustomize edit add label`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub common_labels: BTreeMap<String, String>,
    /// Labels are not added to selectors.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub label_without_selector: bool,
    /// With `label_without_selector`: labels are added to pod templates all the same.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub label_include_templates: bool,
    /// `kustomize edit add annotation`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub common_annotations: BTreeMap<String, String>,
    /// Build environment variables are expanded in `common_annotations`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub common_annotations_envsubst: bool,
    /// Labels of the overlay are overridden.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub force_common_labels: bool,
    /// Annotations of the overlay are overridden.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub force_common_annotations: bool,
    /// `kustomize edit set namespace`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// `kustomize edit set replicas`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<KustomizeReplica>,
    /// Appended to the overlay's patches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<KustomizePatch>,
    /// Appended to the overlay's components.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<String>,
    /// Components that do not exist are passed over.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignore_missing_components: bool,
    /// Version of the kustomize program: accepted, there is one engine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// For Helm inflation.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kube_version: String,
    /// For Helm inflation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_versions: Vec<String>,
    /// Not a field of Argo CD, but written by people (COMPAT decision 4): accepted, with a condition on what was ignored.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub build_options: String,
}

/// `spec.source.kustomize.replicas[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KustomizeReplica {
    /// Name of the workload.
    pub name: String,
    /// A number, or a text of digits.
    pub count: Json,
}

/// `spec.source.kustomize.patches[]`, as in a kustomization.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KustomizePatch {
    /// File of the patch.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// The patch itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub patch: String,
    /// What is patched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<KustomizeSelector>,
    /// `allowNameChange`, `allowKindChange`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, bool>,
}

/// Target of a patch; texts are anchored regular expressions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KustomizeSelector {
    /// API group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// API version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Annotation selector expression.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub annotation_selector: String,
    /// Label selector expression.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub label_selector: String,
}

/// `spec.source.directory`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DirectorySource {
    /// Sub-directories are read too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub recurse: bool,
    /// Glob of files to read.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub include: String,
    /// Glob of files to leave out.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub exclude: String,
    /// Jsonnet options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jsonnet: Option<Json>,
}

/// `spec.syncPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyncPolicy {
    /// Sync without being asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automated: Option<SyncPolicyAutomated>,
    /// `Name=value` options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sync_options: Vec<String>,
    /// Retries of a failed operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryStrategy>,
    /// Metadata of a namespace made by `CreateNamespace=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_namespace_metadata: Option<ManagedNamespaceMetadata>,
}

/// `spec.syncPolicy.automated`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyncPolicyAutomated {
    /// `false` switches automation off; unset is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Delete what is no longer desired.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub prune: bool,
    /// Undo drift.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub self_heal: bool,
    /// A sync may remove the last resource.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_empty: bool,
}

/// `spec.syncPolicy.retry`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetryStrategy {
    /// Attempts after the first; negative is forever; 5 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// A new revision replaces the one that is retried.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub refresh: bool,
    /// Waits between attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<RetryBackoff>,
}

/// `spec.syncPolicy.retry.backoff`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryBackoff {
    /// First wait, as Go prints durations (`5s`).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub duration: String,
    /// Each wait is this many times the one before; 2 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<u32>,
    /// No wait is longer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub max_duration: String,
}

/// `spec.syncPolicy.managedNamespaceMetadata`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ManagedNamespaceMetadata {
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// `spec.ignoreDifferences[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IgnoreDifference {
    /// API group glob.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Kind glob.
    pub kind: String,
    /// Name; all when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Namespace; all when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// RFC 6901 pointers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub json_pointers: Vec<String>,
    /// jq expressions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jq_path_expressions: Vec<String>,
    /// Fields owned by these managers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub managed_fields_managers: Vec<String>,
}

/// Top-level `operation` of an Application, written by a patch to start a sync.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplicationOperation {
    /// The sync.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync: Option<SyncOperation>,
    /// Retries of this operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryStrategy>,
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initiated_by: Option<InitiatedBy>,
    /// Shown to people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub info: Vec<Info>,
}

/// `operation.initiatedBy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InitiatedBy {
    /// User.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// Started by the controller itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub automated: bool,
}

/// `operation.sync`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyncOperation {
    /// Revision to sync to; the target revision when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// Delete what is no longer desired.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub prune: bool,
    /// Only say what would happen.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// `apply` or `hook`, each with `force`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_strategy: Option<Json>,
    /// Only these objects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<SyncOperationResource>,
    /// Options of this operation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sync_options: Vec<String>,
    /// Revisions of several sources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<String>,
    /// Another source than the spec's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<ApplicationSource>,
    /// Manifests of a local directory: refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<String>,
}

/// `operation.sync.resources[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncOperationResource {
    /// API group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

impl ApplicationSpec {
    /// The project's name: `default` when none is given.
    #[must_use]
    pub fn project_name(&self) -> &str {
        if self.project.is_empty() { "default" } else { &self.project }
    }

    /// Whether the application syncs by itself.
    #[must_use]
    pub fn automated(&self) -> Option<&SyncPolicyAutomated> {
        let automated = self.sync_policy.as_ref()?.automated.as_ref()?;
        automated.enabled.unwrap_or(true).then_some(automated)
    }
}
