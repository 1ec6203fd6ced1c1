//! The embedded simulated cluster: behaves like an API server with its controllers, in virtual time. For the demo, chaos, tests, and
//! as the store behind the hub's own API.
//!
//! It has server-side apply with field ownership, preconditions, finalizers, garbage collection by owner references, namespaces that
//! must exist, workloads whose pods become ready after a while, jobs that complete, custom resource definitions, and faults on
//! demand. It never reads a clock: [`SimulatedCluster::advance`] says what time it is. The same calls give the same cluster, uids
//! included.

mod apply;
mod controllers;
mod faults;
mod store;
mod validate;

use std::{collections::BTreeSet, sync::Arc};

use serde_json::Value;
use windlass_protocol::{
    json,
    manifest::{self, FIELD_MANAGER, OWNER_LABEL, ResourceKey, TRACKING_ANNOTATION},
    time::Millis,
};

pub use self::faults::{Delays, Faults};
use self::store::Store;
use crate::{
    action::{Apply, ApplyMode, DryRun, Failure, FailureReason, LiveChange, Outcome, Propagation, Work},
    discovery::{GroupKind, Kinds, Scope},
    hook,
};

/// A cluster in memory.
#[derive(Clone, Debug)]
pub struct SimulatedCluster {
    store: Store,
    kinds: Arc<Kinds>,
    /// Kinds that a definition brought.
    custom: BTreeSet<GroupKind>,
    /// What goes wrong.
    pub faults: Faults,
    /// How long things take.
    pub delays: Delays,
}

impl SimulatedCluster {
    /// A cluster with one node and the namespaces `default` and `kube-system`. The seed goes into the uids.
    #[must_use]
    pub fn new(seed: u64, now: Millis) -> Self {
        let mut cluster = Self {
            store: Store::new(seed, now),
            kinds: Arc::new(built_in()),
            custom: BTreeSet::new(),
            faults: Faults::default(),
            delays: Delays::default(),
        };
        for name in ["default", "kube-system"] {
            let namespace = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            // A namespace is always accepted.
            let _ = cluster.apply(&namespace, "kube-apiserver", DryRun::No);
        }
        cluster.advance(now);
        cluster
    }

    /// Lets controllers work up to this time. Time never goes back.
    pub fn advance(&mut self, now: Millis) {
        controllers::advance(self, now);
    }

    /// When controllers have something to do next.
    #[must_use]
    pub fn next_event_at(&self) -> Option<Millis> {
        controllers::next_event_at(self)
    }

    /// The cluster's time.
    #[must_use]
    pub const fn now(&self) -> Millis {
        self.store.now
    }

    /// What is served, custom resources included.
    #[must_use]
    pub fn kinds(&self) -> Arc<Kinds> {
        Arc::clone(&self.kinds)
    }

    /// Serves one more kind without a definition (the hub's own kinds).
    pub fn serve(&mut self, kind: GroupKind, scope: Scope, version: &str) {
        Arc::make_mut(&mut self.kinds).insert(kind, scope, version);
    }

    /// One object.
    #[must_use]
    pub fn get(&self, key: &ResourceKey) -> Option<&Arc<Value>> {
        self.store.get(key)
    }

    /// The objects of a kind, sorted by namespace and name.
    #[must_use]
    pub fn list(&self, kind: &GroupKind) -> Vec<Arc<Value>> {
        self.store.iter().filter(|(key, _)| GroupKind::of(key) == *kind).map(|(_, object)| Arc::clone(object)).collect()
    }

    /// All objects, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&ResourceKey, &Arc<Value>)> {
        self.store.iter()
    }

    /// The next change since the last call. Several changes of one object come as its newest state.
    pub fn poll_change(&mut self) -> Option<LiveChange> {
        self.store.poll_change()
    }

    /// Performs the work of an action, as the API server would. [`Work::RefreshKinds`] and [`Work::Persist`] are the shell's: they
    /// are answered with [`Outcome::Done`].
    pub fn perform(&mut self, work: &Work) -> Outcome {
        if let Some(message) = &self.faults.down
            && !matches!(work, Work::Persist(_))
        {
            return Outcome::Failed(Failure::new(FailureReason::Unavailable, message));
        }
        let result = match work {
            Work::Observe { kind, keys, .. } => Ok(Outcome::Observed(self.observe(kind, keys))),
            Work::RefreshKinds | Work::Persist(_) => Ok(Outcome::Done),
            Work::Apply(apply) => self.perform_apply(apply).map(Outcome::Applied),
            Work::Delete { key, uid, propagation, .. } => self.delete(key, uid.as_deref(), *propagation),
            Work::Untrack { key, uid } => self.untrack(key, uid.as_deref()),
        };
        result.unwrap_or_else(Outcome::Failed)
    }

    fn observe(&self, kind: &GroupKind, keys: &[ResourceKey]) -> Vec<Arc<Value>> {
        let mut objects = self.list(kind);
        objects.retain(|object| {
            manifest::annotation(object, TRACKING_ANNOTATION).is_some() || keys.contains(&ResourceKey::of(object))
        });
        objects
    }

    fn perform_apply(&mut self, apply: &Apply) -> Result<Arc<Value>, Failure> {
        let exists = self.store.get(&apply.key).is_some();
        match apply.mode {
            ApplyMode::ServerSide | ApplyMode::ClientSide => self.apply(&apply.manifest, FIELD_MANAGER, apply.dry_run),
            ApplyMode::Create if exists => {
                let message = format!("{} {:?} already exists", plural(&apply.key), apply.key.name);
                Err(Failure::new(FailureReason::AlreadyExists, message))
            }
            ApplyMode::Create => self.apply(&apply.manifest, FIELD_MANAGER, apply.dry_run),
            ApplyMode::Replace => self.replace(&apply.manifest, FIELD_MANAGER, apply.dry_run),
            ApplyMode::Recreate => {
                if exists && apply.dry_run == DryRun::No {
                    self.delete(&apply.key, None, Propagation::Background)?;
                }
                self.apply(&apply.manifest, FIELD_MANAGER, apply.dry_run)
            }
        }
    }

    /// Server-side apply with force.
    ///
    /// # Errors
    /// What an API server would answer.
    pub fn apply(&mut self, manifest: &Value, manager: &str, dry_run: DryRun) -> Result<Arc<Value>, Failure> {
        let key = self.admit(manifest)?;
        let live = self.store.get(&key).cloned();
        let merged = apply::server_side(live.as_deref(), manifest, manager);
        validate::change(live.as_deref(), &merged)?;
        Ok(self.write(&key, merged, dry_run))
    }

    /// Replaces a whole object, or creates it.
    ///
    /// # Errors
    /// What an API server would answer.
    pub fn replace(&mut self, manifest: &Value, manager: &str, dry_run: DryRun) -> Result<Arc<Value>, Failure> {
        let key = self.admit(manifest)?;
        let live = self.store.get(&key).cloned();
        let replaced = apply::update(live.as_deref(), manifest.clone(), manager);
        validate::change(live.as_deref(), &replaced)?;
        Ok(self.write(&key, replaced, dry_run))
    }

    /// A JSON merge patch, as `kubectl edit` or another controller would send one.
    ///
    /// # Errors
    /// The object is not there, or the result is refused.
    pub fn patch(&mut self, key: &ResourceKey, patch: &Value, manager: &str) -> Result<Arc<Value>, Failure> {
        let Some(live) = self.store.get(key).cloned() else { return Err(not_found(key)) };
        let mut object = (*live).clone();
        apply::merge_patch(&mut object, patch);
        let object = apply::update(Some(&live), object, manager);
        validate::object(&object)?;
        validate::change(Some(&live), &object)?;
        Ok(self.write(key, object, DryRun::No))
    }

    /// Deletes an object, if its uid is this one.
    ///
    /// # Errors
    /// A fault that was set.
    pub fn delete(
        &mut self,
        key: &ResourceKey,
        uid: Option<&str>,
        propagation: Propagation,
    ) -> Result<Outcome, Failure> {
        self.faults.check(key)?;
        let Some(live) = self.store.get(key) else { return Ok(Outcome::Gone) };
        if uid.is_some_and(|uid| json::text(live, &["metadata", "uid"]) != uid) {
            return Ok(Outcome::Gone);
        }
        self.store.delete(key, propagation);
        Ok(if self.store.get(key).is_some() { Outcome::Deleting } else { Outcome::Gone })
    }

    fn untrack(&mut self, key: &ResourceKey, uid: Option<&str>) -> Result<Outcome, Failure> {
        let Some(live) = self.store.get(key).cloned() else { return Ok(Outcome::Gone) };
        if uid.is_some_and(|uid| json::text(&live, &["metadata", "uid"]) != uid) {
            return Ok(Outcome::Gone);
        }
        let mut object = (*live).clone();
        for annotation in [TRACKING_ANNOTATION, hook::RUN_ANNOTATION] {
            json::remove(&mut object, &["metadata", "annotations", annotation]);
        }
        json::remove(&mut object, &["metadata", "labels", OWNER_LABEL]);
        Ok(Outcome::Applied(self.write(key, object, DryRun::No)))
    }

    /// The checks before any write: kind, namespace, shape, faults.
    fn admit(&self, manifest: &Value) -> Result<ResourceKey, Failure> {
        let key = ResourceKey::of(manifest);
        let kind = GroupKind::of(&key);
        let (_, version) = manifest::group_version(manifest);
        if !self.kinds.serves(&kind, version) {
            let version = manifest::api_version(manifest);
            let message = format!("no matches for kind {:?} in version {version:?}", key.kind);
            return Err(Failure::new(FailureReason::NoMatch, message));
        }
        self.faults.check(&key)?;
        validate::object(manifest)?;
        if self.kinds.scope(&kind) == Some(Scope::Namespaced) {
            self.admit_into_namespace(&key)?;
        }
        Ok(key)
    }

    fn admit_into_namespace(&self, key: &ResourceKey) -> Result<(), Failure> {
        let namespace =
            ResourceKey { kind: "Namespace".to_owned(), name: key.namespace.clone(), ..ResourceKey::default() };
        let Some(live) = self.store.get(&namespace) else { return Err(not_found(&namespace)) };
        if crate::pair::is_terminating(live) && self.store.get(key).is_none() {
            let message = format!(
                "{} {:?} is forbidden: unable to create new content in namespace {} because it is being terminated",
                plural(key),
                key.name,
                key.namespace
            );
            return Err(Failure::new(FailureReason::Rejected, message));
        }
        Ok(())
    }

    fn write(&mut self, key: &ResourceKey, object: Value, dry_run: DryRun) -> Arc<Value> {
        if dry_run == DryRun::Server {
            return Arc::new(object);
        }
        let written = self.store.put(key, object);
        controllers::settle(self);
        self.store.get(key).cloned().unwrap_or(written)
    }
}

fn not_found(key: &ResourceKey) -> Failure {
    let group = if key.group.is_empty() { String::new() } else { format!(".{}", key.group) };
    Failure::new(FailureReason::NotFound, format!("{}{group} {:?} not found", plural(key), key.name))
}

/// The resource name of a kind, near enough for messages.
fn plural(key: &ResourceKey) -> String {
    let kind = key.kind.to_lowercase();
    match kind.strip_suffix('y') {
        Some(stem) if !kind.ends_with("ay") => format!("{stem}ies"),
        _ if kind.ends_with('s') => format!("{kind}es"),
        _ => format!("{kind}s"),
    }
}

/// The kinds of an ordinary cluster: group, version, namespaced kinds, cluster-scoped kinds.
fn built_in() -> Kinds {
    const TABLE: [(&str, &str, &[&str], &[&str]); 14] = [
        (
            "",
            "v1",
            &[
                "ConfigMap",
                "Secret",
                "Service",
                "ServiceAccount",
                "Pod",
                "PersistentVolumeClaim",
                "Endpoints",
                "Event",
                "LimitRange",
                "ResourceQuota",
                "ReplicationController",
            ],
            &["Namespace", "Node", "PersistentVolume"],
        ),
        ("apps", "v1", &["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ControllerRevision"], &[]),
        ("batch", "v1", &["Job", "CronJob"], &[]),
        ("autoscaling", "v2", &["HorizontalPodAutoscaler"], &[]),
        ("autoscaling", "v1", &["HorizontalPodAutoscaler"], &[]),
        ("policy", "v1", &["PodDisruptionBudget"], &[]),
        ("networking.k8s.io", "v1", &["Ingress", "NetworkPolicy"], &["IngressClass"]),
        ("rbac.authorization.k8s.io", "v1", &["Role", "RoleBinding"], &["ClusterRole", "ClusterRoleBinding"]),
        ("storage.k8s.io", "v1", &[], &["StorageClass", "CSIDriver"]),
        ("scheduling.k8s.io", "v1", &[], &["PriorityClass"]),
        ("apiextensions.k8s.io", "v1", &[], &["CustomResourceDefinition"]),
        ("apiregistration.k8s.io", "v1", &[], &["APIService"]),
        (
            "admissionregistration.k8s.io",
            "v1",
            &[],
            &["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"],
        ),
        ("coordination.k8s.io", "v1", &["Lease"], &[]),
    ];
    let mut kinds = Kinds::new();
    for (group, version, namespaced, cluster) in TABLE {
        for kind in namespaced {
            kinds.insert(GroupKind::new(group, *kind), Scope::Namespaced, version);
        }
        for kind in cluster {
            kinds.insert(GroupKind::new(group, *kind), Scope::Cluster, version);
        }
    }
    kinds
}

#[cfg(test)]
mod tests;
