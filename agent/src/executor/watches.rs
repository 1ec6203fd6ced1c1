//! Which types are watched, and the observations that wait until a watch has told everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::future::BoxFuture;
use tokio::{sync::mpsc, task::JoinSet};
use windlass_engine::{LiveChange, Outcome};

use super::{Done, perform};
use crate::cluster::{Change, ClusterPort, ResourceType, WatchGuard};

/// An observation that begins once its type is watched.
pub(super) struct Pending {
    /// Begins it.
    pub(super) begin: Box<dyn FnOnce() -> BoxFuture<'static, Done> + Send>,
    /// Ends it because the type cannot be watched.
    pub(super) fail: Box<dyn FnOnce(Outcome) -> Done + Send>,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pending")
    }
}

/// The watches of all assignments.
#[derive(Debug)]
pub(super) struct Watches {
    port: Arc<dyn ClusterPort>,
    changes: mpsc::Sender<Change>,
    open: BTreeMap<ResourceType, Watched>,
}

#[derive(Debug)]
struct Watched {
    _guard: WatchGuard,
    /// It has told everything once: what changes from now on will be told.
    complete: bool,
    interrupted: bool,
    pending: Vec<Pending>,
}

impl Watches {
    pub(super) const fn new(port: Arc<dyn ClusterPort>, changes: mpsc::Sender<Change>) -> Self {
        Self { port, changes, open: BTreeMap::new() }
    }

    /// Watches a type, and begins the observation as soon as nothing can be missed.
    pub(super) fn observe(&mut self, resource: &ResourceType, pending: Pending, tasks: &mut JoinSet<Done>) {
        let watched = self.open.entry(resource.clone()).or_insert_with(|| Watched {
            _guard: self.port.watch(resource, self.changes.clone()),
            complete: false,
            interrupted: false,
            pending: Vec::new(),
        });
        if watched.complete {
            tasks.spawn((pending.begin)());
        } else {
            watched.pending.push(pending);
        }
    }

    /// Stops watching what nobody needs.
    pub(super) fn retain(&mut self, needed: &BTreeSet<ResourceType>) {
        self.open.retain(|resource, watched| needed.contains(resource) || !watched.pending.is_empty());
    }

    /// Takes what a watch reports; gives the change of an object, if it is one.
    pub(super) fn handle(&mut self, change: Change, tasks: &mut JoinSet<Done>) -> Option<(ResourceType, LiveChange)> {
        match change {
            Change::Present { resource, object } => Some((resource, LiveChange::Present(object))),
            Change::Gone { resource, key, uid } => Some((resource, LiveChange::Gone { key, uid })),
            Change::Complete { resource } => {
                if let Some(watched) = self.open.get_mut(&resource) {
                    if std::mem::take(&mut watched.interrupted) {
                        tracing::info!(kind = %resource.kind, "watch works again");
                    }
                    watched.complete = true;
                    for pending in watched.pending.drain(..) {
                        tasks.spawn((pending.begin)());
                    }
                }
                None
            }
            Change::Interrupted { resource, error } => {
                if let Some(watched) = self.open.get_mut(&resource) {
                    if !std::mem::replace(&mut watched.interrupted, true) {
                        tracing::warn!(kind = %resource.kind, %error, "watch interrupted");
                    }
                    for pending in watched.pending.drain(..) {
                        let done = (pending.fail)(Outcome::Failed(perform::failure(&error)));
                        tasks.spawn(async move { done });
                    }
                }
                None
            }
        }
    }
}
