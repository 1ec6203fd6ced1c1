//! The process of an agent: one machine an assignment, polled after each input; what it asks for becomes events.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use windlass_engine::{Action, ActionId, End, Environment, LiveChange, Outcome, Reconciler, ResumePoint, Work};
use windlass_protocol::{
    ids::{Digest, Incarnation, NamespacedName},
    manifest::{self, ResourceKey, TRACKING_ANNOTATION},
    message::{Assignment, Cascade, Tombstone},
    session::DesiredChange,
    time::Millis,
};

use super::{disk::Disk, reports::Reports, uplink::Uplink};
use crate::{
    Plant,
    sim::{
        World,
        event::{Event, Key},
        kubernetes,
    },
};

/// Actions of one machine that are begun in one turn; it is asked again at the next event.
const ACTIONS_PER_TURN: usize = 64;

/// Everything that is lost when the process ends.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) incarnation: Incarnation,
    environment: Arc<Environment>,
    slots: BTreeMap<Key, Slot>,
    /// New assignments that wait for the end of another of the same name.
    waiting: BTreeMap<NamespacedName, Assignment>,
    dirty: BTreeSet<Key>,
    pub(super) reports: Reports,
    pub(super) uplink: Option<Uplink>,
    /// This identity never comes back.
    pub(super) refused: bool,
    wake_at: Option<Millis>,
}

/// One assignment at work.
#[derive(Debug)]
struct Slot {
    machine: Reconciler,
    ending: bool,
    failed: BTreeSet<Digest>,
    /// Observations under way: changes wait for their answer, which may be older.
    observing: BTreeMap<ActionId, (windlass_engine::GroupKind, Vec<LiveChange>)>,
}

impl Process {
    pub(super) fn new(incarnation: Incarnation, environment: Arc<Environment>) -> Self {
        Self {
            incarnation,
            environment,
            slots: BTreeMap::new(),
            waiting: BTreeMap::new(),
            dirty: BTreeSet::new(),
            reports: Reports::default(),
            uplink: None,
            refused: false,
            wake_at: None,
        }
    }

    pub(super) fn link(&self) -> Option<u64> {
        self.uplink.as_ref().map(|uplink| uplink.link)
    }

    /// Takes up what is on the disk.
    pub(super) fn restore(&mut self, disk: &Disk, now: Millis) {
        for (name, (assignment, orphaned)) in &disk.assignments {
            let key = (name.clone(), assignment.uid.clone());
            // As the real disk does: through its text form.
            let resume = disk.resume.get(&key).and_then(|point| serde_json::to_vec(point).ok());
            let resume = resume.and_then(|text| serde_json::from_slice::<ResumePoint>(&text).ok());
            self.insert(assignment.clone(), resume, now);
            if *orphaned {
                self.reports.orphaned(name, &assignment.uid);
            }
        }
        for tombstone in disk.tombstones.values() {
            self.bury(tombstone, now);
        }
    }

    /// A change of desired state that is on the disk.
    pub(super) fn handle_desired(&mut self, change: DesiredChange, orphaned: &BTreeSet<NamespacedName>, now: Millis) {
        for tombstone in &change.tombstones {
            self.bury(tombstone, now);
        }
        for (_, assignment) in change.assignments {
            self.assign(assignment, now);
        }
        for name in orphaned {
            let uids: Vec<String> = self.slots.keys().filter(|key| key.0 == *name).map(|key| key.1.clone()).collect();
            for uid in uids {
                self.reports.orphaned(name, &uid);
            }
        }
    }

    fn assign(&mut self, assignment: Assignment, now: Millis) {
        let key = (assignment.application.clone(), assignment.uid.clone());
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.machine.handle_assignment(assignment, now);
            slot.failed.clear();
            self.dirty.insert(key);
            return;
        }
        let mut ending = false;
        let others: Vec<Key> = self.slots.keys().filter(|other| other.0 == key.0).cloned().collect();
        for other in others {
            if self.slots.get(&other).is_some_and(|slot| slot.ending) {
                ending = true;
            } else {
                self.slots.remove(&other);
            }
        }
        if ending {
            self.waiting.insert(key.0, assignment);
        } else {
            self.insert(assignment, None, now);
        }
    }

    fn insert(&mut self, assignment: Assignment, resume: Option<ResumePoint>, now: Millis) {
        let key = (assignment.application.clone(), assignment.uid.clone());
        let mut machine = Reconciler::new(assignment, resume, Arc::clone(&self.environment), now);
        machine.handle_kinds(kubernetes::kinds(), now);
        let slot = Slot { machine, ending: false, failed: BTreeSet::new(), observing: BTreeMap::new() };
        self.slots.insert(key.clone(), slot);
        self.dirty.insert(key);
    }

    /// Carries out a tombstone; without anything to end, says so.
    pub(super) fn bury(&mut self, tombstone: &Tombstone, now: Millis) {
        let key = (tombstone.application.clone(), tombstone.uid.clone());
        if self.waiting.get(&key.0).is_some_and(|assignment| assignment.uid == key.1) {
            self.waiting.remove(&key.0);
        }
        if let Some(slot) = self.slots.get_mut(&key) {
            if !slot.ending {
                slot.ending = true;
                slot.machine.end(tombstone.cascade, now);
            }
            self.dirty.insert(key);
        } else {
            self.reports.ended(&key.0, &key.1);
        }
    }

    /// Ends what a delta did not name: a planted bug.
    pub(super) fn bury_absent(&mut self, known: &BTreeSet<NamespacedName>, now: Millis) {
        let absent: Vec<Key> = self.slots.keys().filter(|key| !known.contains(&key.0)).cloned().collect();
        for (application, uid) in absent {
            self.bury(&Tombstone { application, uid, cascade: Cascade::Background }, now);
        }
    }

    pub(super) fn refresh(&mut self, application: &NamespacedName, now: Millis) {
        for (key, slot) in self.slots.iter_mut().filter(|(key, _)| key.0 == *application) {
            slot.machine.handle_refresh(now);
            self.dirty.insert(key.clone());
        }
    }

    /// Brings a change to every machine that it concerns.
    pub(super) fn observe_change(&mut self, change: &LiveChange, now: Millis) {
        let (key, tracking) = match change {
            LiveChange::Present(object) => {
                (ResourceKey::of(object), manifest::annotation(object, TRACKING_ANNOTATION).map(ToOwned::to_owned))
            }
            LiveChange::Gone { key, .. } => (key.clone(), None),
        };
        let kind = windlass_engine::GroupKind::of(&key);
        for (name, slot) in &mut self.slots {
            if !slot.machine.wants(&key, tracking.as_deref()) {
                continue;
            }
            match slot.observing.values_mut().find(|(observed, _)| *observed == kind) {
                Some((_, waiting)) => waiting.push(change.clone()),
                None => slot.machine.handle_live(change.clone(), now),
            }
            self.dirty.insert(name.clone());
        }
    }

    pub(super) fn handle_outcome(&mut self, key: &Key, action: ActionId, outcome: Outcome, now: Millis) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.machine.handle_outcome(action, outcome, now);
        if let Some((_, waiting)) = slot.observing.remove(&action) {
            for change in waiting {
                slot.machine.handle_live(change, now);
            }
        }
        self.dirty.insert(key.clone());
    }

    /// The tracking name of an assignment, and whether it still is there.
    pub(super) fn assignment(&self, key: &Key) -> Option<&Assignment> {
        self.slots.get(key).map(|slot| slot.machine.assignment())
    }

    /// Polls what is dirty or due; gives the actions to perform.
    fn poll(&mut self, disk: &Disk, plant: Option<Plant>, now: Millis) -> Vec<(Key, Action)> {
        let due = self.slots.iter().filter(|(_, slot)| slot.machine.poll_timeout().is_some_and(|at| at <= now));
        let due: Vec<Key> = due.map(|(key, _)| key.clone()).collect();
        self.dirty.extend(due);
        let mut actions = Vec::new();
        for key in std::mem::take(&mut self.dirty) {
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            if plant == Some(Plant::PrunesAlways) {
                prune_always(&mut slot.machine, now);
            }
            for digest in slot.machine.missing_bundles() {
                if !slot.failed.contains(&digest) {
                    let manifests = disk.bundle(digest);
                    if manifests.is_err() {
                        slot.failed.insert(digest);
                    }
                    slot.machine.handle_desired(digest, manifests, now);
                }
            }
            for _ in 0..ACTIONS_PER_TURN {
                let Some(action) = slot.machine.poll_action(now) else { break };
                if let Work::Observe { kind, .. } = &action.work {
                    slot.observing.insert(action.id, (kind.clone(), Vec::new()));
                }
                actions.push((key.clone(), action));
            }
            self.report(&key, now);
        }
        actions
    }

    fn report(&mut self, key: &Key, now: Millis) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let view = slot.machine.status();
        match &view.end {
            None => {
                self.reports.offer(&view, now);
                slot.machine.acknowledge_report();
            }
            Some(End::Failing(message)) => self.reports.failing(&key.0, &key.1, message),
            Some(End::Pending(_) | End::Done) => {}
        }
    }

    /// Assignments whose end is complete; forgotten here, to be forgotten on the disk.
    fn take_ended(&mut self, now: Millis) -> Vec<Key> {
        let done = |slot: &Slot| matches!(slot.machine.status().end, Some(End::Done));
        let ended: Vec<Key> =
            self.slots.iter().filter(|(_, slot)| slot.ending && done(slot)).map(|(key, _)| key.clone()).collect();
        for key in &ended {
            self.slots.remove(key);
            self.reports.ended(&key.0, &key.1);
            if let Some(next) = self.waiting.remove(&key.0) {
                self.insert(next, None, now);
            }
        }
        ended
    }

    /// The next timer that is not scheduled yet.
    fn next_wake(&mut self, now: Millis) -> Option<Millis> {
        let session = self.uplink.as_ref().and_then(|uplink| uplink.session.poll_timeout());
        let next = self.slots.values().filter_map(|slot| slot.machine.poll_timeout()).chain(session).min();
        let next = if self.dirty.is_empty() { next? } else { now }.max(now.plus(Millis(1)));
        if self.wake_at.is_some_and(|at| at > now && at <= next) {
            return None;
        }
        self.wake_at = Some(next);
        Some(next)
    }
}

/// A planted bug: the policy's `prune` is not read.
fn prune_always(machine: &mut Reconciler, now: Millis) {
    let mut assignment = machine.assignment().clone();
    if let Some(automated) = assignment.policy.automated.as_mut().filter(|automated| !automated.prune) {
        automated.prune = true;
        machine.handle_assignment(assignment, now);
    }
}

impl World {
    /// After any input of an agent: polls its machines, sends what waits, sets timers.
    pub(crate) fn pump(&mut self, name: &str) {
        let (now, plant) = (self.time.now, self.plant);
        let Some(agent) = self.agents.get_mut(name) else { return };
        let Some(process) = agent.process.as_mut() else { return };
        let incarnation = process.incarnation;
        let actions = process.poll(&agent.disk, plant, now);
        let ended = process.take_ended(now);
        for key in &ended {
            agent.disk.forget(key);
        }
        for (key, action) in actions {
            let delay = Millis(self.time.random.between(1, 40));
            let event = Event::Perform { agent: name.to_owned(), incarnation, key, action: Box::new(action) };
            self.time.after(delay, event);
        }
        if let Some(uid) = self.agents.get(name).and_then(|agent| agent.cluster_uid().map(ToOwned::to_owned)) {
            for key in ended {
                self.coverage.ended += 1;
                self.time.note(format_args!("agent {name} has ended {}", key.0));
                self.invariants.releases.forget(&uid, Some(&key.1));
                self.invariants.operations.ended(&uid, &key);
            }
        }
        self.upload(name);
        let Some(process) = self.agents.get_mut(name).and_then(|agent| agent.process.as_mut()) else { return };
        if let Some(at) = process.next_wake(now) {
            self.time.at(at, Event::Wake { agent: name.to_owned(), incarnation });
        }
    }

    /// Timers of an agent.
    pub(crate) fn wake(&mut self, name: &str, incarnation: Incarnation) {
        let now = self.time.now;
        let Some(process) = self.agents.get_mut(name).and_then(|agent| agent.process(incarnation)) else { return };
        if let Some(uplink) = &mut process.uplink {
            uplink.session.handle_timeout(now);
        }
        self.drive_agent(name);
        self.pump(name);
    }
}
