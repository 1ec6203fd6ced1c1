//! Runs operations on mirrors: who waits for whom, on which threads, and for how long at most.
//!
//! It decides nothing about references; that is [`resolve`](super::resolve)'s.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    CommitTree, LocalAccess, Repository, SourceConfig, SourceError,
    guard::Guard,
    http::Client,
    mirror::{Mirror, remove_unused},
    reference::{CommitId, Wanted},
    repository::{Place, Remote},
    resolve::{Job, Resolved},
};

/// Mirrors, limits and threads; shared by pollers and readers.
#[derive(Debug)]
pub(super) struct Backend {
    config: Arc<SourceConfig>,
    client: Arc<Client>,
    mirrors: Mutex<BTreeMap<String, Arc<Mirror>>>,
    /// One server that hangs may take half of the permits, not all.
    hosts: Mutex<BTreeMap<String, Arc<Semaphore>>>,
    permits: Arc<Semaphore>,
    /// Set when unused mirrors were removed, which must come before the first mirror is opened.
    swept: OnceCell<()>,
    shutdown: CancellationToken,
}

impl Backend {
    /// Time a stopped operation gets to leave its thread before the caller stops waiting for it.
    const GRACE: Duration = Duration::from_secs(5);

    pub(super) fn new(config: SourceConfig, shutdown: CancellationToken) -> Self {
        let permits = config.max_concurrent.max(1);
        Self {
            config: Arc::new(config),
            client: Arc::new(Client::default()),
            mirrors: Mutex::default(),
            hosts: Mutex::default(),
            permits: Arc::new(Semaphore::new(permits)),
            swept: OnceCell::new(),
            shutdown,
        }
    }

    pub(super) fn config(&self) -> &SourceConfig {
        &self.config
    }

    /// Cancelled when the last handle to the sources goes.
    pub(super) fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Parses a repository and refuses what the configuration refuses.
    pub(super) fn admit(&self, repository: &Repository) -> Result<Remote, SourceError> {
        let remote = repository.parse()?;
        if self.config.local == LocalAccess::Refused && matches!(remote.place, Place::Local(_)) {
            return Err(SourceError::LocalRefused { repository: remote.label });
        }
        Ok(remote)
    }

    pub(super) fn mirror(&self, remote: &Remote) -> Arc<Mirror> {
        let mut mirrors = self.mirrors.lock().unwrap_or_else(PoisonError::into_inner);
        let mirror = mirrors.entry(remote.directory()).or_insert_with(|| Arc::new(Mirror::new(&self.config, remote)));
        Arc::clone(mirror)
    }

    async fn sweep(&self) {
        let config = Arc::clone(&self.config);
        if let Err(error) = tokio::task::spawn_blocking(move || remove_unused(&config)).await {
            tracing::warn!(%error, "cannot look for unused mirrors");
        }
    }

    /// Runs one poll on a blocking thread, bounded in time, when the mirror, the server and the hub have room for it.
    pub(super) async fn resolve(&self, remote: &Arc<Remote>, wanted: &Wanted) -> Result<Resolved, SourceError> {
        self.swept.get_or_init(|| self.sweep()).await;
        let mirror = self.mirror(remote);
        let closed = |_| SourceError::Closed;
        // The mirror first: who waits for it must hold no permit that others could use.
        let exclusive = Arc::clone(&mirror.exclusive).acquire_owned().await.map_err(closed)?;
        let host = self.host(remote).acquire_owned().await.map_err(closed)?;
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(closed)?;
        let guard = Guard::new(&remote.label, &self.config, self.shutdown.clone());
        let job = Job {
            config: Arc::clone(&self.config),
            client: Arc::clone(&self.client),
            mirror,
            remote: Arc::clone(remote),
            guard: guard.clone(),
        };
        let wanted = wanted.clone();
        let mut work = tokio::task::spawn_blocking(move || {
            let outcome = job.resolve(&wanted);
            // Held until the thread is done, not until the caller gives up.
            drop((exclusive, host, permit));
            outcome
        });
        let joined = tokio::select! {
            joined = &mut work => joined,
            () = tokio::time::sleep_until(guard.deadline()) => {
                let expired = guard.expire();
                match tokio::time::timeout(Self::GRACE, work).await {
                    Ok(joined) => joined,
                    Err(_) => return Err(expired),
                }
            }
        };
        joined.map_err(|error| SourceError::Disk {
            repository: remote.label.clone(),
            reason: format!("the operation ended abnormally: {error}"),
        })?
    }

    /// The tree of a commit; fetches it, or clones a damaged mirror again, if it must.
    pub(super) async fn tree(&self, remote: &Arc<Remote>, commit: &CommitId) -> Result<Arc<CommitTree>, SourceError> {
        let mirror = self.mirror(remote);
        let wanted = Wanted::Commit(commit.clone());
        let known = self.is_local(remote) || mirror.admitted(remote.fingerprint());
        if !known || mirror.readable().is_empty() {
            self.resolve(remote, &wanted).await?;
        }
        match self.open_tree(remote, commit, Arc::clone(&mirror)).await {
            Err(SourceError::UnknownCommit { .. } | SourceError::Damaged { .. }) => {}
            outcome => return outcome,
        }
        self.resolve(remote, &wanted).await?;
        self.open_tree(remote, commit, mirror).await
    }

    async fn open_tree(
        &self,
        remote: &Remote,
        commit: &CommitId,
        mirror: Arc<Mirror>,
    ) -> Result<Arc<CommitTree>, SourceError> {
        if let Some(held) = mirror.held_tree(commit) {
            return Ok(held);
        }
        let config = Arc::clone(&self.config);
        let commit = commit.clone();
        let label = remote.label.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let mut outcome = Err(SourceError::UnknownCommit { repository: label.clone(), commit: commit.clone() });
            for generation in mirror.readable() {
                if generation.contains(&commit) {
                    outcome = CommitTree::open(generation, &commit, &label, &config).map(Arc::new);
                }
                if let Ok(tree) = &outcome {
                    mirror.hold_tree(&commit, tree);
                    break;
                }
            }
            outcome
        });
        opened.await.map_err(|error| SourceError::Disk {
            repository: remote.label.clone(),
            reason: format!("the tree cannot be opened: {error}"),
        })?
    }

    fn is_local(&self, remote: &Remote) -> bool {
        matches!(remote.place, Place::Local(_))
    }

    fn host(&self, remote: &Remote) -> Arc<Semaphore> {
        let name = match &remote.place {
            Place::Local(_) => String::new(),
            Place::Http(url) => url.host_str().unwrap_or_default().to_owned(),
        };
        let share = (self.config.max_concurrent / 2).max(1);
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let host = hosts.entry(name).or_insert_with(|| Arc::new(Semaphore::new(share)));
        Arc::clone(host)
    }
}
