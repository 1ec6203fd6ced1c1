//! Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs and Pods. New pods first, old ones go when the new are ready.

use serde_json::{Value, json};
use windlass_protocol::{
    ids::Digest,
    json::{at, text},
    manifest::{self, ResourceKey},
    time::Millis,
};

use super::super::{SimulatedCluster, faults::BAD_IMAGE, store};
use crate::action::Propagation;

/// Whether a pod (or a template) never becomes ready.
pub(super) fn is_bad(pod: &Value) -> bool {
    let containers = at(pod, &["spec", "containers"]).and_then(Value::as_array);
    containers.into_iter().flatten().any(|container| text(container, &["image"]).contains(BAD_IMAGE))
}

/// How long a ReplicaSet's rollout may take.
pub(super) fn deadline(cluster: &SimulatedCluster, replica_set: &Value) -> Millis {
    let owner = store::owner_uids(replica_set).first().map(|uid| (*uid).to_owned()).unwrap_or_default();
    let deployment =
        cluster.store.of_kind("apps", "Deployment").find(|(_, it)| text(it, &["metadata", "uid"]) == owner);
    let seconds = deployment.and_then(|(_, it)| at(it, &["spec", "progressDeadlineSeconds"])?.as_u64());
    seconds.map_or(cluster.delays.progress_deadline, Millis::from_secs)
}

pub(super) fn pod(cluster: &mut SimulatedCluster, key: &ResourceKey, object: &Value) -> bool {
    let ready = cluster.store.now >= cluster.store.born(object).plus(cluster.delays.ready);
    let finite = matches!(text(object, &["spec", "restartPolicy"]), "Never" | "OnFailure");
    let status = if is_bad(object) {
        json!({"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [
            {"name": "main", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff",
            "message": "Back-off pulling image"}}}]})
    } else if !ready {
        json!({"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}]})
    } else if finite {
        json!({"phase": "Succeeded"})
    } else {
        json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})
    };
    cluster.store.put_status(key, status)
}

pub(super) fn deployment(cluster: &mut SimulatedCluster, key: &ResourceKey, object: &Value) -> bool {
    if at(object, &["spec", "paused"]) == Some(&Value::Bool(true)) {
        return false;
    }
    let wanted = replicas(object);
    let hash = template_hash(object);
    let current = ResourceKey { kind: "ReplicaSet".to_owned(), name: format!("{}-{hash}", key.name), ..key.clone() };
    let mut changed = scale_set(cluster, &current, object, wanted);
    let (ready, alive) = counts(cluster, &current);
    let done = alive == wanted && ready == wanted;
    let old: Vec<ResourceKey> = sets_of(cluster, object).into_iter().filter(|it| *it != current).collect();
    let mut old_pods = 0;
    for set in old {
        if done {
            changed |= scale_set(cluster, &set, object, 0);
        }
        old_pods += counts(cluster, &set).1;
    }
    let started = cluster.store.get(&current).map_or(cluster.store.now, |set| cluster.store.born(set));
    let late = !done && cluster.store.now >= started.plus(deadline_of(cluster, object));
    let progress = if done {
        json!({"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"})
    } else if late {
        json!({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded",
            "message": format!("ReplicaSet {:?} has timed out progressing.", current.name)})
    } else {
        json!({"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"})
    };
    let available = if ready + old_pods >= wanted { "True" } else { "False" };
    let status = json!({
        "observedGeneration": at(object, &["metadata", "generation"]),
        "replicas": alive + old_pods, "updatedReplicas": alive,
        "readyReplicas": ready + old_pods, "availableReplicas": ready,
        "conditions": [{"type": "Available", "status": available}, progress],
    });
    changed | cluster.store.put_status(key, status)
}

fn deadline_of(cluster: &SimulatedCluster, deployment: &Value) -> Millis {
    let seconds = at(deployment, &["spec", "progressDeadlineSeconds"]).and_then(Value::as_u64);
    seconds.map_or(cluster.delays.progress_deadline, Millis::from_secs)
}

/// The ReplicaSets of a Deployment.
fn sets_of(cluster: &SimulatedCluster, deployment: &Value) -> Vec<ResourceKey> {
    let dependents = cluster.store.dependents(deployment);
    dependents.into_iter().filter(|key| key.kind == "ReplicaSet").collect()
}

fn scale_set(cluster: &mut SimulatedCluster, key: &ResourceKey, deployment: &Value, wanted: u64) -> bool {
    let mut set = match cluster.store.get(key) {
        Some(set) if replicas(set) == wanted => return false,
        Some(set) => (**set).clone(),
        None => {
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": key.name, "namespace": key.namespace,
            "ownerReferences": [owner(deployment)]}, "spec": {"template": at(deployment, &["spec", "template"])}})
        }
    };
    windlass_protocol::json::set(&mut set, &["spec", "replicas"], Value::from(wanted));
    cluster.store.put(key, set);
    true
}

pub(super) fn replica_set(cluster: &mut SimulatedCluster, key: &ResourceKey, object: &Value) -> bool {
    let wanted = replicas(object);
    let names: Vec<String> =
        (0..wanted).map(|index| format!("{}-{}", key.name, suffix(&format!("{}/{index}", key.name)))).collect();
    let changed = make_pods(cluster, object, &names, None);
    let (ready, alive) = counts(cluster, key);
    let generation = at(object, &["metadata", "generation"]);
    changed
        | cluster.store.put_status(
            key,
            json!({"observedGeneration": generation, "replicas": alive, "readyReplicas": ready, "availableReplicas": ready}),
        )
}

pub(super) fn stateful_set(cluster: &mut SimulatedCluster, key: &ResourceKey, object: &Value) -> bool {
    let wanted = replicas(object);
    let revision = format!("{}-{}", key.name, template_hash(object));
    let names: Vec<String> = (0..wanted).map(|index| format!("{}-{index}", key.name)).collect();
    let changed = make_pods(cluster, object, &names, Some(&revision));
    let (ready, alive) = counts(cluster, key);
    let done = ready == wanted;
    let before = text(object, &["status", "currentRevision"]);
    let current = if done || before.is_empty() { &*revision } else { before };
    let status = json!({"observedGeneration": at(object, &["metadata", "generation"]), "replicas": alive,
        "readyReplicas": ready, "availableReplicas": ready, "updatedReplicas": alive, "currentReplicas": alive,
        "currentRevision": current, "updateRevision": revision});
    changed | cluster.store.put_status(key, status)
}

pub(super) fn daemon_set(cluster: &mut SimulatedCluster, key: &ResourceKey, object: &Value) -> bool {
    let revision = template_hash(object);
    let names = [format!("{}-{}", key.name, suffix(&key.name))];
    let changed = make_pods(cluster, object, &names, Some(&revision));
    let (ready, alive) = counts(cluster, key);
    let status = json!({"observedGeneration": at(object, &["metadata", "generation"]), "desiredNumberScheduled": 1,
        "currentNumberScheduled": alive, "updatedNumberScheduled": alive, "numberReady": ready, "numberAvailable": ready});
    changed | cluster.store.put_status(key, status)
}

pub(super) fn job(cluster: &mut SimulatedCluster, key: &ResourceKey, object: &Value) -> bool {
    if !text(object, &["status", "completionTime"]).is_empty() || has_failed(object) {
        return false;
    }
    let due = cluster.store.now >= cluster.store.born(object).plus(cluster.delays.job);
    let template = at(object, &["spec", "template"]).cloned().unwrap_or_default();
    let status = if !due {
        json!({"active": 1})
    } else if is_bad(&template) {
        json!({"failed": 1, "conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded",
            "message": "Job has reached the specified backoff limit"}]})
    } else {
        let time = cluster.store.now.rfc3339();
        json!({"succeeded": 1, "completionTime": time, "conditions": [{"type": "Complete", "status": "True"}]})
    };
    cluster.store.put_status(key, status)
}

fn has_failed(job: &Value) -> bool {
    at(job, &["status", "failed"]).is_some()
}

/// Makes the pods with these names, and deletes others of the owner and those of another revision.
fn make_pods(cluster: &mut SimulatedCluster, set: &Value, names: &[String], revision: Option<&str>) -> bool {
    let mut changed = false;
    for key in cluster.store.dependents(set).into_iter().filter(|key| key.kind == "Pod") {
        let outdated = cluster
            .store
            .get(&key)
            .is_some_and(|pod| revision.is_some_and(|revision| manifest::label(pod, REVISION_LABEL) != Some(revision)));
        if !names.contains(&key.name) || outdated {
            cluster.store.delete(&key, Propagation::Background);
            changed = true;
        }
    }
    for name in names {
        let key = ResourceKey {
            group: String::new(),
            kind: "Pod".to_owned(),
            namespace: manifest::namespace(set).to_owned(),
            name: name.clone(),
        };
        if cluster.store.get(&key).is_none() {
            let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": key.namespace,
                "labels": at(set, &["spec", "template", "metadata", "labels"]).cloned().unwrap_or_else(|| json!({})),
                "ownerReferences": [owner(set)]}, "spec": at(set, &["spec", "template", "spec"])});
            if let Some(revision) = revision {
                windlass_protocol::json::set(&mut pod, &["metadata", "labels", REVISION_LABEL], Value::from(revision));
            }
            cluster.store.put(&key, pod);
            changed = true;
        }
    }
    changed
}

/// Ready and all pods of an owner.
fn counts(cluster: &SimulatedCluster, owner: &ResourceKey) -> (u64, u64) {
    let Some(owner) = cluster.store.get(owner) else { return (0, 0) };
    let pods = cluster.store.dependents(owner).into_iter().filter(|key| key.kind == "Pod");
    pods.fold((0, 0), |(ready, all), key| {
        let is_ready = cluster.store.get(&key).is_some_and(|pod| text(pod, &["status", "phase"]) == "Running");
        (ready + u64::from(is_ready), all + 1)
    })
}

fn replicas(object: &Value) -> u64 {
    at(object, &["spec", "replicas"]).and_then(Value::as_u64).unwrap_or(1).min(PODS_MAX)
}

fn owner(object: &Value) -> Value {
    json!({"apiVersion": manifest::api_version(object), "kind": manifest::kind(object), "name": manifest::name(object),
        "uid": text(object, &["metadata", "uid"]), "controller": true, "blockOwnerDeletion": true})
}

fn template_hash(object: &Value) -> String {
    let template = at(object, &["spec", "template"]).map(manifest::canonical).unwrap_or_default();
    let mut hash = Digest::of(&template).short();
    hash.truncate(10);
    hash
}

fn suffix(text: &str) -> String {
    let mut hash = Digest::of(text.as_bytes()).short();
    hash.truncate(5);
    hash
}

/// Pods of one workload; a simulated cluster has one node.
const PODS_MAX: u64 = 110;
const REVISION_LABEL: &str = "controller-revision-hash";
