//! What an assignment reports: the view from which receipts and details are made.

use windlass_protocol::{
    ids::{Digest, NamespacedName, Release},
    message::{AssignmentReceipt, Detail, OperationReport, RECEIPT_MESSAGE_MAX, SyncResultResource},
    status::{Condition, HealthStatus, ResourceStatus, SyncStatus},
    time::Millis,
};

/// State of one assignment. Times are the shell's `now` values.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusView {
    /// Namespace and name of the Application.
    pub application: NamespacedName,
    /// Its uid.
    pub uid: String,
    /// The release that is worked on.
    pub release: Release,
    /// What was compared against; `None` while its content is not here.
    pub target: Option<Digest>,
    /// The bundle of the last successful whole sync.
    pub applied: Option<Digest>,
    /// Compared with the target.
    pub sync: SyncStatus,
    /// Worst of all resources, now.
    pub health: HealthStatus,
    /// Worst since [`crate::Reconciler::acknowledge_report`].
    pub worst_health: HealthStatus,
    /// Why health or comparison is as it is; whole.
    pub message: String,
    /// The newest operation.
    pub operation: Option<OperationReport>,
    /// Every desired or managed object, sorted by key.
    pub resources: Vec<ResourceStatus>,
    /// What the newest operation did.
    pub sync_result: Vec<SyncResultResource>,
    /// What is wrong, sorted.
    pub conditions: Vec<Condition>,
    /// Set once the assignment is being ended.
    pub end: Option<End>,
}

/// How far the end of an assignment is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Under way; what it waits for.
    Pending(String),
    /// Something refuses to go; tried again with backoff. Why.
    Failing(String),
    /// Nothing is left: the shell may forget the assignment.
    Done,
}

impl StatusView {
    /// The receipt for the hub; long messages are cut.
    #[must_use]
    pub fn receipt(&self, observed_at: Millis, detail: Option<Digest>) -> AssignmentReceipt {
        let cut = |text: &str| text.chars().take(RECEIPT_MESSAGE_MAX).collect::<String>();
        AssignmentReceipt {
            application: self.application.clone(),
            uid: self.uid.clone(),
            release: self.release,
            target: self.target,
            applied: self.applied,
            sync: self.sync,
            health: self.health,
            worst_health: self.worst_health,
            message: cut(&self.message),
            operation: self
                .operation
                .clone()
                .map(|operation| OperationReport { message: cut(&operation.message), ..operation }),
            detail,
            observed_at,
        }
    }

    /// The detail blob.
    #[must_use]
    pub fn detail(&self) -> Detail {
        Detail {
            resources: self.resources.clone(),
            sync_result: self.sync_result.clone(),
            conditions: self.conditions.clone(),
        }
    }
}
