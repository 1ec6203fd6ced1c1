//! Begins what the machines ask for: polls them, and turns each piece of work into a task.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use windlass_engine::{Action, Failure, FailureReason, Outcome, Work};
use windlass_protocol::{ids::Digest, manifest::ResourceKey};

use super::{
    Done, Executor, Key, REPORT_DELAY,
    perform::{self, Performer},
    watches::Pending,
};
use crate::cluster::{ClusterError, Freshness};

/// Actions of one machine that are begun before others get their turn.
const ACTIONS_PER_TURN: usize = 256;

impl Executor {
    /// Polls every machine that has something new, or whose time has come.
    pub(super) fn pump(&mut self) {
        let now = self.clock.now();
        for (key, slot) in &mut self.slots {
            let timed = slot.reconciler.poll_timeout().is_some_and(|at| at <= now);
            if slot.resync(now) || timed {
                self.dirty.insert(key.clone());
            }
        }
        let dirty = std::mem::take(&mut self.dirty);
        for key in dirty {
            self.load_bundles(&key);
            for turn in 0.. {
                let Some(slot) = self.slots.get_mut(&key) else { break };
                if turn == ACTIONS_PER_TURN {
                    self.dirty.insert(key.clone());
                    break;
                }
                let Some(action) = slot.reconciler.poll_action(now) else { break };
                self.begin(&key, action);
            }
            if let Some(slot) = self.slots.get_mut(&key)
                && slot.report_at.is_none_or(|at| at > now.plus(REPORT_DELAY))
            {
                slot.report_at = Some(now.plus(REPORT_DELAY));
            }
        }
        let due: Vec<Key> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.report_at.is_some_and(|at| at <= now))
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            self.report(&key, now);
        }
    }

    fn load_bundles(&mut self, key: &Key) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let missing: Vec<Digest> = slot.reconciler.missing_bundles();
        for digest in missing {
            if slot.failed.contains(&digest) || !slot.loading.insert(digest) {
                continue;
            }
            let (checkpoint, limits, key) = (self.checkpoint.clone(), self.limits.clone(), key.clone());
            self.tasks.spawn(async move {
                let loaded = checkpoint.run(move |disk| Ok(disk.bundle(digest, &limits))).await;
                let manifests = loaded.unwrap_or_else(|error| Err(error.into()));
                Done::Bundle { key, digest, manifests }
            });
        }
    }

    fn begin(&mut self, key: &Key, action: Action) {
        let Action { id, work } = action;
        let Some(discovery) = self.discovery.clone() else {
            // Only what needs no cluster can be done before its types are known.
            match work {
                Work::Persist(point) => self.persist(key, id, *point),
                Work::RefreshKinds => self.discover(Freshness::Fresh, Some((key.clone(), id)), Duration::ZERO),
                Work::Observe { .. } | Work::Apply(_) | Work::Delete { .. } | Work::Untrack { .. } => {
                    let error = self.cluster_error.as_ref().map(ToString::to_string).unwrap_or_default();
                    let failure = Failure::new(FailureReason::Unavailable, error);
                    self.finish_later(key, id, Outcome::Failed(failure));
                }
            }
            return;
        };
        let performer = Performer { port: Arc::clone(&self.port), discovery };
        match work {
            Work::Observe { kind, version, keys } => {
                match performer.discovery.find(&kind.group, &kind.kind, version.as_deref()) {
                    Err(error) => self.fail_later(key, id, &error),
                    Ok(resource) if !resource.watchable => {
                        let name = resource.plural.clone();
                        let error = ClusterError::Unreadable(format!("{name} cannot be listed and watched"));
                        self.fail_later(key, id, &error);
                    }
                    Ok(resource) => {
                        let resource = resource.clone();
                        self.observe(key, id, kind, resource, keys, performer);
                    }
                }
            }
            Work::RefreshKinds => self.discover(Freshness::Fresh, Some((key.clone(), id)), Duration::ZERO),
            Work::Persist(point) => self.persist(key, id, *point),
            Work::Apply(apply) => {
                let key = key.clone();
                self.tasks.spawn(async move {
                    let outcome = performer.apply(apply).await;
                    Done::Outcome { key, action: id, outcome }
                });
            }
            Work::Delete { key: object, version, uid, propagation } => {
                let key = key.clone();
                self.tasks.spawn(async move {
                    let outcome = performer.delete(&object, version.as_deref(), uid, propagation).await;
                    Done::Outcome { key, action: id, outcome }
                });
            }
            Work::Untrack { key: object, uid } => {
                let key = key.clone();
                self.tasks.spawn(async move {
                    let outcome = performer.untrack(&object, uid.as_deref()).await;
                    Done::Outcome { key, action: id, outcome }
                });
            }
        }
    }

    fn observe(
        &mut self,
        key: &Key,
        id: windlass_engine::ActionId,
        kind: windlass_engine::GroupKind,
        resource: crate::cluster::ResourceType,
        keys: Vec<ResourceKey>,
        performer: Performer,
    ) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let owner = windlass_engine::prepare::owner_label(&slot.reconciler.assignment().tracking_name);
        slot.observe(id, kind, resource.clone());
        let (failed_key, begun_key, begun_resource) = (key.clone(), key.clone(), resource.clone());
        let pending = Pending {
            begin: Box::new(move || {
                Box::pin(async move {
                    let outcome = performer.observe(&begun_resource, &owner, keys).await;
                    Done::Outcome { key: begun_key, action: id, outcome }
                })
            }),
            fail: Box::new(move |outcome| Done::Outcome { key: failed_key, action: id, outcome }),
        };
        self.watches.observe(&resource, pending, &mut self.tasks);
    }

    fn persist(&mut self, key: &Key, id: windlass_engine::ActionId, point: windlass_engine::ResumePoint) {
        let (checkpoint, key) = (self.checkpoint.clone(), key.clone());
        self.tasks.spawn(async move {
            let application = key.0.clone();
            let saved = checkpoint.run(move |disk| disk.save_resume(&application, &point)).await;
            let outcome = match saved {
                Ok(()) => Outcome::Done,
                Err(error) => {
                    tracing::error!(application = %key.0, %error, "cannot save the state of the assignment");
                    Outcome::Failed(Failure::new(FailureReason::Unavailable, error.to_string()))
                }
            };
            Done::Outcome { key, action: id, outcome }
        });
    }

    /// Asks for the types of the cluster; the answer goes to all machines, and to the action that asked.
    pub(super) fn discover(
        &mut self,
        freshness: Freshness,
        asked: Option<(Key, windlass_engine::ActionId)>,
        after: Duration,
    ) {
        let port = Arc::clone(&self.port);
        self.tasks.spawn(async move {
            sleep(after).await;
            let answer = port.discovery(freshness).await;
            Done::Discovery { answer, asked }
        });
    }

    fn fail_later(&mut self, key: &Key, id: windlass_engine::ActionId, error: &ClusterError) {
        self.finish_later(key, id, Outcome::Failed(perform::failure(error)));
    }

    /// Outcomes always come back through the loop, so that a machine is never entered while it is polled.
    fn finish_later(&mut self, key: &Key, id: windlass_engine::ActionId, outcome: Outcome) {
        let key = key.clone();
        self.tasks.spawn(async move { Done::Outcome { key, action: id, outcome } });
    }
}
