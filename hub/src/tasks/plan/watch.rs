//! Which references the planner watches: one receiver per (repository, ref), kept as long as somebody needs it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{Notify, watch};
use windlass_protocol::ids::NamespacedName;

use crate::source::{RefState, Repository, Sources};

/// Between two looks for the answer to a refresh.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// URL and ref.
pub(super) type RefKey = (String, String);

#[derive(Debug)]
pub(super) struct Watches {
    sources: Sources,
    refs: BTreeMap<RefKey, Watched>,
    by_application: BTreeMap<NamespacedName, RefKey>,
    used: BTreeSet<RefKey>,
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct Watched {
    repository: Repository,
    state: watch::Receiver<RefState>,
    follower: tokio::task::AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Watches {
    pub(super) fn new(sources: Sources) -> Self {
        Self {
            sources,
            refs: BTreeMap::new(),
            by_application: BTreeMap::new(),
            used: BTreeSet::new(),
            changed: Arc::new(Notify::new()),
        }
    }

    /// Waits until some reference has another commit or another error.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Asks for another pass soon: an answer of a source changes nothing that would wake the planner by itself.
    pub(super) fn look_again(&self) {
        let changed = Arc::clone(&self.changed);
        tokio::spawn(async move {
            tokio::time::sleep(LOOK_AGAIN).await;
            changed.notify_one();
        });
    }

    /// A pass begins: nothing is used yet.
    pub(super) fn begin(&mut self) {
        self.used.clear();
    }

    /// A pass ends: what it did not use is not watched any longer.
    pub(super) fn end(&mut self) {
        let used = &self.used;
        self.refs.retain(|key, _| used.contains(key));
        self.by_application.retain(|_, key| used.contains(key));
    }

    pub(super) fn keep(&mut self, key: &RefKey) {
        self.used.insert(key.clone());
    }

    pub(super) fn of(&self, application: &NamespacedName) -> Option<RefKey> {
        self.by_application.get(application).cloned()
    }

    pub(super) fn state(&self, key: &RefKey) -> Option<RefState> {
        Some(self.refs.get(key)?.state.borrow().clone())
    }

    pub(super) async fn watch(
        &mut self,
        application: &NamespacedName,
        repository: &Repository,
        reference: &str,
    ) -> RefState {
        let key = (repository.url.clone(), reference.to_owned());
        self.by_application.insert(application.clone(), key);
        self.watch_ref(repository, reference).await
    }

    pub(super) async fn watch_ref(&mut self, repository: &Repository, reference: &str) -> RefState {
        let key = (repository.url.clone(), reference.to_owned());
        self.used.insert(key.clone());
        if let Some(watched) = self.refs.get(&key).filter(|watched| watched.repository == *repository) {
            return watched.state.borrow().clone();
        }
        let state = self.sources.subscribe(repository, reference).await;
        let (changed, mut follow) = (Arc::clone(&self.changed), state.clone());
        let follower = tokio::spawn(async move {
            // The first state may have come before this task runs.
            changed.notify_one();
            while follow.changed().await.is_ok() {
                changed.notify_one();
            }
        });
        let now = state.borrow().clone();
        let watched = Watched { repository: repository.clone(), state, follower: follower.abort_handle() };
        self.refs.insert(key, watched);
        now
    }
}
