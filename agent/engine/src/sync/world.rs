//! What is known of the cluster: live objects that concern this assignment, which kinds are watched, and whose objects they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;
use windlass_protocol::{
    ids::Digest,
    json,
    manifest::ResourceKey,
    status::{Health, HealthStatus},
    time::Millis,
};

use crate::{
    action::ActionId,
    discovery::GroupKind,
    extension::Extension,
    health::{self, Basis},
    hook::{self, Role},
    pair::{self, Owner},
    resume::Baseline,
};

/// The known part of a cluster.
#[derive(Debug, Default)]
pub(super) struct World {
    live: BTreeMap<ResourceKey, Live>,
    kinds: BTreeMap<GroupKind, Watch>,
    /// What is ours, with its uid; empty while only intended.
    inventory: BTreeMap<ResourceKey, String>,
    inventory_changed: bool,
    /// Raised whenever what has to be observed may have changed.
    version: u64,
    pub(super) baselines: BTreeMap<ResourceKey, (Digest, BTreeMap<String, Digest>)>,
    /// Keys that changed since the comparisons were brought up to date.
    changed: BTreeSet<ResourceKey>,
}

/// A live object and what was derived from it.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) object: Arc<Value>,
    pub(super) health: Option<(Health, Basis)>,
    pub(super) owner: Owner,
    /// It was Ready once: its generic conditions may hold a wave.
    pub(super) was_ready: bool,
}

/// Observation of one kind.
#[derive(Debug, Default)]
struct Watch {
    asked: BTreeSet<ResourceKey>,
    pending: Option<Request>,
    complete: bool,
    error: Option<String>,
    attempts: u32,
    retry_at: Millis,
    stale: bool,
    /// The API server does not serve the kind.
    nonexistent: bool,
}

#[derive(Debug)]
struct Request {
    action: ActionId,
    keys: BTreeSet<ResourceKey>,
    /// Keys that changed while the request was under way: its answer may be older.
    touched: BTreeSet<ResourceKey>,
}

impl World {
    pub(super) fn new(inventory: impl IntoIterator<Item = (ResourceKey, String)>, baselines: Vec<Baseline>) -> Self {
        let baselines = baselines.into_iter().map(|it| (it.key, (it.sent, it.fields))).collect();
        Self { inventory: inventory.into_iter().collect(), baselines, ..Self::default() }
    }

    pub(super) fn get(&self, key: &ResourceKey) -> Option<&Live> {
        self.live.get(key)
    }

    pub(super) fn object(&self, key: &ResourceKey) -> Option<&Arc<Value>> {
        self.live.get(key).map(|live| &live.object)
    }

    pub(super) const fn inventory(&self) -> &BTreeMap<ResourceKey, String> {
        &self.inventory
    }

    /// Changes whenever what has to be observed may have changed.
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// Whether the inventory has to be written again.
    pub(super) const fn take_inventory_changed(&mut self) -> bool {
        std::mem::replace(&mut self.inventory_changed, false)
    }

    /// Notes that these objects are about to become ours.
    pub(super) fn intend(&mut self, keys: impl IntoIterator<Item = ResourceKey>) {
        for key in keys {
            if let std::collections::btree_map::Entry::Vacant(e) = self.inventory.entry(key) {
                e.insert(String::new());
                self.version += 1;
                self.inventory_changed = true;
            }
        }
    }

    pub(super) fn take_changed(&mut self) -> BTreeSet<ResourceKey> {
        std::mem::take(&mut self.changed)
    }

    /// Objects that are ours, sorted.
    pub(super) fn ours(&self) -> impl Iterator<Item = (&ResourceKey, &Live)> {
        self.live.iter().filter(|(_, live)| live.owner == Owner::Ours)
    }

    /// Ours, ordinary, and not in the given set.
    pub(super) fn orphans<'a>(
        &'a self,
        is_desired: impl Fn(&ResourceKey) -> bool + 'a,
    ) -> impl Iterator<Item = (&'a ResourceKey, &'a Live)> {
        self.ours().filter(move |(key, live)| hook::role(&live.object) == Role::Resource && !is_desired(key))
    }

    /// Whether the state of this object is known: it is here, or certainly not there.
    pub(super) fn knows(&self, key: &ResourceKey) -> bool {
        let watch = self.kinds.get(&GroupKind::of(key));
        self.live.contains_key(key) || watch.is_some_and(|watch| watch.complete && watch.asked.contains(key))
    }

    /// Whether the kind is completely known.
    pub(super) fn knows_kind(&self, kind: &GroupKind) -> bool {
        self.kinds.get(kind).is_some_and(|watch| watch.complete)
    }

    /// Why a kind cannot be observed.
    pub(super) fn error(&self, kind: &GroupKind) -> Option<&str> {
        self.kinds.get(kind)?.error.as_deref()
    }

    /// Whether the shell was asked about this object.
    pub(super) fn asked(&self, key: &ResourceKey) -> bool {
        self.kinds.get(&GroupKind::of(key)).is_some_and(|watch| {
            watch.asked.contains(key) || watch.pending.as_ref().is_some_and(|request| request.keys.contains(key))
        })
    }

    /// What has to be asked about a kind so that `keys` are known; `None` when nothing is to be asked now.
    pub(super) fn request(
        &mut self,
        kind: &GroupKind,
        keys: &BTreeSet<ResourceKey>,
        action: ActionId,
        now: Millis,
    ) -> Option<Vec<ResourceKey>> {
        let watch = self.kinds.entry(kind.clone()).or_default();
        if watch.nonexistent {
            *watch = Watch::default();
        }
        if watch.complete && !watch.stale && keys.is_subset(&watch.asked) {
            // What could not be asked is not needed any more.
            watch.error = None;
            return None;
        }
        if watch.pending.is_some() || now < watch.retry_at {
            return None;
        }
        watch.pending = Some(Request { action, keys: keys.clone(), touched: BTreeSet::new() });
        Some(keys.iter().cloned().collect())
    }

    /// When a kind that could not be observed may be asked about again.
    pub(super) fn retry_at(&self, kind: &GroupKind) -> Option<Millis> {
        self.kinds
            .get(kind)
            .filter(|watch| watch.pending.is_none() && watch.error.is_some())
            .map(|watch| watch.retry_at)
    }

    /// Forgets what was observed, so that it is asked for again; live objects stay known until the answer.
    pub(super) fn forget(&mut self, kind: Option<&GroupKind>) {
        self.version += 1;
        for (name, watch) in &mut self.kinds {
            if kind.is_none_or(|kind| kind == name) {
                watch.stale = true;
                watch.retry_at = Millis(0);
            }
        }
    }

    /// The complete answer about a kind.
    pub(super) fn observed(&mut self, kind: &GroupKind, action: ActionId, objects: Vec<Arc<Value>>, lens: &Lens<'_>) {
        let Some(watch) = self.kinds.get_mut(kind) else { return };
        if watch.pending.as_ref().is_none_or(|request| request.action != action) {
            return;
        }
        let Some(request) = watch.pending.take() else { return };
        self.version += 1;
        watch.asked.extend(request.keys);
        watch.complete = true;
        watch.stale = false;
        watch.error = None;
        watch.attempts = 0;
        let present: BTreeSet<ResourceKey> = objects.iter().map(|object| ResourceKey::of(object)).collect();
        let lost: Vec<ResourceKey> = self
            .live
            .keys()
            .chain(self.inventory.keys())
            .filter(|key| GroupKind::of(key) == *kind && !present.contains(*key) && !request.touched.contains(*key))
            .cloned()
            .collect();
        self.changed.extend(self.kinds.get(kind).into_iter().flat_map(|watch| watch.asked.iter().cloned()));
        for key in lost {
            self.remove(&key, lens);
        }
        for object in objects {
            self.insert(object, lens);
        }
    }

    /// A kind could not be observed; asked again after a wait that doubles from 1 s to 60 s.
    pub(super) fn failed(&mut self, kind: &GroupKind, action: ActionId, message: String, now: Millis) {
        let Some(watch) = self.kinds.get_mut(kind) else { return };
        if watch.pending.as_ref().is_none_or(|request| request.action != action) {
            return;
        }
        self.version += 1;
        watch.pending = None;
        watch.error = Some(message);
        watch.retry_at = now.plus(Millis((1_000_u64 << watch.attempts.min(6)).min(60_000)));
        watch.attempts = watch.attempts.saturating_add(1);
        self.changed.extend(self.live.keys().filter(|key| GroupKind::of(key) == *kind).cloned());
    }

    /// A kind that the API server does not serve has no objects.
    pub(super) fn absent(&mut self, kind: &GroupKind, keys: &BTreeSet<ResourceKey>, lens: &Lens<'_>) {
        let watch = self.kinds.entry(kind.clone()).or_default();
        if watch.nonexistent && keys.is_subset(&watch.asked) {
            return;
        }
        *watch = Watch { asked: keys.clone(), complete: true, nonexistent: true, ..Watch::default() };
        self.changed.extend(keys.iter().cloned());
        for key in keys {
            self.remove(key, lens);
        }
    }

    /// Takes a live object in, unless a newer version of it is known.
    pub(super) fn insert(&mut self, object: Arc<Value>, lens: &Lens<'_>) {
        let key = ResourceKey::of(&object);
        if let Some(watch) = self.kinds.get_mut(&GroupKind::of(&key))
            && let Some(request) = &mut watch.pending
        {
            request.touched.insert(key.clone());
        }
        if self.live.get(&key).is_some_and(|known| is_older(&object, &known.object)) {
            return;
        }
        let known_uid = self.inventory.get(&key).map(String::as_str);
        let owner = pair::owner(&object, lens.tracking_name, known_uid);
        let health = health::assess(&object, lens.extension);
        let ready = health.as_ref().is_some_and(|(health, _)| health.status == HealthStatus::Healthy);
        let was_ready = ready || self.live.get(&key).is_some_and(|known| known.was_ready);
        match &owner {
            Owner::Ours => {
                let uid = pair::uid(&object).to_owned();
                if self.inventory.get(&key) != Some(&uid) {
                    self.version += 1;
                    self.inventory.insert(key.clone(), uid);
                    self.inventory_changed = true;
                }
            }
            Owner::Other(_) => self.drop_from_inventory(&key),
            Owner::Nobody => {}
        }
        self.changed.insert(key.clone());
        self.live.insert(key, Live { object, health, owner, was_ready });
    }

    /// An object is gone, if it was the one with this uid.
    pub(super) fn gone(&mut self, key: &ResourceKey, uid: Option<&str>, lens: &Lens<'_>) {
        let same = self.live.get(key).is_none_or(|live| uid.is_none_or(|uid| pair::uid(&live.object) == uid));
        if let Some(watch) = self.kinds.get_mut(&GroupKind::of(key))
            && let Some(request) = &mut watch.pending
        {
            request.touched.insert(key.clone());
        }
        if same {
            self.remove(key, lens);
        }
    }

    fn remove(&mut self, key: &ResourceKey, lens: &Lens<'_>) {
        self.live.remove(key);
        self.changed.insert(key.clone());
        if !(lens.is_intended)(key) {
            self.drop_from_inventory(key);
        } else if let Some(uid) = self.inventory.get_mut(key) {
            uid.clear();
        }
    }

    /// The object is not ours any more.
    pub(super) fn drop_from_inventory(&mut self, key: &ResourceKey) {
        if self.inventory.remove(key).is_some() {
            self.inventory_changed = true;
        }
        if let Some(live) = self.live.get_mut(key)
            && live.owner == Owner::Ours
        {
            live.owner = Owner::Nobody;
        }
    }

    /// Forgets live objects that are neither asked for nor ours.
    pub(super) fn retain(&mut self, needed: impl Fn(&ResourceKey) -> bool) {
        self.live.retain(|key, live| live.owner == Owner::Ours || needed(key));
        let live = &self.live;
        self.baselines.retain(|key, _| live.contains_key(key));
    }
}

/// What is needed to judge a live object.
pub(super) struct Lens<'a> {
    pub(super) tracking_name: &'a str,
    pub(super) extension: &'a dyn Extension,
    /// Whether the running operation is about to create this object.
    pub(super) is_intended: &'a dyn Fn(&ResourceKey) -> bool,
}

/// Whether an object is an older version of the same object. Versions that are no numbers are taken as newer.
fn is_older(object: &Value, known: &Value) -> bool {
    let version = |object: &Value| json::text(object, &["metadata", "resourceVersion"]).parse::<u64>().ok();
    pair::uid(object) == pair::uid(known) && version(object).zip(version(known)).is_some_and(|(new, old)| new < old)
}
