//! The standing comparison of one bundle with the cluster: one verdict an object, renewed only where something changed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use windlass_protocol::{
    ids::Digest,
    manifest::{self, ResourceKey},
};

use super::world::World;
use crate::{
    diff::{self, Difference, IgnoreRules},
    discovery::GroupKind,
    extension::Extension,
    pair::{self, Owner},
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
    let mut difference = difference;
    if pair::tracked_by(&live.object).is_none() {
        let pointer = format!("/metadata/annotations/{}", manifest::TRACKING_ANNOTATION.replace('/', "~1"));
        difference.fields.insert(pointer, Digest::of(b""));
    }
    // Without its label an object falls out of the filtered watches. One that another tool labels in its own way, and that we
    // never wrote, is not touched for it.
    if manifest::label(&live.object, manifest::OWNER_LABEL).is_none() && is_written_by_us(&live.object) {
        let pointer = format!("/metadata/labels/{}", manifest::OWNER_LABEL.replace('/', "~1"));
        difference.fields.insert(pointer, Digest::of(b""));
    }
    if difference.is_empty() { Verdict::Synced } else { Verdict::Different(difference) }
}

/// Whether our field manager has an entry in managedFields.
fn is_written_by_us(live: &Value) -> bool {
    let entries = windlass_protocol::json::at(live, &["metadata", "managedFields"]).and_then(Value::as_array);
    let ours = |entry: &Value| windlass_protocol::json::text(entry, &["manager"]) == manifest::FIELD_MANAGER;
    entries.is_some_and(|entries| entries.iter().any(ours))
}

/// Names the manifest of an item in a baseline.
pub(super) fn sent_digest(item: &Item) -> Digest {
    Digest::of(&manifest::canonical(&item.manifest))
}
