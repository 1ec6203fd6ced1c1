//! The tasks of one attempt of an operation, in order. Built once everything that matters is known; the cluster may move on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Value, json};
use windlass_protocol::{
    json::at,
    manifest::{self, ResourceKey},
    message::SyncResultResource,
    time::Millis,
};

use super::{
    compare::{Comparison, Verdict},
    world::World,
};
use crate::{
    action::ActionId,
    discovery::GroupKind,
    hook,
    options::SyncOptions,
    order::{self, Phase},
    prune::{self, Verdict as PruneVerdict},
    settings::Settings,
};

/// One step of an operation.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) key: ResourceKey,
    pub(super) version: String,
    pub(super) phase: Phase,
    pub(super) wave: i64,
    pub(super) work: TaskWork,
    pub(super) state: TaskState,
    pub(super) message: String,
    /// How often the object had to be looked at again.
    pub(super) attempts: u32,
    /// Not before this time.
    pub(super) not_before: Millis,
    /// Since when the task waits for its kind to be served.
    pub(super) waiting_since: Option<Millis>,
    /// The API server took it: a failure is one of health or of a hook's work.
    pub(super) was_written: bool,
    /// The uid of an earlier object that has to go first.
    pub(super) replacing: Option<String>,
}

/// What a task does.
#[derive(Clone, Debug)]
pub(super) enum TaskWork {
    /// Make the namespace of `CreateNamespace=true`.
    Namespace(Arc<Value>),
    /// Apply a manifest; `in_sync`: it need not be written.
    Apply { manifest: Arc<Value>, in_sync: bool },
    /// Run a hook.
    Hook { manifest: Arc<Value>, run: String },
    /// Delete what is no longer desired.
    Prune,
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskState {
    /// Not begun.
    Pending,
    /// An action is under way.
    InFlight(ActionId),
    /// Written; may still have to become healthy, complete, or gone.
    Applied,
    /// Nothing more to wait for.
    Done,
    /// Will not be done in this attempt.
    Failed,
    /// Left out on purpose.
    Skipped,
}

impl Task {
    fn new(key: ResourceKey, version: &str, phase: Phase, wave: i64, work: TaskWork) -> Self {
        Self {
            key,
            version: version.to_owned(),
            phase,
            wave,
            work,
            state: TaskState::Pending,
            message: String::new(),
            attempts: 0,
            not_before: Millis(0),
            waiting_since: None,
            was_written: false,
            replacing: None,
        }
    }

    pub(super) const fn is_hook(&self) -> bool {
        matches!(self.work, TaskWork::Hook { .. })
    }

    pub(super) const fn is_prune(&self) -> bool {
        matches!(self.work, TaskWork::Prune)
    }

    pub(super) const fn is_final(&self) -> bool {
        matches!(self.state, TaskState::Done | TaskState::Failed | TaskState::Skipped)
    }

    /// Whether the task has been issued: nothing of it remains but to wait.
    pub(super) const fn is_issued(&self) -> bool {
        !matches!(self.state, TaskState::Pending | TaskState::InFlight(_))
    }

    pub(super) fn stage(&self) -> (Phase, i64) {
        (self.phase, self.wave)
    }

    /// Tasks of one group run side by side; a group starts when the one before is issued.
    pub(super) fn group(&self) -> (bool, usize, &str) {
        (!self.is_prune(), order::kind_rank(&self.key.kind), &self.key.kind)
    }

    /// The line of the operation's result.
    pub(super) fn result(&self) -> SyncResultResource {
        let status = match (&self.work, self.state) {
            (TaskWork::Prune, TaskState::Skipped) => "PruneSkipped",
            (TaskWork::Prune, TaskState::Applied | TaskState::Done) => "Pruned",
            (TaskWork::Hook { .. }, _) | (_, TaskState::Pending | TaskState::InFlight(_)) => "",
            (_, TaskState::Failed) => "SyncFailed",
            (_, TaskState::Applied | TaskState::Done | TaskState::Skipped) => "Synced",
        };
        let hook_phase = match self.state {
            TaskState::Pending => "",
            TaskState::InFlight(_) | TaskState::Applied => "Running",
            TaskState::Done | TaskState::Skipped => "Succeeded",
            TaskState::Failed => "Failed",
        };
        SyncResultResource {
            group: self.key.group.clone(),
            version: self.version.clone(),
            kind: self.key.kind.clone(),
            namespace: self.key.namespace.clone(),
            name: self.key.name.clone(),
            status: status.to_owned(),
            message: self.message.clone(),
            sync_phase: self.phase.as_str().to_owned(),
            hook_phase: hook_phase.to_owned(),
        }
    }
}

/// What an attempt is to do.
pub(super) struct Scheme<'a> {
    pub(super) comparison: &'a Comparison,
    pub(super) world: &'a World,
    pub(super) options: &'a SyncOptions,
    pub(super) settings: &'a Settings,
    /// Delete what is no longer desired.
    pub(super) prune: bool,
    /// Only these; all when `None`. A partial sync runs no hooks.
    pub(super) only: Option<&'a BTreeSet<ResourceKey>>,
    /// Leave alone what is in sync.
    pub(super) skip_in_sync: bool,
    /// The brake was lifted for this bundle.
    pub(super) approved: bool,
    /// Names the attempt in the names of hooks.
    pub(super) run: &'a str,
    /// Namespace to make, with labels and annotations.
    pub(super) namespace: Option<NewNamespace<'a>>,
}

/// The namespace of `CreateNamespace=true`.
pub(super) struct NewNamespace<'a> {
    pub(super) name: &'a str,
    pub(super) labels: &'a [(String, String)],
    pub(super) annotations: &'a [(String, String)],
}

impl Scheme<'_> {
    /// The tasks in order.
    pub(super) fn tasks(&self) -> Vec<Task> {
        let mut tasks = self.applies();
        if self.only.is_none() {
            tasks.extend(self.hooks());
        }
        let prunes = self.prunes(&tasks);
        tasks.extend(prunes);
        tasks.extend(self.new_namespace());
        tasks.sort_by(|a, b| {
            let rank = |task: &Task| (task.phase, task.wave, !task.is_prune());
            rank(a).cmp(&rank(b)).then_with(|| order::rank(&a.key).cmp(&order::rank(&b.key)))
        });
        tasks
    }

    fn includes(&self, key: &ResourceKey) -> bool {
        self.only.is_none_or(|only| {
            only.contains(key) || only.contains(&ResourceKey { namespace: String::new(), ..key.clone() })
        })
    }

    fn applies(&self) -> Vec<Task> {
        let items = self.comparison.placed.items.iter().filter(|(key, _)| self.includes(key));
        items
            .map(|(key, item)| {
                let in_sync = self.skip_in_sync && self.comparison.verdict(key) == Some(&Verdict::Synced);
                let work = TaskWork::Apply { manifest: item.manifest.clone(), in_sync };
                let wave = order::wave(&item.manifest);
                let mut task = Task::new(key.clone(), &item.version, Phase::Sync, wave, work);
                self.object_to(&mut task, item.denied.as_deref());
                task
            })
            .collect()
    }

    fn hooks(&self) -> Vec<Task> {
        let mut tasks = Vec::new();
        for (index, (item, phases)) in self.comparison.placed.hooks.iter().enumerate() {
            for phase in phases {
                let run = format!("{}/{}/{index}", self.run, phase.as_str());
                let manifest = Arc::new(hook::instance(&item.manifest, &run));
                let key = ResourceKey { name: manifest::name(&manifest).to_owned(), ..item.key.clone() };
                let wave = order::wave(&manifest);
                let mut task = Task::new(key, &item.version, *phase, wave, TaskWork::Hook { manifest, run });
                self.object_to(&mut task, item.denied.as_deref());
                tasks.push(task);
            }
        }
        tasks
    }

    /// Fails a task that may not run at all.
    fn object_to(&self, task: &mut Task, denied: Option<&str>) {
        if let Some(denied) = denied {
            task.state = TaskState::Failed;
            task.message = denied.to_owned();
            return;
        }
        if self.options.value("FailOnSharedResource") == Some("true")
            && let Some(Verdict::Shared(other)) = self.comparison.verdict(&task.key)
        {
            task.state = TaskState::Failed;
            task.message = format!("Shared resource found: {} is part of application {other}", task.key);
        }
    }

    fn prunes(&self, others: &[Task]) -> Vec<Task> {
        let orphans = self.world.orphans(|key| self.comparison.desires(key));
        let orphans: Vec<_> = orphans.filter(|(key, _)| self.includes(key)).collect();
        let (count, managed) = (orphans.len(), self.world.ours().count());
        let over = prune::is_over_budget(self.settings, count, managed) && !self.approved;
        let last_wave =
            others.iter().filter(|task| task.phase == Phase::Sync).map(|task| task.wave).max().unwrap_or(0).max(0) + 1;
        let mirrored = mirror(orphans.iter().map(|(_, live)| order::wave(&live.object)));
        let mut tasks = Vec::new();
        for (key, live) in orphans {
            let wave = order::wave(&live.object);
            let (phase, wave) = if prune::is_last(&live.object, self.options) {
                (Phase::PostSync, last_wave)
            } else {
                (Phase::Sync, mirrored.get(&wave).copied().unwrap_or(wave))
            };
            let (_, version) = manifest::group_version(&live.object);
            let mut task = Task::new(key.clone(), version, phase, wave, TaskWork::Prune);
            let verdict = prune::verdict(&live.object, self.options);
            let reason = match verdict {
                PruneVerdict::Kept => Some("ignored (no prune)".to_owned()),
                _ if !self.prune => Some("ignored (requires pruning)".to_owned()),
                _ if !self.comparison.placed.complete => Some("ignored (bundle is incomplete)".to_owned()),
                _ if over => Some(format!("ignored (pruning {count} of {managed} objects at once needs an approval)")),
                PruneVerdict::NeedsConfirmation => Some("ignored (needs confirmation)".to_owned()),
                PruneVerdict::Allowed => None,
            };
            if let Some(reason) = reason {
                task.state = TaskState::Skipped;
                task.message = reason;
            }
            tasks.push(task);
        }
        tasks
    }

    /// `CreateNamespace=true`: before everything else, unless the bundle has the namespace itself or it is there as wanted.
    fn new_namespace(&self) -> Option<Task> {
        let wanted = self.namespace.as_ref()?;
        let key = namespace_key(wanted.name);
        if self.comparison.desires(&key) {
            return None;
        }
        let map = |pairs: &[(String, String)]| {
            pairs
                .iter()
                .map(|(key, value)| (key.clone(), Value::from(value.as_str())))
                .collect::<serde_json::Map<_, _>>()
        };
        let (labels, annotations) = (map(wanted.labels), map(wanted.annotations));
        if let Some(live) = self.world.object(&key) {
            let has = |field: &str, wanted: &serde_json::Map<String, Value>| {
                wanted.iter().all(|(key, value)| at(live, &["metadata", field, key]) == Some(value))
            };
            if has("labels", &labels) && has("annotations", &annotations) {
                return None;
            }
        }
        let mut metadata = json!({"name": wanted.name});
        for (field, map) in [("labels", labels), ("annotations", annotations)] {
            if !map.is_empty() {
                windlass_protocol::json::set(&mut metadata, &[field], Value::Object(map));
            }
        }
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
        let work = TaskWork::Namespace(Arc::new(object));
        Some(Task::new(key, "v1", Phase::PreSync, i64::MIN, work))
    }
}

/// The key of a namespace.
pub(super) fn namespace_key(name: &str) -> ResourceKey {
    ResourceKey { kind: "Namespace".to_owned(), name: name.to_owned(), ..ResourceKey::default() }
}

/// Kinds that the tasks of a bundle need to know about, with their objects and the version of the manifests.
pub(super) fn needs<'a>(
    items: impl Iterator<Item = (&'a ResourceKey, &'a str)>,
    into: &mut BTreeMap<GroupKind, (Option<String>, BTreeSet<ResourceKey>)>,
) {
    for (key, version) in items {
        let entry = into.entry(GroupKind::of(key)).or_default();
        if !version.is_empty() {
            entry.0 = Some(version.to_owned());
        }
        entry.1.insert(key.clone());
    }
}

/// Pruning runs from the high waves to the low ones: the lowest wave takes the place of the highest and so on.
fn mirror(waves: impl Iterator<Item = i64>) -> BTreeMap<i64, i64> {
    let waves: BTreeSet<i64> = waves.collect();
    waves.iter().copied().zip(waves.iter().rev().copied()).collect()
}
