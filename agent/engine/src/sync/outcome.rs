//! From task to action, and from outcome back to task and world.

use std::sync::Arc;

use serde_json::Value;
use windlass_protocol::{json, manifest, manifest::ResourceKey, time::Millis};

use super::{
    Reconciler,
    plan::{Task, TaskState, TaskWork},
    run::LOOKS_MAX,
};
use crate::{
    action::{ActionId, Apply, ApplyMode, DryRun, Failure, FailureReason, Outcome, Propagation, Validation, Work},
    diff,
    discovery::GroupKind,
    hook,
    options::SyncOptions,
    pair, prepare,
    resume::Cause,
};

/// What an action under way belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The resume point is being written.
    Persist,
    /// A kind is being observed.
    Observe(GroupKind),
    /// Discovery is being read.
    Refresh,
    /// A task of the operation with this sequence.
    Task { sequence: u64, index: usize, dry_run: bool },
    /// A deletion on the side.
    Cleanup,
    /// An object of an assignment that ends.
    End(ResourceKey),
}

impl Reconciler {
    /// What a task has to do now; `None` when it waits or became final.
    pub(super) fn issue(&mut self, task: &mut Task, now: Millis) -> Option<Work> {
        if self.is_dry_run() {
            return self.issue_dry(task);
        }
        let kind = GroupKind::of(&task.key);
        if !task.is_prune() && !self.is_served(task, &kind, now) {
            return None;
        }
        if !self.world.knows(&task.key) && self.world.error(&kind).is_none() {
            return None;
        }
        match task.work.clone() {
            TaskWork::Namespace(manifest) => {
                Some(Work::Apply(apply(&task.key, manifest, ApplyMode::ServerSide, Validation::Strict)))
            }
            TaskWork::Apply { in_sync: true, .. } if self.world.object(&task.key).is_some() => {
                task.state = TaskState::Applied;
                task.message = format!("{} unchanged", resource_name(&task.key));
                None
            }
            TaskWork::Apply { manifest, .. } => Some(self.issue_apply(task, &manifest)),
            TaskWork::Hook { manifest, run } => self.issue_hook(task, &manifest, &run),
            TaskWork::Prune => self.issue_prune(task),
        }
    }

    fn issue_dry(&self, task: &mut Task) -> Option<Work> {
        match task.work.clone() {
            TaskWork::Apply { manifest, .. } | TaskWork::Namespace(manifest) => {
                let manifest = prepare::prepare(&manifest, &task.key, &self.assignment.tracking_name);
                let work = apply(&task.key, Arc::new(manifest), ApplyMode::ServerSide, Validation::Strict);
                Some(Work::Apply(Apply { dry_run: DryRun::Server, ..work }))
            }
            TaskWork::Prune => {
                task.state = TaskState::Done;
                "pruned (dry run)".clone_into(&mut task.message);
                None
            }
            TaskWork::Hook { .. } => {
                task.state = TaskState::Done;
                None
            }
        }
    }

    /// Whether the API server serves the kind of a task. One that the bundle defines is waited for; another is looked up once
    /// more before the task fails.
    fn is_served(&mut self, task: &mut Task, kind: &GroupKind, now: Millis) -> bool {
        let served = self.kinds.as_ref().is_some_and(|kinds| kinds.serves(kind, &task.version));
        if served {
            return true;
        }
        let since = *task.waiting_since.get_or_insert(now);
        let digest = self.record.running.as_ref().map(|running| running.bundle.digest);
        let comparison = digest.and_then(|digest| self.comparisons.get(&digest));
        let defined = comparison.is_some_and(|comparison| comparison.placed.defines.contains_key(kind));
        let waited = now.since(since);
        let timeout = if defined { self.environment.settings.crd_timeout } else { LOOK_UP_TIMEOUT };
        if waited >= timeout {
            task.state = TaskState::Failed;
            task.message = format!(
                "The Kubernetes API could not find {}/{} for requested resource {}/{}. Make sure the \"{}\" CRD is installed on the destination cluster.",
                kind.group, kind.kind, task.key.namespace, task.key.name, kind.kind
            );
            return false;
        }
        if !self.refresh.wanted {
            self.refresh.wanted = true;
            let wait = Millis((250_u64 << self.refresh.attempts.min(5)).min(5_000));
            self.refresh.not_before = if self.refresh.attempts == 0 { now } else { now.plus(wait) };
            self.refresh.attempts = self.refresh.attempts.saturating_add(1);
        }
        self.wake(self.refresh.not_before.max(now.plus(Millis(1))).min(since.plus(timeout)));
        false
    }

    fn issue_apply(&self, task: &mut Task, manifest: &Value) -> Work {
        let options = self.sync_options();
        let live = self.world.object(&task.key);
        let mut object = prepare::prepare(manifest, &task.key, &self.assignment.tracking_name);
        if let Some(live) = live.filter(|_| options.is(manifest, "RespectIgnoreDifferences", "true")) {
            self.ignore.of(&task.key).respect(&mut object, live);
        }
        let replace = options.is(manifest, "Replace", "true");
        let force = options.is(manifest, "Force", "true");
        let mode = if (replace && force) || task.replacing.as_deref() == Some(RECREATE) {
            ApplyMode::Recreate
        } else if replace {
            ApplyMode::Replace
        } else if options.is(manifest, "ServerSideApply", "false") {
            ApplyMode::ClientSide
        } else {
            ApplyMode::ServerSide
        };
        let validation =
            if options.is(manifest, "Validate", "false") { Validation::Ignore } else { Validation::Strict };
        Work::Apply(apply(&task.key, Arc::new(object), mode, validation))
    }

    /// A hook runs once per attempt: the object of this very run is adopted, an earlier one goes first.
    fn issue_hook(&self, task: &mut Task, manifest: &Value, run: &str) -> Option<Work> {
        let prepared = prepare::prepare(manifest, &task.key, &self.assignment.tracking_name);
        let Some(live) = self.world.object(&task.key) else {
            return Some(Work::Apply(apply(&task.key, Arc::new(prepared), ApplyMode::Create, Validation::Strict)));
        };
        if manifest::annotation(live, hook::RUN_ANNOTATION) == Some(run) {
            task.state = TaskState::Applied;
            task.was_written = true;
            return None;
        }
        if !hook::delete_policy(manifest).before_creation {
            return Some(Work::Apply(apply(&task.key, Arc::new(prepared), ApplyMode::ServerSide, Validation::Strict)));
        }
        let uid = pair::uid(live).to_owned();
        if pair::is_terminating(live) || task.replacing.as_ref() == Some(&uid) {
            return None;
        }
        task.replacing = Some(uid.clone());
        let version = Some(task.version.clone());
        Some(Work::Delete { key: task.key.clone(), version, uid: Some(uid), propagation: Propagation::Background })
    }

    /// Deletes only what is ours at this moment and in the inventory.
    fn issue_prune(&self, task: &mut Task) -> Option<Work> {
        let live = self.world.get(&task.key).filter(|live| live.owner == pair::Owner::Ours);
        let Some(live) = live.filter(|_| self.world.inventory().contains_key(&task.key)) else {
            task.state = TaskState::Done;
            "pruned".clone_into(&mut task.message);
            return None;
        };
        let uid = Some(pair::uid(&live.object).to_owned());
        let propagation = match self.sync_options().value_for(&live.object, "PrunePropagationPolicy") {
            Some("background") => Propagation::Background,
            Some("orphan") => Propagation::Orphan,
            _ => Propagation::Foreground,
        };
        Some(Work::Delete { key: task.key.clone(), version: Some(task.version.clone()), uid, propagation })
    }

    /// The assignment's options and those of the running operation.
    fn sync_options(&self) -> SyncOptions {
        let asked = match self.record.running.as_ref().map(|running| &running.cause) {
            Some(Cause::Asked(asked)) => &*asked.sync_options,
            _ => &[],
        };
        SyncOptions::new(self.assignment.policy.sync_options.iter().chain(asked))
    }

    /// Takes an outcome in.
    pub(super) fn settle(&mut self, action: ActionId, outcome: Outcome, now: Millis) {
        let Some(purpose) = self.in_flight.remove(&action) else { return };
        if let Outcome::Failed(Failure { reason: FailureReason::Unavailable, message }) = &outcome {
            self.note_unavailable(message, now);
        } else if purpose != Purpose::Persist {
            self.unavailable = super::Unavailable::default();
        }
        match purpose {
            Purpose::Persist => {
                if matches!(outcome, Outcome::Failed(_)) {
                    self.record_changed = true;
                    self.record_retry = now.plus(PERSIST_RETRY);
                }
            }
            Purpose::Observe(kind) => match outcome {
                Outcome::Observed(objects) => {
                    self.with_world(|world, lens| world.observed(&kind, action, objects, lens));
                }
                Outcome::Failed(failure) => self.world.failed(&kind, action, failure.message, now),
                _ => self.world.failed(&kind, action, "no answer".to_owned(), now),
            },
            Purpose::Refresh | Purpose::Cleanup => {}
            Purpose::Task { sequence, index, dry_run } => {
                self.settle_task(action, (sequence, index), dry_run, outcome, now);
            }
            Purpose::End(key) => self.settle_end(&key, outcome, now),
        }
    }

    fn note_unavailable(&mut self, message: &str, now: Millis) {
        let settings = &self.environment.settings;
        let wait = settings.unavailable_initial.0.saturating_mul(1 << self.unavailable.failures.min(16));
        self.unavailable.until = now.plus(Millis(wait.min(settings.unavailable_max.0)));
        self.unavailable.failures = self.unavailable.failures.saturating_add(1);
        message.clone_into(&mut self.unavailable.message);
    }

    fn settle_task(
        &mut self,
        action: ActionId,
        (sequence, index): (u64, usize),
        dry_run: bool,
        outcome: Outcome,
        now: Millis,
    ) {
        let current = sequence == self.record.sequence && self.record.running.is_some();
        let task = self.operation.as_mut().filter(|_| current).and_then(|operation| operation.task_mut(index));
        let Some(mut task) = task.filter(|task| task.state == TaskState::InFlight(action)).cloned() else {
            // Of an operation that is over: only the cluster's state counts.
            if let (Outcome::Applied(object), false) = (outcome, dry_run) {
                self.with_world(|world, lens| world.insert(object, lens));
            }
            return;
        };
        match outcome {
            Outcome::Applied(object) if dry_run => {
                task.state = TaskState::Done;
                task.message = format!("{} (dry run)", self.applied_message(&task.key, &object));
            }
            Outcome::Applied(object) => self.settle_applied(&mut task, object),
            Outcome::Deleting => {
                if task.is_prune() {
                    task.state = TaskState::Applied;
                    "pruned".clone_into(&mut task.message);
                } else {
                    task.state = TaskState::Pending;
                }
            }
            Outcome::Gone => {
                self.with_world(|world, lens| world.gone(&task.key, None, lens));
                task.state = if task.is_prune() { TaskState::Applied } else { TaskState::Pending };
                if task.is_prune() {
                    "pruned".clone_into(&mut task.message);
                }
            }
            Outcome::Failed(failure) => self.settle_failed(&mut task, failure, dry_run, now),
            Outcome::Done | Outcome::Observed(_) => {
                task.state = TaskState::Failed;
                "the shell gave an answer that does not fit".clone_into(&mut task.message);
            }
        }
        if let Some(place) = self.operation.as_mut().and_then(|operation| operation.task_mut(index)) {
            *place = task;
        }
    }

    fn settle_applied(&mut self, task: &mut Task, object: Arc<Value>) {
        task.message = self.applied_message(&task.key, &object);
        task.state = TaskState::Applied;
        task.was_written = true;
        let applied = match &task.work {
            TaskWork::Apply { manifest, .. } => Some(manifest.clone()),
            TaskWork::Namespace(_) | TaskWork::Hook { .. } | TaskWork::Prune => None,
        };
        if let Some(manifest) = applied {
            self.note_baseline(task, &manifest, &object);
        }
        self.with_world(|world, lens| world.insert(object, lens));
    }

    /// Remembers where the API server keeps something else than was sent: that is no drift.
    fn note_baseline(&mut self, task: &Task, manifest: &Arc<Value>, object: &Arc<Value>) {
        // Digests of secret values are not kept: they could be guessed.
        if manifest::is_secret(object) {
            return;
        }
        let (mut desired, mut live) = ((**manifest).clone(), (**object).clone());
        let ignored = self.ignore.of(&task.key);
        if ignored.strip(&mut desired, &mut live, &*self.environment.extension).is_err() {
            return;
        }
        let difference = diff::compare(&desired, &live, None, self.environment.settings.differences_max);
        if difference.is_empty() || difference.truncated {
            self.world.baselines.remove(&task.key);
        } else {
            let sent = windlass_protocol::ids::Digest::of(&manifest::canonical(manifest));
            self.world.baselines.insert(task.key.clone(), (sent, difference.fields));
        }
    }

    fn settle_failed(&mut self, task: &mut Task, failure: Failure, dry_run: bool, now: Millis) {
        let kind = GroupKind::of(&task.key);
        let again = task.attempts < LOOKS_MAX;
        match failure.reason {
            FailureReason::Unavailable => {
                task.state = TaskState::Pending;
                task.message = failure.message;
            }
            FailureReason::Conflict | FailureReason::AlreadyExists if again => {
                task.attempts += 1;
                task.state = TaskState::Pending;
                task.replacing = None;
                task.not_before = now.plus(Millis(100 << task.attempts.min(10)));
                self.world.forget(Some(&kind));
            }
            FailureReason::NoMatch if again && !dry_run => {
                task.attempts += 1;
                task.state = TaskState::Pending;
                task.not_before = now.plus(Millis(500));
                self.refresh.wanted = true;
            }
            FailureReason::Rejected if self.may_recreate(task, &failure) => {
                task.state = TaskState::Pending;
                task.replacing = Some(RECREATE.to_owned());
            }
            FailureReason::Conflict
            | FailureReason::AlreadyExists
            | FailureReason::NoMatch
            | FailureReason::Rejected
            | FailureReason::NotFound
            | FailureReason::Forbidden => {
                task.state = TaskState::Failed;
                task.message = failure.message;
            }
        }
    }

    /// `Force=true` and `app sync --force`: what cannot be changed is made anew.
    fn may_recreate(&self, task: &Task, failure: &Failure) -> bool {
        let TaskWork::Apply { manifest, .. } = &task.work else { return false };
        let asked =
            matches!(self.record.running.as_ref().map(|it| &it.cause), Some(Cause::Asked(asked)) if asked.force);
        let forced = asked || self.sync_options().is(manifest, "Force", "true");
        forced && task.replacing.as_deref() != Some(RECREATE) && failure.message.contains("immutable")
    }

    /// kubectl's words: created, configured, unchanged.
    fn applied_message(&self, key: &ResourceKey, object: &Value) -> String {
        let version = |object: &Value| json::text(object, &["metadata", "resourceVersion"]).to_owned();
        let what = match self.world.object(key) {
            None => "created",
            Some(live) if version(live) == version(object) => "unchanged",
            Some(_) => "configured",
        };
        format!("{} {what}", resource_name(key))
    }
}

fn apply(key: &ResourceKey, manifest: Arc<Value>, mode: ApplyMode, validation: Validation) -> Apply {
    Apply { key: key.clone(), manifest, mode, dry_run: DryRun::No, validation }
}

/// `deployment.apps/web`, as kubectl.
fn resource_name(key: &ResourceKey) -> String {
    let kind = key.kind.to_lowercase();
    if key.group.is_empty() { format!("{kind}/{}", key.name) } else { format!("{kind}.{}/{}", key.group, key.name) }
}

/// In [`Task::replacing`]: the object has to be made anew. No uid looks like this.
const RECREATE: &str = "recreate";
/// How long a kind that nobody defines is looked for.
const LOOK_UP_TIMEOUT: Millis = Millis(1_500);
/// Between two tries to write the resume point.
const PERSIST_RETRY: Millis = Millis(1_000);
