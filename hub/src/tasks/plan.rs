//! From Git and the API to assignments: one pass looks at everything, renders what may have changed, and proposes what is new.
//!
//! A pass is cheap where nothing happened: an Application whose object, commit, project and clusters are as they were at the
//! last pass is not looked at again, except once in a while to find what that reasoning missed.

mod asked;
mod sets;
mod watch;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;
use windlass_hub_core::{
    Command, ObjectKey, ObjectRecord, State,
    command::TargetChange,
    planner::{self, Applications, Prepared, ToRender},
};
use windlass_protocol::{
    ids::{Digest, NamespacedName},
    resource::{Kind, RolloutCause},
};

use self::watch::Watches;
use crate::{
    generator_trees::reference,
    rendering::Renderer,
    replica::Replica,
    repositories::Repositories,
    sealing::Sealer,
    source::{CommitId, RefState, Sources},
    store::blobs::BlobLease,
};

/// Signals within this time share a pass: one API write often comes with others.
const GATHER: Duration = Duration::from_millis(20);
/// Every so many passes by period, everything is looked at whatever the memory says.
const FULL_EVERY: u32 = 30;
/// Applications that are prepared and rendered at a time.
const IN_FLIGHT: usize = 64;

/// The planning loop of the leader.
#[derive(Debug)]
pub struct Planner {
    replica: Replica,
    sources: Sources,
    renderer: Renderer,
    sealer: Arc<Sealer>,
    period: Duration,
    watches: Watches,
    /// What each Application looked like when it was last planned.
    seen: BTreeMap<NamespacedName, Seen>,
    /// When a refresh that is asked for was passed to the sources.
    refreshing: BTreeMap<NamespacedName, u64>,
    set_state: BTreeMap<ObjectKey, Digest>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    uid: String,
    generation: u64,
    reference: RefSeen,
    context: Digest,
}

/// What of a [`RefState`] matters to planning.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RefSeen {
    Blocked,
    Commit(CommitId, Option<String>),
    Failed(String),
    Pending,
}

/// A planned Application.
struct Planned {
    seen: Option<Seen>,
    change: Option<TargetChange>,
    lease: Option<BlobLease>,
}

impl Planner {
    /// Over the parts of a hub; `period` is the time between passes without a signal.
    #[must_use]
    pub fn new(replica: Replica, sources: Sources, renderer: Renderer, sealer: Arc<Sealer>, period: Duration) -> Self {
        let watches = Watches::new(sources.clone());
        Self {
            replica,
            sources,
            renderer,
            sealer,
            period,
            watches,
            seen: BTreeMap::new(),
            refreshing: BTreeMap::new(),
            set_state: BTreeMap::new(),
        }
    }

    /// Plans until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut revision = self.replica.machine().revision();
        let mut status = self.replica.raft().status();
        let mut passes = 0_u32;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = revision.changed() => if changed.is_err() { return },
                changed = status.changed() => if changed.is_err() { return },
                () = self.watches.changed() => {}
                () = tokio::time::sleep(self.period) => {
                    passes = passes.wrapping_add(1);
                    if passes.is_multiple_of(FULL_EVERY) {
                        self.seen.clear();
                    }
                }
            }
            tokio::time::sleep(GATHER).await;
            revision.mark_unchanged();
            status.mark_unchanged();
            if self.replica.leads() {
                self.pass().await;
            } else {
                // A new leader knows nothing of what another has seen.
                self.seen.clear();
                self.set_state.clear();
            }
        }
    }

    async fn pass(&mut self) {
        let repositories = Arc::new(Repositories::new(&self.replica.state(), &self.sealer));
        self.watches.begin();
        let garbage = planner::garbage(&self.replica.state());
        for write in garbage {
            // Each alone: one that has changed meanwhile must not hold back the others.
            self.propose("garbage", Command::Write { writes: vec![write] }).await;
        }
        self.plan_sets(&repositories).await;
        self.plan_applications(&repositories).await;
        self.answer_requests(&repositories).await;
        self.watches.end();
    }

    async fn plan_applications(&mut self, repositories: &Repositories) {
        let state = self.replica.state();
        let context = context(&state);
        let applications = Applications::new(&state);
        let mut work = Vec::new();
        for (key, record) in state.objects(Kind::Application, None).filter(|(_, record)| !record.deleting) {
            let prepared = match self.unchanged(&key.name, record, context) {
                Some(reference) => {
                    self.watches.keep(&reference);
                    continue;
                }
                None => applications.prepare(&key.name, record),
            };
            work.push((key.name.clone(), Arc::clone(record), prepared));
        }
        self.seen.retain(|name, _| state.object(&application_key(name)).is_some());
        let mut jobs = Vec::new();
        for (name, record, prepared) in work {
            let job = match prepared {
                Prepared::Blocked(change) => Job::Known(change, RefSeen::Blocked),
                Prepared::Render(render) => self.job(render, repositories).await,
            };
            jobs.push((name, record, job));
        }
        let renderer = &self.renderer;
        let planned: Vec<(NamespacedName, Planned)> = stream::iter(jobs)
            .map(|(name, record, job)| async move {
                let (change, reference, lease) = job.run(renderer).await;
                let seen = Seen { uid: record.uid.clone(), generation: record.generation, reference, context };
                (name, Planned { seen: Some(seen), change, lease })
            })
            .buffer_unordered(IN_FLIGHT)
            .collect()
            .await;
        self.take_over(planned).await;
    }

    /// Proposes what is new; what is proposed is remembered only once it is committed.
    async fn take_over(&mut self, planned: Vec<(NamespacedName, Planned)>) {
        let state = self.replica.state();
        let (mut changes, mut leases, mut seen) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (name, planned) in planned {
            if let Some(one) = planned.seen.filter(|seen| seen.reference != RefSeen::Pending) {
                seen.insert(name, one);
            }
            if let Some(change) = planned.change.filter(|change| planner::is_news(&state, change)) {
                changes.push(change);
                leases.extend(planned.lease);
            }
        }
        if let Err(error) = self.renderer.secure(&leases).await {
            tracing::warn!(%error, "nothing is proposed; the next pass tries again");
            return;
        }
        // Stable order: owners release their members in the order of their names.
        changes.sort_by(|a, b| a.application.cmp(&b.application));
        let names = Mutex::new(Vec::new());
        let commands = planner::commands(&state, changes, RolloutCause::Commit, |owner| {
            let (name, uid) = self.rollout_name(owner);
            names.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
            (name, uid)
        });
        let mut failed = false;
        for command in commands {
            failed |= !self.propose("plan", command).await;
        }
        drop(leases);
        if !failed {
            self.seen.extend(seen);
        }
    }

    fn rollout_name(&self, owner: &ObjectKey) -> (NamespacedName, String) {
        let uid = self.replica.new_uid().unwrap_or_default();
        let suffix: String = uid.chars().filter(char::is_ascii_hexdigit).take(10).collect();
        // Room for the suffix within the 253 characters of a name.
        let stem: String = owner.name.name.chars().take(240).collect();
        (NamespacedName::new(owner.name.namespace.clone(), format!("{stem}-{suffix}")), uid)
    }

    /// The reference of an Application that need not be looked at.
    fn unchanged(&self, name: &NamespacedName, record: &ObjectRecord, context: Digest) -> Option<watch::RefKey> {
        let seen = self.seen.get(name)?;
        if seen.uid != record.uid || seen.generation != record.generation || seen.context != context {
            return None;
        }
        let key = self.watches.of(name)?;
        let state = self.watches.state(&key)?;
        (RefSeen::of(&state) == seen.reference).then_some(key)
    }

    async fn job(&mut self, render: Box<ToRender>, repositories: &Repositories) -> Job {
        let repository = repositories.repository(&render.source.repo_url);
        let reference = reference(&render.source.target_revision);
        let name = render.application().clone();
        let state = self.watches.watch(&name, &repository, reference).await;
        let seen = RefSeen::of(&state);
        let Some(commit) = state.commit else {
            return match state.error {
                Some(error) => Job::Known(Box::new(render.finish(Err(vec![error.to_string()]))), seen),
                None => Job::Pending,
            };
        };
        let error = state.error.map(|error| format!("{error}; the last good commit stays"));
        Job::Render(Box::new(RenderJob { render, sources: self.sources.clone(), repository, commit, error, seen }))
    }

    /// Proposes; says whether the command was taken.
    async fn propose(&self, task: &str, command: Command) -> bool {
        match self.replica.propose("hub", task, Vec::new(), command).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(task, %error, "proposal failed; the next pass tries again");
                false
            }
        }
    }
}

/// One Application on its way to a change.
enum Job {
    /// Nothing to render.
    Known(Box<TargetChange>, RefSeen),
    /// The reference is not resolved yet.
    Pending,
    /// To be rendered.
    Render(Box<RenderJob>),
}

/// A rendering on its way.
struct RenderJob {
    render: Box<ToRender>,
    sources: Sources,
    repository: crate::source::Repository,
    commit: CommitId,
    /// The source has an error besides its last good commit.
    error: Option<String>,
    seen: RefSeen,
}

impl Job {
    async fn run(self, renderer: &Renderer) -> (Option<TargetChange>, RefSeen, Option<BlobLease>) {
        match self {
            Self::Known(change, seen) => (Some(*change), seen, None),
            Self::Pending => (None, RefSeen::Pending, None),
            Self::Render(job) => job.run(renderer).await,
        }
    }
}

impl RenderJob {
    async fn run(self, renderer: &Renderer) -> (Option<TargetChange>, RefSeen, Option<BlobLease>) {
        let Self { render, sources, repository, commit, error, seen } = self;
        let tree = match sources.tree(&repository, &commit).await {
            Ok(tree) => tree,
            // Transient by nature: not remembered, so that the next pass tries again.
            Err(error) => {
                let change = render.finish(Err(vec![error.to_string()]));
                return (Some(change), RefSeen::Pending, None);
            }
        };
        let (outcome, lease) = match renderer.render(&render, tree, &commit).await {
            Ok((observed, lease)) => (Ok(observed), lease),
            Err(problems) => (Err(problems), None),
        };
        let mut change = render.finish(outcome);
        if let Some(error) = error {
            change.conditions.push(windlass_protocol::status::Condition::new("ComparisonError", error));
        }
        (Some(change), seen, lease)
    }
}

impl RefSeen {
    fn of(state: &RefState) -> Self {
        let error = state.error.as_ref().map(ToString::to_string);
        match (&state.commit, error) {
            (Some(commit), error) => Self::Commit(commit.clone(), error),
            (None, Some(error)) => Self::Failed(error),
            (None, None) => Self::Pending,
        }
    }
}

fn application_key(name: &NamespacedName) -> ObjectKey {
    ObjectKey { kind: Kind::Application, name: name.clone() }
}

/// Everything besides Application and commit that planning depends on: projects, clusters and their labels, credentials.
fn context(state: &State) -> Digest {
    let mut text = String::new();
    for kind in [Kind::AppProject, Kind::Cluster, Kind::Secret] {
        for (key, record) in state.objects(kind, None) {
            // The revision of a Cluster moves with every session; its generation and labels do not.
            let version = if kind == Kind::Secret { record.revision.0 } else { record.generation };
            text.push_str(&format!("{key} {} {version} {:?}\n", record.uid, record.labels));
        }
    }
    Digest::of(text.as_bytes())
}
