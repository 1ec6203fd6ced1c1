//! A simulated cluster behind the same port: the engine's simulation, moved along by tokio's time.
//!
//! For `windlass demo`, chaos and tests. Its owner may reach into it with [`EmbeddedCluster::with`], to edit objects behind
//! the agent's back or to make it fail; watches see that as they would a real change.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, broadcast, mpsc},
    time::{Instant, sleep, sleep_until},
};
use windlass_engine::{
    Apply, ApplyMode, DryRun, Failure, FailureReason, GroupKind, Kinds, LiveChange, Outcome, Scope, Work,
    action::Validation, sim::SimulatedCluster,
};
use windlass_protocol::{
    json,
    manifest::{self, FIELD_MANAGER, OWNER_LABEL, ResourceKey},
};

use super::{
    Change, ClusterError, ClusterPort, DeleteOptions, Deletion, Discovery, Freshness, ResourceType, Target, WatchGuard,
    Write, WriteOptions,
};
use crate::clock::Clock;

/// Changes that a slow watch may lag behind before it lists again.
const LAG: usize = 4_096;

/// A cluster in this process. Clones share it.
#[derive(Clone)]
pub struct EmbeddedCluster {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: Mutex<Simulated>,
    clock: Clock,
    events: broadcast::Sender<Event>,
    /// Something was done: the time of the next event may be another.
    poked: Notify,
}

struct Simulated {
    cluster: SimulatedCluster,
    was_down: bool,
    kinds: Arc<Kinds>,
    discovery: Arc<Discovery>,
}

#[derive(Clone, Debug)]
enum Event {
    Change(LiveChange),
    /// The API server went away or came back.
    Interrupted,
}

impl fmt::Debug for EmbeddedCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedCluster").finish_non_exhaustive()
    }
}

impl EmbeddedCluster {
    /// A fresh cluster; the seed goes into its uids. To be called inside a tokio runtime, whose time moves it.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let clock = Clock::start();
        let cluster = SimulatedCluster::new(seed, clock.now());
        let kinds = cluster.kinds();
        let discovery = Arc::new(discovery_of(&kinds));
        let simulated = Simulated { cluster, was_down: false, kinds, discovery };
        let (events, _) = broadcast::channel(LAG);
        let inner = Arc::new(Inner { cluster: Mutex::new(simulated), clock, events, poked: Notify::new() });
        tokio::spawn(drive(Arc::downgrade(&inner)));
        Self { inner }
    }

    /// Looks at the cluster or changes it, at the present time.
    pub fn with<T>(&self, visit: impl FnOnce(&mut SimulatedCluster) -> T) -> T {
        let result = self.inner.visit(|simulated| visit(&mut simulated.cluster));
        self.inner.poked.notify_one();
        result
    }

    /// A request: takes the simulated time, and fails while the simulated API server is away.
    async fn request<T>(
        &self,
        visit: impl FnOnce(&mut Simulated) -> Result<T, ClusterError> + Send,
    ) -> Result<T, ClusterError> {
        let latency = self.with(|cluster| cluster.faults.latency);
        if latency.0 > 0 {
            sleep(Duration::from_millis(latency.0)).await;
        }
        let result = self.inner.visit(|simulated| match &simulated.cluster.faults.down {
            Some(message) => Err(ClusterError::Unreachable(message.clone())),
            None => visit(simulated),
        });
        self.inner.poked.notify_one();
        result
    }
}

impl Inner {
    /// Never held across an await. Brings the cluster to the present and tells what changed.
    fn visit<T>(&self, visit: impl FnOnce(&mut Simulated) -> T) -> T {
        let mut guard = self.cluster.lock().unwrap_or_else(PoisonError::into_inner);
        let simulated = &mut *guard;
        simulated.cluster.advance(self.clock.now());
        let result = visit(simulated);
        let kinds = simulated.cluster.kinds();
        if kinds != simulated.kinds {
            simulated.discovery = Arc::new(discovery_of(&kinds));
            simulated.kinds = kinds;
        }
        let down = simulated.cluster.faults.down.is_some();
        if down != simulated.was_down {
            simulated.was_down = down;
            // Without a watch nobody listens: no error.
            let _ = self.events.send(Event::Interrupted);
        }
        while let Some(change) = simulated.cluster.poll_change() {
            let _ = self.events.send(Event::Change(change));
        }
        result
    }
}

/// Lets time pass in the cluster as long as it exists.
async fn drive(inner: Weak<Inner>) {
    // A look at this period notices that the cluster is gone; events and pokes come sooner.
    const IDLE: Duration = Duration::from_secs(5);
    while let Some(strong) = inner.upgrade() {
        let next = strong.visit(|simulated| simulated.cluster.next_event_at());
        let limit = Instant::now() + IDLE;
        let wake = next.map_or(limit, |at| strong.clock.instant(at).min(limit));
        tokio::select! {
            () = sleep_until(wake) => {}
            () = strong.poked.notified() => {}
        }
    }
}

impl ClusterPort for EmbeddedCluster {
    fn discovery(&self, _freshness: Freshness) -> BoxFuture<'_, Result<Arc<Discovery>, ClusterError>> {
        Box::pin(self.request(|simulated| Ok(Arc::clone(&simulated.discovery))))
    }

    fn facts(&self) -> BoxFuture<'_, Result<Value, ClusterError>> {
        Box::pin(self.request(|_| Ok(json!({"kubernetesVersion": "simulated", "platform": "embedded"}))))
    }

    fn get<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Option<Value>, ClusterError>> {
        Box::pin(
            self.request(move |simulated| Ok(simulated.cluster.get(&target.key()).map(|object| (**object).clone()))),
        )
    }

    fn list<'a>(
        &'a self,
        resource: &'a ResourceType,
        namespace: &'a str,
        selector: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Value>, ClusterError>> {
        Box::pin(self.request(move |simulated| {
            let objects = simulated.cluster.list(&kind_of(resource));
            let in_namespace = |object: &Value| namespace.is_empty() || manifest::namespace(object) == namespace;
            let chosen = objects.iter().filter(|object| in_namespace(object) && selected(object, selector));
            Ok(chosen.map(|object| (**object).clone()).collect())
        }))
    }

    fn write<'a>(
        &'a self,
        target: &'a Target,
        write: Write<'a>,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<Value, ClusterError>> {
        Box::pin(self.request(move |simulated| {
            let apply = |mode: ApplyMode, object: &Value| Apply {
                key: target.key(),
                manifest: Arc::new(object.clone()),
                mode,
                dry_run: if options.dry_run { DryRun::Server } else { DryRun::No },
                validation: if options.strict { Validation::Strict } else { Validation::Ignore },
            };
            let work = match write {
                Write::Apply(object) => apply(ApplyMode::ServerSide, object),
                Write::Create(object) => apply(ApplyMode::Create, object),
                Write::Replace(object) => apply(ApplyMode::Replace, object),
                // Lists are replaced as a whole: what is applied here has the whole lists.
                Write::Merge(patch) | Write::Strategic(patch) => {
                    let patched = simulated.cluster.patch(&target.key(), patch, FIELD_MANAGER);
                    return patched.map(|object| (*object).clone()).map_err(translate);
                }
            };
            match simulated.cluster.perform(&Work::Apply(work)) {
                Outcome::Applied(object) => Ok((*object).clone()),
                Outcome::Failed(failure) => Err(translate(failure)),
                other => Err(ClusterError::Unreadable(format!("{other:?}"))),
            }
        }))
    }

    fn delete<'a>(
        &'a self,
        target: &'a Target,
        options: &'a DeleteOptions,
    ) -> BoxFuture<'a, Result<Deletion, ClusterError>> {
        Box::pin(self.request(move |simulated| {
            let key = target.key();
            let there = simulated.cluster.get(&key).is_some_and(|live| {
                options.uid.as_deref().is_none_or(|uid| uid == json::text(live, &["metadata", "uid"]))
            });
            if !there {
                return Ok(Deletion::NotThere);
            }
            let deleted = simulated.cluster.delete(&key, options.uid.as_deref(), options.propagation);
            deleted.map(|_| Deletion::Accepted).map_err(translate)
        }))
    }

    fn watch(&self, resource: &ResourceType, changes: mpsc::Sender<Change>) -> WatchGuard {
        let watch = Watch { cluster: self.clone(), resource: resource.clone(), changes, known: BTreeMap::new() };
        WatchGuard::new(tokio::spawn(watch.run()).abort_handle())
    }
}

/// One filtered watch; as the real one, a label that is taken away is no deletion.
struct Watch {
    cluster: EmbeddedCluster,
    resource: ResourceType,
    changes: mpsc::Sender<Change>,
    known: BTreeMap<ResourceKey, String>,
}

impl Watch {
    async fn run(mut self) {
        loop {
            // Subscribed before it lists, both at one time: nothing is lost between them.
            let kind = kind_of(&self.resource);
            let (mut events, listed) = self.cluster.inner.visit(|simulated| {
                let listed = match &simulated.cluster.faults.down {
                    Some(message) => Err(ClusterError::Unreachable(message.clone())),
                    None => Ok(simulated.cluster.list(&kind)),
                };
                (self.cluster.inner.events.subscribe(), listed)
            });
            let sent = match listed {
                Ok(objects) => self.report(objects).await,
                Err(error) => {
                    self.changes.send(Change::Interrupted { resource: self.resource.clone(), error }).await.is_ok()
                }
            };
            if !sent {
                return;
            }
            loop {
                let change = match events.recv().await {
                    Ok(Event::Change(change)) => change,
                    Ok(Event::Interrupted) | Err(broadcast::error::RecvError::Lagged(_)) => break,
                    Err(broadcast::error::RecvError::Closed) => return,
                };
                if let Some(change) = self.filter(change)
                    && self.changes.send(change).await.is_err()
                {
                    return;
                }
            }
        }
    }

    async fn report(&mut self, objects: Vec<Arc<Value>>) -> bool {
        let mut before = std::mem::take(&mut self.known);
        let mut changes = Vec::new();
        for object in objects {
            before.remove(&ResourceKey::of(&object));
            changes.extend(self.filter(LiveChange::Present(object)));
        }
        for (key, uid) in before {
            changes.push(Change::Gone { resource: self.resource.clone(), key, uid });
        }
        changes.push(Change::Complete { resource: self.resource.clone() });
        for change in changes {
            if self.changes.send(change).await.is_err() {
                return false;
            }
        }
        true
    }

    fn filter(&mut self, change: LiveChange) -> Option<Change> {
        let resource = self.resource.clone();
        match change {
            LiveChange::Present(object) => {
                let key = ResourceKey::of(&object);
                if GroupKind::of(&key) != kind_of(&resource) {
                    return None;
                }
                if manifest::label(&object, OWNER_LABEL).is_some() {
                    self.known.insert(key, json::text(&object, &["metadata", "uid"]).to_owned());
                } else {
                    self.known.remove(&key)?;
                }
                Some(Change::Present { resource, object })
            }
            LiveChange::Gone { key, uid } => {
                self.known.remove(&key)?;
                Some(Change::Gone { resource, key, uid })
            }
        }
    }
}

fn kind_of(resource: &ResourceType) -> GroupKind {
    GroupKind::new(&*resource.group, &*resource.kind)
}

fn discovery_of(kinds: &Kinds) -> Discovery {
    let types = kinds.iter().flat_map(|(kind, scope)| {
        kinds.versions(kind).map(move |version| ResourceType {
            group: kind.group.clone(),
            version: version.to_owned(),
            kind: kind.kind.clone(),
            plural: kind.kind.to_lowercase(),
            namespaced: scope == Scope::Namespaced,
            watchable: true,
        })
    });
    Discovery::new(types.collect(), std::collections::BTreeSet::new())
}

/// `key=value`, `key`, or nothing.
fn selected(object: &Value, selector: &str) -> bool {
    match selector.split_once('=') {
        Some((key, value)) => manifest::label(object, key) == Some(value),
        None => selector.is_empty() || manifest::label(object, selector).is_some(),
    }
}

fn translate(failure: Failure) -> ClusterError {
    let (code, reason) = match failure.reason {
        FailureReason::Rejected => (422, "Invalid"),
        FailureReason::NoMatch | FailureReason::NotFound => (404, "NotFound"),
        FailureReason::AlreadyExists => (409, "AlreadyExists"),
        FailureReason::Conflict => (409, "Conflict"),
        FailureReason::Forbidden => (403, "Forbidden"),
        FailureReason::Unavailable => return ClusterError::Unreachable(failure.message),
    };
    ClusterError::Refused { code, reason: reason.to_owned(), message: failure.message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_map(value: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "one", "namespace": "default", "labels": {OWNER_LABEL: "shop"}}, "data": {"key": value}})
    }

    async fn target(port: &EmbeddedCluster) -> Target {
        let discovery = port.discovery(Freshness::Cached).await.unwrap();
        let resource = discovery.find("", "ConfigMap", Some("v1")).unwrap().clone();
        Target { resource, namespace: "default".into(), name: "one".into() }
    }

    #[tokio::test]
    async fn watches_see_edits_lost_labels_and_outages() {
        let port = EmbeddedCluster::new(1);
        let map = target(&port).await;
        let (sender, mut changes) = mpsc::channel(16);
        let _watch = port.watch(&map.resource, sender);
        assert!(matches!(changes.recv().await, Some(Change::Complete { .. })));
        port.write(&map, Write::Apply(&config_map("a")), WriteOptions::default()).await.unwrap();
        assert!(matches!(changes.recv().await, Some(Change::Present { .. })));
        let unlabelled = json!({"metadata": {"labels": {OWNER_LABEL: null}}});
        port.with(|cluster| cluster.patch(&map.key(), &unlabelled, "kubectl")).unwrap();
        let Some(Change::Present { object, .. }) = changes.recv().await else { panic!("a lost label is no deletion") };
        assert_eq!(manifest::label(&object, OWNER_LABEL), None);

        port.with(|cluster| cluster.faults.down = Some("connection refused".into()));
        assert!(matches!(changes.recv().await, Some(Change::Interrupted { .. })));
        assert!(port.get(&map).await.unwrap_err().is_unreachable());
        port.with(|cluster| cluster.faults.down = None);
        assert!(matches!(changes.recv().await, Some(Change::Complete { .. })));
    }

    #[tokio::test]
    async fn deletions_are_bound_to_the_uid() {
        let port = EmbeddedCluster::new(1);
        let map = target(&port).await;
        let stored = port.write(&map, Write::Apply(&config_map("a")), WriteOptions::default()).await.unwrap();
        let mut options = DeleteOptions { uid: Some("other".into()), ..DeleteOptions::default() };
        assert_eq!(port.delete(&map, &options).await, Ok(Deletion::NotThere));
        options.uid = Some(json::text(&stored, &["metadata", "uid"]).into());
        assert_eq!(port.delete(&map, &options).await, Ok(Deletion::Accepted));
        assert_eq!(port.get(&map).await, Ok(None));
    }
}
