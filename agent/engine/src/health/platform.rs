//! Health of what surrounds workloads: networking, storage, autoscaling, API extensions, and Argo's own kinds.
//! Rules and messages: gitops-engine `pkg/health`, except where COMPAT decides otherwise.

use serde_json::Value;
use windlass_protocol::{
    json::{self, text},
    status::{Health, HealthStatus},
};

use super::{condition, condition_is, conditions, degraded, healthy, is_observed, progressing, suspended, unknown};

pub(super) fn service(object: &Value) -> Health {
    if text(object, &["spec", "type"]) == "LoadBalancer" && !has_ingress(object) {
        return progressing("");
    }
    healthy("")
}

pub(super) fn ingress(object: &Value) -> Health {
    if has_ingress(object) { healthy("") } else { progressing("") }
}

fn has_ingress(object: &Value) -> bool {
    json::at(object, &["status", "loadBalancer", "ingress"])
        .and_then(Value::as_array)
        .is_some_and(|list| !list.is_empty())
}

pub(super) fn volume_claim(object: &Value) -> Health {
    match text(object, &["status", "phase"]) {
        "Bound" => healthy(""),
        "Pending" | "" => progressing(""),
        "Lost" => degraded(""),
        _ => unknown(""),
    }
}

pub(super) fn autoscaler(object: &Value) -> Health {
    for condition in conditions(object) {
        let (kind, reason) = (text(condition, &["type"]), text(condition, &["reason"]));
        let failing = matches!(
            (kind, reason),
            ("AbleToScale", "FailedGetScale" | "FailedUpdateScale")
                | ("ScalingActive", "FailedGetResourceMetric" | "InvalidSelector")
        );
        if failing {
            return degraded(text(condition, &["message"]));
        }
        if matches!(kind, "AbleToScale" | "ScalingLimited") && text(condition, &["status"]) == "True" {
            return healthy(text(condition, &["message"]));
        }
    }
    progressing("Waiting to Autoscale")
}

pub(super) fn api_service(object: &Value) -> Health {
    let Some(available) = condition(object, "Available") else { return progressing("Waiting to be processed") };
    let message = format!("{}: {}", text(available, &["reason"]), text(available, &["message"]));
    if text(available, &["status"]) == "True" { healthy(message) } else { progressing(message) }
}

pub(super) fn crd(object: &Value) -> Health {
    if conditions(object).next().is_none() {
        return progressing("Status conditions not found");
    }
    let message = |kind: &str| condition(object, kind).map_or("", |it| text(it, &["message"])).to_owned();
    if condition_is(object, "Terminating", "True") {
        return progressing(format!("CRD is being terminated: {}", message("Terminating")));
    }
    if condition_is(object, "NamesAccepted", "False") {
        return degraded(format!("CRD names have not been accepted: {}", message("NamesAccepted")));
    }
    if !condition_is(object, "Established", "True") {
        // A new CRD is not established for a moment; that is no failure.
        let installing =
            condition(object, "Established").is_none_or(|it| matches!(text(it, &["reason"]), "Installing" | ""));
        let text = format!("CRD is not established: {}", message("Established"));
        return if installing { progressing(text) } else { degraded(text) };
    }
    if condition_is(object, "NonStructuralSchema", "True") {
        return degraded(format!("Schema violations found: {}", message("NonStructuralSchema")));
    }
    healthy("CRD is healthy")
}

pub(super) fn application(object: &Value) -> Health {
    let message = text(object, &["status", "health", "message"]);
    match text(object, &["status", "health", "status"]) {
        "" => progressing(message),
        status => Health::new(status.parse().unwrap_or(HealthStatus::Unknown), message),
    }
}

pub(super) fn workflow(object: &Value) -> Health {
    let message = text(object, &["status", "message"]);
    match text(object, &["status", "phase"]) {
        "" | "Pending" | "Running" => progressing(message),
        "Succeeded" => healthy(message),
        "Failed" | "Error" => degraded(message),
        _ => unknown(message),
    }
}

pub(super) fn rollout(object: &Value) -> Health {
    // Argo Rollouts writes observedGeneration as a text.
    let observed = match json::at(object, &["status", "observedGeneration"]) {
        Some(Value::String(text)) => {
            text.parse::<i64>().is_ok_and(|seen| seen >= super::number(object, &["metadata", "generation"]))
        }
        _ => is_observed(object),
    };
    if !observed {
        return progressing("Waiting for rollout spec update to be observed");
    }
    let message = text(object, &["status", "message"]);
    match text(object, &["status", "phase"]) {
        "Healthy" => healthy(message),
        "Paused" => suspended(message),
        "Degraded" => degraded(message),
        _ => progressing(message),
    }
}
