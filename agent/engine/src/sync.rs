//! The state machine of one assignment.
//!
//! ```text
//! new ──► handle_kinds, handle_desired (each of missing_bundles), handle_live, handle_outcome, handle_assignment, end
//!            │ after each of them:
//!            ├─► poll_action until None; perform side by side
//!            ├─► poll_timeout: call poll_action again at that time
//!            └─► status: make receipts; acknowledge_report when one is acknowledged
//! ```

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;
use windlass_protocol::{
    ids::Digest,
    manifest::ResourceKey,
    message::{Assignment, Cascade},
    status::{HealthStatus, SyncStatus},
    time::Millis,
};

use crate::{
    action::{Action, ActionId, LiveChange, Outcome},
    discovery::Kinds,
    resume::ResumePoint,
    settings::Environment,
    status::StatusView,
};

/// Reconciles one assignment. All times come from one monotonic clock of the shell (best: wall time at start plus elapsed time, so
/// that reports can be shown to people).
#[derive(Debug)]
pub struct Reconciler {
    environment: Arc<Environment>,
    assignment: Assignment,
    bundles: BTreeMap<Digest, Result<Vec<Value>, String>>,
    kinds: Option<Arc<Kinds>>,
    resume: ResumePoint,
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
        let resume = resume.filter(|point| point.uid == assignment.uid).unwrap_or_default();
        Self { environment, assignment, bundles: BTreeMap::new(), kinds: None, resume }
    }

    /// The assignment that is worked on.
    #[must_use]
    pub const fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    /// A newer desired state. Same uid; another uid is another assignment (end this one, make a new machine).
    pub fn handle_assignment(&mut self, assignment: Assignment, _now: Millis) {
        self.assignment = assignment;
    }

    /// Digests of the bundles whose content is needed and was not given yet.
    #[must_use]
    pub fn missing_bundles(&self) -> Vec<Digest> {
        Vec::new()
    }

    /// The content of a bundle: all of its manifests, or why it cannot be had (reported; may be given again later).
    pub fn handle_desired(&mut self, digest: Digest, manifests: Result<Vec<Value>, String>, _now: Millis) {
        self.bundles.insert(digest, manifests);
    }

    /// What the API server serves; at start, and whenever it changed. Shared by all machines of a shell.
    pub fn handle_kinds(&mut self, kinds: Arc<Kinds>, _now: Millis) {
        self.kinds = Some(kinds);
    }

    /// Whether changes of this object concern this assignment: desired, managed, or tracked by it. `tracking` is the value of
    /// the tracking annotation. A shell may give more to [`Self::handle_live`] than is wanted.
    #[must_use]
    pub fn wants(&self, _key: &ResourceKey, _tracking: Option<&str>) -> bool {
        false
    }

    /// One change from a watch. Older versions than the known one are ignored.
    pub fn handle_live(&mut self, _change: LiveChange, _now: Millis) {}

    /// The outcome of an action, once. Unknown ids are ignored.
    pub fn handle_outcome(&mut self, _action: ActionId, _outcome: Outcome, _now: Millis) {}

    /// Compare everything again: observed kinds are asked for anew.
    pub fn handle_refresh(&mut self, _now: Millis) {}

    /// Ends the assignment as its tombstone says; [`StatusView::end`] becomes `Done` when nothing is left. Final.
    pub fn end(&mut self, cascade: Cascade, _now: Millis) {
        self.resume.ending = Some(cascade);
    }

    /// The next thing to do, if any may be begun now.
    pub fn poll_action(&mut self, _now: Millis) -> Option<Action> {
        None
    }

    /// When [`Self::poll_action`] is worth calling although nothing was handled.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Millis> {
        None
    }

    /// What to report.
    #[must_use]
    pub fn status(&self) -> StatusView {
        StatusView {
            application: self.assignment.application.clone(),
            uid: self.assignment.uid.clone(),
            release: self.assignment.release,
            target: None,
            applied: None,
            sync: SyncStatus::Unknown,
            health: HealthStatus::Unknown,
            worst_health: HealthStatus::Unknown,
            message: String::new(),
            operation: None,
            resources: Vec::new(),
            sync_result: Vec::new(),
            conditions: Vec::new(),
            end: None,
        }
    }

    /// The last reported status is acknowledged by the hub: `worst_health` starts anew from the current health.
    pub fn acknowledge_report(&mut self) {}

    /// What has to be on the disk for a new machine to continue where this one is. The machine asks for it by
    /// [`crate::Work::Persist`] itself; for inspection and tests.
    #[must_use]
    pub const fn resume_point(&self) -> &ResumePoint {
        &self.resume
    }
}
