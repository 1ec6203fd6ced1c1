//! Hub nodes around the log: proposing with faults, applying at their own speed, answering, restarting from snapshots.
//!
//! Raft is modelled as what it promises: a total order. Everything before that order may be lost, late or repeated.

use std::{collections::BTreeMap, sync::Arc};

use windlass_hub_core::{
    Command, Envelope, Precondition, Rejection, Reply, State,
    apply::Applied,
    command::{ENVELOPE_BYTES_MAX, ReceiptBatch},
    snapshot,
};
use windlass_protocol::{codec, ids::RequestId, message::Receipt, time::Millis};

use super::{World, event::Event, outbox::Part};
use crate::{
    Plant,
    invariants::{Plans, Rollouts},
};

/// Wall time of the simulation's zero.
const WALL: u64 = 1_780_000_000_000;
/// Entries that a replica applies in one turn.
const BATCH: u64 = 6;
/// How long a proposer waits before it calls the outcome unknown.
const PATIENCE: Millis = Millis(8_000);

/// One hub node.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) state: State,
    /// Entries applied: the index of the next one.
    pub(crate) applied: usize,
    pub(crate) up: bool,
    /// It believes to be leader.
    pub(crate) leading: bool,
    /// Newest commit that it has fetched.
    pub(crate) commit: usize,
    pub(crate) waiters: BTreeMap<RequestId, Waiter>,
    /// An older state, for [`Plant::OlderGeneration`].
    pub(crate) older: Option<State>,
    clock_skew: u64,
    snapshot: Option<Snapshot>,
    apply_due: bool,
}

#[derive(Debug)]
struct Snapshot {
    applied: usize,
    records: Vec<Vec<u8>>,
}

/// Who waits for the answer to a proposal.
#[derive(Clone, Debug)]
pub(crate) enum Waiter {
    Client,
    Planner,
    Gateway,
    Enrol { agent: String, serial: [u8; 16] },
    Batch(Vec<Part>),
}

impl Hub {
    pub(crate) fn new(clock_skew: u64) -> Self {
        Self {
            state: State::default(),
            applied: 0,
            up: true,
            leading: false,
            commit: 0,
            waiters: BTreeMap::new(),
            older: None,
            clock_skew,
            snapshot: None,
            apply_due: false,
        }
    }

    pub(crate) fn wall(&self, now: Millis) -> Millis {
        Millis(WALL.saturating_add(now.0).saturating_add(self.clock_skew))
    }
}

impl World {
    /// Proposes from a hub; the answer, if any, comes when that hub applies the entry.
    pub(crate) fn propose(
        &mut self,
        hub: u64,
        (subject, command): (&str, Command),
        preconditions: Vec<Precondition>,
        waiter: Waiter,
    ) {
        let time = &mut self.time;
        let Some(node) = self.hubs.get_mut(&hub).filter(|node| node.up) else { return };
        let request = RequestId(time.random.bytes16());
        let preconditions = if self.plant == Some(Plant::NoPreconditions) && matches!(waiter, Waiter::Planner) {
            Vec::new()
        } else {
            preconditions
        };
        let is_tick = matches!(command, Command::Tick { .. });
        let envelope = Arc::new(Envelope {
            request,
            subject: subject.to_owned(),
            source: format!("hub:{hub}"),
            proposed_at: node.wall(time.now),
            preconditions,
            command,
        });
        node.waiters.insert(request, waiter);
        time.after(PATIENCE, Event::GiveUp { hub, request });
        let profile = time.profile.clone();
        if time.fault(profile.lost) {
            self.coverage.lost += 1;
            time.note(format_args!("hub {hub} proposes {request:?}: lost"));
        } else {
            let delay = self.delay();
            self.time.after(delay, Event::Append(Arc::clone(&envelope)));
        }
        // A Tick is proposed by the leader itself and never retried.
        if !is_tick && self.time.fault(profile.duplicated) {
            self.coverage.duplicated += 1;
            let delay = self.delay().plus(Millis(self.time.random.below(3_000)));
            self.time.after(delay, Event::Append(envelope));
        }
    }

    /// How long something travels: usually milliseconds.
    pub(crate) fn delay(&mut self) -> Millis {
        let profile = &self.time.profile;
        let (chance, max) = (profile.delayed, profile.delay_max);
        if self.time.fault(chance) {
            self.coverage.delayed += 1;
            return Millis(self.time.random.between(50, max.0));
        }
        Millis(self.time.random.between(1, 30))
    }

    /// An entry gets its place in the order.
    pub(crate) fn append(&mut self, envelope: Arc<Envelope>) {
        self.time.note(format_args!("log {} {}", self.log.len(), describe(&envelope)));
        // As on a disk: what cannot be read back is lost to every replica that starts again.
        let stored = codec::to_bytes(&*envelope, ENVELOPE_BYTES_MAX);
        let read = stored.and_then(|bytes| codec::from_bytes::<Envelope>(&bytes, ENVELOPE_BYTES_MAX));
        if read.as_ref() != Ok(&*envelope) {
            let message = format!("{envelope:?} is read back as {read:?}");
            self.fail("entries are read back as written", "DESIGN.md 5", message);
        }
        self.log.push(envelope);
        let hubs: Vec<u64> = self.hubs.keys().copied().collect();
        for hub in hubs {
            self.apply_soon(hub);
        }
    }

    pub(crate) fn apply_soon(&mut self, hub: u64) {
        let slow = self.time.fault(30);
        let delay = if slow { self.time.random.between(200, 4_000) } else { self.time.random.between(1, 20) };
        let Some(node) = self.hubs.get_mut(&hub).filter(|node| node.up && !node.apply_due) else { return };
        if node.applied < self.log.len() {
            node.apply_due = true;
            self.time.after(Millis(delay), Event::Apply(hub));
        }
    }

    /// A replica applies some entries.
    pub(crate) fn apply(&mut self, hub: u64) {
        let count = self.time.random.between(1, BATCH);
        if let Some(node) = self.hubs.get_mut(&hub) {
            node.apply_due = false;
        }
        for _ in 0..count {
            if !self.apply_one(hub) {
                return;
            }
        }
        self.apply_soon(hub);
    }

    fn apply_one(&mut self, hub: u64) -> bool {
        let Some(node) = self.hubs.get_mut(&hub).filter(|node| node.up) else { return false };
        let index = node.applied;
        let Some(envelope) = self.log.get(index).cloned() else { return false };
        let before = node.state.meta().revision;
        let applied = if self.plant == Some(Plant::OwnTime) {
            let wall = node.wall(self.time.now);
            node.state.apply(&Envelope { proposed_at: wall, ..(*envelope).clone() })
        } else {
            node.state.apply(&envelope)
        };
        node.applied = index + 1;
        if index % 64 == 0 && self.plant == Some(Plant::OlderGeneration) {
            node.older = Some(node.state.clone());
        }
        let revisions = (before, node.state.meta().revision);
        self.judge_entry(hub, index, &envelope, &applied, revisions);
        let waiter = self.hubs.get_mut(&hub).and_then(|node| node.waiters.remove(&envelope.request));
        if let Some(waiter) = waiter {
            self.answer(hub, index, envelope.request, waiter, Some(applied.result.clone()));
        }
        for effect in applied.effects {
            self.effect(hub, effect);
        }
        true
    }

    fn judge_entry(
        &mut self,
        hub: u64,
        index: usize,
        envelope: &Envelope,
        applied: &Applied,
        revisions: (windlass_protocol::ids::StateRevision, windlass_protocol::ids::StateRevision),
    ) {
        let Some(node) = self.hubs.get(&hub) else { return };
        let (state, invariants) = (&node.state, &mut self.invariants);
        let mut findings = vec![
            invariants.replicas.applied(hub, index, &applied.result, state),
            invariants.requests.applied(index, envelope.request, applied, revisions),
            invariants.acknowledged.applied(hub, index, envelope.request, &applied.result),
        ];
        if index == self.first_applied {
            self.first_applied += 1;
            self.history.observe(state);
            findings.push(invariants.generations.in_state(state));
            findings.push(invariants.releases.in_state(state, &self.history));
            findings.push(Rollouts::in_state(state));
            let news = applied.result.is_ok() && !applied.effects.is_empty();
            if news {
                findings.push(Plans::applied(envelope, state));
            }
            if let Err(rejection) = &applied.result {
                self.coverage.rejected += 1;
                self.time.note(format_args!("entry {index} rejected: {rejection}"));
            }
        }
        for finding in findings {
            self.judge(finding);
        }
    }

    /// Somebody hears what became of a proposal; `None` when nobody knows.
    pub(crate) fn answer(
        &mut self,
        hub: u64,
        index: usize,
        request: RequestId,
        waiter: Waiter,
        result: Option<Result<Reply, Rejection>>,
    ) {
        match waiter {
            Waiter::Client => {
                if let Some(Ok(_)) = result {
                    self.invariants.acknowledged.acknowledge(request, index);
                }
            }
            Waiter::Planner | Waiter::Gateway => {}
            Waiter::Enrol { agent, serial } => self.enrolled(&agent, serial, result),
            Waiter::Batch(parts) => self.batch_answered(hub, parts, result.as_ref()),
        }
    }

    pub(crate) fn give_up(&mut self, hub: u64, request: RequestId) {
        let waiter = self.hubs.get_mut(&hub).and_then(|node| node.waiters.remove(&request));
        if let Some(waiter) = waiter {
            self.answer(hub, 0, request, waiter, None);
        }
    }

    /// Writes a snapshot of what a hub has now.
    pub(crate) fn take_snapshot(&mut self, hub: u64) {
        let Some(node) = self.hubs.get_mut(&hub) else { return };
        let mut records = Vec::new();
        let written = snapshot::write::<snapshot::SnapshotError>(&node.state, |record| {
            records.push(record);
            Ok(())
        });
        let applied = node.applied;
        node.snapshot = Some(Snapshot { applied, records });
        self.time.note(format_args!("hub {hub} writes a snapshot at {applied}"));
        if let Err(error) = written {
            self.fail("snapshots can be written", "DESIGN.md 5", error.to_string());
        }
    }

    /// A hub process ends: memory is gone, snapshot and log stay.
    pub(crate) fn stop_hub(&mut self, hub: u64, downtime: Millis) {
        let Some(node) = self.hubs.get_mut(&hub).filter(|node| node.up) else { return };
        node.up = false;
        node.leading = false;
        node.apply_due = false;
        node.older = None;
        self.outboxes.remove(&hub);
        let waiters = std::mem::take(&mut node.waiters);
        self.coverage.hub_restarts += 1;
        self.time.note(format_args!("hub {hub} stops"));
        self.time.after(downtime, Event::StartHub(hub));
        for (request, waiter) in waiters {
            self.answer(hub, 0, request, waiter, None);
        }
        let links: Vec<u64> = self.links.iter().filter(|(_, link)| link.hub == hub).map(|(id, _)| *id).collect();
        for link in links {
            self.break_link(link);
            self.links.remove(&link);
        }
    }

    pub(crate) fn start_hub(&mut self, hub: u64) {
        let Some(node) = self.hubs.get_mut(&hub).filter(|node| !node.up) else { return };
        node.up = true;
        let restored = node.snapshot.as_ref().map(|snapshot| {
            let state = snapshot::read(snapshot.records.iter().map(Vec::as_slice));
            (snapshot.applied, state)
        });
        let (applied, state) = match restored {
            None => (0, State::default()),
            Some((applied, Ok(state))) => (applied, state),
            Some((_, Err(error))) => {
                self.fail("snapshots can be read", "DESIGN.md 5", error.to_string());
                return;
            }
        };
        node.applied = applied + usize::from(self.plant == Some(Plant::SkipsEntry));
        node.state = state;
        self.time.note(format_args!("hub {hub} starts from {applied}"));
        self.time.after(Millis(1_000), Event::Review(hub));
        self.apply_soon(hub);
        if !self.hubs.values().any(|node| node.up && node.leading) {
            self.elect();
        }
    }

    /// A running hub becomes leader and looks at Git; who led before hears of it later.
    pub(crate) fn elect(&mut self) {
        let up: Vec<u64> = self.hubs.iter().filter(|(_, node)| node.up).map(|(id, _)| *id).collect();
        let Some(leader) = self.time.random.pick(&up).copied() else { return };
        let former: Vec<u64> =
            self.hubs.iter().filter(|(id, node)| **id != leader && node.leading).map(|(id, _)| *id).collect();
        for hub in former {
            let delay = if self.time.faults { self.time.random.below(8_000) } else { 0 };
            self.time.after(Millis(delay), Event::StepDown(hub));
        }
        self.leader = leader;
        self.coverage.elections += 1;
        self.time.note(format_args!("hub {leader} leads"));
        let head = self.git.head();
        if let Some(node) = self.hubs.get_mut(&leader) {
            node.commit = head;
            if !node.leading {
                node.leading = true;
                self.time.after(Millis(10), Event::Plan(leader));
            }
        }
    }

    pub(crate) fn step_down(&mut self, hub: u64) {
        let leader = self.leader;
        if let Some(node) = self.hubs.get_mut(&hub).filter(|_| hub != leader) {
            node.leading = false;
        }
    }

    /// The leader measures time.
    pub(crate) fn tick(&mut self) {
        let period = Millis(500);
        let leader = self.leader;
        self.propose(leader, ("hub", Command::Tick { elapsed: period }), Vec::new(), Waiter::Gateway);
        if self.hubs.get(&leader).is_none_or(|node| !node.up) && self.time.random.chance(500) {
            self.elect();
        }
        self.time.after(period, Event::Tick);
    }
}

/// An entry for the trace.
fn describe(envelope: &Envelope) -> String {
    let text = match &envelope.command {
        Command::Targets { owner, changes, .. } => {
            let names: Vec<&str> = changes.iter().map(|change| change.application.name.as_str()).collect();
            format!("Targets of {owner}: {}", names.join(" "))
        }
        Command::Write { writes } => {
            let names = writes.iter().map(|write| match write {
                windlass_hub_core::command::Write::Create { key, .. } => format!("create {key}"),
                windlass_hub_core::command::Write::Replace { key, part, .. } => format!("replace {key} {part:?}"),
                windlass_hub_core::command::Write::Delete { key } => format!("delete {key}"),
            });
            names.collect::<Vec<_>>().join(", ")
        }
        Command::Batch { hub, sessions, receipts } => {
            let parts: Vec<String> = receipts.iter().map(describe_receipts).collect();
            format!("batch of hub {hub}: {sessions:?} {}", parts.join("; "))
        }
        other => {
            let text = format!("{other:?}");
            text.chars().take(120).collect()
        }
    };
    format!("{:?} by {}: {text}", envelope.request, envelope.source)
}

fn describe_receipts(batch: &ReceiptBatch) -> String {
    let ReceiptBatch { cluster, incarnation, up_to, receipts } = batch;
    let names = receipts.iter().map(|receipt| match receipt {
        Receipt::V1(receipt) => format!("{} {:?} {:?}", receipt.application.name, receipt.sync, receipt.health),
        Receipt::Ended { application, uid } => {
            format!("{}/{} ended", application.name, uid.get(..4).unwrap_or_default())
        }
        Receipt::Orphaned { application, .. } => format!("{} orphaned", application.name),
        Receipt::EndFailed { application, .. } => format!("{} cannot end", application.name),
    });
    let names = names.collect::<Vec<_>>().join(", ");
    format!("receipts of {cluster}/{incarnation} up to {up_to}: {names}")
}
