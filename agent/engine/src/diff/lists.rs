//! Lists: merged by key, sets, or atomic. Our managedFields tell which, where we have applied before; else the known key fields of
//! built-in types; else a list is atomic.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Step, Walk, fields::Owned, is_unset};

impl<'a> Walk<'a> {
    pub(super) fn list(
        &mut self,
        key: &'a str,
        desired: &'a [Value],
        live: &'a [Value],
        owned: Owned<'a>,
        depth: usize,
    ) {
        match self.keys_of(key, desired, live, owned) {
            Some(keys) => self.keyed(&keys, desired, live, owned, depth),
            None if is_set(key, owned, desired) => self.set(desired, live, owned),
            None => self.atomic(key, desired, live, depth),
        }
    }

    /// The key fields of a list of objects; `None` for other lists, and where keys are doubled or missing.
    fn keys_of(&self, key: &str, desired: &[Value], live: &[Value], owned: Owned<'_>) -> Option<Vec<String>> {
        let learnt = owned.elements().next().map(|(key, _)| key.keys().cloned().collect::<Vec<_>>());
        if owned.is_known() && learnt.is_none() {
            return None;
        }
        let known = || {
            let entry = KEYED
                .iter()
                .find(|(list, parent, _)| *list == key && (parent.is_empty() || self.has_parent(parent)))?;
            Some(entry.2.iter().map(|key| (*key).to_owned()).collect())
        };
        let keys = learnt.or_else(known)?;
        let unique = |list: &[Value]| {
            let mut seen = BTreeSet::new();
            list.iter().all(|item| identity(item, &keys).is_some_and(|identity| seen.insert(identity)))
        };
        (unique(desired) && unique(live)).then_some(keys)
    }

    fn has_parent(&self, parent: &str) -> bool {
        self.path.iter().any(|step| matches!(step, Step::Key(key) if *key == parent))
    }

    fn keyed(&mut self, keys: &[String], desired: &'a [Value], live: &'a [Value], owned: Owned<'a>, depth: usize) {
        for (index, item) in desired.iter().enumerate() {
            let wanted = identity(item, keys);
            let found = live.iter().find(|live| identity(live, keys) == wanted);
            let below = owned
                .elements()
                .find(|(key, _)| identity(&Value::Object(key.clone()), keys) == wanted)
                .map(|(_, below)| below)
                .unwrap_or_default();
            self.under(Step::Index(index), |walk| match (item, found) {
                (Value::Object(item), Some(Value::Object(found))) => walk.object(item, found, below, depth + 1),
                _ => walk.note(None),
            });
        }
        // Elements that we own and no longer set.
        for (key, _) in owned.elements() {
            let lost = identity(&Value::Object(key), keys);
            if desired.iter().any(|item| identity(item, keys) == lost) {
                continue;
            }
            if let Some((index, item)) = live.iter().enumerate().find(|(_, item)| identity(item, keys) == lost) {
                self.under(Step::Index(index), |walk| walk.note(Some(item)));
            }
        }
    }

    fn set(&mut self, desired: &'a [Value], live: &'a [Value], owned: Owned<'a>) {
        for (index, item) in desired.iter().enumerate() {
            if !live.contains(item) {
                self.under(Step::Index(index), |walk| walk.note(None));
            }
        }
        for member in owned.members() {
            if !desired.contains(&member)
                && let Some((index, item)) = live.iter().enumerate().find(|(_, item)| **item == member)
            {
                self.under(Step::Index(index), |walk| walk.note(Some(item)));
            }
        }
    }

    /// The whole list is one value, but its elements may have been defaulted.
    fn atomic(&mut self, key: &'a str, desired: &'a [Value], live: &'a [Value], depth: usize) {
        if desired.len() != live.len() {
            if !(live.is_empty() && desired.iter().all(|item| is_unset(key, item))) {
                self.note(None);
            }
            return;
        }
        for (index, (item, found)) in desired.iter().zip(live).enumerate() {
            self.under(Step::Index(index), |walk| {
                walk.field(key, Some(item), Some(found), Owned::default(), depth + 1)
            });
        }
    }
}

/// The key fields of a list with unique, complete keys, by the table alone; for the simulated cluster.
pub(crate) fn list_keys(list: &str, items: &[Value]) -> Option<Vec<String>> {
    let entry =
        KEYED.iter().find(|(name, parent, _)| *name == list && (parent.is_empty() || items_are_ports(items)))?;
    let keys: Vec<String> = entry.2.iter().map(|key| (*key).to_owned()).collect();
    let mut seen = BTreeSet::new();
    let unique = items.iter().all(|item| identity(item, &keys).is_some_and(|identity| seen.insert(identity)));
    unique.then_some(keys)
}

/// Container ports, not those of a Service.
fn items_are_ports(items: &[Value]) -> bool {
    items
        .iter()
        .all(|item| item.get("containerPort").is_some() || item.get("uid").is_some() || item.get("type").is_some())
}

/// The key fields of an element as text; a port without a protocol is a TCP port. `None` without any of them.
fn identity(item: &Value, keys: &[String]) -> Option<String> {
    let map = item.as_object()?;
    let mut identity = Map::new();
    for key in keys {
        let default = if key == "protocol" { Some(Value::from("TCP")) } else { None };
        if let Some(value) = map.get(key).cloned().or(default) {
            identity.insert(key.clone(), value);
        }
    }
    // Only a defaulted protocol identifies nothing.
    identity.keys().any(|key| key != "protocol").then(|| Value::Object(identity).to_string())
}

fn is_set(key: &str, owned: Owned<'_>, desired: &[Value]) -> bool {
    let scalars = desired.iter().all(|item| !item.is_object() && !item.is_array());
    scalars && (owned.members().next().is_some() || (!owned.is_known() && key == "finalizers"))
}

/// List, an ancestor that it must have (or ""), key fields. From the API types of Kubernetes 1.36 (`+listMapKey`).
const KEYED: [(&str, &str, &[&str]); 20] = [
    ("containers", "", &["name"]),
    ("initContainers", "", &["name"]),
    ("ephemeralContainers", "", &["name"]),
    ("env", "", &["name"]),
    ("volumes", "", &["name"]),
    ("volumeMounts", "", &["mountPath"]),
    ("volumeDevices", "", &["devicePath"]),
    ("imagePullSecrets", "", &["name"]),
    ("hostAliases", "", &["ip"]),
    ("resourceClaims", "", &["name"]),
    ("schedulingGates", "", &["name"]),
    ("topologySpreadConstraints", "", &["topologyKey", "whenUnsatisfiable"]),
    ("ports", "containers", &["containerPort", "protocol"]),
    ("ports", "initContainers", &["containerPort", "protocol"]),
    ("ports", "ephemeralContainers", &["containerPort", "protocol"]),
    ("ownerReferences", "metadata", &["uid"]),
    ("webhooks", "", &["name"]),
    ("validations", "", &["expression"]),
    ("matchConditions", "", &["name"]),
    ("conditions", "status", &["type"]),
];
