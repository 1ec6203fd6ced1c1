//! Health of Pods and of what makes them. Rules and messages: gitops-engine `pkg/health/health_{pod,deployment,...}.go`.

use serde_json::Value;
use windlass_protocol::{
    json::{self, text},
    manifest,
    status::Health,
};

use super::{
    condition, condition_is, degraded, healthy, is_observed, number, optional_number, progressing, suspended, unknown,
};

pub(super) fn deployment(object: &Value) -> Health {
    if json::at(object, &["spec", "paused"]) == Some(&Value::Bool(true)) {
        return suspended("Deployment is paused");
    }
    if !is_observed(object) {
        return progressing(
            "Waiting for rollout to finish: observed deployment generation less than desired generation",
        );
    }
    if condition(object, "Progressing").is_some_and(|it| text(it, &["reason"]) == "ProgressDeadlineExceeded") {
        return degraded(format!("Deployment \"{}\" exceeded its progress deadline", manifest::name(object)));
    }
    let status = |field: &str| number(object, &["status", field]);
    let (replicas, updated, available) = (status("replicas"), status("updatedReplicas"), status("availableReplicas"));
    match optional_number(object, &["spec", "replicas"]) {
        Some(wanted) if updated < wanted => progressing(format!(
            "Waiting for rollout to finish: {updated} out of {wanted} new replicas have been updated..."
        )),
        _ if replicas > updated => progressing(format!(
            "Waiting for rollout to finish: {} old replicas are pending termination...",
            replicas - updated
        )),
        _ if available < updated => progressing(format!(
            "Waiting for rollout to finish: {available} of {updated} updated replicas are available..."
        )),
        _ => healthy(""),
    }
}

pub(super) fn stateful_set(object: &Value) -> Health {
    let status = |field: &str| number(object, &["status", field]);
    if status("observedGeneration") == 0 || !is_observed(object) {
        return progressing("Waiting for statefulset spec update to be observed...");
    }
    let (ready, updated) = (status("readyReplicas"), status("updatedReplicas"));
    let wanted = optional_number(object, &["spec", "replicas"]);
    if let Some(wanted) = wanted.filter(|wanted| ready < *wanted) {
        return progressing(format!("Waiting for {} pods to be ready...", wanted - ready));
    }
    let strategy = text(object, &["spec", "updateStrategy", "type"]);
    let rolling = json::at(object, &["spec", "updateStrategy", "rollingUpdate"]);
    if strategy == "RollingUpdate" && rolling.is_some_and(|rolling| !rolling.is_null()) {
        let partition = optional_number(object, &["spec", "updateStrategy", "rollingUpdate", "partition"]);
        if let Some((wanted, partition)) = wanted.zip(partition) {
            let share = wanted - partition;
            if updated < share {
                return progressing(format!(
                    "Waiting for partitioned roll out to finish: {updated} out of {share} new pods have been updated..."
                ));
            }
        }
        return healthy(format!("partitioned roll out complete: {updated} new pods have been updated..."));
    }
    if strategy == "OnDelete" {
        return healthy(format!("statefulset has {ready} ready pods"));
    }
    let (current, update) = (text(object, &["status", "currentRevision"]), text(object, &["status", "updateRevision"]));
    if current != update {
        return progressing(format!(
            "waiting for statefulset rolling update to complete {updated} pods at revision {update}..."
        ));
    }
    let pods = status("currentReplicas");
    healthy(format!("statefulset rolling update complete {pods} pods at revision {current}..."))
}

pub(super) fn daemon_set(object: &Value) -> Health {
    if !is_observed(object) {
        return progressing(
            "Waiting for rollout to finish: observed daemon set generation less than desired generation",
        );
    }
    let status = |field: &str| number(object, &["status", field]);
    let (wanted, updated) = (status("desiredNumberScheduled"), status("updatedNumberScheduled"));
    if text(object, &["spec", "updateStrategy", "type"]) == "OnDelete" {
        return healthy(format!("daemon set {updated} out of {wanted} new pods have been updated"));
    }
    let name = manifest::name(object);
    if updated < wanted {
        return progressing(format!(
            "Waiting for daemon set \"{name}\" rollout to finish: {updated} out of {wanted} new pods have been updated..."
        ));
    }
    let available = status("numberAvailable");
    if available < wanted {
        return progressing(format!(
            "Waiting for daemon set \"{name}\" rollout to finish: {available} of {wanted} updated pods are available..."
        ));
    }
    healthy("")
}

pub(super) fn replica_set(object: &Value) -> Health {
    if !is_observed(object) {
        return progressing(
            "Waiting for rollout to finish: observed replica set generation less than desired generation",
        );
    }
    if condition_is(object, "ReplicaFailure", "True") {
        return degraded(condition(object, "ReplicaFailure").map_or("", |it| text(it, &["message"])));
    }
    let available = number(object, &["status", "availableReplicas"]);
    match optional_number(object, &["spec", "replicas"]) {
        Some(wanted) if available < wanted => progressing(format!(
            "Waiting for rollout to finish: {available} out of {wanted} new replicas are available..."
        )),
        _ => healthy(""),
    }
}

pub(super) fn job(object: &Value) -> Health {
    let message = |kind: &str| condition(object, kind).map_or("", |it| text(it, &["message"])).to_owned();
    if condition_is(object, "Failed", "True") {
        degraded(message("Failed"))
    } else if condition_is(object, "Complete", "True") {
        healthy(message("Complete"))
    } else if condition_is(object, "Suspended", "True") {
        suspended(message("Suspended"))
    } else {
        progressing("")
    }
}

pub(super) fn pod(object: &Value) -> Health {
    let always = matches!(text(object, &["spec", "restartPolicy"]), "Always" | "");
    let containers = || list(object, "containerStatuses");
    if always {
        let failing = containers().filter_map(|it| json::at(it, &["state", "waiting"])).filter(|waiting| {
            let reason = text(waiting, &["reason"]);
            reason.starts_with("Err") || reason.ends_with("Error") || reason.ends_with("BackOff")
        });
        let messages: Vec<&str> = failing.map(|waiting| text(waiting, &["message"])).collect();
        if !messages.is_empty() {
            return degraded(messages.join(", "));
        }
    }
    let message = text(object, &["status", "message"]);
    match text(object, &["status", "phase"]) {
        "Pending" | "" => progressing(message),
        "Succeeded" => healthy(message),
        "Failed" if !message.is_empty() => degraded(message),
        "Failed" => {
            let all = list(object, "initContainerStatuses").chain(containers());
            degraded(all.map(termination).find(|message| !message.is_empty()).unwrap_or_default())
        }
        "Running" if always && condition_is(object, "Ready", "True") => healthy(message),
        "Running" if always && containers().any(|it| json::at(it, &["lastState", "terminated"]).is_some()) => {
            degraded(message)
        }
        // Pods that end by themselves are hooks: running is not yet done.
        "Running" => progressing(message),
        _ => unknown(message),
    }
}

fn list<'a>(pod: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    json::at(pod, &["status", field]).and_then(Value::as_array).into_iter().flatten()
}

/// Why a container ended, or "".
fn termination(container: &Value) -> String {
    let Some(terminated) = json::at(container, &["state", "terminated"]) else { return String::new() };
    let message = text(terminated, &["message"]);
    let code = number(terminated, &["exitCode"]);
    if !message.is_empty() {
        message.to_owned()
    } else if text(terminated, &["reason"]) == "OOMKilled" {
        "OOMKilled".to_owned()
    } else if code != 0 {
        format!("container \"{}\" failed with exit code {code}", text(container, &["name"]))
    } else {
        String::new()
    }
}
