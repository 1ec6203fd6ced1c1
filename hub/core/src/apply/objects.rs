//! Writes of the resource API with Kubernetes' rules: uid, generation, resourceVersion, finalizers, immutable metadata.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use windlass_protocol::{
    json,
    resource::{CONTROL_NAMESPACE, ClusterSpec, Kind, RESOURCES_FINALIZER},
};

use super::{Transaction, conflict, not_found, plural};
use crate::{
    command::{Part, Rejection, Reply, Write},
    effect::{Change, ChangeType, Effect},
    state::{ClusterRecord, ObjectKey, ObjectRecord},
};

/// Metadata that only the state sets.
const OWN_METADATA: [&str; 4] = ["uid", "creationTimestamp", "deletionTimestamp", "generation"];

impl Transaction {
    pub(super) fn write_all(&mut self, writes: &[Write]) -> Result<Reply, Rejection> {
        let mut keys = Vec::new();
        for write in writes {
            self.write(write)?;
            let (Write::Create { key, .. } | Write::Replace { key, .. } | Write::Delete { key }) = write;
            keys.push(key);
        }
        // What follows from the writes belongs to the answer.
        self.settle();
        let body = |key: &&ObjectKey| self.state.object(key).map(|record| record.body.clone()).unwrap_or_default();
        Ok(Reply { bodies: keys.iter().map(body).collect(), ..Reply::default() })
    }

    pub(super) fn write(&mut self, write: &Write) -> Result<(), Rejection> {
        match write {
            Write::Create { key, uid, body, sealed } => self.create(key, uid, body, sealed.clone()),
            Write::Replace { key, part, body, sealed } => self.replace(key, *part, body, sealed.clone()),
            Write::Delete { key } => self.delete(key),
        }
    }

    fn create(&mut self, key: &ObjectKey, uid: &str, body: &str, sealed: Option<Vec<u8>>) -> Result<(), Rejection> {
        if self.state.object(key).is_some() {
            return Err(Rejection::AlreadyExists { kind: plural(key.kind), name: key.name.name.clone() });
        }
        self.namespace_takes(key)?;
        let mut value = parse(key, body)?;
        self.check_cluster_servers(key, &value)?;
        if key.kind.info().status {
            json::remove(&mut value, &["status"]);
        }
        json::remove(&mut value, &["metadata", "deletionTimestamp"]);
        json::set(&mut value, &["metadata", "uid"], json!(uid));
        json::set(&mut value, &["metadata", "generation"], json!(1));
        json::set(&mut value, &["metadata", "creationTimestamp"], json!(self.wall.rfc3339()));
        self.put(key, value, sealed);
        self.after_write(key, uid);
        Ok(())
    }

    fn replace(&mut self, key: &ObjectKey, part: Part, body: &str, sealed: Option<Vec<u8>>) -> Result<(), Rejection> {
        let record = self.state.object(key).cloned().ok_or_else(|| not_found(key))?;
        let old = record.value();
        let mut new = parse(key, body)?;
        match part {
            Part::Status => {
                let status = json::remove(&mut new, &["status"]).unwrap_or_default();
                new = old.clone();
                json::set(&mut new, &["status"], status);
            }
            Part::Main => {
                self.check_cluster_servers(key, &new)?;
                carry_own(&old, &mut new, key.kind.info().status);
                if main_part(&old) != main_part(&new) {
                    let generation = json::at(&old, &["metadata", "generation"]).and_then(Value::as_u64).unwrap_or(1);
                    json::set(&mut new, &["metadata", "generation"], json!(generation.saturating_add(1)));
                }
            }
        }
        let deleted = record.deleting && finalizers(&new).is_empty();
        if deleted {
            self.remove(key);
        } else {
            self.put(key, new, sealed.or_else(|| record.sealed.clone()));
        }
        self.after_write(key, &record.uid);
        Ok(())
    }

    fn delete(&mut self, key: &ObjectKey) -> Result<(), Rejection> {
        let record = self.state.object(key).cloned().ok_or_else(|| not_found(key))?;
        self.may_delete(key)?;
        let mut value = record.value();
        if finalizers(&value).is_empty() {
            self.remove(key);
        } else if !record.deleting {
            json::set(&mut value, &["metadata", "deletionTimestamp"], json!(self.wall.rfc3339()));
            json::set(&mut value, &["metadata", "deletionGracePeriodSeconds"], json!(0));
            self.put(key, value, record.sealed.clone());
        }
        self.after_write(key, &record.uid);
        Ok(())
    }

    fn may_delete(&self, key: &ObjectKey) -> Result<(), Rejection> {
        let name = key.name.name.as_str();
        match key.kind {
            Kind::Namespace if name == "default" || name == CONTROL_NAMESPACE => {
                Err(Rejection::Forbidden(format!("namespace {name:?} is needed by the hub and cannot be deleted")))
            }
            Kind::Namespace => {
                let inside = self.state.objects.iter().find(|(object, _)| object.name.namespace == name);
                inside.map_or(Ok(()), |(object, _)| {
                    Err(conflict(key, format!("it still holds {object}: delete what is inside of it first")))
                })
            }
            Kind::AppProject if name == "default" && key.name.namespace == CONTROL_NAMESPACE => {
                Err(Rejection::Forbidden("the project \"default\" cannot be deleted".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn namespace_takes(&self, key: &ObjectKey) -> Result<(), Rejection> {
        if !key.kind.info().namespaced {
            return Ok(());
        }
        let namespace = ObjectKey::new(Kind::Namespace, "", key.name.namespace.as_str());
        self.state.object(&namespace).map_or_else(|| Err(not_found(&namespace)), |_| Ok(()))
    }

    /// Two Clusters cannot claim one URL.
    fn check_cluster_servers(&self, key: &ObjectKey, value: &Value) -> Result<(), Rejection> {
        if key.kind != Kind::Cluster {
            return Ok(());
        }
        let servers = |value: &Value| -> Vec<String> {
            let spec = serde_json::from_value::<ClusterSpec>(value.get("spec").cloned().unwrap_or_default());
            spec.map(|spec| spec.servers).unwrap_or_default()
        };
        let claimed = servers(value);
        for (other, record) in self.state.objects(Kind::Cluster, None).filter(|(other, _)| *other != key) {
            let theirs = if claimed.is_empty() { Vec::new() } else { servers(&record.value()) };
            if let Some(url) = claimed.iter().find(|url| theirs.contains(url)) {
                let owner = &other.name.name;
                return Err(Rejection::Invalid(format!(
                    "spec.servers: {url} belongs to the cluster {owner:?} already"
                )));
            }
        }
        Ok(())
    }

    /// Stores an object under the next revision, unless nothing would change.
    pub(super) fn put(&mut self, key: &ObjectKey, mut value: Value, sealed: Option<Vec<u8>>) {
        let previous = self.state.object(key).cloned();
        if let Some(previous) = &previous {
            json::set(&mut value, &["metadata", "resourceVersion"], json!(previous.revision.to_string()));
            let text = value.to_string();
            if text == previous.body && sealed == previous.sealed {
                return;
            }
        }
        let revision = self.next_revision();
        json::set(&mut value, &["metadata", "resourceVersion"], json!(revision.to_string()));
        let object = Arc::new(record(&value, revision, sealed));
        self.state.objects.insert_mut(key.clone(), Arc::clone(&object));
        let change = if previous.is_some() { ChangeType::Modified } else { ChangeType::Added };
        self.effects.push(Effect::Object(Change { change, key: key.clone(), revision, object, previous }));
    }

    /// Takes an object away; its last form travels with the revision of the deletion.
    pub(super) fn remove(&mut self, key: &ObjectKey) {
        let Some(previous) = self.state.object(key).cloned() else { return };
        let revision = self.next_revision();
        let mut value = previous.value();
        json::set(&mut value, &["metadata", "resourceVersion"], json!(revision.to_string()));
        let object = Arc::new(record(&value, revision, previous.sealed.clone()));
        self.state.objects.remove_mut(key);
        let (change, previous) = (ChangeType::Deleted, Some(previous));
        self.effects.push(Effect::Object(Change { change, key: key.clone(), revision, object, previous }));
    }

    fn next_revision(&mut self) -> windlass_protocol::ids::StateRevision {
        self.state.meta.revision = self.state.meta.revision.next();
        self.state.meta.revision
    }

    /// What a write of a kind brings with it.
    fn after_write(&mut self, key: &ObjectKey, uid: &str) {
        let exists = self.state.object(key).is_some_and(|record| record.uid == uid);
        match key.kind {
            Kind::Cluster if exists => {
                if self.state.cluster(uid).is_none() {
                    let record = ClusterRecord { name: key.name.name.clone(), ..ClusterRecord::default() };
                    self.state.clusters.insert_mut(uid.to_owned(), Arc::new(record));
                }
                self.dirty_clusters.insert(uid.to_owned());
            }
            Kind::Cluster => self.forget_cluster(uid),
            Kind::Application if self.state.object(key).is_some_and(|record| record.deleting) => {
                self.begin_deletion(&key.name);
            }
            Kind::Application if !exists => self.forget_application(&key.name, uid),
            Kind::Rollout if !exists => {
                self.state.rollouts.remove_mut(&key.name);
            }
            _ => {}
        }
    }
}

/// Takes away the finalizers that the hub itself honours.
pub(super) fn drop_resource_finalizers(value: &mut Value) {
    let Some(Value::Array(list)) = value.pointer_mut("/metadata/finalizers") else { return };
    list.retain(|entry| !entry.as_str().is_some_and(|name| name.starts_with(RESOURCES_FINALIZER)));
    if list.is_empty() {
        json::remove(value, &["metadata", "finalizers"]);
    }
}

/// `metadata.finalizers`.
pub(super) fn finalizers(value: &Value) -> Vec<&str> {
    let list = value.pointer("/metadata/finalizers").and_then(Value::as_array);
    list.map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

fn parse(key: &ObjectKey, body: &str) -> Result<Value, Rejection> {
    let mut value: Value = serde_json::from_str(body)
        .map_err(|error| Rejection::Invalid(format!("{key}: the body is not JSON: {error}")))?;
    if !value.is_object() {
        return Err(Rejection::Invalid(format!("{key}: the body is not an object")));
    }
    if json::text(&value, &["metadata", "name"]) != key.name.name {
        return Err(Rejection::Invalid(format!("{key}: metadata.name is another name")));
    }
    if key.kind.info().namespaced {
        json::set(&mut value, &["metadata", "namespace"], json!(key.name.namespace));
    } else {
        json::remove(&mut value, &["metadata", "namespace"]);
    }
    json::remove(&mut value, &["metadata", "managedFields"]);
    Ok(value)
}

/// What the state set in the old object stands in the new one, whatever the writer sent.
fn carry_own(old: &Value, new: &mut Value, status: bool) {
    for field in OWN_METADATA {
        match json::at(old, &["metadata", field]) {
            Some(value) => json::set(new, &["metadata", field], value.clone()),
            None => {
                json::remove(new, &["metadata", field]);
            }
        }
    }
    if status {
        match old.get("status") {
            Some(value) => json::set(new, &["status"], value.clone()),
            None => {
                json::remove(new, &["status"]);
            }
        }
    }
}

/// Everything that counts for `metadata.generation`.
fn main_part(value: &Value) -> BTreeMap<&String, &Value> {
    let fields = value.as_object().into_iter().flatten();
    fields.filter(|(name, _)| !matches!(name.as_str(), "metadata" | "status")).collect()
}

fn record(value: &Value, revision: windlass_protocol::ids::StateRevision, sealed: Option<Vec<u8>>) -> ObjectRecord {
    let labels = value.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
    let owners = value.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten();
    ObjectRecord {
        uid: json::text(value, &["metadata", "uid"]).to_owned(),
        revision,
        generation: json::at(value, &["metadata", "generation"]).and_then(Value::as_u64).unwrap_or_default(),
        labels: labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect(),
        owners: owners.map(|owner| json::text(owner, &["uid"]).to_owned()).collect(),
        deleting: json::at(value, &["metadata", "deletionTimestamp"]).is_some(),
        body: value.to_string(),
        sealed,
    }
}
