//! A cluster's API server with a Deployment controller, small: server-side apply with owned fields, uids, versions, deletion.
//!
//! Nothing is validated and lists are atomic: what is tested is who writes and deletes what, not the API server.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value, json};
use windlass_engine::{GroupKind, Kinds, LiveChange, Scope};
use windlass_protocol::{
    json,
    manifest::{self, FIELD_MANAGER, OWNER_LABEL, ResourceKey, TRACKING_ANNOTATION},
};

/// A simulated cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Part of all uids.
    name: String,
    objects: BTreeMap<ResourceKey, Object>,
    version: u64,
    changes: Vec<LiveChange>,
}

#[derive(Debug)]
struct Object {
    live: Value,
    /// What was last applied by us: its fields are owned.
    applied: Option<Value>,
}

/// The kinds that every simulated cluster serves.
pub(crate) fn kinds() -> Arc<Kinds> {
    let mut kinds = Kinds::new();
    kinds.insert(GroupKind::new("", "ConfigMap"), Scope::Namespaced, "v1");
    kinds.insert(GroupKind::new("apps", "Deployment"), Scope::Namespaced, "v1");
    kinds.insert(GroupKind::new("", "Namespace"), Scope::Cluster, "v1");
    Arc::new(kinds)
}

impl Cluster {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), objects: BTreeMap::new(), version: 0, changes: Vec::new() }
    }

    pub(crate) fn get(&self, key: &ResourceKey) -> Option<&Value> {
        self.objects.get(key).map(|object| &object.live)
    }

    pub(crate) fn objects(&self) -> impl Iterator<Item = (&ResourceKey, &Value)> {
        self.objects.iter().map(|(key, object)| (key, &object.live))
    }

    /// What changed since this was last called, in order.
    pub(crate) fn take_changes(&mut self) -> Vec<LiveChange> {
        std::mem::take(&mut self.changes)
    }

    /// Server-side apply with force.
    pub(crate) fn apply(&mut self, manifest: &Value) -> Value {
        let key = ResourceKey::of(manifest);
        let known = self.objects.get(&key);
        let mut next = known.map_or_else(|| json!({}), |object| object.live.clone());
        if let Some(before) = known.and_then(|object| object.applied.as_ref()) {
            remove_dropped(&mut next, before, manifest);
        }
        merge(&mut next, manifest);
        let fields = json!([{"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": owned(manifest)}]);
        json::set(&mut next, &["metadata", "managedFields"], fields);
        self.store(&key, next, Some(manifest.clone()))
    }

    /// An edit by somebody else: a merge patch.
    pub(crate) fn edit(&mut self, key: &ResourceKey, patch: &Value) {
        let Some(object) = self.objects.get(key) else { return };
        let (mut next, applied) = (object.live.clone(), object.applied.clone());
        merge(&mut next, patch);
        self.store(key, next, applied);
    }

    /// Takes tracking from an object, if it is still this one.
    pub(crate) fn untrack(&mut self, key: &ResourceKey, uid: Option<&str>) -> Option<Value> {
        let object = self.objects.get(key)?;
        if uid.is_some_and(|uid| uid != self::uid(&object.live)) {
            return None;
        }
        let mut next = object.live.clone();
        json::remove(&mut next, &["metadata", "annotations", TRACKING_ANNOTATION]);
        json::remove(&mut next, &["metadata", "labels", OWNER_LABEL]);
        Some(self.store(key, next, None))
    }

    /// Marks an object as being deleted; gives its uid if there is one to wait for.
    pub(crate) fn delete(&mut self, key: &ResourceKey, uid: Option<&str>) -> Option<String> {
        let object = self.objects.get(key)?;
        if uid.is_some_and(|uid| uid != self::uid(&object.live)) {
            return None;
        }
        let (mut next, applied) = (object.live.clone(), object.applied.clone());
        let uid = self::uid(&next).to_owned();
        if json::at(&next, &["metadata", "deletionTimestamp"]).is_none() {
            json::set(&mut next, &["metadata", "deletionTimestamp"], json!("2026-01-01T00:00:00Z"));
            self.store(key, next, applied);
        }
        Some(uid)
    }

    /// The last of an object.
    pub(crate) fn vanish(&mut self, key: &ResourceKey, uid: &str) {
        if self.objects.get(key).is_some_and(|object| self::uid(&object.live) == uid) {
            self.objects.remove(key);
            self.changes.push(LiveChange::Gone { key: key.clone(), uid: uid.to_owned() });
        }
    }

    /// The Deployment controller: all replicas become ready.
    pub(crate) fn settle(&mut self, key: &ResourceKey) {
        let Some(object) = self.objects.get(key).filter(|_| key.kind == "Deployment") else { return };
        let (mut next, applied) = (object.live.clone(), object.applied.clone());
        let number = |path: &[&str]| json::at(&next, path).and_then(Value::as_u64).unwrap_or(1);
        let (generation, replicas) = (number(&["metadata", "generation"]), number(&["spec", "replicas"]));
        let status = json!({
            "observedGeneration": generation, "replicas": replicas, "updatedReplicas": replicas,
            "availableReplicas": replicas, "readyReplicas": replicas,
        });
        json::set(&mut next, &["status"], status);
        self.store(key, next, applied);
    }

    /// Stores an object under the next version, unless nothing would change.
    fn store(&mut self, key: &ResourceKey, mut next: Value, applied: Option<Value>) -> Value {
        let known = self.objects.get(key).map(|object| &object.live);
        if let Some(known) = known {
            if *known == next {
                let same = next.clone();
                self.objects.insert(key.clone(), Object { live: next, applied });
                return same;
            }
            if known.get("spec") != next.get("spec") {
                let generation = json::at(known, &["metadata", "generation"]).and_then(Value::as_u64).unwrap_or(1);
                json::set(&mut next, &["metadata", "generation"], json!(generation + 1));
            }
        } else {
            let uid = format!("{}-{}", self.name, self.version + 1);
            json::set(&mut next, &["metadata", "uid"], json!(uid));
            json::set(&mut next, &["metadata", "generation"], json!(1));
            json::set(&mut next, &["metadata", "creationTimestamp"], json!("2026-01-01T00:00:00Z"));
        }
        self.version += 1;
        json::set(&mut next, &["metadata", "resourceVersion"], json!(self.version.to_string()));
        self.changes.push(LiveChange::Present(Arc::new(next.clone())));
        self.objects.insert(key.clone(), Object { live: next.clone(), applied });
        next
    }
}

/// `metadata.uid`.
pub(crate) fn uid(object: &Value) -> &str {
    json::text(object, &["metadata", "uid"])
}

/// The application that an object's tracking names, or "".
pub(crate) fn tracked_by(object: &Value) -> &str {
    let tracking = manifest::annotation(object, TRACKING_ANNOTATION).unwrap_or_default();
    tracking.split(':').next().unwrap_or_default()
}

/// Whether everything that a manifest sets is so in a live object.
pub(crate) fn holds(live: &Value, manifest: &Value) -> bool {
    match (live, manifest) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| live.get(key).is_some_and(|live| holds(live, wanted)))
        }
        (live, wanted) => live == wanted,
    }
}

/// Sets everything of `from` in `into`.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// Takes from `live` what `before` set and `now` does not.
fn remove_dropped(live: &mut Value, before: &Value, now: &Value) {
    let (Value::Object(live), Value::Object(before)) = (live, before) else { return };
    for (key, before) in before {
        match (now.get(key), live.get_mut(key)) {
            (Some(now), Some(live)) => remove_dropped(live, before, now),
            (None, Some(_)) => {
                live.remove(key);
            }
            (_, None) => {}
        }
    }
}

/// FieldsV1 of a manifest.
fn owned(manifest: &Value) -> Value {
    let Value::Object(map) = manifest else { return json!({}) };
    let fields: Map<String, Value> = map
        .iter()
        .filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind" | "name" | "namespace"))
        .map(|(key, value)| (format!("f:{key}"), owned(value)))
        .collect();
    Value::Object(fields)
}
