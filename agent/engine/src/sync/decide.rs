//! Whether an operation begins, and whether the running one has to stop. Reads everything afresh each time.

use std::collections::BTreeSet;

use windlass_protocol::{
    manifest::ResourceKey,
    message::{BundleRef, Operation as Asked},
    status::Condition,
    time::Millis,
};

use super::{
    Reconciler,
    compare::{Comparison, Verdict},
    run::Operation,
};
use crate::{
    options::SyncOptions,
    prune::{self, Verdict as PruneVerdict},
    resume::{Attempt, Cause, RunningPoint},
};

impl Reconciler {
    /// Begins or stops operations.
    pub(super) fn decide(&mut self, now: Millis) {
        self.guard = None;
        self.decide_asked(now);
        if self.operation.is_some() {
            self.decide_superseded();
            return;
        }
        if self.assignment.policy.automated.is_some() {
            self.decide_automatic(now);
        }
        if self.operation.is_none() {
            self.adopt();
        }
    }

    /// An operation that was asked for and not begun yet.
    fn decide_asked(&mut self, now: Millis) {
        let Some(asked) = self.assignment.operation.clone().filter(|asked| asked.id > self.record.last_asked) else {
            return;
        };
        if asked.terminate {
            self.record.last_asked = asked.id;
            self.record_changed = true;
            self.stop("Operation terminated");
            return;
        }
        match self.record.running.as_ref().map(|running| &running.cause) {
            None => {
                let Some(bundle) = asked.bundle.clone().or_else(|| self.assignment.released.clone()) else { return };
                self.begin(Cause::Asked(Box::new(asked)), bundle, now);
            }
            // As in Argo CD, one asked operation after the other.
            Some(Cause::Asked(_)) => {}
            Some(Cause::Automatic | Cause::Heal(_)) => self.stop("superseded by an operation that was asked for"),
        }
    }

    /// A running operation on a bundle that is not released any more would only delay the new one (or a rollback).
    fn decide_superseded(&mut self) {
        let Some(running) = &self.record.running else { return };
        let follows = match &running.cause {
            Cause::Asked(asked) => asked.bundle.is_none() && self.assignment.policy.automated.is_some(),
            Cause::Automatic | Cause::Heal(_) => true,
        };
        let released = self.assignment.released.as_ref().map(|released| released.digest);
        if follows && released != Some(running.bundle.digest) {
            self.stop("superseded by a newer release");
        }
    }

    fn stop(&mut self, reason: &str) {
        if let Some(operation) = &mut self.operation {
            operation.stop(reason);
        }
    }

    /// Starts an operation; it is on the disk before its first action.
    fn begin(&mut self, cause: Cause, bundle: BundleRef, now: Millis) {
        self.record.sequence = self.record.sequence.saturating_add(1);
        match &cause {
            Cause::Asked(asked) => self.record.last_asked = asked.id,
            Cause::Heal(keys) => self.heals.note(keys, &self.environment.settings, now),
            Cause::Automatic => {}
        }
        self.record.running = Some(RunningPoint {
            sequence: self.record.sequence,
            cause,
            bundle,
            retries: 0,
            started_at: now,
            done: Vec::new(),
            failure: None,
        });
        self.record_changed = true;
        self.operation = Some(Operation::fresh());
    }

    /// One attempt per (digest, parameters); then, with selfHeal, drift only.
    fn decide_automatic(&mut self, now: Millis) {
        let Some(automated) = self.assignment.policy.automated else { return };
        let Some(released) = self.assignment.released.clone() else { return };
        if self.assignment.policy.held.is_some() || !self.is_ready(&released.digest) {
            return;
        }
        let Some(comparison) = self.comparisons.get(&released.digest) else { return };
        let changes: BTreeSet<&ResourceKey> =
            comparison.verdicts().filter(|(_, it)| is_change(it)).map(|it| it.0).collect();
        let prunable = if automated.prune { self.prunable(comparison, &released) } else { BTreeSet::new() };
        if comparison.placed.items.is_empty() && !prunable.is_empty() && !automated.allow_empty {
            let text = format!("Skipping sync attempt to {}: auto-sync will wipe out all resources", released.revision);
            self.guard = Some(Condition::new("SyncError", text));
            return;
        }
        let attempt = self.record.attempt.as_ref().filter(|attempt| self.is_same(attempt, &released));
        let Some(attempt) = attempt else {
            if !changes.is_empty() || !prunable.is_empty() {
                self.begin(Cause::Automatic, released, now);
            }
            return;
        };
        if !automated.self_heal {
            return;
        }
        let succeeded = attempt.succeeded;
        let drifted = comparison
            .verdicts()
            .filter(|(_, verdict)| matches!(verdict, Verdict::Missing | Verdict::Different(_)))
            .map(|(key, _)| key)
            .filter(|key| succeeded || self.settled.contains(*key))
            .filter(|key| comparison.placed.items.get(*key).is_none_or(|item| item.denied.is_none()));
        let extra = prunable.iter().filter(|_| succeeded);
        let settings = &self.environment.settings;
        let (due, later): (Vec<_>, Vec<_>) =
            drifted.chain(extra).map(|key| (key, self.heals.due(key, settings))).partition(|(_, due)| *due <= now);
        let (keys, next) = (
            due.into_iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(),
            later.into_iter().map(|(_, due)| due).min(),
        );
        if let Some(next) = next {
            self.wake(next);
        }
        if !keys.is_empty() {
            self.begin(Cause::Heal(keys), released, now);
        }
    }

    /// Orphans that an automatic sync would really delete.
    fn prunable(&self, comparison: &Comparison, bundle: &BundleRef) -> BTreeSet<ResourceKey> {
        if !comparison.placed.complete {
            return BTreeSet::new();
        }
        let options = SyncOptions::new(&self.assignment.policy.sync_options);
        let orphans: Vec<_> = self.world.orphans(|key| comparison.desires(key)).collect();
        let managed = self.world.ours().count();
        if prune::is_over_budget(&self.environment.settings, orphans.len(), managed) && !self.is_approved(bundle) {
            return BTreeSet::new();
        }
        let allowed = orphans.into_iter().filter(|(_, live)| {
            prune::verdict(&live.object, &options) == PruneVerdict::Allowed
                && !crate::pair::is_terminating(&live.object)
        });
        allowed.map(|(key, _)| key.clone()).collect()
    }

    /// Whether a bundle may prune beyond the budget.
    pub(super) fn is_approved(&self, bundle: &BundleRef) -> bool {
        self.assignment.policy.prune_approval.as_deref() == Some(&*bundle.digest.to_string())
    }

    fn is_same(&self, attempt: &Attempt, released: &BundleRef) -> bool {
        let policy = &self.assignment.policy;
        attempt.digest == released.digest
            && attempt.parameters == policy.parameters
            && attempt.approval == policy.prune_approval
    }

    /// The attempt that an operation on this bundle makes.
    pub(super) fn attempt(&self, bundle: &BundleRef, succeeded: bool) -> Attempt {
        let policy = &self.assignment.policy;
        Attempt {
            digest: bundle.digest,
            parameters: policy.parameters,
            approval: policy.prune_approval.clone(),
            succeeded,
        }
    }

    /// A released bundle that the cluster already equals counts as applied without an operation.
    fn adopt(&mut self) {
        let Some(released) = self.assignment.released.clone() else { return };
        if self.record.applied.as_ref().is_some_and(|applied| *applied == released) || !self.is_ready(&released.digest)
        {
            return;
        }
        let Some(comparison) = self.comparisons.get(&released.digest) else { return };
        let failed = self.record.attempt.as_ref().is_some_and(|it| self.is_same(it, &released) && !it.succeeded);
        let synced = comparison.verdicts().all(|(_, verdict)| *verdict == Verdict::Synced);
        let prune = self.assignment.policy.automated.is_some_and(|automated| automated.prune);
        let leftover = match self.assignment.policy.automated {
            // Without automation only a person says that something is applied, unless nothing is left to do at all.
            None => self.world.orphans(|key| comparison.desires(key)).next().is_some(),
            Some(_) if prune => !self.prunable(comparison, &released).is_empty(),
            Some(_) => false,
        };
        if failed || !synced || leftover || !comparison.placed.complete || self.guard.is_some() {
            return;
        }
        if self.assignment.policy.automated.is_some() {
            self.record.attempt = Some(self.attempt(&released, true));
        }
        self.record.applied = Some(released);
        self.record_changed = true;
    }
}

/// Whether a verdict asks for a sync.
const fn is_change(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Missing | Verdict::Different(_) | Verdict::Shared(_))
}

/// Whether an asked operation covers the whole bundle, really.
pub(super) fn is_whole(cause: &Cause) -> bool {
    match cause {
        Cause::Asked(asked) => {
            let Asked { resources, dry_run, .. } = &**asked;
            resources.is_empty() && !dry_run
        }
        Cause::Automatic => true,
        Cause::Heal(_) => false,
    }
}
