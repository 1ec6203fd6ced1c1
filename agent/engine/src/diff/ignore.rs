//! `ignoreDifferences`: fields that are left out of the comparison, at application and at system level, and what they mean for an
//! apply with `RespectIgnoreDifferences=true`.

use serde_json::{Map, Value};
use windlass_protocol::{json, manifest::ResourceKey};

use super::fields::{self, Owned};
use crate::{extension::Extension, glob};

/// All rules of one assignment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IgnoreRules {
    rules: Vec<Rule>,
}

/// One entry of `ignoreDifferences[]`.
#[derive(Clone, Debug, Default, PartialEq)]
struct Rule {
    group: String,
    kind: String,
    name: String,
    namespace: String,
    ignored: Ignored,
}

/// What is ignored of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// JSON pointers.
    pub pointers: Vec<String>,
    /// jq path expressions.
    pub expressions: Vec<String>,
    /// Field managers whose fields are theirs.
    pub managers: Vec<String>,
}

impl IgnoreRules {
    /// Reads the entries; what is not a text is skipped (the hub has checked the Application's schema).
    #[must_use]
    pub fn new<'a>(entries: impl IntoIterator<Item = &'a Value>) -> Self {
        Self { rules: entries.into_iter().map(rule).collect() }
    }

    /// What is ignored of the object with this key.
    #[must_use]
    pub fn of(&self, key: &ResourceKey) -> Ignored {
        let mut all = Ignored::default();
        let any = |pattern: &str, text: &str| pattern.is_empty() || pattern == text;
        for rule in &self.rules {
            let kind = glob::matches(&rule.group, &key.group) && glob::matches(&rule.kind, &key.kind);
            if kind && any(&rule.name, &key.name) && any(&rule.namespace, &key.namespace) {
                all.pointers.extend(rule.ignored.pointers.iter().cloned());
                all.expressions.extend(rule.ignored.expressions.iter().cloned());
                all.managers.extend(rule.ignored.managers.iter().cloned());
            }
        }
        all
    }
}

fn rule(entry: &Value) -> Rule {
    let text = |key: &str| json::text(entry, &[key]).to_owned();
    let list = |key: &str| {
        let items = entry.get(key).and_then(Value::as_array);
        items.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let ignored = Ignored {
        pointers: list("jsonPointers"),
        expressions: list("jqPathExpressions"),
        managers: list("managedFieldsManagers"),
    };
    Rule { group: text("group"), kind: text("kind"), name: text("name"), namespace: text("namespace"), ignored }
}

impl Ignored {
    /// Whether there is nothing to ignore.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pointers.is_empty() && self.expressions.is_empty() && self.managers.is_empty()
    }

    /// Takes the ignored fields from both sides.
    ///
    /// # Errors
    /// A jq expression could not be run; the other rules have been applied.
    pub fn strip(&self, desired: &mut Value, live: &mut Value, extension: &dyn Extension) -> Result<(), String> {
        for manager in &self.managers {
            let original = live.clone();
            for owned in fields::owned_by(&original, manager) {
                remove_owned(desired, owned, 0);
                remove_owned(live, owned, 0);
            }
        }
        for pointer in &self.pointers {
            remove(desired, pointer);
            remove(live, pointer);
            forget_owned(live, pointer);
        }
        let mut result = Ok(());
        for expression in &self.expressions {
            for side in [&mut *desired, &mut *live] {
                if let Err(error) = extension.delete_paths(expression, side) {
                    result = Err(format!("jqPathExpressions {expression:?}: {error}"));
                }
            }
        }
        result
    }

    /// The manifest to send with `RespectIgnoreDifferences=true` over a live object: an ignored field that another manager owns is
    /// left out; one that only we own keeps its live value, because leaving it out would reset it.
    pub fn respect(&self, manifest: &mut Value, live: &Value) {
        for pointer in &self.pointers {
            if manifest.pointer(pointer).is_none() {
                continue;
            }
            match live.pointer(pointer) {
                Some(value) if !fields::is_foreign(live, pointer) => {
                    if let Some(place) = manifest.pointer_mut(pointer) {
                        *place = value.clone();
                    }
                }
                _ => remove(manifest, pointer),
            }
        }
        for manager in &self.managers {
            for owned in fields::owned_by(live, manager) {
                remove_owned(manifest, owned, 0);
            }
        }
    }
}

/// Removes what a JSON pointer names.
fn remove(value: &mut Value, pointer: &str) {
    let Some((parent, last)) = pointer.rsplit_once('/') else { return };
    let last = last.replace("~1", "/").replace("~0", "~");
    match value.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.remove(&last);
        }
        Some(Value::Array(items)) => {
            if let Ok(index) = last.parse::<usize>()
                && index < items.len()
            {
                items.remove(index);
            }
        }
        _ => {}
    }
}

/// Removes an ignored field from our own field set too, or its absence would look like a field to remove.
fn forget_owned(live: &mut Value, pointer: &str) {
    let entries = live.get_mut("metadata").and_then(|metadata| metadata.get_mut("managedFields"));
    for entry in entries.and_then(Value::as_array_mut).into_iter().flatten() {
        let steps: Vec<&str> = pointer.split('/').skip(1).collect();
        let Some((last, parents)) = steps.split_last() else { continue };
        let key = |step: &str| format!("f:{}", step.replace("~1", "/").replace("~0", "~"));
        let fields = entry.get_mut("fieldsV1");
        let parent = parents.iter().try_fold(fields, |place, step| place.map(|place| place.get_mut(key(step))));
        if let Some(Some(Value::Object(map))) = parent {
            map.remove(&key(last));
        }
    }
}

/// Removes the leaves of a field set.
fn remove_owned(value: &mut Value, owned: Owned<'_>, depth: usize) {
    if depth > crate::normalize::DEPTH_MAX {
        return;
    }
    match value {
        Value::Object(map) => {
            let keys: Vec<String> = owned.keys().map(str::to_owned).collect();
            for key in keys {
                let child = owned.child(&key);
                if child.is_leaf() {
                    map.remove(&key);
                } else if let Some(value) = map.get_mut(&key) {
                    remove_owned(value, child, depth + 1);
                }
            }
        }
        Value::Array(items) => {
            for (key, below) in owned.elements() {
                if let Some(item) = items.iter_mut().find(|item| has_key(item, &key)) {
                    remove_owned(item, below, depth + 1);
                }
            }
            let members: Vec<Value> = owned.members().collect();
            items.retain(|item| !members.contains(item));
        }
        _ => {}
    }
}

fn has_key(item: &Value, key: &Map<String, Value>) -> bool {
    key.iter().all(|(field, value)| item.get(field) == Some(value))
}
