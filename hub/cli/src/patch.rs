//! Three-way merge, as `kubectl apply` does it for custom resources.
//!
//! The patch is an RFC 7396 merge patch. A field is deleted when the last applied version had it and the new one has not;
//! it is set when the new one differs from the live object; whatever others wrote stays. Lists are replaced as a whole. The
//! last applied version stands in kubectl's own annotation, so that both tools may be used on the same object.

use serde_json::{Map, Value, json};
use windlass_protocol::json;

/// Where kubectl keeps what was applied last.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The merge patch that brings `live` to `wanted`, given what was applied last; `None` when there is nothing to do.
pub(crate) fn three_way(last: Option<&Value>, wanted: &Value, live: &Value) -> Option<Value> {
    let empty = Map::new();
    let as_map = |value: &Value| value.as_object().cloned();
    let (wanted, live) = (as_map(wanted)?, as_map(live)?);
    let last = last.and_then(Value::as_object).unwrap_or(&empty);
    let patch = merge(last, &wanted, &live);
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// What was applied last, from a live object.
pub(crate) fn last_applied(live: &Value) -> Option<Value> {
    serde_json::from_str(json::text(live, &["metadata", "annotations", LAST_APPLIED])).ok()
}

/// The object with the annotation that records it.
pub(crate) fn with_last_applied(object: &Value) -> Value {
    let mut recorded = object.clone();
    drop(json::remove(&mut recorded, &["metadata", "annotations", LAST_APPLIED]));
    if json::at(&recorded, &["metadata", "annotations"]).is_none_or(Value::is_null) {
        json::set(&mut recorded, &["metadata", "annotations"], json!({}));
    }
    let mut text = recorded.to_string();
    text.push('\n');
    let mut object = object.clone();
    if json::at(&object, &["metadata", "annotations"]).is_none_or(Value::is_null) {
        json::set(&mut object, &["metadata", "annotations"], json!({}));
    }
    json::set(&mut object, &["metadata", "annotations", LAST_APPLIED], json!(text));
    object
}

fn merge(last: &Map<String, Value>, wanted: &Map<String, Value>, live: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    let gone = last.keys().filter(|key| wanted.get(*key).is_none_or(Value::is_null) && live.contains_key(*key));
    patch.extend(gone.map(|key| (key.clone(), Value::Null)));
    let empty = Map::new();
    for (key, value) in wanted.iter().filter(|(_, value)| !value.is_null()) {
        match (value, live.get(key)) {
            (Value::Object(value), Some(Value::Object(live))) => {
                let last = last.get(key).and_then(Value::as_object).unwrap_or(&empty);
                let inner = merge(last, value, live);
                if !inner.is_empty() {
                    patch.insert(key.clone(), Value::Object(inner));
                }
            }
            (value, Some(live)) if value == live => {}
            (value, _) => {
                patch.insert(key.clone(), without_nulls(value));
            }
        }
    }
    patch
}

/// A null inside of a merge patch deletes; in a manifest it means "nothing".
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        value => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(last: Value, wanted: Value, live: Value, expected: Option<Value>) {
        assert_eq!(three_way(Some(&last), &wanted, &live), expected);
    }

    #[test]
    fn fields_are_set_deleted_and_left_to_others() {
        let live = json!({"spec": {"a": 1, "old": 1, "theirs": 1, "list": [1, 2]}, "status": {"x": 1}});
        let last = json!({"spec": {"a": 1, "old": 1, "never": 1}});
        let wanted = json!({"spec": {"a": 2, "list": [2], "new": {"deep": 1, "nothing": null}}});
        let patch = json!({"spec": {"a": 2, "old": null, "list": [2], "new": {"deep": 1}}});
        check(last, wanted, live, Some(patch));
    }

    #[test]
    fn what_is_as_wanted_gives_no_patch() {
        let live = json!({"spec": {"a": 1, "theirs": 1}});
        check(json!({"spec": {"a": 1}}), json!({"spec": {"a": 1, "b": null}}), live.clone(), None);
        assert_eq!(three_way(None, &json!({"spec": {"a": 1}}), &live), None);
    }

    #[test]
    fn a_map_in_place_of_something_else_replaces_it() {
        check(json!({}), json!({"a": {"b": 1}}), json!({"a": 1}), Some(json!({"a": {"b": 1}})));
        check(json!({"a": {"b": 1}}), json!({"a": 1}), json!({"a": {"b": 1}}), Some(json!({"a": 1})));
    }

    #[test]
    fn the_annotation_records_the_object_without_itself() {
        let object = json!({"metadata": {"name": "x", "annotations": {"k": "v", LAST_APPLIED: "stale"}}});
        let recorded = with_last_applied(&object);
        let last = last_applied(&recorded).unwrap();
        assert_eq!(last, json!({"metadata": {"name": "x", "annotations": {"k": "v"}}}));
        assert_eq!(with_last_applied(&recorded), recorded);
        assert_eq!(last_applied(&json!({"metadata": {}})), None);
    }
}
