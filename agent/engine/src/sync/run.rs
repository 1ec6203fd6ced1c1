//! The course of an operation: stage after stage (phase, wave), group after group inside a stage, as gitops-engine's sync context.
//!
//! ```text
//! build tasks ─► stage: prunes, then kinds in order ─► all issued ─► any failed? ──► SyncFail hooks ─► retry or Failed
//!                  ▲                                       │ no
//!                  │                                       ├─ last stage without hooks ─► Succeeded
//!                  └── pause between waves ◄── healthy, complete, gone ◄──┘
//! ```

use std::{collections::BTreeSet, sync::Arc};

use serde_json::Value;
use windlass_protocol::{
    manifest::ResourceKey,
    message::{OperationReport, RetryPolicy},
    status::{HealthStatus, OperationPhase},
    time::Millis,
};

use super::{
    Reconciler,
    decide::is_whole,
    outcome::Purpose,
    plan::{NewNamespace, Scheme, Task, TaskState, TaskWork},
};
use crate::{
    action::{Propagation, Work},
    health::{self, Basis},
    hook,
    options::SyncOptions,
    order::Phase,
    pair,
    resume::Cause,
};

/// The running operation; what survives a restart of it is in the resume point.
#[derive(Debug)]
pub(super) struct Operation {
    tasks: Option<Vec<Task>>,
    /// Why it has to stop.
    stop: Option<String>,
    /// Waiting for the next attempt.
    retry_at: Option<Millis>,
    /// Pause between two waves.
    pause_until: Millis,
    /// Hooks that were deleted after their work.
    cleaned: BTreeSet<ResourceKey>,
    /// The stage that was left last.
    left: Option<(Phase, i64)>,
    /// Failed with this message; `SyncFail` hooks run.
    failure: Option<String>,
    pub(super) message: String,
    /// Not the first attempt of this process on this operation: what is in sync is not written again.
    resumed: bool,
}

/// What a step of an operation comes to.
#[derive(Debug)]
pub(super) enum Step {
    /// Do this.
    Act(Box<Work>, Purpose),
    /// Nothing to do now.
    Wait,
    /// Something changed: look again.
    Again,
}

impl Operation {
    pub(super) fn fresh() -> Self {
        Self {
            tasks: None,
            stop: None,
            retry_at: None,
            pause_until: Millis(0),
            cleaned: BTreeSet::new(),
            left: None,
            failure: None,
            message: String::new(),
            resumed: false,
        }
    }

    /// One that another process began.
    pub(super) fn resumed() -> Self {
        Self { resumed: true, ..Self::fresh() }
    }

    pub(super) fn stop(&mut self, reason: &str) {
        self.stop.get_or_insert_with(|| reason.to_owned());
    }

    pub(super) const fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }

    pub(super) fn tasks(&self) -> &[Task] {
        self.tasks.as_deref().unwrap_or_default()
    }

    pub(super) fn task_mut(&mut self, index: usize) -> Option<&mut Task> {
        self.tasks.as_mut()?.get_mut(index)
    }

    /// Whether a task makes this object, so that it stays in the inventory before it exists.
    pub(super) fn intends(&self, key: &ResourceKey) -> bool {
        self.tasks()
            .iter()
            .any(|task| task.key == *key && !task.is_prune() && !matches!(task.work, TaskWork::Namespace(_)))
    }

    pub(super) fn concerns(&self, key: &ResourceKey) -> bool {
        self.tasks().iter().any(|task| task.key == *key)
    }

    fn is_in_flight(&self) -> bool {
        self.tasks().iter().any(|task| matches!(task.state, TaskState::InFlight(_)))
    }
}

impl Reconciler {
    /// Moves the running operation on by one step.
    pub(super) fn step(&mut self, now: Millis) -> Step {
        let Some(mut operation) = self.operation.take() else { return Step::Wait };
        let step = self.step_operation(&mut operation, now);
        // A finished operation is gone from the record.
        if self.record.running.is_some() {
            self.operation = Some(operation);
        }
        step
    }

    fn step_operation(&mut self, operation: &mut Operation, now: Millis) -> Step {
        if let Some(reason) = operation.stop.clone() {
            if operation.is_in_flight() {
                return Step::Wait;
            }
            return self.finish(operation, OperationPhase::Failed, reason, now);
        }
        if let Some(at) = operation.retry_at {
            if now < at {
                self.wake(at);
                return Step::Wait;
            }
            return self.retry(operation);
        }
        if operation.tasks.is_none() {
            return self.build(operation, now);
        }
        self.refresh_tasks(operation);
        if operation.failure.is_some() {
            return self.step_failure(operation, now);
        }
        self.step_stage(operation, now)
    }

    fn retry(&mut self, operation: &mut Operation) -> Step {
        if let Some(running) = &mut self.record.running {
            running.retries = running.retries.saturating_add(1);
            running.done.clear();
            running.failure = None;
        }
        self.record_changed = true;
        *operation = Operation::resumed();
        Step::Again
    }

    /// Makes the tasks once everything is known; objects to be made are on the disk as ours before the first is written.
    fn build(&mut self, operation: &mut Operation, now: Millis) -> Step {
        let Some(running) = self.record.running.clone() else { return Step::Wait };
        let digest = running.bundle.digest;
        if let Some(Err(error)) = self.bundles.get(&digest) {
            let message = format!("cannot load revision {}: {error}", running.bundle.revision);
            return self.finish(operation, OperationPhase::Error, message, now);
        }
        if !self.is_ready(&digest) {
            "waiting for the state of the cluster".clone_into(&mut operation.message);
            return Step::Wait;
        }
        let Some(comparison) = self.comparisons.get(&digest) else { return Step::Wait };
        let policy = &self.assignment.policy;
        let mut options = policy.sync_options.clone();
        let (only, prune, writes_all) = match &running.cause {
            Cause::Asked(asked) => {
                options.extend(asked.sync_options.iter().cloned());
                (asked.resources.iter().cloned().collect(), asked.prune, !operation.resumed)
            }
            Cause::Automatic => (BTreeSet::new(), policy.automated.is_some_and(|it| it.prune), false),
            Cause::Heal(keys) => (keys.iter().cloned().collect(), policy.automated.is_some_and(|it| it.prune), false),
        };
        let options = SyncOptions::new(&options);
        let name = &*self.assignment.namespace;
        let namespace = self.creates_namespace().then_some(NewNamespace {
            name,
            labels: &policy.namespace_labels,
            annotations: &policy.namespace_annotations,
        });
        let scheme = Scheme {
            comparison,
            world: &self.world,
            options: &options,
            settings: &self.environment.settings,
            prune,
            only: Some(&only).filter(|only| !only.is_empty()),
            skip_in_sync: !writes_all || options.value("ApplyOutOfSyncOnly") == Some("true"),
            approved: self.is_approved(&running.bundle),
            run: &format!("{}/{}/{}", self.record.uid, running.sequence, running.retries),
            namespace,
        };
        let mut tasks = scheme.tasks();
        let dry_run = is_dry_run(&running.cause);
        for task in &mut tasks {
            let done = matches!(&task.work, TaskWork::Hook { run, .. } if running.done.contains(run));
            if done || (dry_run && task.is_hook() && task.state == TaskState::Pending) {
                task.state = TaskState::Done;
            }
        }
        let writes = tasks.iter().filter(|task| !task.is_final() && !task.is_prune());
        let writes = writes.filter(|task| !matches!(task.work, TaskWork::Namespace(_))).map(|task| task.key.clone());
        if !dry_run {
            self.world.intend(writes.collect::<Vec<_>>());
            self.record_changed |= self.world.take_inventory_changed();
        }
        operation.tasks = Some(tasks);
        self.looked = None;
        operation.failure = running.failure;
        Step::Again
    }

    /// One stage after the other.
    fn step_stage(&mut self, operation: &mut Operation, now: Millis) -> Step {
        let stages: BTreeSet<(Phase, i64)> =
            operation.tasks().iter().filter(|task| task.phase != Phase::SyncFail).map(Task::stage).collect();
        let waves = stages.iter().filter(|stage| stage.1 != i64::MIN).count();
        let last = stages.iter().next_back().copied();
        for stage in stages {
            let tasks: Vec<&Task> = operation.tasks().iter().filter(|task| task.stage() == stage).collect();
            if tasks.iter().all(|task| task.is_final() && task.state != TaskState::Failed) {
                self.leave(operation, stage, waves, now);
                continue;
            }
            if now < operation.pause_until {
                self.wake(operation.pause_until);
                return Step::Wait;
            }
            if tasks.iter().any(|task| !task.is_issued()) {
                return self.step_groups(operation, stage, now);
            }
            if tasks.iter().any(|task| task.state == TaskState::Failed) {
                return self.fail(operation);
            }
            if Some(stage) == last && !tasks.iter().any(|task| task.is_hook()) {
                return self.succeed(operation, "successfully synced (no more tasks)", now);
            }
            operation.message = waiting_for(&tasks);
            return Step::Wait;
        }
        self.succeed(operation, "successfully synced (all tasks run)", now)
    }

    fn succeed(&mut self, operation: &mut Operation, message: &str, now: Millis) -> Step {
        if !self.has_cleaned_up(operation, TaskState::Done) {
            return Step::Wait;
        }
        self.finish(operation, OperationPhase::Succeeded, message, now)
    }

    /// Deletes the hooks of all phases whose policy says so. An operation ends only when that is done: after its end nobody would
    /// remember them.
    fn has_cleaned_up(&mut self, operation: &mut Operation, state: TaskState) -> bool {
        for phase in [Phase::PreSync, Phase::Sync, Phase::PostSync] {
            self.clean_up(operation, phase, state);
        }
        self.cleanups.is_empty() && !self.in_flight.values().any(|purpose| *purpose == Purpose::Cleanup)
    }

    /// A stage is over: hooks of a phase that is over go, and the next wave waits a moment.
    fn leave(&mut self, operation: &mut Operation, stage: (Phase, i64), waves: usize, now: Millis) {
        if operation.left >= Some(stage) {
            return;
        }
        let worked = operation.left.is_some() || stage.1 != i64::MIN;
        operation.left = Some(stage);
        if worked && waves > 1 && !operation.resumed && !self.is_dry_run() {
            operation.pause_until = now.plus(self.environment.settings.wave_delay);
        }
        let phase_is_over = !operation.tasks().iter().any(|task| task.phase == stage.0 && !task.is_final());
        if phase_is_over {
            self.clean_up(operation, stage.0, TaskState::Done);
        }
    }

    /// Deletes hooks of a phase whose delete policy says so; that they are done is on the disk before.
    fn clean_up(&mut self, operation: &mut Operation, phase: Phase, state: TaskState) {
        let mut cleaned = Vec::new();
        for task in operation.tasks().iter().filter(|task| task.phase == phase && task.state == state) {
            let TaskWork::Hook { manifest, run } = &task.work else { continue };
            let policy = hook::delete_policy(manifest);
            let goes = if state == TaskState::Done { policy.succeeded } else { policy.failed };
            let Some(live) = self.world.object(&task.key).filter(|_| goes) else { continue };
            if operation.cleaned.contains(&task.key) {
                continue;
            }
            cleaned.push(task.key.clone());
            self.cleanups.push_back(Work::Delete {
                key: task.key.clone(),
                version: Some(task.version.clone()),
                uid: Some(pair::uid(live).to_owned()),
                propagation: Propagation::Background,
            });
            let running = self.record.running.as_mut().filter(|_| state == TaskState::Done);
            if let Some(running) = running.filter(|running| !running.done.contains(run)) {
                running.done.push(run.clone());
                self.record_changed = true;
            }
        }
        operation.cleaned.extend(cleaned);
    }

    /// Inside a stage, prunes come first, then kind after kind.
    fn step_groups(&mut self, operation: &mut Operation, stage: (Phase, i64), now: Millis) -> Step {
        let tasks = operation.tasks().iter().enumerate();
        let open: Vec<(usize, (bool, usize, String))> = tasks
            .filter(|(_, task)| task.stage() == stage && !task.is_issued())
            .map(|(index, task)| (index, owned(task.group())))
            .collect();
        let Some(first) = open.iter().map(|(_, group)| group).min().cloned() else { return Step::Again };
        "one or more tasks are running".clone_into(&mut operation.message);
        let mut changed = false;
        for (index, group) in open {
            if group != first {
                continue;
            }
            let Some(task) = operation.task_mut(index).filter(|task| task.state == TaskState::Pending) else {
                continue;
            };
            if now < task.not_before {
                self.wake(task.not_before);
                continue;
            }
            if let Some(work) = self.issue(task, now) {
                let purpose = Purpose::Task { sequence: self.record.sequence, index, dry_run: self.is_dry_run() };
                return Step::Act(Box::new(work), purpose);
            }
            changed |= task.state != TaskState::Pending;
        }
        if changed { Step::Again } else { Step::Wait }
    }

    pub(super) fn is_dry_run(&self) -> bool {
        self.record.running.as_ref().is_some_and(|running| is_dry_run(&running.cause))
    }

    /// Looks at what was written: healthy, complete, or gone?
    fn refresh_tasks(&self, operation: &mut Operation) {
        for task in operation.tasks.iter_mut().flatten().filter(|task| task.state == TaskState::Applied) {
            let live = self.world.get(&task.key);
            match &task.work {
                TaskWork::Namespace(_) => task.state = TaskState::Done,
                TaskWork::Prune => {
                    if live.is_none() {
                        task.state = TaskState::Done;
                    }
                }
                TaskWork::Hook { .. } => judge_hook(task, live.map(|live| (&*live.object, live.health.as_ref()))),
                TaskWork::Apply { .. } => match live {
                    None if task.attempts < LOOKS_MAX => {
                        task.attempts += 1;
                        task.state = TaskState::Pending;
                    }
                    None => {
                        task.state = TaskState::Failed;
                        "the object keeps disappearing".clone_into(&mut task.message);
                    }
                    Some(live) => judge(task, &live.object, live.health.as_ref(), live.was_ready),
                },
            }
        }
    }

    /// The attempt failed: `SyncFail` hooks, then a retry or the end.
    fn fail(&mut self, operation: &mut Operation) -> Step {
        let failed: Vec<&Task> = operation.tasks().iter().filter(|task| task.state == TaskState::Failed).collect();
        let head = if failed.iter().all(|task| task.was_written) {
            "one or more synchronization tasks completed unsuccessfully"
        } else {
            "one or more objects failed to apply"
        };
        let reasons: Vec<&str> =
            failed.iter().map(|task| &*task.message).filter(|text| !text.is_empty()).take(REASONS_MAX).collect();
        let message =
            if reasons.is_empty() { head.to_owned() } else { format!("{head}, reason: {}", reasons.join(",")) };
        if let Some(running) = &mut self.record.running {
            running.failure = Some(message.clone());
            self.record_changed = true;
        }
        operation.failure = Some(message);
        Step::Again
    }

    fn step_failure(&mut self, operation: &mut Operation, now: Millis) -> Step {
        let open = operation.tasks().iter().find(|task| task.phase == Phase::SyncFail && !task.is_final());
        if let Some(stage) = open.map(Task::stage) {
            let waits = operation.tasks().iter().filter(|task| task.stage() == stage).all(Task::is_issued);
            return if waits { Step::Wait } else { self.step_groups(operation, stage, now) };
        }
        if operation.is_in_flight() || !self.has_cleaned_up(operation, TaskState::Failed) {
            return Step::Wait;
        }
        let message = operation.failure.clone().unwrap_or_default();
        let retries = self.record.running.as_ref().map_or(0, |running| running.retries);
        let policy = self.assignment.policy.retry;
        if !self.is_dry_run() && (policy.limit < 0 || i64::from(retries) < policy.limit) {
            let wait = backoff(&policy, retries);
            operation.retry_at = Some(now.plus(wait));
            operation.message = format!("{message}. Retrying attempt #{} in {}s.", retries + 1, wait.as_secs());
            self.results = operation.tasks().iter().map(Task::result).collect();
            return Step::Again;
        }
        let message = if retries > 0 { format!("{message} (retried {retries} times).") } else { message };
        self.finish(operation, OperationPhase::Failed, message, now)
    }

    /// The operation is over, once and for all.
    fn finish(
        &mut self,
        operation: &mut Operation,
        phase: OperationPhase,
        message: impl Into<String>,
        now: Millis,
    ) -> Step {
        let Some(running) = self.record.running.clone() else { return Step::Wait };
        let succeeded = phase == OperationPhase::Succeeded;
        let superseded = operation.is_stopping();
        let follows = self.assignment.released.as_ref().is_some_and(|it| it.digest == running.bundle.digest);
        if is_whole(&running.cause) && follows && !(superseded && running.cause == Cause::Automatic) {
            self.record.attempt = Some(self.attempt(&running.bundle, succeeded));
        }
        if is_whole(&running.cause) && succeeded {
            self.record.applied = Some(running.bundle.clone());
        }
        let id = match &running.cause {
            Cause::Asked(asked) => Some(asked.id),
            Cause::Automatic | Cause::Heal(_) => None,
        };
        self.record.report = Some(OperationReport {
            id,
            bundle: running.bundle.digest,
            phase,
            message: message.into(),
            started_at: running.started_at,
            finished_at: Some(now),
            retries: running.retries,
        });
        if operation.tasks.is_some() {
            self.results = operation.tasks().iter().map(Task::result).collect();
        }
        self.record.running = None;
        self.record_changed = true;
        self.world.take_inventory_changed();
        Step::Again
    }
}

pub(super) fn is_dry_run(cause: &Cause) -> bool {
    matches!(cause, Cause::Asked(asked) if asked.dry_run)
}

fn owned((prune, rank, kind): (bool, usize, &str)) -> (bool, usize, String) {
    (prune, rank, kind.to_owned())
}

/// What became of a hook.
fn judge_hook(task: &mut Task, live: Option<(&Value, Option<&(windlass_protocol::status::Health, Basis)>)>) {
    let Some((live, health)) = live else {
        task.state = TaskState::Failed;
        "hook object is gone before it finished".clone_into(&mut task.message);
        return;
    };
    match health.map(|(health, _)| health) {
        None => task.state = TaskState::Done,
        Some(health) => {
            task.message.clone_from(&health.message);
            match health.status {
                HealthStatus::Healthy => task.state = TaskState::Done,
                HealthStatus::Degraded | HealthStatus::Unknown => task.state = TaskState::Failed,
                HealthStatus::Progressing | HealthStatus::Suspended | HealthStatus::Missing => {}
            }
        }
    }
    if task.message.is_empty() {
        task.message = format!("{} created", windlass_protocol::manifest::name(live));
    }
}

/// Whether an applied object lets its wave go on. Kinds without a rule are done at once.
fn judge(
    task: &mut Task,
    live: &Arc<Value>,
    health: Option<&(windlass_protocol::status::Health, Basis)>,
    was_ready: bool,
) {
    let Some((health, basis)) = health else {
        task.state = TaskState::Done;
        return;
    };
    let asks = windlass_protocol::manifest::annotation(live, health::WAIT_READY_ANNOTATION) == Some("true");
    if *basis == Basis::Conditions && !was_ready && !asks {
        task.state = TaskState::Done;
        return;
    }
    match health.status {
        HealthStatus::Healthy => task.state = TaskState::Done,
        HealthStatus::Degraded => {
            task.state = TaskState::Failed;
            task.message.clone_from(&health.message);
        }
        HealthStatus::Progressing | HealthStatus::Suspended | HealthStatus::Missing | HealthStatus::Unknown => {}
    }
}

/// Argo CD's words for what a stage waits for.
fn waiting_for(tasks: &[&Task]) -> String {
    let open: Vec<&&Task> = tasks.iter().filter(|task| !task.is_final()).collect();
    let Some(first) = open.iter().find(|task| task.is_hook()).or_else(|| open.first()) else { return String::new() };
    let what = if first.is_hook() {
        "completion of hook"
    } else if first.is_prune() {
        "deletion of"
    } else {
        "healthy state of"
    };
    let ResourceKey { group, kind, name, .. } = &first.key;
    let more = match open.len() {
        0 | 1 => String::new(),
        count => format!(" and {} more resources", count - 1),
    };
    format!("waiting for {what} {group}/{kind}/{name}{more}")
}

/// The wait before a retry: initial, then each by the factor longer, up to the cap.
fn backoff(policy: &RetryPolicy, retries: u32) -> Millis {
    let mut wait = policy.initial.0;
    for _ in 0..retries.min(64) {
        wait = wait.saturating_mul(u64::from(policy.factor_percent)) / 100;
        if wait >= policy.max.0 {
            break;
        }
    }
    Millis(wait.min(policy.max.0))
}

/// How often an object is looked at again within one attempt.
pub(super) const LOOKS_MAX: u32 = 5;
/// Messages of failed objects joined into the operation's.
const REASONS_MAX: usize = 10;
