//! Rollouts: every change of desired digests goes through one, also when it has one step and no gate.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::json;
use windlass_protocol::{
    ids::NamespacedName,
    json,
    resource::{Kind, RolloutCause, RolloutMember, RolloutPhase, RolloutSpec, RolloutStep},
    status::{HealthStatus, OperationPhase},
};

use super::Transaction;
use crate::{
    command::{Rejection, Write},
    state::{AssignmentRecord, MemberState, ObjectKey, RolloutRecord, is_proven},
};

/// Finished Rollouts kept per owner.
const FINISHED_PER_OWNER_MAX: usize = 10;
/// Members listed in the API object; the state has all of them.
const MEMBERS_LISTED_MAX: usize = 200;

impl Transaction {
    pub(super) fn begin_rollout(
        &mut self,
        name: &NamespacedName,
        uid: &str,
        owner: &ObjectKey,
        cause: RolloutCause,
        members: &[NamespacedName],
    ) -> Result<(), Rejection> {
        if self.state.rollout(name).is_some() {
            return Err(Rejection::Precondition(format!("rollout {name} exists already: plan again")));
        }
        let mut step = RolloutStep::default();
        let mut revision = String::new();
        for application in members {
            let Some(record) = self.state.assignment(application).cloned() else { continue };
            let Some(target) = &record.target else { continue };
            self.supersede_member(application, &record);
            revision.clone_from(&target.revision);
            step.members.push(RolloutMember {
                application: application.clone(),
                cluster: record.cluster.clone(),
                digest: target.digest,
                previous: record.released.as_ref().map(|bundle| bundle.digest),
            });
        }
        let spec = RolloutSpec {
            owner_kind: owner.kind.info().name.to_owned(),
            owner: owner.name.clone(),
            cause,
            revision,
            steps: vec![step],
        };
        let created_at = self.state.meta.now;
        let record =
            RolloutRecord { spec, phase: RolloutPhase::Progressing, step: 0, done: BTreeMap::new(), created_at };
        self.state.rollouts.insert_mut(name.clone(), Arc::new(record));
        let key = ObjectKey { kind: Kind::Rollout, name: name.clone() };
        let body = json!({
            "apiVersion": "windlass.io/v1alpha1", "kind": "Rollout",
            "metadata": {"name": name.name, "namespace": name.namespace},
        });
        self.write(&Write::Create { key, uid: uid.to_owned(), body: body.to_string(), sealed: None })?;
        self.release_step(name);
        self.forget_finished(name, owner);
        Ok(())
    }

    /// Releases every member of the current step: from now on their agents may apply it.
    fn release_step(&mut self, name: &NamespacedName) {
        let Some(rollout) = self.state.rollout(name).cloned() else { return };
        let Some(step) = rollout.spec.steps.get(rollout.step) else { return };
        let mut rollout = (*rollout).clone();
        for member in &step.members {
            let Some(record) = self.state.assignment(&member.application).cloned() else { continue };
            let mut record = (*record).clone();
            record.released.clone_from(&record.target);
            record.release = record.release.next();
            record.rollout = Some(name.clone());
            if record.policy.automated.is_none() {
                rollout.done.insert(member.application.clone(), MemberState::Manual);
            }
            self.put_assignment(&member.application, record);
        }
        self.put_rollout(name, rollout);
    }

    /// A receipt has arrived for a member.
    pub(super) fn progress_rollout(&mut self, application: &NamespacedName, record: &AssignmentRecord) {
        let (Some(name), Some(receipt)) = (&record.rollout, &record.receipt) else { return };
        let Some(rollout) = self.state.rollout(name).cloned().filter(|rollout| !rollout.phase.is_final()) else {
            return;
        };
        let released = record.released.as_ref().map(|bundle| bundle.digest);
        let failed_operation = receipt.operation.as_ref().is_some_and(|operation| {
            Some(operation.bundle) == released
                && matches!(operation.phase, OperationPhase::Failed | OperationPhase::Error)
        });
        let current = receipt.release == record.release;
        let degraded = receipt.applied == released && receipt.worst_health == HealthStatus::Degraded;
        let verdict = if is_proven(record, receipt) {
            MemberState::Proven
        } else if current && (failed_operation || degraded) {
            MemberState::Failed
        } else {
            return;
        };
        if rollout.done.get(application) != Some(&verdict) {
            let mut rollout = (*rollout).clone();
            rollout.done.insert(application.clone(), verdict);
            self.put_rollout(name, rollout);
        }
    }

    /// A newer change of an assignment took over from the Rollout that it was in, or the assignment is gone.
    pub(super) fn supersede_member(&mut self, application: &NamespacedName, record: &AssignmentRecord) {
        let Some(name) = &record.rollout else { return };
        let Some(rollout) = self.state.rollout(name).cloned().filter(|rollout| !rollout.phase.is_final()) else {
            return;
        };
        if rollout.done.get(application) == Some(&MemberState::Proven) {
            return;
        }
        let mut rollout = (*rollout).clone();
        rollout.done.insert(application.clone(), MemberState::Superseded);
        self.put_rollout(name, rollout);
    }

    fn put_rollout(&mut self, name: &NamespacedName, mut rollout: RolloutRecord) {
        rollout.phase = phase(&rollout);
        self.state.rollouts.insert_mut(name.clone(), Arc::new(rollout));
        self.dirty_rollouts.insert(name.clone());
    }

    /// Keeps the newest finished Rollouts of an owner.
    fn forget_finished(&mut self, newest: &NamespacedName, owner: &ObjectKey) {
        let kind = owner.kind.info().name;
        let same = |rollout: &RolloutRecord| rollout.spec.owner == owner.name && rollout.spec.owner_kind == kind;
        let finished = self.state.rollouts.iter().filter(|(_, rollout)| same(rollout) && rollout.phase.is_final());
        let mut finished: Vec<_> = finished.map(|(name, rollout)| (rollout.created_at, name.clone())).collect();
        finished.sort();
        let excess = finished.len().saturating_sub(FINISHED_PER_OWNER_MAX);
        for (_, name) in finished.into_iter().take(excess).filter(|(_, name)| name != newest) {
            self.state.rollouts.remove_mut(&name);
            self.remove(&ObjectKey { kind: Kind::Rollout, name });
        }
    }

    /// Writes the API object of a Rollout.
    pub(super) fn settle_rollout(&mut self, name: &NamespacedName) {
        let Some(rollout) = self.state.rollout(name).cloned() else { return };
        let key = ObjectKey { kind: Kind::Rollout, name: name.clone() };
        let Some(record) = self.state.object(&key).cloned() else { return };
        let mut value = record.value();
        if json::at(&value, &["spec"]).is_none() {
            let mut spec = rollout.spec.clone();
            for step in &mut spec.steps {
                step.members.truncate(MEMBERS_LISTED_MAX);
            }
            json::set(&mut value, &["spec"], serde_json::to_value(spec).unwrap_or_default());
        }
        let members: usize = rollout.spec.steps.iter().map(|step| step.members.len()).sum();
        let count = |state: MemberState| rollout.done.values().filter(|one| **one == state).count();
        let failed: Vec<String> = rollout
            .done
            .iter()
            .filter(|(_, state)| **state == MemberState::Failed)
            .take(MEMBERS_LISTED_MAX)
            .map(|(name, _)| name.to_string())
            .collect();
        let status = json!({
            "phase": rollout.phase.as_str(),
            "step": rollout.step.saturating_add(1),
            "steps": rollout.spec.steps.len(),
            "members": members,
            "proven": count(MemberState::Proven),
            "manual": count(MemberState::Manual),
            "superseded": count(MemberState::Superseded),
            "failed": failed,
        });
        json::set(&mut value, &["status"], status);
        self.put(&key, value, None);
    }
}

/// Where a Rollout of one step stands.
fn phase(rollout: &RolloutRecord) -> RolloutPhase {
    let members = rollout.spec.steps.iter().map(|step| step.members.len()).sum::<usize>();
    let is = |state: MemberState| rollout.done.values().filter(|one| **one == state).count();
    if rollout.done.len() < members {
        return if is(MemberState::Failed) > 0 { RolloutPhase::Degraded } else { RolloutPhase::Progressing };
    }
    if is(MemberState::Failed) > 0 {
        RolloutPhase::Degraded
    } else if is(MemberState::Superseded) == members {
        RolloutPhase::Superseded
    } else {
        RolloutPhase::Succeeded
    }
}
