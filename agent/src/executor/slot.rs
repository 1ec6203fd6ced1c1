//! One assignment in the executor: its machine, and what the shell has to remember about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use windlass_engine::{ActionId, Environment, GroupKind, LiveChange, Outcome, Reconciler, ResumePoint};
use windlass_protocol::{
    ids::Digest,
    manifest::{self, ResourceKey, TRACKING_ANNOTATION},
    message::Assignment,
    time::Millis,
};

use crate::cluster::ResourceType;

/// An assignment at work.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) reconciler: Reconciler,
    /// In which version each kind is observed.
    observed: BTreeMap<GroupKind, ResourceType>,
    /// Observations under way: changes wait for their answer, which may be older.
    observing: BTreeMap<ActionId, (GroupKind, Vec<LiveChange>)>,
    /// Bundles being read from the disk.
    pub(super) loading: BTreeSet<Digest>,
    /// Bundles that could not be read; given again after the next change of the assignment.
    pub(super) failed: BTreeSet<Digest>,
    /// When the status is to be reported.
    pub(super) report_at: Option<Millis>,
    /// When everything is compared again.
    resync_at: Millis,
    resync: Millis,
    /// A tombstone is being carried out.
    pub(super) ending: bool,
    /// The end is being noted on the disk.
    pub(super) forgetting: bool,
}

impl Slot {
    pub(super) fn new(
        assignment: Assignment,
        resume: Option<ResumePoint>,
        environment: Arc<Environment>,
        now: Millis,
        resync: Millis,
    ) -> Self {
        // Spread over the interval by name, so that the comparisons of many assignments do not fall together.
        let name = Digest::of(assignment.application.to_string().as_bytes());
        let spread = u64::from_le_bytes(*name.0.first_chunk::<8>().unwrap_or(&[0; 8])) % resync.0.max(1);
        Self {
            reconciler: Reconciler::new(assignment, resume, environment, now),
            observed: BTreeMap::new(),
            observing: BTreeMap::new(),
            loading: BTreeSet::new(),
            failed: BTreeSet::new(),
            report_at: None,
            resync_at: now.plus(resync).plus(Millis(spread)),
            resync,
            ending: false,
            forgetting: false,
        }
    }

    /// Types that have to be watched for it.
    pub(super) fn observed(&self) -> impl Iterator<Item = &ResourceType> {
        self.observed.values()
    }

    /// Notes that an observation of a kind, in this version, is under way.
    pub(super) fn observe(&mut self, action: ActionId, kind: GroupKind, resource: ResourceType) {
        self.observed.insert(kind.clone(), resource);
        self.observing.insert(action, (kind, Vec::new()));
    }

    /// Brings an outcome to the machine, then the changes that had to wait for it.
    pub(super) fn finish(&mut self, action: ActionId, outcome: Outcome, now: Millis) {
        self.reconciler.handle_outcome(action, outcome, now);
        if let Some((_, waiting)) = self.observing.remove(&action) {
            for change in waiting {
                self.reconciler.handle_live(change, now);
            }
        }
    }

    /// Brings a change of an object to the machine, if it concerns it.
    pub(super) fn route(&mut self, resource: &ResourceType, change: &LiveChange, now: Millis) -> bool {
        let kind = GroupKind::new(&*resource.group, &*resource.kind);
        if self.observed.get(&kind) != Some(resource) {
            return false;
        }
        let wanted = match change {
            LiveChange::Present(object) => {
                let tracking = manifest::annotation(object, TRACKING_ANNOTATION);
                self.reconciler.wants(&ResourceKey::of(object), tracking)
            }
            LiveChange::Gone { key, .. } => self.reconciler.wants(key, None),
        };
        if !wanted {
            return false;
        }
        match self.observing.values_mut().find(|(observing, _)| *observing == kind) {
            Some((_, waiting)) => waiting.push(change.clone()),
            None => self.reconciler.handle_live(change.clone(), now),
        }
        true
    }

    /// Compares everything again when that is due.
    pub(super) fn resync(&mut self, now: Millis) -> bool {
        let due = self.resync_at <= now;
        if due {
            self.resync_at = now.plus(self.resync);
            self.reconciler.handle_refresh(now);
        }
        due
    }

    /// When something is due.
    pub(super) fn next_wake(&self) -> Option<Millis> {
        let timers = [self.reconciler.poll_timeout(), self.report_at, Some(self.resync_at)];
        timers.into_iter().flatten().min()
    }
}
