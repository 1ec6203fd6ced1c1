//! What the machine has to know before it decides: which bundles, which kinds, which objects. Keeps comparisons up to date.

use std::collections::{BTreeMap, BTreeSet};

use windlass_protocol::{ids::Digest, manifest::ResourceKey, message::BundleRef, time::Millis};

use super::{
    Reconciler,
    compare::{Comparison, Rules},
    outcome::Purpose,
    plan,
    world::{Lens, World},
};
use crate::{
    action::{Action, Work},
    discovery::{GroupKind, Kinds},
    scope,
};

impl Reconciler {
    /// Bundles whose content the machine needs.
    pub(super) fn needed_bundles(&self) -> BTreeSet<Digest> {
        let assignment = &self.assignment;
        let asked = assignment.operation.as_ref().filter(|operation| operation.id > self.record.last_asked);
        let asked = asked.and_then(|operation| operation.bundle.as_ref());
        let running = self.record.running.as_ref().map(|running| &running.bundle);
        let all = [assignment.target.as_ref(), assignment.released.as_ref(), asked, running];
        all.into_iter().flatten().map(|bundle: &BundleRef| bundle.digest).collect()
    }

    /// Places new bundles and renews the verdicts of changed objects.
    pub(super) fn bring_up_to_date(&mut self) {
        let Some(kinds) = self.kinds.clone() else { return };
        if self.world.take_inventory_changed() {
            // During an operation the intents are on the disk already, and its end writes the rest.
            self.record_changed |= self.operation.is_none();
        }
        let changed = self.world.take_changed();
        let rules = Rules {
            ignore: &self.ignore,
            extension: &*self.environment.extension,
            differences_max: self.environment.settings.differences_max,
        };
        for comparison in self.comparisons.values_mut() {
            comparison.update(&changed, &self.world, &rules);
        }
        let mut placed_new = false;
        for digest in self.needed_bundles() {
            if self.comparisons.contains_key(&digest) {
                continue;
            }
            let Some(Ok(manifests)) = self.bundles.get(&digest) else { continue };
            let placed = scope::place(manifests, &self.assignment.namespace, &self.assignment.policy.permitted, &kinds);
            let rules = Rules {
                ignore: &self.ignore,
                extension: &*self.environment.extension,
                differences_max: self.environment.settings.differences_max,
            };
            self.comparisons.insert(digest, Comparison::new(placed, &self.world, &rules));
            placed_new = true;
            self.looked = None;
        }
        if placed_new {
            let (comparisons, operation) = (&self.comparisons, &self.operation);
            self.world.retain(|key| {
                key.kind == "Namespace"
                    || comparisons.values().any(|comparison| comparison.desires(key))
                    || operation.as_ref().is_some_and(|operation| operation.concerns(key))
            });
        }
        self.note_settled();
    }

    /// Remembers which objects are in sync with the released bundle.
    fn note_settled(&mut self) {
        let Some(released) = &self.assignment.released else { return };
        let Some(comparison) = self.comparisons.get(&released.digest) else { return };
        for (key, verdict) in comparison.verdicts() {
            if *verdict == super::compare::Verdict::Synced && !self.settled.contains(key) {
                self.settled.insert(key.clone());
            }
        }
    }

    /// Kinds and objects that must be known.
    fn needs(&self) -> BTreeMap<GroupKind, (Option<String>, BTreeSet<ResourceKey>)> {
        let mut needs = BTreeMap::new();
        plan::needs(self.world.inventory().keys().map(|key| (key, "")), &mut needs);
        for comparison in self.comparisons.values() {
            let placed = &comparison.placed;
            plan::needs(placed.items.iter().map(|(key, item)| (key, &*item.version)), &mut needs);
            let hooks = placed.hooks.iter().filter(|(item, _)| !item.key.name.is_empty());
            plan::needs(hooks.map(|(item, _)| (&item.key, &*item.version)), &mut needs);
        }
        if let Some(operation) = &self.operation {
            plan::needs(operation.tasks().iter().map(|task| (&task.key, &*task.version)), &mut needs);
        }
        if self.creates_namespace() {
            let key = plan::namespace_key(&self.assignment.namespace);
            plan::needs([(&key, "v1")].into_iter(), &mut needs);
        }
        needs
    }

    /// Whether `CreateNamespace=true` applies.
    pub(super) fn creates_namespace(&self) -> bool {
        let has = |options: &[String]| options.iter().any(|option| option.trim() == "CreateNamespace=true");
        let asked = self.assignment.operation.as_ref().is_some_and(|operation| has(&operation.sync_options));
        (has(&self.assignment.policy.sync_options) || asked) && !self.assignment.namespace.is_empty()
    }

    /// Asks for what is not known yet.
    pub(super) fn poll_observe(&mut self, now: Millis) -> Option<Action> {
        let kinds = self.kinds.clone()?;
        if self.refresh.wanted {
            let pending = self.in_flight.values().any(|purpose| matches!(purpose, Purpose::Refresh));
            if !pending && now >= self.refresh.not_before {
                self.refresh.wanted = false;
                return Some(self.act(Work::RefreshKinds, Purpose::Refresh));
            }
            if !pending {
                self.wake(self.refresh.not_before);
            }
        }
        if self.looked == Some(self.world.version()) && self.look_at.is_none_or(|at| now < at) {
            if let Some(at) = self.look_at {
                self.wake(at);
            }
            return None;
        }
        self.look(&kinds, now)
    }

    /// Goes through everything that is needed; remembers when nothing is left to ask for.
    fn look(&mut self, kinds: &Kinds, now: Millis) -> Option<Action> {
        let mut absent = false;
        self.look_at = None;
        for (kind, (version, keys)) in self.needs() {
            if kinds.is_absent(&kind) {
                absent |= !self.world.knows_kind(&kind);
                self.with_world(|world, lens| world.absent(&kind, &keys, lens));
                continue;
            }
            if !kinds.contains(&kind) {
                continue;
            }
            let id = self.next_id();
            if let Some(keys) = self.world.request(&kind, &keys, id, now) {
                self.register(id, Purpose::Observe(kind.clone()));
                let version = version.filter(|version| kinds.serves(&kind, version));
                return Some(Action { id, work: Work::Observe { kind, version, keys } });
            }
            if let Some(at) = self.world.retry_at(&kind) {
                self.look_at = Some(self.look_at.map_or(at, |known| known.min(at)));
            }
        }
        if absent {
            self.bring_up_to_date();
        }
        self.looked = Some(self.world.version());
        if let Some(at) = self.look_at {
            self.wake(at);
        }
        None
    }

    /// Whether everything that is needed is known, or cannot be.
    pub(super) fn knows_all(&self) -> bool {
        let known = |key: &ResourceKey| self.world.knows(key) || self.world.error(&GroupKind::of(key)).is_some();
        self.kinds.is_some() && self.needs().values().all(|(_, keys)| keys.iter().all(known))
    }

    /// Whether everything is known that an operation on this bundle depends on. What cannot be observed does not hold it.
    pub(super) fn is_ready(&self, digest: &Digest) -> bool {
        let Some(comparison) = self.comparisons.get(digest) else { return false };
        let known = |key: &ResourceKey| self.world.knows(key) || self.world.error(&GroupKind::of(key)).is_some();
        let hooks = comparison.placed.hooks.iter().map(|(item, _)| &item.key).filter(|key| !key.name.is_empty());
        let namespace = self.creates_namespace().then(|| plan::namespace_key(&self.assignment.namespace));
        comparison.placed.items.keys().chain(hooks).chain(self.world.inventory().keys()).all(known)
            && namespace.as_ref().is_none_or(known)
    }

    /// Works on the world with what is needed to judge objects.
    pub(super) fn with_world<T>(&mut self, work: impl FnOnce(&mut World, &Lens<'_>) -> T) -> T {
        let operation = &self.operation;
        let is_intended = |key: &ResourceKey| operation.as_ref().is_some_and(|operation| operation.intends(key));
        let lens = Lens {
            tracking_name: &self.assignment.tracking_name,
            extension: &*self.environment.extension,
            is_intended: &is_intended,
        };
        work(&mut self.world, &lens)
    }
}
