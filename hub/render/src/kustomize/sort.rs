//! The order of the output: as read, or Kustomize's "legacy" order by kind.

use std::{cmp::Ordering, collections::BTreeMap};

use super::{
    file::SortOptions,
    id::{Gvk, ResourceId},
    resource_map::ResourceMap,
};
use crate::error::Problem;

const FIRST: [&str; 22] = [
    "Namespace",
    "ResourceQuota",
    "StorageClass",
    "CustomResourceDefinition",
    "ServiceAccount",
    "PodSecurityPolicy",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "ConfigMap",
    "Secret",
    "Endpoints",
    "Service",
    "LimitRange",
    "PriorityClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Deployment",
    "StatefulSet",
    "CronJob",
    "PodDisruptionBudget",
];

const LAST: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// Sorts as `sortOptions` says.
pub(super) fn by_options(map: &mut ResourceMap, options: &SortOptions) -> Result<(), Problem> {
    let refuse = |message: String| Err(Problem::field(message).in_field("sortOptions"));
    match (options.order.as_str(), &options.legacy) {
        ("fifo", None) => Ok(()),
        ("fifo", Some(_)) => refuse(
            "the field 'sortOptions.legacySortOptions' is set but the selected sort order is 'fifo', not 'legacy'"
                .to_owned(),
        ),
        ("legacy", None) => {
            legacy(map);
            Ok(())
        }
        ("legacy", Some((first, last))) => {
            let first: Vec<&str> = first.iter().map(String::as_str).collect();
            let last: Vec<&str> = last.iter().map(String::as_str).collect();
            sort(map, &first, &last);
            Ok(())
        }
        _ => refuse("the field 'sortOptions.order' must be one of [fifo, legacy]".to_owned()),
    }
}

/// The order of `kustomize build` when nothing is said.
pub(super) fn legacy(map: &mut ResourceMap) {
    sort(map, &FIRST, &LAST);
}

/// The order of field specs in a configuration.
pub(super) fn by_kind(left: &Gvk, right: &Gvk) -> Ordering {
    let rank = |gvk: &Gvk| {
        let first = FIRST.iter().position(|kind| *kind == gvk.kind);
        let last = LAST.iter().position(|kind| *kind == gvk.kind);
        match (first, last) {
            (Some(index), _) => (0, index),
            (None, None) => (1, 0),
            (None, Some(index)) => (2, index),
        }
    };
    rank(left).cmp(&rank(right)).then_with(|| gvk_text(left).cmp(&gvk_text(right)))
}

fn sort(map: &mut ResourceMap, first: &[&str], last: &[&str]) {
    let rank = |index: usize| i64::try_from(index).unwrap_or(i64::MAX);
    let mut ranks: BTreeMap<&str, i64> = BTreeMap::new();
    for (index, kind) in first.iter().enumerate() {
        ranks.insert(kind, rank(index) - rank(first.len()));
    }
    for (index, kind) in last.iter().enumerate() {
        ranks.insert(kind, rank(index) + 1);
    }
    map.list.sort_by(|left, right| compare(&left.id, &right.id, &ranks));
}

fn compare(left: &ResourceId, right: &ResourceId, ranks: &BTreeMap<&str, i64>) -> Ordering {
    if left.gvk == right.gvk {
        return id_text(left).cmp(&id_text(right));
    }
    let rank = |id: &ResourceId| ranks.get(id.gvk.kind.as_str()).copied().unwrap_or(0);
    rank(left).cmp(&rank(right)).then_with(|| {
        let (a, b) = (gvk_text(&left.gvk), gvk_text(&right.gvk));
        let namespaces = left.gvk.kind == "Namespace" && right.gvk.kind == "Namespace";
        if namespaces && (left.gvk.group.is_empty() || right.gvk.group.is_empty()) { b.cmp(&a) } else { a.cmp(&b) }
    })
}

fn gvk_text(gvk: &Gvk) -> String {
    let part = |text: &str, missing: &'static str| if text.is_empty() { missing.to_owned() } else { text.to_owned() };
    format!("{}_{}_{}", part(&gvk.group, "~G"), part(&gvk.version, "~V"), part(&gvk.kind, "~K"))
}

fn id_text(id: &ResourceId) -> String {
    let namespace = if id.namespace.is_empty() { "~X" } else { &id.namespace };
    let name = if id.name.is_empty() { "~N" } else { &id.name };
    format!("{}|{namespace}|{name}", id.gvk)
}
