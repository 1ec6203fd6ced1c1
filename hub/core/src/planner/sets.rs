//! From an ApplicationSet's generated Applications to writes. A generator that fails, or turns empty where it was not, changes
//! and deletes nothing.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use windlass_protocol::{
    json,
    resource::{ApplicationSetSpec, ApplicationsSync, Kind, REFRESH_ANNOTATION},
    time::Millis,
};

use crate::{
    command::{Part, Write},
    generate::{GenerateError, Generated, conditions},
    state::{ObjectKey, ObjectRecord, State},
};

/// Annotations that others keep on generated Applications.
const KEPT_ANNOTATIONS: [&str; 2] = [REFRESH_ANNOTATION, "notified.notifications.argoproj.io"];

/// What to do for one ApplicationSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetPlan {
    /// Writes of Applications; each may be proposed alone.
    pub writes: Vec<Write>,
    /// The write of the set's status, if it changes.
    pub status: Option<Write>,
}

/// Compares what was generated with what is there. `new_uid` gives uids for new Applications, `wall` times of conditions.
pub fn plan(
    state: &State,
    key: &ObjectKey,
    set: &Arc<ObjectRecord>,
    spec: &ApplicationSetSpec,
    result: &Result<Vec<Generated>, GenerateError>,
    wall: Millis,
    mut new_uid: impl FnMut() -> String,
) -> SetPlan {
    let owned: BTreeMap<&str, &Arc<ObjectRecord>> = state
        .objects(Kind::Application, Some(&key.name.namespace))
        .filter(|(_, record)| record.owners.contains(&set.uid))
        .map(|(key, record)| (key.name.name.as_str(), record))
        .collect();
    let sync = spec.sync_policy.as_ref().and_then(|policy| policy.applications_sync).unwrap_or_default();
    let mut writes = Vec::new();
    let mut problems = Vec::new();
    if let Ok(generated) = result {
        for one in generated {
            let app = ObjectKey::new(Kind::Application, one.namespace.as_str(), one.name.as_str());
            match state.object(&app) {
                None => {
                    let body = application(key, set, one, None).to_string();
                    writes.push(Write::Create { key: app, uid: new_uid(), body, sealed: None });
                }
                Some(record) if !record.owners.contains(&set.uid) => {
                    problems.push(format!("the Application {} exists and belongs to somebody else", app.name));
                }
                Some(record) if record.deleting || !may_update(sync) => {}
                Some(record) => {
                    let body = application(key, set, one, Some(&record.value())).to_string();
                    if body != record.body {
                        writes.push(Write::Replace { key: app, part: Part::Main, body, sealed: None });
                    }
                }
            }
        }
        let emptied = generated.is_empty() && !owned.is_empty();
        if emptied {
            let count = owned.len();
            problems
                .push(format!("the generators turned empty: the {count} Applications of the set are kept as they are"));
        } else if may_delete(sync) {
            let gone = owned
                .iter()
                .filter(|(name, record)| !record.deleting && !generated.iter().any(|one| one.name == **name));
            let app = |name: &str| ObjectKey::new(Kind::Application, key.name.namespace.as_str(), name);
            writes.extend(gone.map(|(name, _)| Write::Delete { key: app(name) }));
        }
    }
    SetPlan { writes, status: status(key, set, result, &problems, wall) }
}

const fn may_update(sync: ApplicationsSync) -> bool {
    matches!(sync, ApplicationsSync::Sync | ApplicationsSync::CreateUpdate)
}

const fn may_delete(sync: ApplicationsSync) -> bool {
    matches!(sync, ApplicationsSync::Sync | ApplicationsSync::CreateDelete)
}

/// The Application as it should be; what the state and others keep on it stays.
fn application(key: &ObjectKey, set: &ObjectRecord, generated: &Generated, existing: Option<&Value>) -> Value {
    let mut value = existing.cloned().unwrap_or_else(|| json!({}));
    json::set(&mut value, &["apiVersion"], json!("argoproj.io/v1alpha1"));
    json::set(&mut value, &["kind"], json!("Application"));
    json::set(&mut value, &["metadata", "name"], json!(generated.name));
    json::set(&mut value, &["metadata", "namespace"], json!(generated.namespace));
    let mut annotations: BTreeMap<String, String> = generated.annotations.clone();
    for kept in KEPT_ANNOTATIONS {
        if let Some(text) = existing.and_then(|value| json::at(value, &["metadata", "annotations", kept])?.as_str()) {
            annotations.insert(kept.to_owned(), text.to_owned());
        }
    }
    set_map(&mut value, "labels", &generated.labels);
    set_map(&mut value, "annotations", &annotations);
    if generated.finalizers.is_empty() {
        json::remove(&mut value, &["metadata", "finalizers"]);
    } else {
        json::set(&mut value, &["metadata", "finalizers"], json!(generated.finalizers));
    }
    let owner = json!([{
        "apiVersion": "argoproj.io/v1alpha1", "kind": "ApplicationSet", "name": key.name.name, "uid": set.uid,
        "controller": true, "blockOwnerDeletion": true,
    }]);
    json::set(&mut value, &["metadata", "ownerReferences"], owner);
    json::set(&mut value, &["spec"], generated.spec.clone());
    value
}

fn set_map(value: &mut Value, field: &str, map: &BTreeMap<String, String>) {
    if map.is_empty() {
        json::remove(value, &["metadata", field]);
    } else {
        json::set(value, &["metadata", field], json!(map));
    }
}

/// `status.conditions` of the set; a condition that stays keeps its time.
fn status(
    key: &ObjectKey,
    set: &ObjectRecord,
    result: &Result<Vec<Generated>, GenerateError>,
    problems: &[String],
    wall: Millis,
) -> Option<Write> {
    let mut conditions = serde_json::to_value(conditions(result)).unwrap_or_default();
    if !problems.is_empty() {
        let message = problems.join("; ");
        for condition in conditions.as_array_mut().into_iter().flatten() {
            let (status, reason) = match json::text(condition, &["type"]) {
                "ErrorOccurred" => ("True", "ApplicationGenerationError"),
                "ResourcesUpToDate" => ("False", "ErrorOccurred"),
                _ => continue,
            };
            json::set(condition, &["status"], json!(status));
            json::set(condition, &["reason"], json!(reason));
            json::set(condition, &["message"], json!(message));
        }
    }
    let mut value = set.value();
    let old = json::at(&value, &["status", "conditions"]).cloned().unwrap_or_default();
    for condition in conditions.as_array_mut().into_iter().flatten() {
        let mut same = old.as_array().into_iter().flatten().filter(|old| {
            ["type", "status", "reason", "message"].iter().all(|field| old.get(field) == condition.get(field))
        });
        let time = same.next().and_then(|old| old.get("lastTransitionTime").cloned());
        json::set(condition, &["lastTransitionTime"], time.unwrap_or_else(|| json!(wall.rfc3339())));
    }
    if old == conditions {
        return None;
    }
    json::set(&mut value, &["status", "conditions"], conditions);
    Some(Write::Replace { key: key.clone(), part: Part::Status, body: value.to_string(), sealed: None })
}
