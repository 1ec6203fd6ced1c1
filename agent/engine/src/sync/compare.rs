//! The standing comparison of one bundle with the cluster: one verdict an object, renewed only where something changed.

use std::collections::{BTreeMap, BTreeSet};

use windlass_protocol::{
    ids::Digest,
    manifest::{self, ResourceKey},
};

use super::world::World;
use crate::{
    diff::{self, Difference, IgnoreRules},
    discovery::GroupKind,
    extension::Extension,
    pair::Owner,
    scope::{Item, Placed},
};

/// A bundle in its place, and how the cluster compares with it.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) placed: Placed,
    verdicts: BTreeMap<ResourceKey, Verdict>,
}

/// How one object compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Live is as desired.
    Synced,
    /// Desired and not there.
    Missing,
    /// It differs, or is not tracked by us yet.
    Different(Difference),
    /// Another application tracks it.
    Shared(String),
    /// Not observed (yet); why.
    Unknown(String),
}

/// What a comparison depends on besides the cluster.
pub(super) struct Rules<'a> {
    pub(super) ignore: &'a IgnoreRules,
    pub(super) extension: &'a dyn Extension,
    pub(super) differences_max: usize,
}

impl Comparison {
    pub(super) fn new(placed: Placed, world: &World, rules: &Rules<'_>) -> Self {
        let verdicts = placed.items.iter().map(|(key, item)| (key.clone(), verdict(item, world, rules))).collect();
        Self { placed, verdicts }
    }

    /// Renews the verdicts of these objects.
    pub(super) fn update(&mut self, changed: &BTreeSet<ResourceKey>, world: &World, rules: &Rules<'_>) {
        for key in changed {
            if let Some(item) = self.placed.items.get(key) {
                self.verdicts.insert(key.clone(), verdict(item, world, rules));
            }
        }
    }

    pub(super) fn verdicts(&self) -> impl Iterator<Item = (&ResourceKey, &Verdict)> {
        self.verdicts.iter()
    }

    pub(super) fn verdict(&self, key: &ResourceKey) -> Option<&Verdict> {
        self.verdicts.get(key)
    }

    /// Whether every object is known.
    pub(super) fn is_known(&self) -> bool {
        !self.verdicts.values().any(|verdict| matches!(verdict, Verdict::Unknown(_)))
    }

    /// Whether an object is part of the bundle in any role.
    pub(super) fn desires(&self, key: &ResourceKey) -> bool {
        self.placed.items.contains_key(key)
            || self.placed.skipped.contains(key)
            || self.placed.hooks.iter().any(|(item, _)| item.key == *key)
    }
}

/// How an object compares. Ignored fields are taken from both sides; what the API server made of the manifest is no difference.
pub(super) fn verdict(item: &Item, world: &World, rules: &Rules<'_>) -> Verdict {
    let Some(live) = world.get(&item.key) else {
        if world.knows(&item.key) {
            return Verdict::Missing;
        }
        let reason = world.error(&GroupKind::of(&item.key));
        return Verdict::Unknown(reason.unwrap_or("not yet observed").to_owned());
    };
    if let Owner::Other(other) = &live.owner {
        return Verdict::Shared(other.clone());
    }
    let ignored = rules.ignore.of(&item.key);
    let difference = if ignored.is_empty() {
        diff::compare(&item.manifest, &live.object, None, rules.differences_max)
    } else {
        let (mut desired, mut live) = ((*item.manifest).clone(), (*live.object).clone());
        if let Err(error) = ignored.strip(&mut desired, &mut live, rules.extension) {
            return Verdict::Unknown(error);
        }
        diff::compare(&desired, &live, None, rules.differences_max)
    };
    let known = world.baselines.get(&item.key).filter(|(sent, _)| *sent == sent_digest(item));
    let difference = match known {
        Some((_, fields)) => difference.without(fields),
        None => difference,
    };
    if live.owner == Owner::Nobody {
        let mut untracked = difference;
        let pointer = format!("/metadata/annotations/{}", manifest::TRACKING_ANNOTATION.replace('/', "~1"));
        untracked.fields.insert(pointer, Digest::of(b""));
        return Verdict::Different(untracked);
    }
    if difference.is_empty() { Verdict::Synced } else { Verdict::Different(difference) }
}

/// Names the manifest of an item in a baseline.
pub(super) fn sent_digest(item: &Item) -> Digest {
    Digest::of(&manifest::canonical(&item.manifest))
}
