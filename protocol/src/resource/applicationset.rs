//! `argoproj.io/v1alpha1` ApplicationSet.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::json::Json;

/// `spec` of an ApplicationSet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplicationSetSpec {
    /// Go templates instead of fasttemplate.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub go_template: bool,
    /// `missingkey=error` and its kin.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub go_template_options: Vec<String>,
    /// Where the parameters come from.
    pub generators: Vec<Generator>,
    /// The Application that each set of parameters makes, as JSON, since any text of it may hold tags.
    pub template: Json,
    /// A patch of the rendered Application (Go templates only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_patch: Option<String>,
    /// What may be done with generated Applications.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_policy: Option<ApplicationSetSyncPolicy>,
    /// Metadata that is not reset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preserved_fields: Option<Json>,
    /// Fields of generated Applications that are not reset.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore_application_differences: Vec<Json>,
    /// The order of changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Json>,
    /// Selectors apply to each terminal generator of a nested one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub apply_nested_selectors: bool,
}

/// `spec.syncPolicy` of an ApplicationSet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplicationSetSyncPolicy {
    /// `sync`, `create-only`, `create-update` or `create-delete`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applications_sync: Option<ApplicationsSync>,
    /// Generated Applications get no finalizer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub preserve_resources_on_deletion: bool,
}

/// `spec.syncPolicy.applicationsSync`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApplicationsSync {
    /// Create, update and delete.
    #[default]
    Sync,
    /// Only create.
    CreateOnly,
    /// Create and update.
    CreateUpdate,
    /// Create and delete.
    CreateDelete,
}

/// One entry of `spec.generators[]`: exactly one kind, and optionally a selector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Generator {
    /// Fixed elements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<ListGenerator>,
    /// Registered clusters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clusters: Option<ClusterGenerator>,
    /// Files or directories of a repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git: Option<GitGenerator>,
    /// Two generators, multiplied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matrix: Option<Json>,
    /// Several generators, joined by keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge: Option<Json>,
    /// Repositories of an organisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scm_provider: Option<Json>,
    /// Open pull requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<Json>,
    /// An HTTP service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<Json>,
    /// A placement resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_decision_resource: Option<Json>,
    /// Keeps only the sets of parameters that match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// `list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListGenerator {
    /// The elements.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub elements: Vec<Json>,
    /// The elements as YAML text, may hold tags of an outer generator.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub elements_yaml: String,
    /// Merged over the set's template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<Json>,
}

/// `clusters`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterGenerator {
    /// Over the labels of Cluster objects; all clusters when empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Further parameters, `values.*`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// One set of parameters that holds the list of clusters.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub flat_list: bool,
    /// Merged over the set's template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<Json>,
}

/// `git`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GitGenerator {
    /// Repository.
    #[serde(rename = "repoURL")]
    pub repo_url: String,
    /// Branch, tag, SHA or `HEAD`.
    pub revision: String,
    /// A set of parameters per directory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub directories: Vec<GitItem>,
    /// A set of parameters per file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<GitItem>,
    /// Period of polling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requeue_after_seconds: Option<u64>,
    /// Prefix of the `path` parameters.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path_param_prefix: String,
    /// Further parameters, `values.*`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// Merged over the set's template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<Json>,
}

/// A glob of `git.files[]` or `git.directories[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GitItem {
    /// Glob from the root of the repository.
    pub path: String,
    /// Takes away instead of adding.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub exclude: bool,
}

/// Kubernetes' label selector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// All must be equal.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// All must hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelExpression>,
}

/// One requirement of a [`LabelSelector`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelExpression {
    /// Label key.
    pub key: String,
    /// What must hold.
    pub operator: LabelOperator,
    /// Values of `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// Operators of a [`LabelExpression`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LabelOperator {
    /// The value is one of the list.
    In,
    /// The value is absent or none of the list.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether labels satisfy every requirement; an empty selector matches everything. `get` gives the value of a key.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        let equal = self.match_labels.iter().all(|(key, value)| get(key) == Some(value));
        equal
            && self.match_expressions.iter().all(|expression| {
                let value = get(&expression.key);
                let listed = value.is_some_and(|value| expression.values.iter().any(|one| one == value));
                match expression.operator {
                    LabelOperator::In => listed,
                    LabelOperator::NotIn => !listed,
                    LabelOperator::Exists => value.is_some(),
                    LabelOperator::DoesNotExist => value.is_none(),
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_follow_kubernetes() {
        let labels = BTreeMap::from([("env", "prod"), ("region", "eu")]);
        let check = |selector: serde_json::Value, expect: bool| {
            let selector: LabelSelector = serde_json::from_value(selector).unwrap();
            assert_eq!(selector.matches(|key| labels.get(key).copied()), expect, "{selector:?}");
        };
        check(json!({}), true);
        check(json!({"matchLabels": {"env": "prod"}}), true);
        check(json!({"matchLabels": {"env": "dev"}}), false);
        check(json!({"matchExpressions": [{"key": "env", "operator": "In", "values": ["dev", "prod"]}]}), true);
        check(json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x"]}]}), true);
        check(json!({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}), false);
        check(json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}), true);
    }
}
