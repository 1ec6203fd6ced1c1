//! The end of an assignment: everything that is ours goes (high waves first), or stays without tracking. Absence of an assignment is
//! never its end; only a tombstone leads here.

use std::collections::{BTreeMap, BTreeSet};

use windlass_protocol::{
    json,
    manifest::{self, ResourceKey},
    message::Cascade,
    time::Millis,
};

use super::{Reconciler, outcome::Purpose};
use crate::{
    action::{Action, Outcome, Propagation, Work},
    discovery::GroupKind,
    options::SyncOptions,
    order, pair,
    prune::{self, Verdict},
    status::End,
};

/// How far the end is.
#[derive(Debug)]
pub(super) struct Ending {
    cascade: Cascade,
    /// Deletion was accepted for these uids.
    requested: BTreeMap<ResourceKey, String>,
    /// Stay as they are, on their own request.
    kept: BTreeSet<ResourceKey>,
    failures: BTreeMap<ResourceKey, (u32, Millis, String)>,
    pub(super) state: End,
}

impl Ending {
    pub(super) fn new(cascade: Cascade) -> Self {
        Self {
            cascade,
            requested: BTreeMap::new(),
            kept: BTreeSet::new(),
            failures: BTreeMap::new(),
            state: End::Pending("waiting for the state of the cluster".to_owned()),
        }
    }
}

impl Reconciler {
    /// The next step of the end.
    pub(super) fn poll_end(&mut self, now: Millis) -> Option<Action> {
        if self.record.running.take().is_some() {
            self.operation = None;
            self.record_changed = true;
            return self.persist(now);
        }
        // An apply that is still under way would bring its object back.
        if self.in_flight.values().any(|purpose| matches!(purpose, Purpose::Task { .. })) {
            return None;
        }
        let mut ending = self.ending.take()?;
        let work = self.next_end(&mut ending, now);
        self.ending = Some(ending);
        let (work, key) = work?;
        Some(self.act(work, Purpose::End(key)))
    }

    fn next_end(&mut self, ending: &mut Ending, now: Millis) -> Option<(Work, ResourceKey)> {
        if !self.knows_all() {
            return None;
        }
        self.sort_out(ending);
        let busy: BTreeSet<ResourceKey> = self
            .in_flight
            .values()
            .filter_map(|purpose| if let Purpose::End(key) = purpose { Some(key.clone()) } else { None })
            .collect();
        let rest: Vec<(ResourceKey, i64)> = self
            .world
            .ours()
            .filter(|(key, _)| !ending.kept.contains(*key))
            .map(|(key, live)| (key.clone(), order::wave(&live.object)))
            .collect();
        let Some(wave) = rest.iter().map(|(_, wave)| *wave).max() else {
            let forbidden = self.world.inventory().keys().find_map(|key| self.world.error(&GroupKind::of(key)));
            ending.state = match forbidden {
                Some(error) => End::Failing(error.to_owned()),
                None => End::Done,
            };
            return None;
        };
        let mut stage: Vec<ResourceKey> = rest
            .into_iter()
            .filter(|(_, it)| *it == wave || ending.cascade == Cascade::Orphan)
            .map(|(key, _)| key)
            .collect();
        stage.sort_by(|a, b| order::rank(b).cmp(&order::rank(a)));
        for key in &stage {
            if busy.contains(key) {
                continue;
            }
            if let Some((_, until, _)) = ending.failures.get(key).filter(|(_, until, _)| now < *until) {
                self.wake(*until);
                continue;
            }
            if let Some(work) = self.end_object(ending, key) {
                return Some((work, key.clone()));
            }
        }
        ending.state = self.end_state(ending, &stage);
        None
    }

    /// Objects that ask to stay, and an inventory entry whose object was never made.
    fn sort_out(&mut self, ending: &mut Ending) {
        let missing: Vec<ResourceKey> = self
            .world
            .inventory()
            .keys()
            .filter(|key| self.world.knows(key) && self.world.get(key).is_none())
            .cloned()
            .collect();
        for key in missing {
            self.world.drop_from_inventory(&key);
        }
        if ending.cascade == Cascade::Orphan {
            return;
        }
        let options = SyncOptions::new(&self.assignment.policy.sync_options);
        let kept = self.world.ours().filter(|(_, live)| prune::delete_verdict(&live.object, &options) == Verdict::Kept);
        ending.kept = kept.map(|(key, _)| key.clone()).collect();
    }

    fn end_object(&self, ending: &Ending, key: &ResourceKey) -> Option<Work> {
        let live = &self.world.get(key)?.object;
        let uid = pair::uid(live).to_owned();
        let propagation = match ending.cascade {
            Cascade::Orphan => return Some(Work::Untrack { key: key.clone(), uid: Some(uid) }),
            Cascade::Background => Propagation::Background,
            Cascade::Foreground => Propagation::Foreground,
        };
        let options = SyncOptions::new(&self.assignment.policy.sync_options);
        if prune::delete_verdict(live, &options) == Verdict::NeedsConfirmation {
            return None;
        }
        if pair::is_terminating(live) || ending.requested.get(key) == Some(&uid) {
            return None;
        }
        let (_, version) = manifest::group_version(live);
        Some(Work::Delete { key: key.clone(), version: Some(version.to_owned()), uid: Some(uid), propagation })
    }

    fn end_state(&self, ending: &Ending, stage: &[ResourceKey]) -> End {
        if let Some((key, (_, _, message))) = ending.failures.iter().next() {
            return End::Failing(format!("{key}: {message}"));
        }
        let Some(first) = stage.first() else { return End::Pending(String::new()) };
        let live = self.world.object(first);
        let finalizers = live.and_then(|live| json::at(live, &["metadata", "finalizers"])).and_then(|it| it.as_array());
        let finalizers: Vec<&str> = finalizers.into_iter().flatten().filter_map(|it| it.as_str()).collect();
        let confirm = live.is_some_and(|live| {
            let options = SyncOptions::new(&self.assignment.policy.sync_options);
            prune::delete_verdict(live, &options) == Verdict::NeedsConfirmation
        });
        let reason = if confirm {
            format!(" (needs confirmation by annotation {})", prune::APPROVED_ANNOTATION)
        } else if finalizers.is_empty() {
            String::new()
        } else {
            format!(" (finalizers: {})", finalizers.join(", "))
        };
        let more = if stage.len() > 1 { format!(" and {} more", stage.len() - 1) } else { String::new() };
        End::Pending(format!("waiting for deletion of {first}{more}{reason}"))
    }

    /// Takes in what became of an object of the end.
    pub(super) fn settle_end(&mut self, key: &ResourceKey, outcome: Outcome, now: Millis) {
        let Some(mut ending) = self.ending.take() else { return };
        match outcome {
            Outcome::Deleting => {
                ending.failures.remove(key);
                if let Some(live) = self.world.object(key) {
                    ending.requested.insert(key.clone(), pair::uid(live).to_owned());
                }
            }
            Outcome::Gone => {
                ending.failures.remove(key);
                self.with_world(|world, lens| world.gone(key, None, lens));
                self.world.drop_from_inventory(key);
            }
            Outcome::Applied(object) => {
                ending.failures.remove(key);
                self.with_world(|world, lens| world.insert(object, lens));
                self.world.drop_from_inventory(key);
            }
            Outcome::Failed(failure) => {
                let attempts = ending.failures.get(key).map_or(0, |(attempts, _, _)| *attempts);
                let wait = Millis((1_000_u64 << attempts.min(6)).min(60_000));
                ending.failures.insert(key.clone(), (attempts.saturating_add(1), now.plus(wait), failure.message));
                self.world.forget(Some(&GroupKind::of(key)));
            }
            Outcome::Done | Outcome::Observed(_) => {}
        }
        self.ending = Some(ending);
    }
}
