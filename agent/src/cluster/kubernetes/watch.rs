//! One filtered watch: list, then follow; 410 lists again, silence and broken connections start over with backoff.
//!
//! A filtered watch says DELETED also when an object only lost its label. Such an event is checked by reading the
//! object, so that a removed label is a drift and not a deletion.

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _};
use kube::{
    api::WatchParams,
    core::{Request, WatchEvent},
};
use serde_json::Value;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};
use windlass_protocol::{
    json,
    manifest::{OWNER_LABEL, ResourceKey},
};

use super::{KubernetesCluster, collection, translate, trim};
use crate::cluster::{Change, ClusterError, ResourceType, Target};

/// Follows one type until its receiver is gone or its guard is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    cluster: KubernetesCluster,
    resource: ResourceType,
    changes: mpsc::Sender<Change>,
    failures: u32,
    /// What was reported as there, by key with its uid: what a new list lacks is gone or has lost its label.
    known: BTreeMap<ResourceKey, String>,
}

/// Why following ended.
enum End {
    /// The server closed the watch; it can be resumed from the version.
    Closed(String),
    /// The version is too old: list again.
    Expired,
    /// It failed; try again later, from a new list.
    Failed(ClusterError),
    /// Nobody listens.
    Unwanted,
}

impl Watch {
    pub(super) const fn new(cluster: KubernetesCluster, resource: ResourceType, changes: mpsc::Sender<Change>) -> Self {
        Self { cluster, resource, changes, failures: 0, known: BTreeMap::new() }
    }

    pub(super) async fn run(mut self) {
        loop {
            let error = match self.cluster.list_objects(&self.resource, "", OWNER_LABEL).await {
                Ok((objects, version)) => {
                    if self.report(objects).await.is_err() {
                        return;
                    }
                    match self.follow(version).await {
                        End::Unwanted => return,
                        End::Failed(error) => error,
                        End::Expired | End::Closed(_) => continue,
                    }
                }
                Err(error) => error,
            };
            self.failures = self.failures.saturating_add(1);
            tracing::debug!(kind = %self.resource.kind, %error, "watch interrupted");
            let interrupted = Change::Interrupted { resource: self.resource.clone(), error };
            if self.changes.send(interrupted).await.is_err() {
                return;
            }
            sleep(self.pause()).await;
        }
    }

    /// Reports a whole list, and what it lacks of the one before.
    async fn report(&mut self, objects: Vec<Value>) -> Result<(), mpsc::error::SendError<Change>> {
        let mut before = std::mem::take(&mut self.known);
        for object in objects {
            before.remove(&ResourceKey::of(&object));
            let change = self.present(object);
            self.changes.send(change).await?;
        }
        for (key, uid) in before {
            let change = self.check(key, uid).await;
            self.changes.send(change).await?;
        }
        self.changes.send(Change::Complete { resource: self.resource.clone() }).await
    }

    /// Watches from a version on, again and again, until it cannot be resumed.
    async fn follow(&mut self, mut version: String) -> End {
        loop {
            match self.follow_once(version).await {
                End::Closed(next) => version = next,
                end => return end,
            }
        }
    }

    async fn follow_once(&mut self, version: String) -> End {
        let lifetime = self.cluster.shared.watch_deadline;
        let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
        let params = WatchParams::default().labels(OWNER_LABEL).timeout(seconds);
        let request = match Request::new(collection(&self.resource, "")).watch(&params, &version) {
            Ok(request) => request,
            Err(error) => return End::Failed(ClusterError::Unreadable(error.to_string())),
        };
        let opened = self.cluster.bounded(self.cluster.client.request_events::<Value>(request)).await;
        match opened {
            Ok(events) => self.drain(events, version, Instant::now() + lifetime + GRACE).await,
            Err(error) if error.code() == 410 => End::Expired,
            Err(error) => End::Failed(error),
        }
    }

    async fn drain<S>(&mut self, events: S, mut version: String, deadline: Instant) -> End
    where
        S: Stream<Item = Result<WatchEvent<Value>, kube::Error>>,
    {
        let mut events = pin!(events);
        loop {
            let event = match timeout_at(deadline, events.next()).await {
                Ok(Some(Ok(event))) => event,
                Ok(None) => return End::Closed(version),
                Ok(Some(Err(error))) => return End::Failed(translate(error)),
                Err(_) => return End::Failed(ClusterError::Timeout(self.cluster.shared.watch_deadline.as_secs())),
            };
            self.failures = 0;
            let change = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    object_version(&object).clone_into(&mut version);
                    Some(self.present(object))
                }
                WatchEvent::Deleted(object) => {
                    object_version(&object).clone_into(&mut version);
                    let mut object = object;
                    trim(&self.resource, &mut object);
                    let uid = json::text(&object, &["metadata", "uid"]).to_owned();
                    Some(self.check(ResourceKey::of(&object), uid).await)
                }
                WatchEvent::Bookmark(bookmark) => {
                    version = bookmark.metadata.resource_version;
                    None
                }
                WatchEvent::Error(status) if status.code == 410 => return End::Expired,
                WatchEvent::Error(status) => return End::Failed(translate(kube::Error::Api(status))),
            };
            if let Some(change) = change
                && self.changes.send(change).await.is_err()
            {
                return End::Unwanted;
            }
        }
    }

    fn present(&mut self, mut object: Value) -> Change {
        trim(&self.resource, &mut object);
        self.known.insert(ResourceKey::of(&object), json::text(&object, &["metadata", "uid"]).to_owned());
        Change::Present { resource: self.resource.clone(), object: Arc::new(object) }
    }

    /// Reads an object that left the filter: it is gone only if it is not there.
    async fn check(&mut self, key: ResourceKey, uid: String) -> Change {
        self.known.remove(&key);
        let target =
            Target { resource: self.resource.clone(), namespace: key.namespace.clone(), name: key.name.clone() };
        match self.cluster.get_object(&target).await {
            Ok(Some(object)) => Change::Present { resource: self.resource.clone(), object: Arc::new(object) },
            // When it cannot be read, the event is believed: the next comparison corrects it.
            Ok(None) | Err(_) => Change::Gone { resource: self.resource.clone(), key, uid },
        }
    }

    /// 0.5 s, doubling up to 30 s. Jitter is not needed: one agent is the only one that waits here.
    fn pause(&self) -> Duration {
        let doubled = 500_u64.saturating_mul(1 << self.failures.saturating_sub(1).min(10));
        Duration::from_millis(doubled.min(30_000))
    }
}

fn object_version(object: &Value) -> &str {
    json::text(object, &["metadata", "resourceVersion"])
}

/// The server ends the watch by itself after its timeout; this much later the connection is taken for dead.
const GRACE: Duration = Duration::from_secs(15);
