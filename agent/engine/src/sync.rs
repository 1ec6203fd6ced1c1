//! The state machine of one assignment.
//!
//! ```text
//! new ──► handle_kinds, handle_desired (each of missing_bundles), handle_live, handle_outcome, handle_assignment, end
//!            │ after each of them:
//!            ├─► poll_action until None; perform side by side
//!            ├─► poll_timeout: call poll_action again at that time
//!            └─► status: make receipts; acknowledge_report when one is acknowledged
//! ```
//!
//! Level-triggered: each poll looks at everything that is known and decides afresh. What must not be repeated is in the
//! [`ResumePoint`], which is on the disk before the actions that depend on it.
//!
//! | file | part |
//! |---|---|
//! | `world` | live objects, observation, inventory |
//! | `compare` | verdict of each object against a bundle |
//! | `observe` | which kinds and bundles are needed |
//! | `decide` | whether an operation begins or stops |
//! | `plan`, `run`, `outcome` | tasks of an operation, their order, what became of them |
//! | `end` | tombstones |
//! | `report` | status |

mod compare;
mod decide;
mod end;
mod observe;
mod outcome;
mod plan;
mod report;
mod run;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::Arc,
};

use serde_json::Value;
use windlass_protocol::{
    ids::Digest,
    manifest::ResourceKey,
    message::{Assignment, Cascade, SyncResultResource},
    status::{Condition, HealthStatus},
    time::Millis,
};

use self::{compare::Comparison, end::Ending, outcome::Purpose, run::Operation, world::World};
use crate::{
    action::{Action, ActionId, LiveChange, Outcome, Work},
    diff::IgnoreRules,
    discovery::Kinds,
    drift::Heals,
    pair,
    resume::{Baseline, InventoryItem, ResumePoint},
    settings::Environment,
};

/// Reconciles one assignment. All times come from one monotonic clock of the shell (best: wall time at start plus elapsed time, so
/// that reports can be shown to people).
pub struct Reconciler {
    environment: Arc<Environment>,
    assignment: Assignment,
    ignore: IgnoreRules,
    kinds: Option<Arc<Kinds>>,
    bundles: BTreeMap<Digest, Result<Arc<Vec<Value>>, String>>,
    comparisons: BTreeMap<Digest, Comparison>,
    world: World,
    /// Without inventory and baselines, which are in the world.
    record: ResumePoint,
    record_changed: bool,
    record_retry: Millis,
    operation: Option<Operation>,
    /// Of the newest operation, once it is over.
    results: Vec<SyncResultResource>,
    heals: Heals,
    /// Objects that were in sync with the released bundle: only these are healed after a failed attempt.
    settled: BTreeSet<ResourceKey>,
    /// Objects to delete on the side: hooks that are done.
    cleanups: VecDeque<Work>,
    ending: Option<Ending>,
    guard: Option<Condition>,
    in_flight: BTreeMap<ActionId, Purpose>,
    next_action: u64,
    unavailable: Unavailable,
    refresh: Refresh,
    /// The version of the world for which nothing was left to ask for.
    looked: Option<u64>,
    look_at: Option<Millis>,
    worst: Option<HealthStatus>,
    timeout: Option<Millis>,
}

/// Backoff while the API server does not answer.
#[derive(Debug, Default)]
struct Unavailable {
    failures: u32,
    until: Millis,
    message: String,
}

/// When discovery may be asked again.
#[derive(Debug, Default)]
struct Refresh {
    wanted: bool,
    attempts: u32,
    not_before: Millis,
}

impl Reconciler {
    /// Starts with what the checkpoint holds. A resume point of another Application uid is ignored.
    #[must_use]
    pub fn new(
        assignment: Assignment,
        resume: Option<ResumePoint>,
        environment: Arc<Environment>,
        _now: Millis,
    ) -> Self {
        let mut record = resume.filter(|point| point.uid == assignment.uid).unwrap_or_default();
        record.uid.clone_from(&assignment.uid);
        let inventory = std::mem::take(&mut record.inventory).into_iter().map(|item| (item.key, item.uid));
        let world = World::new(inventory, std::mem::take(&mut record.baselines));
        let ignore = ignore_rules(&assignment, &environment);
        let operation = record.running.as_ref().map(|_| Operation::resumed());
        let ending = record.ending.map(Ending::new);
        Self {
            environment,
            assignment,
            ignore,
            kinds: None,
            bundles: BTreeMap::new(),
            comparisons: BTreeMap::new(),
            world,
            record,
            record_changed: false,
            record_retry: Millis(0),
            operation,
            results: Vec::new(),
            heals: Heals::default(),
            settled: BTreeSet::new(),
            cleanups: VecDeque::new(),
            ending,
            guard: None,
            in_flight: BTreeMap::new(),
            next_action: 0,
            unavailable: Unavailable::default(),
            refresh: Refresh::default(),
            looked: None,
            look_at: None,
            worst: None,
            timeout: None,
        }
    }

    /// The assignment that is worked on.
    #[must_use]
    pub const fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    /// A newer desired state. Same uid; another uid is another assignment (end this one, make a new machine).
    pub fn handle_assignment(&mut self, assignment: Assignment, _now: Millis) {
        let placed_otherwise = assignment.namespace != self.assignment.namespace
            || assignment.policy.permitted != self.assignment.policy.permitted
            || assignment.policy.ignore_differences != self.assignment.policy.ignore_differences
            || assignment.tracking_name != self.assignment.tracking_name;
        if assignment.released.as_ref().map(|it| it.digest) != self.assignment.released.as_ref().map(|it| it.digest) {
            self.settled.clear();
        }
        self.ignore = ignore_rules(&assignment, &self.environment);
        self.assignment = assignment;
        self.looked = None;
        if placed_otherwise {
            self.comparisons.clear();
        }
        let needed = self.needed_bundles();
        self.bundles.retain(|digest, _| needed.contains(digest));
        self.comparisons.retain(|digest, _| needed.contains(digest));
    }

    /// Digests of the bundles whose content is needed and was not given yet.
    #[must_use]
    pub fn missing_bundles(&self) -> Vec<Digest> {
        self.needed_bundles().into_iter().filter(|digest| !self.bundles.contains_key(digest)).collect()
    }

    /// The content of a bundle: all of its manifests, or why it cannot be had (reported; may be given again later).
    pub fn handle_desired(&mut self, digest: Digest, manifests: Result<Vec<Value>, String>, _now: Millis) {
        if self.needed_bundles().contains(&digest) {
            self.comparisons.remove(&digest);
            self.bundles.insert(digest, manifests.map(Arc::new));
        }
    }

    /// What the API server serves; at start, and whenever it changed. Shared by all machines of a shell.
    pub fn handle_kinds(&mut self, kinds: Arc<Kinds>, _now: Millis) {
        if self.kinds.as_ref() != Some(&kinds) {
            self.comparisons.clear();
        }
        self.kinds = Some(kinds);
        self.looked = None;
    }

    /// Whether changes of this object concern this assignment: desired, managed, or tracked by it. `tracking` is the value of
    /// the tracking annotation. A shell may give more to [`Self::handle_live`] than is wanted.
    #[must_use]
    pub fn wants(&self, key: &ResourceKey, tracking: Option<&str>) -> bool {
        let tracked = tracking.and_then(|tracking| pair::names_itself(tracking, key));
        tracked == Some(&self.assignment.tracking_name)
            || self.world.asked(key)
            || self.world.get(key).is_some()
            || self.world.inventory().contains_key(key)
    }

    /// One change from a watch. Older versions than the known one are ignored.
    pub fn handle_live(&mut self, change: LiveChange, _now: Millis) {
        match change {
            LiveChange::Present(object) => {
                let key = ResourceKey::of(&object);
                let tracking = pair::tracked_by(&object).is_some_and(|name| name == self.assignment.tracking_name);
                if tracking || self.wants(&key, None) {
                    self.with_world(|world, lens| world.insert(object, lens));
                }
            }
            LiveChange::Gone { key, uid } => self.with_world(|world, lens| world.gone(&key, Some(&uid), lens)),
        }
        self.note_health();
    }

    /// Compare everything again: observed kinds are asked for anew.
    pub fn handle_refresh(&mut self, _now: Millis) {
        self.world.forget(None);
    }

    /// Ends the assignment as its tombstone says; [`crate::StatusView::end`] becomes `Done` when nothing is left. Final; only the
    /// cascade may change.
    pub fn end(&mut self, cascade: Cascade, _now: Millis) {
        if self.record.ending != Some(cascade) {
            self.record.ending = Some(cascade);
            self.record_changed = true;
            self.ending = Some(Ending::new(cascade));
        }
    }

    /// The next thing to do, if any may be begun now. Call until `None`.
    pub fn poll_action(&mut self, now: Millis) -> Option<Action> {
        self.timeout = None;
        self.bring_up_to_date();
        // Each turn either acts, waits, or moves an operation forward by an event of its life; a handful are enough.
        for _ in 0..TURNS_MAX {
            if self.is_persisting() {
                return None;
            }
            if self.record_changed {
                return self.persist(now);
            }
            if let Some(action) = self.poll_observe(now) {
                return Some(action);
            }
            if self.in_flight.len() >= self.environment.settings.concurrency {
                return None;
            }
            if let Some(work) = self.cleanups.pop_front() {
                return Some(self.act(work, Purpose::Cleanup));
            }
            if now < self.unavailable.until {
                self.wake(self.unavailable.until);
                return None;
            }
            if self.ending.is_some() {
                return self.poll_end(now);
            }
            self.decide(now);
            match self.step(now) {
                run::Step::Act(work, purpose) => return Some(self.act(*work, purpose)),
                run::Step::Wait if self.record_changed || !self.cleanups.is_empty() => {}
                run::Step::Wait => return None,
                run::Step::Again => {}
            }
        }
        self.wake(now);
        None
    }

    /// When [`Self::poll_action`] is worth calling although nothing was handled.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Millis> {
        self.timeout
    }

    /// The last reported status is acknowledged by the hub: `worst_health` starts anew from the current health.
    pub fn acknowledge_report(&mut self) {
        self.worst = None;
        self.note_health();
    }

    /// What has to be on the disk for a new machine to continue where this one is. The machine asks for it by
    /// [`Work::Persist`] itself; for inspection and tests.
    #[must_use]
    pub fn resume_point(&self) -> ResumePoint {
        let inventory = self.world.inventory().iter();
        let baselines = self.world.baselines.iter();
        ResumePoint {
            inventory: inventory.map(|(key, uid)| InventoryItem { key: key.clone(), uid: uid.clone() }).collect(),
            baselines: baselines
                .map(|(key, (sent, fields))| Baseline { key: key.clone(), sent: *sent, fields: fields.clone() })
                .collect(),
            ..self.record.clone()
        }
    }

    fn is_persisting(&self) -> bool {
        self.in_flight.values().any(|purpose| matches!(purpose, Purpose::Persist))
    }

    fn persist(&mut self, now: Millis) -> Option<Action> {
        if now < self.record_retry {
            self.wake(self.record_retry);
            return None;
        }
        self.record_changed = false;
        let point = Box::new(self.resume_point());
        Some(self.act(Work::Persist(point), Purpose::Persist))
    }

    fn act(&mut self, work: Work, purpose: Purpose) -> Action {
        let id = self.next_id();
        self.register(id, purpose);
        Action { id, work }
    }

    const fn next_id(&mut self) -> ActionId {
        self.next_action += 1;
        ActionId(self.next_action)
    }

    fn register(&mut self, id: ActionId, purpose: Purpose) {
        if let Purpose::Task { index, .. } = &purpose
            && let Some(task) = self.operation.as_mut().and_then(|operation| operation.task_mut(*index))
        {
            task.state = plan::TaskState::InFlight(id);
        }
        self.in_flight.insert(id, purpose);
    }

    /// Asks to be polled again at a time; the earliest counts.
    fn wake(&mut self, at: Millis) {
        self.timeout = Some(self.timeout.map_or(at, |known| known.min(at)));
    }
}

/// Turns of one poll.
const TURNS_MAX: usize = 64;

fn ignore_rules(assignment: &Assignment, environment: &Environment) -> IgnoreRules {
    let own = assignment.policy.ignore_differences.iter().map(|json| &json.0);
    IgnoreRules::new(own.chain(&environment.settings.ignore_differences))
}

impl fmt::Debug for Reconciler {
    /// Without manifests: some are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconciler")
            .field("application", &self.assignment.application)
            .field("sequence", &self.record.sequence)
            .field("in_flight", &self.in_flight)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// One outcome enters through the file that knows what it belongs to.
impl Reconciler {
    /// The outcome of an action, once. Unknown ids are ignored.
    pub fn handle_outcome(&mut self, action: ActionId, outcome: Outcome, now: Millis) {
        self.settle(action, outcome, now);
        self.note_health();
    }
}
