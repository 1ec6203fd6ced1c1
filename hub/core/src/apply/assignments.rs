//! Assignments: what each cluster should run, how it changes, and how it ends. Absence is never deletion: only a tombstone,
//! made here, ends an assignment on its cluster.

use std::sync::Arc;

use serde_json::{Value, json};
use windlass_protocol::{
    ids::{Generation, NamespacedName, OperationId, Release},
    json,
    message::{Cascade, Operation, Tombstone},
    resource::{Kind, REFRESH_ANNOTATION, RESOURCES_FINALIZER, RESOURCES_FINALIZER_FOREGROUND, RolloutCause},
};

use super::{
    Transaction, not_found,
    objects::{drop_resource_finalizers, finalizers},
};
use crate::{
    command::{ENVELOPE_OBJECTS_MAX, Rejection, TargetChange},
    effect::Effect,
    state::{AssignmentRecord, ObjectKey},
    status,
};

/// Assignments of one cluster (DESIGN.md section 10).
const ASSIGNMENTS_PER_CLUSTER_MAX: usize = 1_000;

impl Transaction {
    pub(super) fn targets(
        &mut self,
        rollout: &NamespacedName,
        rollout_uid: &str,
        owner: &ObjectKey,
        cause: RolloutCause,
        changes: &[TargetChange],
    ) -> Result<(), Rejection> {
        let (count, limit) = (changes.len(), ENVELOPE_OBJECTS_MAX);
        if count > limit {
            return Err(Rejection::Invalid(format!("{count} changes in one command; the limit is {limit}")));
        }
        let mut members = Vec::new();
        for change in changes {
            let key = ObjectKey::new(
                Kind::Application,
                change.application.namespace.as_str(),
                change.application.name.as_str(),
            );
            // A planner may be behind: what it says about another object of the same name, or one that goes, is void.
            let current = self.state.object(&key).is_some_and(|record| record.uid == change.uid && !record.deleting);
            if !current {
                continue;
            }
            if self.target(change)? {
                members.push(change.application.clone());
            }
            self.note_conditions(change);
            self.dirty_applications.insert(change.application.clone());
        }
        if !members.is_empty() {
            self.begin_rollout(rollout, rollout_uid, owner, cause, &members)?;
        }
        Ok(())
    }

    /// Takes over what the planner found; says whether the target digest changed.
    fn target(&mut self, change: &TargetChange) -> Result<bool, Rejection> {
        let Some(cluster) = &change.cluster else { return Ok(false) };
        if self.state.cluster(cluster).is_none() {
            return Ok(false);
        }
        let known = self.state.assignment(&change.application).cloned();
        let moved = known.as_ref().is_some_and(|record| record.cluster != *cluster || record.uid != change.uid);
        if moved {
            // As Argo CD: what a former destination runs stays there, without an owner.
            self.end_assignment(&change.application, Cascade::Orphan);
        }
        let known = known.filter(|_| !moved);
        let before = known.as_deref().cloned();
        let mut record = if let Some(record) = &before {
            record.clone()
        } else {
            let count = self.state.assignments_of(cluster).count();
            if count >= ASSIGNMENTS_PER_CLUSTER_MAX {
                return Err(Rejection::Forbidden(format!(
                    "cluster {cluster} has {count} assignments; the limit is {ASSIGNMENTS_PER_CLUSTER_MAX}"
                )));
            }
            new_assignment(change, cluster)
        };
        record.policy = change.policy.clone();
        record.namespace.clone_from(&change.namespace);
        record.tracking_name.clone_from(&change.tracking_name);
        // The same bundle from a later commit is no change: its revision stays the one that made it.
        let new_digest = change.target.as_ref().map(|bundle| bundle.digest);
        let changed = new_digest.is_some() && new_digest != record.target.as_ref().map(|bundle| bundle.digest);
        if changed {
            record.target.clone_from(&change.target);
        }
        if before.as_ref() != Some(&record) {
            self.put_assignment(&change.application, record);
        }
        Ok(changed)
    }

    /// Stores an assignment and tells its agent.
    pub(super) fn put_assignment(&mut self, application: &NamespacedName, mut record: AssignmentRecord) {
        let cluster = record.cluster.clone();
        record.changed_at = self.next_generation(&cluster);
        self.state.assignments.insert_mut(application.clone(), Arc::new(record));
        self.dirty_applications.insert(application.clone());
    }

    /// Stores what the agent need not hear of.
    pub(super) fn keep_assignment(&mut self, application: &NamespacedName, record: AssignmentRecord) {
        self.state.assignments.insert_mut(application.clone(), Arc::new(record));
        self.dirty_applications.insert(application.clone());
    }

    fn next_generation(&mut self, cluster: &str) -> Generation {
        let Some(record) = self.state.cluster(cluster).cloned() else { return Generation::ZERO };
        let mut record = (*record).clone();
        record.generation = record.generation.next();
        let generation = record.generation;
        self.put_cluster(cluster, record);
        let epoch = self.state.meta.epoch;
        // One notice per cluster and envelope, with the last generation.
        self.effects.retain(|effect| !matches!(effect, Effect::Desired { cluster: other, .. } if other == cluster));
        self.effects.push(Effect::Desired { cluster: cluster.to_owned(), epoch, generation });
        generation
    }

    /// Ends an assignment by a tombstone for its agent.
    pub(super) fn end_assignment(&mut self, application: &NamespacedName, cascade: Cascade) {
        let Some(record) = self.state.assignment(application).cloned() else { return };
        self.state.assignments.remove_mut(application);
        self.supersede_member(application, &record);
        let generation = self.next_generation(&record.cluster);
        if let Some(cluster) = self.state.cluster(&record.cluster).cloned() {
            let mut cluster = (*cluster).clone();
            let tombstone = Tombstone { application: application.clone(), uid: record.uid.clone(), cascade };
            cluster.tombstones.insert(generation, tombstone);
            self.put_cluster(&record.cluster, cluster);
        }
    }

    /// An Application began to be deleted.
    pub(super) fn begin_deletion(&mut self, application: &NamespacedName) {
        let key = application_key(application);
        let Some(record) = self.state.object(&key).cloned() else { return };
        let value = record.value();
        if self.state.assignment(application).is_some() {
            self.end_assignment(application, cascade(&value));
        }
        self.dirty_applications.insert(application.clone());
    }

    /// An Application is gone.
    pub(super) fn forget_application(&mut self, application: &NamespacedName, uid: &str) {
        if self.state.assignment(application).is_some_and(|record| record.uid == uid) {
            self.end_assignment(application, Cascade::Orphan);
        }
    }

    pub(super) fn operate(
        &mut self,
        application: &NamespacedName,
        uid: &str,
        operation: &Operation,
        subject: &str,
    ) -> Result<(), Rejection> {
        self.take_operation(application, uid)?;
        let key = application_key(application);
        let record = self
            .state
            .assignment(application)
            .cloned()
            .ok_or_else(|| Rejection::Precondition(format!("{key} has no assignment yet: see its conditions")))?;
        let mut record = (*record).clone();
        record.last_operation = OperationId(record.last_operation.0.saturating_add(1));
        let mut operation = operation.clone();
        operation.id = record.last_operation;
        if operation.initiated_by.is_empty() {
            subject.clone_into(&mut operation.initiated_by);
        }
        record.operation = Some(operation);
        self.put_assignment(application, record);
        Ok(())
    }

    pub(super) fn refuse_operation(
        &mut self,
        application: &NamespacedName,
        uid: &str,
        message: &str,
    ) -> Result<(), Rejection> {
        self.take_operation(application, uid)?;
        let now = self.wall.rfc3339();
        self.edit_status(&application_key(application), |status| {
            let state = json!({
                "phase": "Error", "message": message, "startedAt": now, "finishedAt": now,
                "operation": {"sync": {}}, "retryCount": 0,
            });
            json::set(status, &["operationState"], state);
        });
        Ok(())
    }

    /// Removes the request for an operation from the object.
    fn take_operation(&mut self, application: &NamespacedName, uid: &str) -> Result<(), Rejection> {
        self.edit_application(application, uid, |value| drop(json::remove(value, &["operation"])))
    }

    pub(super) fn refreshed(&mut self, application: &NamespacedName, uid: &str, hard: bool) -> Result<(), Rejection> {
        let now = self.wall.rfc3339();
        self.edit_application(application, uid, |value| {
            json::remove(value, &["metadata", "annotations", REFRESH_ANNOTATION]);
            json::set(value, &["status", "reconciledAt"], json!(now));
        })?;
        if let Some(record) = self.state.assignment(application) {
            let (cluster, application) = (record.cluster.clone(), application.clone());
            self.effects.push(Effect::Refresh { cluster, application, hard });
        }
        Ok(())
    }

    fn edit_application(
        &mut self,
        application: &NamespacedName,
        uid: &str,
        edit: impl FnOnce(&mut Value),
    ) -> Result<(), Rejection> {
        let key = application_key(application);
        let record = self.state.object(&key).cloned().ok_or_else(|| not_found(&key))?;
        if record.uid != uid {
            return Err(not_found(&key));
        }
        let mut value = record.value();
        edit(&mut value);
        self.put(&key, value, record.sealed.clone());
        Ok(())
    }

    fn note_conditions(&mut self, change: &TargetChange) {
        let now = self.wall.rfc3339();
        self.edit_status(&application_key(&change.application), |value| {
            status::set_conditions(value, &change.conditions, &now);
            if !change.source_type.is_empty() {
                json::set(value, &["sourceType"], json!(change.source_type));
            }
            if change.target.is_some() {
                json::set(value, &["summary"], json!({"images": change.images}));
            }
        });
    }

    /// Computes the status of an Application again, and finishes its deletion when nothing is left of it.
    pub(super) fn settle_application(&mut self, application: &NamespacedName) {
        let key = application_key(application);
        let Some(record) = self.state.object(&key).cloned() else { return };
        let mut value = record.value();
        if record.deleting {
            let waits_for = self.tombstone_holder(application, &record.uid);
            let Some(online) = waits_for else {
                drop_resource_finalizers(&mut value);
                if finalizers(&value).is_empty() {
                    self.remove(&key);
                } else {
                    self.put(&key, value, record.sealed.clone());
                }
                return;
            };
            status::deletion(&mut value, online, &self.wall.rfc3339());
        } else {
            let assignment = self.state.assignment(application).cloned();
            status::application(&mut value, assignment.as_deref(), self.wall);
        }
        self.put(&key, value, record.sealed.clone());
    }

    /// Whether a cluster still has to carry out the end of this Application, and whether its agent is connected.
    fn tombstone_holder(&self, application: &NamespacedName, uid: &str) -> Option<bool> {
        let holds = |tombstone: &Tombstone| tombstone.uid == uid && tombstone.application == *application;
        let mut clusters = self.state.clusters.iter();
        let holder = clusters.find(|(_, record)| record.tombstones.values().any(holds));
        holder.map(|(_, record)| record.session.is_some())
    }
}

pub(super) fn application_key(application: &NamespacedName) -> ObjectKey {
    ObjectKey { kind: Kind::Application, name: application.clone() }
}

fn new_assignment(change: &TargetChange, cluster: &str) -> AssignmentRecord {
    AssignmentRecord {
        uid: change.uid.clone(),
        cluster: cluster.to_owned(),
        tracking_name: change.tracking_name.clone(),
        namespace: change.namespace.clone(),
        target: None,
        released: None,
        last_good: None,
        release: Release::ZERO,
        policy: change.policy.clone(),
        operation: None,
        last_operation: OperationId::ZERO,
        changed_at: Generation::ZERO,
        receipt: None,
        rollout: None,
    }
}

/// What the finalizers of a deleted Application ask for.
fn cascade(value: &Value) -> Cascade {
    let finalizers = finalizers(value);
    if finalizers.contains(&RESOURCES_FINALIZER_FOREGROUND) {
        Cascade::Foreground
    } else if finalizers.iter().any(|name| name.starts_with(RESOURCES_FINALIZER)) {
        Cascade::Background
    } else {
        Cascade::Orphan
    }
}
