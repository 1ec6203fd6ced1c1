//! Health of live objects: Argo CD's built-in rules, generic conditions for kinds without one, and the worst of many.
//!
//! A rule reads one object and nothing else. Overrides (Lua) come in through [`crate::Extension`].

mod conditions;
mod platform;
mod workload;

use serde_json::Value;
use windlass_protocol::{
    json, manifest,
    status::{Health, HealthStatus},
};

use crate::{extension::Extension, pair};

/// Annotation that keeps an object out of the application's health.
pub const IGNORE_ANNOTATION: &str = "argocd.argoproj.io/ignore-healthcheck";
/// Annotation that makes generic conditions of an object hold a wave.
pub const WAIT_READY_ANNOTATION: &str = "windlass.io/wait-ready";

/// What a verdict rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// A rule for the kind, or an override.
    Rule,
    /// `status.conditions` of a kind without a rule: holds a wave only if it was Ready before, or asks for it.
    Conditions,
}

/// Health of a live object; `None` for kinds that have none.
#[must_use]
pub fn assess(live: &Value, extension: &dyn Extension) -> Option<(Health, Basis)> {
    if pair::is_terminating(live) {
        return Some((Health::new(HealthStatus::Progressing, "Pending deletion"), Basis::Rule));
    }
    if let Some(health) = extension.health(live) {
        return Some((health, Basis::Rule));
    }
    let (group, _) = manifest::group_version(live);
    let health = match (group, manifest::kind(live)) {
        ("", "Pod") => workload::pod(live),
        ("apps" | "extensions", "Deployment") => workload::deployment(live),
        ("apps", "StatefulSet") => workload::stateful_set(live),
        ("apps" | "extensions", "DaemonSet") => workload::daemon_set(live),
        ("apps" | "extensions", "ReplicaSet") => workload::replica_set(live),
        ("batch", "Job") => workload::job(live),
        ("", "Service") => platform::service(live),
        ("networking.k8s.io" | "extensions", "Ingress") => platform::ingress(live),
        ("", "PersistentVolumeClaim") => platform::volume_claim(live),
        ("autoscaling", "HorizontalPodAutoscaler") => platform::autoscaler(live),
        ("apiregistration.k8s.io", "APIService") => platform::api_service(live),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => platform::crd(live),
        ("argoproj.io", "Application") => platform::application(live),
        ("argoproj.io", "Workflow") => platform::workflow(live),
        ("argoproj.io", "Rollout") => platform::rollout(live),
        _ if is_built_in(group) => return None,
        _ => return conditions::generic(live).map(|health| (health, Basis::Conditions)),
    };
    Some((health, Basis::Rule))
}

/// Whether an object counts in the application's health.
#[must_use]
pub fn counts(object: &Value) -> bool {
    manifest::annotation(object, IGNORE_ANNOTATION) != Some("true")
}

/// The worst of many; Healthy when there is none.
#[must_use]
pub fn worst(all: impl IntoIterator<Item = HealthStatus>) -> HealthStatus {
    all.into_iter().max().unwrap_or(HealthStatus::Healthy)
}

/// Whether a group belongs to Kubernetes itself, where kinds without a rule have no health.
fn is_built_in(group: &str) -> bool {
    group.is_empty()
        || group == "apps"
        || group == "batch"
        || group == "autoscaling"
        || group == "policy"
        || group == "extensions"
        || (group.ends_with(".k8s.io") && manifest::is_cluster_scoped(group, "").is_some())
}

fn healthy(message: impl Into<String>) -> Health {
    Health::new(HealthStatus::Healthy, message)
}

fn progressing(message: impl Into<String>) -> Health {
    Health::new(HealthStatus::Progressing, message)
}

fn degraded(message: impl Into<String>) -> Health {
    Health::new(HealthStatus::Degraded, message)
}

fn suspended(message: impl Into<String>) -> Health {
    Health::new(HealthStatus::Suspended, message)
}

fn unknown(message: impl Into<String>) -> Health {
    Health::new(HealthStatus::Unknown, message)
}

/// A whole number at a path; 0 where there is none.
fn number(object: &Value, path: &[&str]) -> i64 {
    optional_number(object, path).unwrap_or(0)
}

fn optional_number(object: &Value, path: &[&str]) -> Option<i64> {
    json::at(object, path).and_then(Value::as_i64)
}

/// `status.conditions[]`.
fn conditions(object: &Value) -> impl Iterator<Item = &Value> {
    json::at(object, &["status", "conditions"]).and_then(Value::as_array).into_iter().flatten()
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    conditions(object).find(|condition| json::text(condition, &["type"]) == kind)
}

/// Whether a condition has this status (`True`, `False`, `Unknown`).
fn condition_is(object: &Value, kind: &str, status: &str) -> bool {
    condition(object, kind).is_some_and(|condition| json::text(condition, &["status"]) == status)
}

/// Whether the controller has seen the newest spec.
fn is_observed(object: &Value) -> bool {
    number(object, &["metadata", "generation"]) <= number(object, &["status", "observedGeneration"])
}
