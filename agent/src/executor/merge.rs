//! Three-way merges as `kubectl apply` makes them: what is sent, minus what the last-applied annotation had and the
//! manifest has no more.
//!
//! For built-in types the server merges lists by their keys (strategic merge patch). Entries that went away are deleted by
//! `name`, the key of nearly every such list; lists keyed otherwise only grow, which the next comparison shows.

use serde_json::{Map, Value, json};
use windlass_protocol::{json, manifest};

/// kubectl's annotation.
pub(super) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Whether the server knows how to merge the lists of a group's types: those compiled into it.
pub(super) fn is_built_in(group: &str) -> bool {
    BUILT_IN.contains(&group)
}

/// From the API reference of Kubernetes 1.36; custom resources and aggregated types do not take strategic patches.
const BUILT_IN: &[&str] = &[
    "",
    "admissionregistration.k8s.io",
    "apps",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

/// The object with the annotation that the next merge compares against. Secret values stay out of annotations.
pub(super) fn with_last_applied(object: &Value) -> Value {
    let mut desired = object.clone();
    if manifest::is_secret(object) {
        return desired;
    }
    json::remove(&mut desired, &["metadata", "annotations", LAST_APPLIED]);
    let text = format!("{desired}\n");
    json::set(&mut desired, &["metadata", "annotations", LAST_APPLIED], Value::from(text));
    desired
}

/// A strategic merge patch.
pub(super) fn strategic(live: &Value, desired: &Value) -> Value {
    merge(&last_applied(live), live, desired, Lists::ByName)
}

/// A JSON merge patch: lists are replaced as a whole.
pub(super) fn plain(live: &Value, desired: &Value) -> Value {
    merge(&last_applied(live), live, desired, Lists::Whole)
}

#[derive(Clone, Copy)]
enum Lists {
    ByName,
    Whole,
}

fn last_applied(live: &Value) -> Value {
    manifest::annotation(live, LAST_APPLIED).and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null)
}

fn merge(last: &Value, live: &Value, desired: &Value, lists: Lists) -> Value {
    let Value::Object(desired_map) = desired else { return desired.clone() };
    let mut patch = Map::new();
    for (key, value) in desired_map {
        let (last, live) = (last.get(key).unwrap_or(&Value::Null), live.get(key).unwrap_or(&Value::Null));
        let merged = match (value, lists) {
            (Value::Object(_), _) => merge(last, live, value, lists),
            (Value::Array(items), Lists::ByName) => merge_list(last, live, items, lists),
            (value, _) => value.clone(),
        };
        patch.insert(key.clone(), merged);
    }
    if let (Value::Object(last), Value::Object(live)) = (last, live) {
        for key in last.keys().filter(|key| !desired_map.contains_key(*key) && live.contains_key(*key)) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    Value::Object(patch)
}

fn merge_list(last: &Value, live: &Value, desired: &[Value], lists: Lists) -> Value {
    let by_name = |list: &Value, name: &str| {
        let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().find(|item| json::text(item, &["name"]) == name).cloned().unwrap_or(Value::Null)
    };
    let mut items: Vec<Value> = desired
        .iter()
        .map(|item| match json::text(item, &["name"]) {
            "" => item.clone(),
            name => merge(&by_name(last, name), &by_name(live, name), item, lists),
        })
        .collect();
    for gone in last.as_array().map(Vec::as_slice).unwrap_or_default() {
        let name = json::text(gone, &["name"]);
        let desired = desired.iter().any(|item| json::text(item, &["name"]) == name);
        if !name.is_empty() && !desired && !by_name(live, name).is_null() {
            items.push(json!({"$patch": "delete", "name": name}));
        }
    }
    Value::Array(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(last: &Value, mut object: Value) -> Value {
        json::set(&mut object, &["metadata", "annotations", LAST_APPLIED], Value::from(last.to_string()));
        object
    }

    #[test]
    fn what_was_applied_and_is_gone_is_deleted() {
        let last = json!({"spec": {"a": 1, "b": 2, "c": 3}});
        let live = live(&last, json!({"spec": {"a": 1, "b": 2, "foreign": true}}));
        assert_eq!(plain(&live, &json!({"spec": {"a": 5}})), json!({"spec": {"a": 5, "b": null}}));
    }

    #[test]
    fn entries_of_lists_are_deleted_by_name() {
        let last = json!({"containers": [{"name": "a", "x": 1}, {"name": "b"}]});
        let live = live(&last, json!({"containers": [{"name": "a", "x": 1}, {"name": "b"}, {"name": "injected"}]}));
        let desired = json!({"containers": [{"name": "a"}]});
        let expected = json!({"containers": [{"name": "a", "x": null}, {"name": "b", "$patch": "delete"}]});
        assert_eq!(strategic(&live, &desired), expected);
        assert_eq!(plain(&live, &desired), desired);
    }

    #[test]
    fn secrets_are_not_copied_into_annotations() {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "data": {"password": "x"}});
        assert_eq!(with_last_applied(&secret), secret);
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}});
        assert!(manifest::annotation(&with_last_applied(&map), LAST_APPLIED).unwrap().contains("ConfigMap"));
    }
}
