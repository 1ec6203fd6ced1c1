//! Strategic merge patch for the core kinds that the hub serves (`k8s.io/apimachinery/pkg/util/strategicpatch`).
//!
//! Maps merge, `null` deletes, lists are replaced unless Kubernetes gives them a merge key; the directives `$patch`,
//! `$retainKeys`, `$deleteFromPrimitiveList/…` and `$setElementOrder/…` are honoured.

use serde_json::{Map, Value};

use super::error::ApiError;

/// How a list at a path is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListMerge {
    /// Objects with the same value of this field are one element.
    ByKey(&'static str),
    /// A set of texts.
    Primitive,
    /// The patch's list counts.
    Replace,
}

/// Merge keys of `ObjectMeta`, `NamespaceSpec` and `NamespaceStatus`; every other list of the core kinds is atomic.
fn list_merge(path: &[&str]) -> ListMerge {
    match path {
        ["metadata", "ownerReferences"] => ListMerge::ByKey("uid"),
        ["status", "conditions"] => ListMerge::ByKey("type"),
        ["metadata", "finalizers"] => ListMerge::Primitive,
        _ => ListMerge::Replace,
    }
}

pub(super) fn merge(value: &mut Value, patch: &Value) -> Result<(), ApiError> {
    merge_value(value, patch, &mut Vec::new())
}

fn merge_value<'a>(value: &mut Value, patch: &'a Value, path: &mut Vec<&'a str>) -> Result<(), ApiError> {
    let Value::Object(patch) = patch else {
        *value = patch.clone();
        return Ok(());
    };
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            *value = Value::Object(plain(patch));
            return Ok(());
        }
        Some("delete") => {
            *value = Value::Object(Map::new());
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(ApiError::bad_request(format!("unknown strategic merge directive $patch: {other}"))),
    }
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Value::Object(map) = value else { return Ok(()) };
    retain_keys(map, patch);
    for (key, change) in patch {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            delete_primitives(map, list, change);
        } else if !key.starts_with('$') {
            path.push(key.as_str());
            merge_field(map, key, change, path)?;
            path.pop();
        }
    }
    for (key, order) in patch {
        if let Some(list) = key.strip_prefix("$setElementOrder/") {
            path.push(list);
            set_order(map, list, order, list_merge(path));
            path.pop();
        }
    }
    Ok(())
}

fn merge_field<'a>(
    map: &mut Map<String, Value>,
    key: &str,
    change: &'a Value,
    path: &mut Vec<&'a str>,
) -> Result<(), ApiError> {
    match change {
        Value::Null => {
            map.remove(key);
            Ok(())
        }
        Value::Object(fields) if fields.get("$patch").and_then(Value::as_str) == Some("delete") => {
            map.remove(key);
            Ok(())
        }
        Value::Object(_) => merge_value(map.entry(key.to_owned()).or_insert(Value::Null), change, path),
        Value::Array(list) => {
            let old = map.entry(key.to_owned()).or_insert_with(|| Value::Array(Vec::new()));
            merge_list(old, list, list_merge(path));
            Ok(())
        }
        other => {
            map.insert(key.to_owned(), other.clone());
            Ok(())
        }
    }
}

fn merge_list(old: &mut Value, list: &[Value], how: ListMerge) {
    let replace = list.iter().any(|entry| entry.get("$patch").and_then(Value::as_str) == Some("replace"));
    let Value::Array(old) = old else {
        *old = Value::Array(list.to_vec());
        return;
    };
    match how {
        ListMerge::Replace => *old = list.to_vec(),
        ListMerge::Primitive => {
            for entry in list {
                if !old.contains(entry) {
                    old.push(entry.clone());
                }
            }
        }
        ListMerge::ByKey(_) if replace => {
            *old = list.iter().filter(|entry| entry.get("$patch").is_none()).cloned().collect();
        }
        ListMerge::ByKey(key) => {
            for entry in list {
                let same = |other: &Value| other.get(key) == entry.get(key);
                let delete = entry.get("$patch").and_then(Value::as_str) == Some("delete");
                match (old.iter().position(same), delete) {
                    (Some(index), true) => drop(old.remove(index)),
                    (Some(index), false) => {
                        if let Some(found) = old.get_mut(index) {
                            // Elements of these lists are flat objects.
                            json_patch::merge(found, entry);
                        }
                    }
                    (None, false) => old.push(entry.clone()),
                    (None, true) => {}
                }
            }
        }
    }
}

fn retain_keys(map: &mut Map<String, Value>, patch: &Map<String, Value>) {
    if let Some(Value::Array(keys)) = patch.get("$retainKeys") {
        map.retain(|key, _| keys.iter().any(|kept| kept.as_str() == Some(key)));
    }
}

fn delete_primitives(map: &mut Map<String, Value>, key: &str, gone: &Value) {
    let (Some(Value::Array(list)), Value::Array(gone)) = (map.get_mut(key), gone) else { return };
    list.retain(|entry| !gone.contains(entry));
}

/// Elements that the order names come in its order; the others keep their place at the end.
fn set_order(map: &mut Map<String, Value>, key: &str, order: &Value, how: ListMerge) {
    let (Some(Value::Array(list)), Value::Array(order)) = (map.get_mut(key), order) else { return };
    let position = |entry: &Value| {
        let same = |wanted: &Value| match how {
            ListMerge::ByKey(field) => wanted.get(field) == entry.get(field),
            ListMerge::Primitive | ListMerge::Replace => wanted == entry,
        };
        order.iter().position(same).unwrap_or(usize::MAX)
    };
    if how != ListMerge::Replace {
        list.sort_by_key(position);
    }
}

/// A patch without its directives.
fn plain(patch: &Map<String, Value>) -> Map<String, Value> {
    patch.iter().filter(|(key, _)| !key.starts_with('$')).map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(value: Value, patch: &Value, expect: &Value) {
        let mut value = value;
        merge(&mut value, patch).unwrap();
        assert_eq!(&value, expect, "{patch}");
    }

    #[test]
    fn maps_merge_and_lists_follow_their_rule() {
        let old = json!({"data": {"a": "1", "b": "2"}});
        check(old.clone(), &json!({"data": {"a": null, "c": "3"}}), &json!({"data": {"b": "2", "c": "3"}}));
        check(old.clone(), &json!({"data": {"$patch": "replace", "x": "y"}}), &json!({"data": {"x": "y"}}));
        check(old.clone(), &json!({"data": {"$retainKeys": ["b"]}}), &json!({"data": {"b": "2"}}));
        check(old, &json!({"data": {"$patch": "delete"}}), &json!({}));

        let owners = json!({"metadata": {"ownerReferences": [{"uid": "1", "kind": "A"}, {"uid": "2"}]}});
        let patch = json!({"metadata": {
            "ownerReferences": [{"uid": "1", "name": "n"}, {"uid": "2", "$patch": "delete"}, {"uid": "3"}],
            "$setElementOrder/ownerReferences": [{"uid": "3"}, {"uid": "1"}],
        }});
        let expect = json!({"metadata": {"ownerReferences": [{"uid": "3"}, {"uid": "1", "kind": "A", "name": "n"}]}});
        check(owners, &patch, &expect);

        let finalizers = json!({"metadata": {"finalizers": ["a", "b"]}});
        let patch = json!({"metadata": {"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"]}});
        check(finalizers, &patch, &json!({"metadata": {"finalizers": ["b", "c"]}}));
    }
}
