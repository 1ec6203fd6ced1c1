//! The `status` of an Application in Argo CD's shape, computed from its assignment.

use serde_json::{Value, json};
use windlass_protocol::{
    json,
    message::OperationReport,
    resource::OPERATION_INFO,
    status::{Condition, HealthStatus, SyncStatus},
    time::Millis,
};

use crate::state::AssignmentRecord;

/// `revisionHistoryLimit` when unset.
const HISTORY_DEFAULT: u64 = 10;

/// Compared with the target; a target that no receipt speaks of yet is out of sync.
#[must_use]
pub fn sync_status(record: &AssignmentRecord) -> SyncStatus {
    let Some(target) = &record.target else { return SyncStatus::Unknown };
    match &record.receipt {
        Some(receipt) if receipt.target == Some(target.digest) => receipt.sync,
        _ => SyncStatus::OutOfSync,
    }
}

/// Health by the newest receipt; nothing is there before the first.
#[must_use]
pub fn health_status(record: &AssignmentRecord) -> HealthStatus {
    record.receipt.as_ref().map_or(HealthStatus::Missing, |receipt| receipt.health)
}

/// Writes sync, health, operation and history into an Application; nothing changes where nothing is new.
pub fn application(value: &mut Value, record: Option<&AssignmentRecord>, wall: Millis) {
    let before = value.get("status").cloned().unwrap_or_else(|| json!({}));
    let mut status = before.clone();
    let now = wall.rfc3339();
    let Some(record) = record else {
        json::set(&mut status, &["sync", "status"], json!("Unknown"));
        json::set(&mut status, &["health", "status"], json!("Unknown"));
        finish(value, &before, status, &now);
        return;
    };
    json::set(&mut status, &["sync", "status"], json!(sync_status(record).as_str()));
    if let Some(target) = &record.target {
        json::set(&mut status, &["sync", "revision"], json!(target.revision));
    }
    let compared = json!({
        "source": value.pointer("/spec/source").cloned().unwrap_or_default(),
        "destination": value.pointer("/spec/destination").cloned().unwrap_or_default(),
    });
    json::set(&mut status, &["sync", "comparedTo"], compared);
    let health = health_status(record).as_str();
    if json::text(&status, &["health", "status"]) != health {
        json::set(&mut status, &["health"], json!({"status": health, "lastTransitionTime": now}));
    }
    let message = record.receipt.as_ref().map(|receipt| receipt.message.as_str()).unwrap_or_default();
    if message.is_empty() {
        json::remove(&mut status, &["health", "message"]);
    } else {
        json::set(&mut status, &["health", "message"], json!(message));
    }
    if let Some(report) = record.receipt.as_ref().and_then(|receipt| receipt.operation.as_ref()) {
        operation(&mut status, value, record, report, &now);
    }
    finish(value, &before, status, &now);
}

/// The status of an Application that waits for its agent to carry out its end.
pub fn deletion(value: &mut Value, online: bool, now: &str) {
    let mut status = value.get("status").cloned().unwrap_or_else(|| json!({}));
    if online {
        set_conditions(&mut status, &[], now);
    } else {
        let message = "AgentUnreachable: the cluster's agent is not connected; the deletion goes on when it returns";
        set_conditions(&mut status, &[Condition::new("DeletionError", message)], now);
    }
    json::set(value, &["status"], status);
}

/// Replaces `status.conditions`; a condition that stays keeps its time.
pub fn set_conditions(status: &mut Value, conditions: &[Condition], now: &str) {
    let old = status.get("conditions").cloned().unwrap_or_default();
    let old: Vec<Condition> = serde_json::from_value(old).unwrap_or_default();
    let new: Vec<Condition> = conditions
        .iter()
        .map(|condition| {
            let same = old.iter().find(|old| old.kind == condition.kind && old.message == condition.message);
            let time = same.and_then(|old| old.last_transition_time.clone()).unwrap_or_else(|| now.to_owned());
            Condition { last_transition_time: Some(time), ..condition.clone() }
        })
        .collect();
    if new.is_empty() {
        json::remove(status, &["conditions"]);
    } else {
        json::set(status, &["conditions"], serde_json::to_value(new).unwrap_or_default());
    }
}

fn finish(value: &mut Value, before: &Value, mut status: Value, now: &str) {
    if *before != status {
        json::set(&mut status, &["reconciledAt"], json!(now));
        json::set(value, &["status"], status);
    }
}

fn operation(status: &mut Value, value: &Value, record: &AssignmentRecord, report: &OperationReport, now: &str) {
    let bundle = record.bundles().find(|bundle| bundle.digest == report.bundle);
    let revision = bundle.map(|bundle| bundle.revision.as_str()).unwrap_or_default();
    let asked = report.id.and_then(|id| record.operation.as_ref().filter(|operation| operation.id == id));
    let initiated_by = match asked {
        Some(operation) => json!({"username": operation.initiated_by}),
        None => json!({"automated": true}),
    };
    let prune = asked
        .map_or_else(|| record.policy.automated.is_some_and(|automated| automated.prune), |operation| operation.prune);
    let source = value.pointer("/spec/source").cloned().unwrap_or_default();
    let mut state = json!({
        "operation": {"sync": {"revision": revision, "prune": prune}, "initiatedBy": initiated_by},
        "phase": report.phase.as_str(),
        "message": report.message,
        "startedAt": report.started_at.rfc3339(),
        "retryCount": report.retries,
        "syncResult": {"revision": revision, "source": source},
    });
    if let Some(id) = report.id {
        // Times are whole seconds and of the agent's clock: only the number tells two operations apart.
        json::set(&mut state, &["operation", "info"], json!([{"name": OPERATION_INFO, "value": id.0.to_string()}]));
    }
    if let Some(finished) = report.finished_at {
        json::set(&mut state, &["finishedAt"], json!(finished.rfc3339()));
    }
    json::set(status, &["operationState"], state);
    if report.phase == windlass_protocol::status::OperationPhase::Succeeded {
        let entry = json!({
            "revision": revision,
            "source": source,
            "deployStartedAt": report.started_at.rfc3339(),
            "initiatedBy": initiated_by,
        });
        history(status, value, entry, now);
    }
}

/// Appends to `status.history` what was deployed, once, and keeps as much as `revisionHistoryLimit` says.
fn history(status: &mut Value, value: &Value, mut entry: Value, now: &str) {
    let mut list = match status.get("history") {
        Some(Value::Array(list)) => list.clone(),
        _ => Vec::new(),
    };
    let same =
        |old: &Value| ["revision", "deployStartedAt", "source"].iter().all(|field| old.get(field) == entry.get(field));
    if list.last().is_some_and(same) {
        return;
    }
    // Argo CD counts history from 0.
    let id = list.last().and_then(|last| last.get("id")?.as_u64()).map_or(0, |id| id.saturating_add(1));
    json::set(&mut entry, &["id"], json!(id));
    json::set(&mut entry, &["deployedAt"], json!(now));
    list.push(entry);
    let limit = value.pointer("/spec/revisionHistoryLimit").and_then(Value::as_u64).unwrap_or(HISTORY_DEFAULT);
    let excess = (list.len() as u64).saturating_sub(limit);
    list.drain(..usize::try_from(excess).unwrap_or(usize::MAX).min(list.len()));
    json::set(status, &["history"], Value::Array(list));
}
