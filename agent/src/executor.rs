//! Drives the engine's machines, one per assignment: one task owns them all, performs what they ask for, and brings back
//! what came of it and what changed in the cluster.
//!
//! Decides nothing about objects. Works the same with and without a hub: it starts from the checkpoint, and whatever the hub
//! sends is on the disk before it arrives here.

mod merge;
mod perform;
mod slot;
mod watches;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use windlass_engine::{ActionId, End, Environment, Outcome};
use windlass_protocol::{
    ids::{Digest, NamespacedName},
    message::{Assignment, Cascade, Tombstone},
    session::DesiredChange,
    time::Millis,
};

use self::{slot::Slot, watches::Watches};
use crate::{
    checkpoint::{BundleError, Checkpoint, Restored},
    clock::Clock,
    cluster::{Change, ClusterError, ClusterPort, Discovery, Freshness},
    limits::Limits,
    reporter::Reporter,
};

/// After a change, its report waits this long for others: one status is made of a burst.
const REPORT_DELAY: Millis = Millis(50);
/// Between two attempts to learn the cluster's types at the start.
const DISCOVERY_RETRY: Duration = Duration::from_secs(2);
/// Between two collections of unreferenced content.
const GARBAGE_INTERVAL: Duration = Duration::from_secs(600);

/// What the uplink tells the executor.
#[derive(Debug)]
pub(crate) enum Command {
    /// A change of desired state that is on the disk, and the assignments that became orphans with it.
    Desired(Box<DesiredChange>, BTreeSet<NamespacedName>),
    /// Compare again.
    Refresh { application: NamespacedName, hard: bool },
}

/// What executor and uplink share.
#[derive(Debug)]
pub(crate) struct Shared {
    reporter: Mutex<Reporter>,
    /// Receipts wait.
    pub(crate) reports: Notify,
    /// Content is missing from the disk: the hub has to send everything again.
    pub(crate) repair: Notify,
}

impl Shared {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { reporter: Mutex::new(Reporter::new(limits)), reports: Notify::new(), repair: Notify::new() }
    }

    /// Never held across an await.
    pub(crate) fn reporter(&self) -> MutexGuard<'_, Reporter> {
        self.reporter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Application and uid of an assignment.
type Key = (NamespacedName, String);

/// The one owner of all machines.
#[derive(Debug)]
pub(crate) struct Executor {
    port: Arc<dyn ClusterPort>,
    checkpoint: Checkpoint,
    shared: Arc<Shared>,
    limits: Limits,
    clock: Clock,
    environment: Arc<Environment>,
    discovery: Option<Arc<Discovery>>,
    /// Why the cluster's types are not known yet.
    cluster_error: Option<ClusterError>,
    slots: BTreeMap<Key, Slot>,
    /// New assignments that wait for the end of another of the same name.
    waiting: BTreeMap<NamespacedName, Assignment>,
    /// Slots with something to poll for.
    dirty: BTreeSet<Key>,
    watches: Watches,
    tasks: JoinSet<Done>,
}

/// What a task brings back.
#[derive(Debug)]
enum Done {
    Outcome { key: Key, action: ActionId, outcome: Outcome },
    Bundle { key: Key, digest: Digest, manifests: Result<Vec<Value>, BundleError> },
    Discovery { answer: Result<Arc<Discovery>, ClusterError>, asked: Option<(Key, ActionId)> },
    Forgotten { key: Key, ok: bool },
    Nothing,
}

impl Executor {
    pub(crate) fn new(
        port: Arc<dyn ClusterPort>,
        checkpoint: Checkpoint,
        shared: Arc<Shared>,
        limits: Limits,
        environment: Environment,
    ) -> (Self, mpsc::Receiver<Change>) {
        let (changes, receiver) = mpsc::channel(Limits::count(limits.event_queue));
        let executor = Self {
            watches: Watches::new(Arc::clone(&port), changes),
            port,
            checkpoint,
            shared,
            limits,
            clock: Clock::start(),
            environment: Arc::new(environment),
            discovery: None,
            cluster_error: None,
            slots: BTreeMap::new(),
            waiting: BTreeMap::new(),
            dirty: BTreeSet::new(),
            tasks: JoinSet::new(),
        };
        (executor, receiver)
    }

    /// Takes up what the checkpoint holds.
    pub(crate) fn restore(&mut self, mut restored: Restored) {
        for record in restored.assignments {
            let key = key_of(&record.assignment);
            let resume = restored.resume.remove(&key);
            self.insert(record.assignment, resume);
            if record.orphaned {
                self.shared.reporter().orphaned(&key.0, &key.1);
            }
        }
        for tombstone in restored.tombstones {
            self.bury(tombstone);
        }
    }

    /// Runs until told to stop.
    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut changes: mpsc::Receiver<Change>,
        shutdown: CancellationToken,
    ) {
        self.discover(Freshness::Fresh, None, Duration::ZERO);
        let mut garbage = Instant::now() + GARBAGE_INTERVAL;
        loop {
            self.pump();
            let wake = if self.dirty.is_empty() { self.next_wake().min(garbage) } else { Instant::now() };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(done) = self.tasks.join_next() => match done {
                    Ok(done) => self.handle_done(done),
                    // A panic in a request is a bug; the machine that waits for its outcome would wait for ever.
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => {}
                },
                Some(command) = commands.recv() => self.handle_command(command),
                Some(change) = changes.recv() => {
                    self.handle_change(change);
                    // A burst is taken as one: reports and polls come after it.
                    for _ in 0..256 {
                        let Ok(change) = changes.try_recv() else { break };
                        self.handle_change(change);
                    }
                }
                () = sleep_until(wake) => {
                    if garbage <= Instant::now() {
                        garbage = Instant::now() + GARBAGE_INTERVAL;
                        self.collect_garbage();
                    }
                }
            }
        }
        self.tasks.abort_all();
    }

    fn handle_command(&mut self, command: Command) {
        let now = self.clock.now();
        match command {
            Command::Desired(change, orphaned) => {
                let change = *change;
                for tombstone in change.tombstones {
                    self.bury(tombstone);
                }
                for (_, assignment) in change.assignments {
                    self.assign(assignment, now);
                }
                for application in orphaned {
                    let uids: Vec<String> = self.uids(&application);
                    for uid in uids {
                        tracing::warn!(%application, "the hub does not know this assignment: it stays as it is");
                        self.shared.reporter().orphaned(&application, &uid);
                    }
                }
                self.shared.reports.notify_one();
            }
            Command::Refresh { application, hard } => {
                if hard {
                    self.discover(Freshness::Fresh, None, Duration::ZERO);
                }
                for (key, slot) in self.slots.iter_mut().filter(|(key, _)| key.0 == application) {
                    slot.reconciler.handle_refresh(now);
                    self.dirty.insert(key.clone());
                }
            }
        }
    }

    fn uids(&self, application: &NamespacedName) -> Vec<String> {
        self.slots.keys().filter(|key| key.0 == *application).map(|key| key.1.clone()).collect()
    }

    /// A new or changed assignment. One of another uid replaces what is here, or waits for its end.
    fn assign(&mut self, assignment: Assignment, now: Millis) {
        let key = key_of(&assignment);
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.reconciler.handle_assignment(assignment, now);
            slot.failed.clear();
            self.dirty.insert(key);
            return;
        }
        let others = self.uids(&key.0);
        let mut ending = false;
        for uid in others {
            let other = (key.0.clone(), uid);
            if self.slots.get(&other).is_some_and(|slot| slot.ending) {
                ending = true;
            } else {
                // Its objects carry the same tracking: the new machine takes them over.
                self.remove(&other);
            }
        }
        if ending {
            self.waiting.insert(key.0, assignment);
        } else if self.slots.len() < Limits::count(self.limits.assignments) {
            tracing::info!(application = %key.0, "assigned");
            self.insert(assignment, None);
        } else {
            tracing::error!(application = %key.0, limit = "assignments", "assignment refused");
        }
    }

    fn insert(&mut self, assignment: Assignment, resume: Option<windlass_engine::ResumePoint>) {
        let key = key_of(&assignment);
        let now = self.clock.now();
        let resync = Millis::from_secs(self.limits.resync_seconds);
        let mut slot = Slot::new(assignment, resume, Arc::clone(&self.environment), now, resync);
        if let Some(discovery) = &self.discovery {
            slot.reconciler.handle_kinds(Arc::clone(discovery.kinds()), now);
        }
        self.slots.insert(key.clone(), slot);
        self.dirty.insert(key);
    }

    /// Carries out a tombstone; without anything to end, says so.
    fn bury(&mut self, tombstone: Tombstone) {
        let key = (tombstone.application, tombstone.uid);
        let now = self.clock.now();
        if self.waiting.get(&key.0).is_some_and(|assignment| assignment.uid == key.1) {
            self.waiting.remove(&key.0);
        }
        if let Some(slot) = self.slots.get_mut(&key) {
            if !slot.ending {
                tracing::info!(application = %key.0, cascade = ?tombstone.cascade, "ending");
                slot.ending = true;
                slot.reconciler.end(tombstone.cascade, now);
            }
            self.dirty.insert(key);
        } else {
            if tombstone.cascade != Cascade::Orphan {
                tracing::debug!(application = %key.0, "nothing here to end");
            }
            self.shared.reporter().ended(&key.0, &key.1);
            self.shared.reports.notify_one();
        }
    }

    fn remove(&mut self, key: &Key) {
        self.slots.remove(key);
        self.dirty.remove(key);
        let needed = self.slots.values().flat_map(Slot::observed).cloned().collect();
        self.watches.retain(&needed);
    }

    fn handle_done(&mut self, done: Done) {
        let now = self.clock.now();
        match done {
            Done::Outcome { key, action, outcome } => {
                if let Some(slot) = self.slots.get_mut(&key) {
                    slot.finish(action, outcome, now);
                    self.dirty.insert(key);
                }
            }
            Done::Bundle { key, digest, manifests } => self.handle_bundle(key, digest, manifests, now),
            Done::Discovery { answer, asked } => self.handle_discovery(answer, asked, now),
            Done::Forgotten { key, ok } => self.handle_forgotten(&key, ok),
            Done::Nothing => {}
        }
    }

    fn handle_bundle(&mut self, key: Key, digest: Digest, manifests: Result<Vec<Value>, BundleError>, now: Millis) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        slot.loading.remove(&digest);
        if let Err(error) = &manifests {
            tracing::warn!(application = %key.0, bundle = %digest.short(), %error, "bundle cannot be used");
            slot.failed.insert(digest);
            if matches!(error, BundleError::Missing(_) | BundleError::Unreadable { .. }) {
                self.shared.repair.notify_one();
            }
        }
        slot.reconciler.handle_desired(digest, manifests.map_err(|error| error.to_string()), now);
        self.dirty.insert(key);
    }

    fn handle_discovery(
        &mut self,
        answer: Result<Arc<Discovery>, ClusterError>,
        asked: Option<(Key, ActionId)>,
        now: Millis,
    ) {
        let outcome = match answer {
            Ok(discovery) => {
                if self.cluster_error.take().is_some() {
                    tracing::info!("the API server answers");
                }
                let same = self.discovery.as_ref().is_some_and(|known| known.kinds() == discovery.kinds());
                for (key, slot) in self.slots.iter_mut().filter(|_| !same) {
                    slot.reconciler.handle_kinds(Arc::clone(discovery.kinds()), now);
                    self.dirty.insert(key.clone());
                }
                self.discovery = Some(discovery);
                Outcome::Done
            }
            Err(error) => {
                if self.cluster_error.as_ref() != Some(&error) {
                    tracing::warn!(%error, "cannot learn the types of the cluster");
                }
                let failure = perform::failure(&error);
                self.cluster_error = Some(error);
                if self.discovery.is_none() {
                    self.discover(Freshness::Fresh, None, DISCOVERY_RETRY);
                    self.dirty.extend(self.slots.keys().cloned());
                }
                Outcome::Failed(failure)
            }
        };
        if let Some((key, action)) = asked
            && let Some(slot) = self.slots.get_mut(&key)
        {
            slot.finish(action, outcome, now);
            self.dirty.insert(key);
        }
    }

    /// An assignment has ended and the disk knows it.
    fn handle_forgotten(&mut self, key: &Key, ok: bool) {
        if !ok {
            // Tried again with the next report of the end.
            if let Some(slot) = self.slots.get_mut(key) {
                slot.forgetting = false;
                slot.report_at = Some(self.clock.now().plus(Millis::from_secs(5)));
            }
            return;
        }
        tracing::info!(application = %key.0, "ended");
        self.remove(key);
        self.shared.reporter().ended(&key.0, &key.1);
        self.shared.reports.notify_one();
        if let Some(next) = self.waiting.remove(&key.0) {
            self.insert(next, None);
        }
    }

    fn handle_change(&mut self, change: Change) {
        let now = self.clock.now();
        let Some((resource, live)) = self.watches.handle(change, &mut self.tasks) else { return };
        for (key, slot) in &mut self.slots {
            if slot.route(&resource, &live, now) {
                self.dirty.insert(key.clone());
            }
        }
    }

    /// Reports one slot; starts to forget it when its assignment has ended.
    fn report(&mut self, key: &Key, now: Millis) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.report_at = None;
        let mut view = slot.reconciler.status();
        if let (None, Some(error)) = (&self.discovery, &self.cluster_error) {
            view.message = error.to_string();
        }
        match &view.end {
            None => {
                let again = self.shared.reporter().offer(&view, now);
                slot.reconciler.acknowledge_report();
                slot.report_at = again;
            }
            Some(End::Done) if slot.forgetting => {}
            Some(End::Done) => {
                slot.forgetting = true;
                let (checkpoint, key) = (self.checkpoint.clone(), key.clone());
                self.tasks.spawn(async move {
                    let (application, uid) = key.clone();
                    let forgotten = checkpoint.run(move |disk| disk.forget_assignment(&application, &uid)).await;
                    if let Err(error) = &forgotten {
                        tracing::error!(application = %key.0, %error, "cannot note the end of the assignment");
                    }
                    Done::Forgotten { key, ok: forgotten.is_ok() }
                });
            }
            Some(end) => self.shared.reporter().ending(&key.0, &key.1, end),
        }
        self.shared.reports.notify_one();
    }

    /// When something is due although nothing comes in.
    fn next_wake(&self) -> Instant {
        let due = self.slots.values().filter_map(Slot::next_wake).min();
        // Far away: the select needs some instant.
        due.map_or_else(|| Instant::now() + Duration::from_secs(3600), |due| self.clock.instant(due))
    }

    fn collect_garbage(&mut self) {
        let checkpoint = self.checkpoint.clone();
        self.tasks.spawn(async move {
            match checkpoint.run(Checkpoint::collect_garbage).await {
                Ok(0) => {}
                Ok(removed) => tracing::debug!(removed, "removed unreferenced content"),
                Err(error) => tracing::warn!(%error, "cannot remove unreferenced content"),
            }
            Done::Nothing
        });
    }
}

fn key_of(assignment: &Assignment) -> Key {
    (assignment.application.clone(), assignment.uid.clone())
}
