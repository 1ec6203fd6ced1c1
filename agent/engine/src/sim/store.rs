//! Objects with uid, resourceVersion and generation; deletion with finalizers; changes to tell.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use serde_json::{Value, json};
use windlass_protocol::{
    ids,
    json::{self as lens, text},
    manifest::ResourceKey,
    time::Millis,
};

use crate::action::{LiveChange, Propagation};

/// The objects of a cluster.
#[derive(Clone, Debug)]
pub(super) struct Store {
    pub(super) now: Millis,
    objects: BTreeMap<ResourceKey, Arc<Value>>,
    /// When an object was created, by uid: controllers need milliseconds.
    born: BTreeMap<String, Millis>,
    seed: u64,
    version: u64,
    uids: u64,
    /// Keys with changes to tell, each once, oldest first.
    changed: VecDeque<ResourceKey>,
    queued: BTreeSet<ResourceKey>,
    /// Last uid of objects that are gone and not told yet.
    buried: BTreeMap<ResourceKey, String>,
}

impl Store {
    pub(super) const fn new(seed: u64, now: Millis) -> Self {
        Self {
            now,
            objects: BTreeMap::new(),
            born: BTreeMap::new(),
            seed,
            version: 0,
            uids: 0,
            changed: VecDeque::new(),
            queued: BTreeSet::new(),
            buried: BTreeMap::new(),
        }
    }

    pub(super) fn get(&self, key: &ResourceKey) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ResourceKey, &Arc<Value>)> {
        self.objects.iter()
    }

    /// Objects of one kind and namespace, sorted by name.
    pub(super) fn of_kind<'a>(
        &'a self,
        group: &'a str,
        kind: &'a str,
    ) -> impl Iterator<Item = (&'a ResourceKey, &'a Arc<Value>)> {
        self.objects.iter().filter(move |(key, _)| key.group == group && key.kind == kind)
    }

    pub(super) fn born(&self, object: &Value) -> Millis {
        self.born.get(text(object, &["metadata", "uid"])).copied().unwrap_or(self.now)
    }

    /// Writes an object; nothing happens when it is as it was.
    pub(super) fn put(&mut self, key: &ResourceKey, mut object: Value) -> Arc<Value> {
        let old = self.objects.get(key);
        if old.is_some_and(|old| **old == object) {
            return old.cloned().unwrap_or_default();
        }
        self.version += 1;
        let version = self.version.to_string();
        lens::set(&mut object, &["metadata", "resourceVersion"], Value::from(version));
        if let Some(old) = old {
            let generation = lens::at(old, &["metadata", "generation"]).and_then(Value::as_u64).unwrap_or(1);
            let changed = spec(old) != spec(&object);
            lens::set(&mut object, &["metadata", "generation"], Value::from(generation + u64::from(changed)));
        } else {
            self.uids += 1;
            let random = (u128::from(self.seed) << 64 | u128::from(self.uids))
                .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            let uid = ids::uuid_v4(random.to_be_bytes());
            lens::set(&mut object, &["metadata", "uid"], Value::from(uid.as_str()));
            lens::set(&mut object, &["metadata", "generation"], Value::from(1));
            lens::set(&mut object, &["metadata", "creationTimestamp"], Value::from(self.now.rfc3339()));
            self.born.insert(uid, self.now);
        }
        let finished = crate::pair::is_terminating(&object) && finalizers(&object).is_empty();
        let object = Arc::new(object);
        self.objects.insert(key.clone(), Arc::clone(&object));
        self.tell(key);
        if finished {
            self.bury(key);
        }
        object
    }

    /// Writes a status, if it is another.
    pub(super) fn put_status(&mut self, key: &ResourceKey, status: Value) -> bool {
        let Some(old) = self.objects.get(key) else { return false };
        if old.get("status") == Some(&status) {
            return false;
        }
        let mut object = (**old).clone();
        lens::set(&mut object, &["status"], status);
        self.put(key, object);
        true
    }

    pub(super) fn delete(&mut self, key: &ResourceKey, propagation: Propagation) {
        let Some(live) = self.objects.get(key).cloned() else { return };
        if crate::pair::is_terminating(&live) {
            return;
        }
        let mut waiting = finalizers(&live);
        match propagation {
            Propagation::Foreground if self.has_dependents(&live) => waiting.push(FOREGROUND.to_owned()),
            Propagation::Foreground | Propagation::Background => {}
            Propagation::Orphan => self.orphan_dependents(&live),
        }
        // A namespace goes when its content is gone.
        if key.kind == "Namespace" && key.group.is_empty() {
            waiting.push(NAMESPACE.to_owned());
        }
        if waiting.is_empty() {
            self.bury(key);
            return;
        }
        let mut object = (*live).clone();
        lens::set(&mut object, &["metadata", "deletionTimestamp"], Value::from(self.now.rfc3339()));
        lens::set(&mut object, &["metadata", "finalizers"], json!(waiting));
        self.put(key, object);
    }

    /// Takes a finalizer off; the last one lets the object go.
    pub(super) fn release(&mut self, key: &ResourceKey, finalizer: &str) {
        let Some(live) = self.objects.get(key) else { return };
        let mut rest = finalizers(live);
        rest.retain(|it| it != finalizer);
        let mut object = (**live).clone();
        lens::set(&mut object, &["metadata", "finalizers"], json!(rest));
        self.put(key, object);
    }

    fn bury(&mut self, key: &ResourceKey) {
        if let Some(object) = self.objects.remove(key) {
            self.version += 1;
            let uid = text(&object, &["metadata", "uid"]).to_owned();
            self.born.remove(&uid);
            self.tell(key);
            self.buried.insert(key.clone(), uid);
        }
    }

    fn tell(&mut self, key: &ResourceKey) {
        if self.queued.insert(key.clone()) {
            self.changed.push_back(key.clone());
        }
    }

    pub(super) fn poll_change(&mut self) -> Option<LiveChange> {
        let key = self.changed.pop_front()?;
        self.queued.remove(&key);
        let buried = self.buried.remove(&key);
        match self.objects.get(&key) {
            Some(object) => Some(LiveChange::Present(Arc::clone(object))),
            None => Some(LiveChange::Gone { key, uid: buried.unwrap_or_default() }),
        }
    }

    /// Objects that name this one as an owner.
    pub(super) fn dependents(&self, owner: &Value) -> Vec<ResourceKey> {
        let uid = text(owner, &["metadata", "uid"]);
        self.objects
            .iter()
            .filter(|(_, object)| owner_uids(object).contains(&uid))
            .map(|(key, _)| key.clone())
            .collect()
    }

    fn has_dependents(&self, owner: &Value) -> bool {
        !self.dependents(owner).is_empty()
    }

    fn orphan_dependents(&mut self, owner: &Value) {
        for key in self.dependents(owner) {
            if let Some(object) = self.objects.get(&key) {
                let mut object = (**object).clone();
                lens::remove(&mut object, &["metadata", "ownerReferences"]);
                self.put(&key, object);
            }
        }
    }

    /// Objects all of whose owners are gone.
    pub(super) fn abandoned(&self) -> Vec<ResourceKey> {
        let alive: BTreeSet<&str> = self.objects.values().map(|object| text(object, &["metadata", "uid"])).collect();
        let abandoned = self.objects.iter().filter(|(_, object)| {
            let owners = owner_uids(object);
            !owners.is_empty() && !owners.iter().any(|uid| alive.contains(uid))
        });
        abandoned.map(|(key, _)| key.clone()).collect()
    }
}

/// The uids of `metadata.ownerReferences[]`.
pub(super) fn owner_uids(object: &Value) -> Vec<&str> {
    let owners = lens::at(object, &["metadata", "ownerReferences"]).and_then(Value::as_array);
    owners.into_iter().flatten().map(|owner| text(owner, &["uid"])).collect()
}

pub(super) fn finalizers(object: &Value) -> Vec<String> {
    let list = lens::at(object, &["metadata", "finalizers"]).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Everything whose change raises the generation.
fn spec(object: &Value) -> Vec<(&String, &Value)> {
    let map = object.as_object().into_iter().flatten();
    map.filter(|(key, _)| !matches!(key.as_str(), "metadata" | "status")).collect()
}

/// Finalizer of a deletion in the foreground.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of namespaces with content.
pub(super) const NAMESPACE: &str = "kubernetes";
