//! The controllers of a simulated cluster, level-triggered: each pass looks at everything and writes what is not yet as it should be.
//! Time moves from one due moment to the next, so that the result does not depend on how often it is advanced.

mod workloads;

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};
use windlass_protocol::{
    json::{at, text},
    manifest::{self, ResourceKey},
    time::Millis,
};

use super::{SimulatedCluster, store};
use crate::{
    action::Propagation,
    discovery::{self, GroupKind, Scope},
    pair,
};

/// Lets time pass.
pub(super) fn advance(cluster: &mut SimulatedCluster, now: Millis) {
    settle(cluster);
    for _ in 0..MOMENTS_MAX {
        match next_event_at(cluster).filter(|next| *next <= now && *next > cluster.store.now) {
            Some(next) => cluster.store.now = next,
            None => break,
        }
        settle(cluster);
    }
    if now > cluster.store.now {
        cluster.store.now = now;
        settle(cluster);
    }
}

/// Moments of one advance; more are left to the next.
const MOMENTS_MAX: usize = 10_000;
/// Passes until everything is settled: owner, dependent and status depend on each other only a few levels deep.
const PASSES_MAX: usize = 32;

/// When something is due.
pub(super) fn next_event_at(cluster: &SimulatedCluster) -> Option<Millis> {
    let now = cluster.store.now;
    let due = cluster.store.iter().filter_map(|(key, object)| due(cluster, key, object));
    due.filter(|due| *due > now).min()
}

fn due(cluster: &SimulatedCluster, key: &ResourceKey, object: &Value) -> Option<Millis> {
    let born = cluster.store.born(object);
    let delays = &cluster.delays;
    match (&*key.group, &*key.kind) {
        ("", "Pod") if !workloads::is_bad(object) => Some(born.plus(delays.ready)),
        ("batch", "Job") => Some(born.plus(delays.job)),
        ("apps", "ReplicaSet") => Some(born.plus(workloads::deadline(cluster, object))),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => Some(born.plus(delays.crd)),
        ("", "Service" | "PersistentVolumeClaim") | ("networking.k8s.io", "Ingress") => {
            Some(born.plus(delays.provision))
        }
        _ => None,
    }
}

/// Runs all controllers at the current time until nothing changes.
pub(super) fn settle(cluster: &mut SimulatedCluster) {
    for _ in 0..PASSES_MAX {
        let mut changed = collect_garbage(cluster);
        let keys: Vec<ResourceKey> = cluster.store.iter().map(|(key, _)| key.clone()).collect();
        for key in keys {
            let Some(object) = cluster.store.get(&key).cloned() else { continue };
            if pair::is_terminating(&object) {
                continue;
            }
            changed |= control(cluster, &key, &object);
        }
        if !changed {
            break;
        }
    }
}

fn control(cluster: &mut SimulatedCluster, key: &ResourceKey, object: &Arc<Value>) -> bool {
    match (&*key.group, &*key.kind) {
        ("", "Pod") => workloads::pod(cluster, key, object),
        ("apps", "Deployment") => workloads::deployment(cluster, key, object),
        ("apps", "ReplicaSet") => workloads::replica_set(cluster, key, object),
        ("apps", "StatefulSet") => workloads::stateful_set(cluster, key, object),
        ("apps", "DaemonSet") => workloads::daemon_set(cluster, key, object),
        ("batch", "Job") => workloads::job(cluster, key, object),
        ("", "Namespace") => cluster.store.put_status(key, json!({"phase": "Active"})),
        ("", "PersistentVolumeClaim") => provision(cluster, key, object, json!({"phase": "Bound"})),
        ("", "Service") if text(object, &["spec", "type"]) == "LoadBalancer" => {
            provision(cluster, key, object, json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}))
        }
        ("networking.k8s.io", "Ingress") => {
            provision(cluster, key, object, json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}]}}))
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition(cluster, key, object),
        _ => false,
    }
}

fn provision(cluster: &mut SimulatedCluster, key: &ResourceKey, object: &Value, status: Value) -> bool {
    let ready = cluster.store.now >= cluster.store.born(object).plus(cluster.delays.provision);
    ready && cluster.store.put_status(key, status)
}

/// A definition is accepted at once and served after a while.
fn definition(cluster: &mut SimulatedCluster, key: &ResourceKey, object: &Value) -> bool {
    let Some((kind, scope)) = discovery::defined_by(object) else { return false };
    let served = cluster.store.now >= cluster.store.born(object).plus(cluster.delays.crd);
    if served {
        serve(cluster, object, &kind, scope);
    }
    let (established, reason) = if served { ("True", "InitialNamesAccepted") } else { ("False", "Installing") };
    let conditions = json!([
        {"type": "NamesAccepted", "status": "True", "reason": "NoConflicts"},
        {"type": "Established", "status": established, "reason": reason},
    ]);
    cluster.store.put_status(key, json!({"conditions": conditions}))
}

fn serve(cluster: &mut SimulatedCluster, definition: &Value, kind: &GroupKind, scope: Scope) {
    let versions = at(definition, &["spec", "versions"]).and_then(Value::as_array);
    for version in versions.into_iter().flatten() {
        let name = text(version, &["name"]);
        if !name.is_empty() && !cluster.kinds.serves(kind, name) {
            cluster.serve(kind.clone(), scope, name);
        }
    }
}

/// Owners, namespaces and definitions take what hangs on them along.
fn collect_garbage(cluster: &mut SimulatedCluster) -> bool {
    let mut changed = false;
    for key in cluster.store.abandoned() {
        cluster.store.delete(&key, Propagation::Background);
        changed = true;
    }
    let leaving: Vec<(ResourceKey, Arc<Value>)> = cluster
        .store
        .iter()
        .filter(|(_, object)| pair::is_terminating(object))
        .map(|(key, object)| (key.clone(), Arc::clone(object)))
        .collect();
    for (key, object) in leaving {
        let finalizers = store::finalizers(&object);
        if finalizers.iter().any(|it| it == store::FOREGROUND) {
            changed |= finish(cluster, &key, cluster.store.dependents(&object), store::FOREGROUND);
        }
        if finalizers.iter().any(|it| it == store::NAMESPACE) {
            let content = cluster.store.iter().filter(|(it, _)| it.namespace == manifest::name(&object));
            let content: Vec<ResourceKey> = content.map(|(key, _)| key.clone()).collect();
            changed |= finish(cluster, &key, content, store::NAMESPACE);
        }
    }
    changed |= drop_undefined(cluster);
    changed
}

/// Deletes what has to go before, and releases the finalizer when nothing is left.
fn finish(cluster: &mut SimulatedCluster, key: &ResourceKey, before: Vec<ResourceKey>, finalizer: &str) -> bool {
    if before.is_empty() {
        cluster.store.release(key, finalizer);
        return true;
    }
    let mut changed = false;
    for dependent in before {
        let leaving = cluster.store.get(&dependent).is_none_or(|object| pair::is_terminating(object));
        if !leaving {
            cluster.store.delete(&dependent, Propagation::Foreground);
            changed = true;
        }
    }
    changed
}

/// Without its definition a custom kind is not served, and its objects are gone.
fn drop_undefined(cluster: &mut SimulatedCluster) -> bool {
    let defined: BTreeSet<GroupKind> = cluster
        .store
        .of_kind("apiextensions.k8s.io", "CustomResourceDefinition")
        .filter_map(|(_, object)| discovery::defined_by(object).map(|(kind, _)| kind))
        .collect();
    let stale: Vec<GroupKind> = cluster.custom.iter().filter(|kind| !defined.contains(*kind)).cloned().collect();
    for kind in &stale {
        cluster.custom.remove(kind);
        Arc::make_mut(&mut cluster.kinds).remove(kind);
        for object in cluster.list(kind) {
            cluster.store.delete(&ResourceKey::of(&object), Propagation::Background);
        }
    }
    for kind in defined {
        cluster.custom.insert(kind);
    }
    !stale.is_empty()
}
