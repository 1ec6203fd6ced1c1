//! What the machine says about itself: per object, in sum, and in words.

use std::collections::BTreeMap;

use windlass_protocol::{
    manifest::{self, ResourceKey},
    message::{OperationReport, SyncResultResource},
    status::{Condition, Health, HealthStatus, OperationPhase, ResourceStatus, SyncStatus},
};

use super::{
    Reconciler,
    compare::{Comparison, Verdict},
    plan::Task,
};
use crate::{
    health,
    hook::{self, Role},
    order, prune,
    resume::Cause,
    scope::Item,
    status::StatusView,
};

impl Reconciler {
    /// What to report.
    #[must_use]
    pub fn status(&self) -> StatusView {
        let target = self.assignment.target.as_ref();
        let comparison = target.and_then(|target| self.comparisons.get(&target.digest));
        let results = self.current_results();
        let resources = comparison.map(|comparison| self.resources(comparison, &results)).unwrap_or_default();
        let sync = comparison.map_or(SyncStatus::Unknown, |comparison| self.sync_status(comparison, &resources));
        let current = self.health();
        let health = current.unwrap_or(HealthStatus::Unknown);
        let mut conditions = self.conditions(comparison);
        conditions.sort();
        conditions.dedup();
        StatusView {
            application: self.assignment.application.clone(),
            uid: self.assignment.uid.clone(),
            release: self.assignment.release,
            target: comparison.and(target).map(|target| target.digest),
            applied: self.record.applied.as_ref().map(|applied| applied.digest),
            sync,
            health,
            worst_health: self.worst.map_or(health, |worst| worst.max(health)),
            message: self.message(&resources, &conditions, health),
            operation: self.operation_report(),
            resources,
            sync_result: results,
            conditions,
            end: self.ending.as_ref().map(|ending| ending.state.clone()),
        }
    }

    /// Remembers the worst health while everything is known.
    pub(super) fn note_health(&mut self) {
        if let Some(health) = self.health() {
            self.worst = Some(self.worst.map_or(health, |worst| worst.max(health)));
        }
    }

    /// Health of the target; `None` while not everything is known.
    fn health(&self) -> Option<HealthStatus> {
        let target = self.assignment.target.as_ref()?;
        let comparison = self.comparisons.get(&target.digest)?;
        let mut worst = HealthStatus::Healthy;
        for item in comparison.placed.items.values().filter(|item| health::counts(&item.manifest)) {
            if !self.world.knows(&item.key) {
                return None;
            }
            worst = worst.max(self.health_of(item).map_or(HealthStatus::Healthy, |health| health.status));
        }
        Some(worst)
    }

    /// Health of one desired object; `None` for kinds without a rule, and while it is unknown.
    fn health_of(&self, item: &Item) -> Option<Health> {
        match self.world.get(&item.key) {
            Some(live) => live.health.as_ref().map(|(health, _)| health.clone()),
            None if self.world.knows(&item.key) => Some(Health::new(HealthStatus::Missing, "")),
            None => None,
        }
    }

    fn resources(&self, comparison: &Comparison, results: &[SyncResultResource]) -> Vec<ResourceStatus> {
        let messages: BTreeMap<ResourceKey, &SyncResultResource> =
            results.iter().map(|result| (result_key(result), result)).collect();
        let mut lines = Vec::new();
        for (key, item) in &comparison.placed.items {
            let verdict = comparison.verdict(key);
            let status = match verdict {
                Some(Verdict::Synced) => SyncStatus::Synced,
                Some(Verdict::Missing | Verdict::Different(_) | Verdict::Shared(_)) => SyncStatus::OutOfSync,
                Some(Verdict::Unknown(_)) | None => SyncStatus::Unknown,
            };
            let failed = messages.get(key).filter(|result| result.status == "SyncFailed");
            let message = match (failed, verdict) {
                (Some(result), _) => result.message.clone(),
                (None, Some(Verdict::Different(difference))) => format!("differs: {}", difference.describe()),
                (None, Some(Verdict::Shared(other))) => format!("part of application {other}"),
                (None, Some(Verdict::Unknown(reason))) => reason.clone(),
                (None, Some(Verdict::Synced | Verdict::Missing) | None) => String::new(),
            };
            let mut line = line(key, &item.version, status, message);
            line.health = self.health_of(item);
            line.sync_wave = order::wave(&item.manifest);
            lines.push(line);
        }
        for (key, live) in self.world.ours().filter(|(key, _)| !comparison.placed.items.contains_key(*key)) {
            if comparison.placed.skipped.contains(key) {
                continue;
            }
            let is_hook = hook::role(&live.object) != Role::Resource;
            let (_, version) = manifest::group_version(&live.object);
            let message = messages.get(key).map(|result| result.message.clone()).unwrap_or_default();
            let status = if is_hook { SyncStatus::Synced } else { SyncStatus::OutOfSync };
            let mut line = line(key, version, status, message);
            line.health = live.health.as_ref().map(|(health, _)| health.clone());
            line.sync_wave = order::wave(&live.object);
            line.hook = is_hook;
            line.requires_pruning = !is_hook;
            lines.push(line);
        }
        lines.sort_by_key(ResourceStatus::key);
        lines
    }

    fn sync_status(&self, comparison: &Comparison, resources: &[ResourceStatus]) -> SyncStatus {
        if !comparison.is_known() || !comparison.placed.complete {
            return SyncStatus::Unknown;
        }
        let differs = resources.iter().any(|line| {
            let ignored = || {
                self.world.object(&line.key()).is_some_and(|live| prune::ignores_extraneous(live))
                    && line.requires_pruning
            };
            line.status == SyncStatus::OutOfSync && !ignored()
        });
        if differs { SyncStatus::OutOfSync } else { SyncStatus::Synced }
    }

    fn current_results(&self) -> Vec<SyncResultResource> {
        match &self.operation {
            Some(operation) if !operation.tasks().is_empty() => operation.tasks().iter().map(Task::result).collect(),
            _ => self.results.clone(),
        }
    }

    fn operation_report(&self) -> Option<OperationReport> {
        let Some(running) = &self.record.running else { return self.record.report.clone() };
        let operation = self.operation.as_ref();
        let stopping = operation.is_some_and(super::run::Operation::is_stopping);
        let unavailable = (!self.unavailable.message.is_empty())
            .then(|| format!("waiting for the API server: {}", self.unavailable.message));
        Some(OperationReport {
            id: match &running.cause {
                Cause::Asked(asked) => Some(asked.id),
                Cause::Automatic | Cause::Heal(_) => None,
            },
            bundle: running.bundle.digest,
            phase: if stopping { OperationPhase::Terminating } else { OperationPhase::Running },
            message: unavailable.or_else(|| operation.map(|it| it.message.clone())).unwrap_or_default(),
            started_at: running.started_at,
            finished_at: None,
            retries: running.retries,
        })
    }

    fn conditions(&self, comparison: Option<&Comparison>) -> Vec<Condition> {
        let mut conditions: Vec<Condition> = self.guard.iter().cloned().collect();
        for digest in self.needed_bundles() {
            if let Some(Err(error)) = self.bundles.get(&digest) {
                conditions.push(Condition::new("ComparisonError", error.clone()));
            }
        }
        let report = self.record.report.as_ref().filter(|_| self.record.running.is_none());
        let released = self.assignment.released.as_ref();
        if let (Some(report), Some(released)) =
            (report, released.filter(|_| self.assignment.policy.automated.is_some()))
            && report.bundle == released.digest
            && report.phase != OperationPhase::Succeeded
        {
            let text = format!("Failed last sync attempt to {}: {}", released.revision, report.message);
            conditions.push(Condition::new("SyncError", text));
        }
        let Some(comparison) = comparison else { return conditions };
        conditions.extend(comparison.placed.conditions.iter().cloned());
        for item in comparison.placed.items.values() {
            if let Some(denied) = &item.denied {
                conditions.push(Condition::new("InvalidSpecError", denied.clone()));
            }
        }
        for (key, verdict) in comparison.verdicts() {
            match verdict {
                Verdict::Shared(other) => {
                    let text = format!(
                        "{}/{} is part of applications {} and {other}",
                        key.kind, key.name, self.assignment.tracking_name
                    );
                    conditions.push(Condition::new("SharedResourceWarning", text));
                }
                Verdict::Unknown(reason) if self.world.error(&crate::GroupKind::of(key)).is_some() => {
                    conditions.push(Condition::new("ComparisonError", format!("{}: {reason}", key.kind)));
                }
                Verdict::Unknown(reason) if self.world.knows(key) => {
                    conditions.push(Condition::new("ComparisonError", format!("{key}: {reason}")));
                }
                Verdict::Unknown(_) | Verdict::Synced | Verdict::Missing | Verdict::Different(_) => {}
            }
        }
        conditions
    }

    /// One sentence: the worst object, else the first condition, else what holds automatic operations.
    fn message(&self, resources: &[ResourceStatus], conditions: &[Condition], health: HealthStatus) -> String {
        if let Some(ending) = &self.ending
            && let crate::End::Pending(text) | crate::End::Failing(text) = &ending.state
        {
            return text.clone();
        }
        if let Some(failed) =
            resources.iter().find(|line| line.status != SyncStatus::Synced && !line.message.is_empty())
            && !failed.requires_pruning
            && !failed.message.starts_with("differs: ")
        {
            return format!("{}: {}", failed.key(), failed.message);
        }
        if health != HealthStatus::Healthy {
            let worst = resources.iter().find(|line| line.health.as_ref().is_some_and(|it| it.status == health));
            if let Some((line, words)) = worst.and_then(|line| line.health.as_ref().map(|it| (line, &it.message))) {
                return if words.is_empty() {
                    format!("{} is {health}", line.key())
                } else {
                    format!("{}: {words}", line.key())
                };
            }
        }
        if let Some(condition) = conditions.first() {
            return condition.message.clone();
        }
        self.assignment.policy.held.clone().unwrap_or_default()
    }
}

fn line(key: &ResourceKey, version: &str, status: SyncStatus, message: String) -> ResourceStatus {
    ResourceStatus {
        group: key.group.clone(),
        version: version.to_owned(),
        kind: key.kind.clone(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        status,
        message,
        ..ResourceStatus::default()
    }
}

fn result_key(result: &SyncResultResource) -> ResourceKey {
    ResourceKey {
        group: result.group.clone(),
        kind: result.kind.clone(),
        namespace: result.namespace.clone(),
        name: result.name.clone(),
    }
}
