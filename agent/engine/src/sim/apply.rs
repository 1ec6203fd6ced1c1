//! Server-side apply and updates with field ownership, in the format of managedFields. Lists are merged by the same keys that the
//! comparison knows; everything else is atomic.

use serde_json::{Map, Value, json};
use windlass_protocol::{json as lens, manifest};

use crate::diff::list_keys;

/// The object after a forced server-side apply.
pub(super) fn server_side(live: Option<&Value>, applied: &Value, manager: &str) -> Value {
    let mut applied = applied.clone();
    lens::remove(&mut applied, &["metadata", "managedFields"]);
    lens::remove(&mut applied, &["status"]);
    let set = own_fields(&applied);
    let Some(live) = live else {
        let mut object = applied;
        let first = entry(manager, "Apply", &object, set);
        set_entries(&mut object, vec![first]);
        return object;
    };
    let mut entries = entries_of(live);
    let is_ours = |entry: &Value| is_entry(entry, manager, "Apply");
    let before = entries.iter().find(|entry| is_ours(entry)).map(fields).unwrap_or_default();
    entries.retain(|entry| !is_ours(entry));
    // Forced: whoever set a field that now becomes another value loses it.
    for other in &mut entries {
        if let Some(Value::Object(owned)) = other.get_mut("fieldsV1") {
            lose_changed(owned, &set, live, &applied, "");
        }
    }
    let others: Vec<Map<String, Value>> = entries.iter().map(fields).collect();
    let mut object = live.clone();
    remove_lost(&mut object, &before, &set, &others.iter().collect::<Vec<_>>());
    merge(&mut object, &applied, "");
    entries.retain(|entry| !fields(entry).is_empty());
    entries.push(entry(manager, "Apply", &applied, set));
    set_entries(&mut object, entries);
    object
}

/// The object after an update by a manager: it owns what it changed, and nobody else does.
pub(super) fn update(live: Option<&Value>, mut object: Value, manager: &str) -> Value {
    let Some(live) = live else {
        let set = own_fields(&object);
        let first = entry(manager, "Update", &object, set);
        set_entries(&mut object, vec![first]);
        return object;
    };
    for field in ["uid", "resourceVersion", "generation", "creationTimestamp"] {
        if let Some(value) = lens::at(live, &["metadata", field]) {
            lens::set(&mut object, &["metadata", field], value.clone());
        }
    }
    let mut entries = entries_of(live);
    let changed = changed_fields(live, &object);
    for other in entries.iter_mut().filter(|entry| !is_entry(entry, manager, "Update")) {
        if let Some(Value::Object(owned)) = other.get_mut("fieldsV1") {
            subtract(owned, &changed);
            keep_present(owned, &object);
        }
    }
    let index = entries.iter().position(|entry| is_entry(entry, manager, "Update"));
    let mut own = index.map(|index| fields(&entries.remove(index))).unwrap_or_default();
    unite(&mut own, &changed);
    keep_present(&mut own, &object);
    entries.retain(|entry| !fields(entry).is_empty());
    if !own.is_empty() {
        entries.push(entry(manager, "Update", &object, own));
    }
    set_entries(&mut object, entries);
    object
}

/// RFC 7396.
pub(super) fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Value::Object(map) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge_patch(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn entries_of(object: &Value) -> Vec<Value> {
    lens::at(object, &["metadata", "managedFields"]).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn set_entries(object: &mut Value, mut entries: Vec<Value>) {
    entries.sort_by_key(|entry| {
        (lens::text(entry, &["manager"]).to_owned(), lens::text(entry, &["operation"]).to_owned())
    });
    lens::set(object, &["metadata", "managedFields"], Value::Array(entries));
}

fn entry(manager: &str, operation: &str, object: &Value, fields: Map<String, Value>) -> Value {
    json!({"manager": manager, "operation": operation, "apiVersion": manifest::api_version(object),
        "fieldsType": "FieldsV1", "fieldsV1": fields})
}

fn is_entry(entry: &Value, manager: &str, operation: &str) -> bool {
    lens::text(entry, &["manager"]) == manager && lens::text(entry, &["operation"]) == operation
}

fn fields(entry: &Value) -> Map<String, Value> {
    entry.get("fieldsV1").and_then(Value::as_object).cloned().unwrap_or_default()
}

/// The set of all fields of an object that a manager can own.
fn own_fields(object: &Value) -> Map<String, Value> {
    let mut set = set_of(object, "");
    set.remove("f:apiVersion");
    set.remove("f:kind");
    set.remove("f:status");
    if let Some(Value::Object(metadata)) = set.get_mut("f:metadata") {
        for field in ["name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"]
        {
            metadata.remove(&format!("f:{field}"));
        }
        if metadata.is_empty() {
            set.remove("f:metadata");
        }
    }
    set
}

fn set_of(value: &Value, key: &str) -> Map<String, Value> {
    match value {
        Value::Object(map) => {
            map.iter().map(|(key, value)| (format!("f:{key}"), Value::Object(set_of(value, key)))).collect()
        }
        Value::Array(items) => match list_keys(key, items) {
            Some(keys) => {
                let element = |item: &Value| {
                    let mut below = set_of(item, "");
                    below.insert(".".to_owned(), json!({}));
                    (element_name(item, &keys), Value::Object(below))
                };
                items.iter().map(element).collect()
            }
            None => Map::new(),
        },
        _ => Map::new(),
    }
}

fn element_name(item: &Value, keys: &[String]) -> String {
    let mut name = Map::new();
    for key in keys {
        let value = item.get(key).cloned().or_else(|| (key == "protocol").then(|| json!("TCP")));
        name.extend(value.map(|value| (key.clone(), value)));
    }
    format!("k:{}", Value::Object(name))
}

/// The fields in which two objects differ.
fn changed_fields(old: &Value, new: &Value) -> Map<String, Value> {
    let (before, after) = (own_fields(old), own_fields(new));
    let mut changed = after;
    drop_equal(&mut changed, old, new, "");
    let mut gone = before;
    subtract(&mut gone, &own_fields(new));
    unite(&mut changed, &gone);
    changed
}

/// Removes from a set the leaves whose values are the same in both objects.
fn drop_equal(set: &mut Map<String, Value>, old: &Value, new: &Value, key: &str) {
    set.retain(|step, below| {
        if step == "." {
            return false;
        }
        let (old, new) = (follow(old, step, key), follow(new, step, key));
        if old == new {
            return false;
        }
        let Value::Object(below) = below else { return true };
        let was_leaf = below.is_empty();
        if let (Some(old), Some(new)) = (old, new) {
            drop_equal(below, old, new, step.strip_prefix("f:").unwrap_or_default());
        }
        was_leaf || !below.is_empty()
    });
}

/// The value at a step of a field set.
fn follow<'a>(value: &'a Value, step: &str, _key: &str) -> Option<&'a Value> {
    if let Some(field) = step.strip_prefix("f:") {
        return value.get(field);
    }
    let key: Value = serde_json::from_str(step.strip_prefix("k:")?).ok()?;
    let keys: Vec<String> = key.as_object()?.keys().cloned().collect();
    value.as_array()?.iter().find(|item| element_name(item, &keys) == step)
}

/// `set` without `other`.
fn subtract(set: &mut Map<String, Value>, other: &Map<String, Value>) {
    set.retain(|step, below| {
        let Some(Value::Object(other)) = other.get(step) else { return true };
        let Value::Object(below) = below else { return false };
        if below.is_empty() || other.is_empty() {
            return false;
        }
        subtract(below, other);
        !below.is_empty()
    });
}

fn unite(set: &mut Map<String, Value>, other: &Map<String, Value>) {
    for (step, below) in other {
        match (set.get_mut(step), below) {
            (Some(Value::Object(set)), Value::Object(below)) => unite(set, below),
            _ => {
                set.insert(step.clone(), below.clone());
            }
        }
    }
}

/// Drops what the object does not have.
fn keep_present(set: &mut Map<String, Value>, object: &Value) {
    set.retain(|step, below| {
        if step == "." {
            return true;
        }
        let Some(value) = follow(object, step, "") else { return false };
        if let Value::Object(below) = below {
            let had = !below.is_empty();
            keep_present(below, value);
            return !had || !below.is_empty();
        }
        true
    });
}

/// Takes from another manager what it owns, we set, and becomes another value.
fn lose_changed(owned: &mut Map<String, Value>, set: &Map<String, Value>, live: &Value, applied: &Value, key: &str) {
    owned.retain(|step, below| {
        let Some(Value::Object(ours)) = set.get(step) else { return true };
        let (Some(live), Some(applied)) = (follow(live, step, key), follow(applied, step, key)) else { return true };
        let Value::Object(below) = below else { return true };
        if below.is_empty() || ours.is_empty() {
            return live == applied;
        }
        lose_changed(below, ours, live, applied, "");
        !below.is_empty()
    });
}

/// Removes from the object what we owned, do not set any more, and nobody else owns.
fn remove_lost(
    value: &mut Value,
    before: &Map<String, Value>,
    now: &Map<String, Value>,
    others: &[&Map<String, Value>],
) {
    for (step, below) in before.iter().filter(|(step, _)| *step != ".") {
        let Value::Object(below) = below else { continue };
        let others: Vec<&Map<String, Value>> =
            others.iter().filter_map(|other| other.get(step).and_then(Value::as_object)).collect();
        let still = now.get(step).and_then(Value::as_object);
        let empty = Map::new();
        if let Some(field) = step.strip_prefix("f:") {
            let Value::Object(map) = value else { return };
            let Some(child) = map.get_mut(field) else { continue };
            if !below.is_empty() {
                remove_lost(child, below, still.unwrap_or(&empty), &others);
            }
            let emptied = child.as_object().is_some_and(Map::is_empty) || child.as_array().is_some_and(Vec::is_empty);
            if still.is_none() && others.is_empty() && (below.is_empty() || emptied) {
                map.remove(field);
            }
        } else if let Some(items) = value.as_array_mut() {
            let Some(index) = items.iter().position(|item| names(step, item)) else { continue };
            if still.is_none() && others.is_empty() {
                items.remove(index);
            } else if let Some(item) = items.get_mut(index) {
                remove_lost(item, below, still.unwrap_or(&empty), &others);
            }
        }
    }
}

fn names(step: &str, item: &Value) -> bool {
    let key = step.strip_prefix("k:").and_then(|key| serde_json::from_str::<Value>(key).ok());
    let keys: Vec<String> =
        key.as_ref().and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key.clone()).collect();
    !keys.is_empty() && element_name(item, &keys) == step
}

fn merge(value: &mut Value, applied: &Value, key: &str) {
    match (value, applied) {
        (Value::Object(map), Value::Object(applied)) => {
            for (key, new) in applied {
                merge(map.entry(key.clone()).or_insert(Value::Null), new, key);
            }
        }
        (Value::Array(items), Value::Array(applied)) => {
            let keys = list_keys(key, applied).filter(|_| list_keys(key, items).is_some() || items.is_empty());
            let Some(keys) = keys else {
                items.clone_from(applied);
                return;
            };
            for new in applied {
                let name = element_name(new, &keys);
                match items.iter_mut().find(|item| element_name(item, &keys) == name) {
                    Some(item) => merge(item, new, ""),
                    None => items.push(new.clone()),
                }
            }
        }
        (value, applied) => *value = applied.clone(),
    }
}
