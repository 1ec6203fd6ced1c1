//! Who polls what: one owner task, one poller per (repository, credentials, reference), any number of subscribers.
//!
//! The owner alone changes the table of pollers. A poller lives as long as someone holds a receiver; its state is the
//! last value of a `watch` channel, so slow readers cost nothing and a failed poll keeps the last good commit.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use windlass_render::Tree;

use super::{
    Repository, SourceConfig, SourceError,
    backend::Backend,
    normalize_url,
    reference::{CommitId, Wanted},
    repository::{Fingerprint, Remote},
    resolve::Resolved,
};

/// What is known of one reference.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RefState {
    /// The commit of the last poll that succeeded. Its files are in the mirror.
    pub commit: Option<CommitId>,
    /// Full name of the branch or tag behind it; `None` for commit ids.
    pub resolved: Option<String>,
    /// Why the last poll failed; `None` after one that succeeded.
    pub error: Option<SourceError>,
    /// When the last poll ended, in milliseconds since 1970; 0 before the first. Changes without waking receivers.
    pub checked_at_ms: u64,
}

/// Handle to the sources; cheap to clone. The owner task ends with the last handle.
#[derive(Debug, Clone)]
pub struct Sources {
    commands: mpsc::Sender<Command>,
    backend: Arc<Backend>,
    /// Stops operations on blocking threads when the last handle goes.
    _alive: Arc<tokio_util::sync::DropGuard>,
}

impl Sources {
    /// Commands that may wait for the owner; senders wait beyond that.
    const QUEUE: usize = 1024;

    /// Starts the owner task. Must be called inside a tokio runtime; the process must have installed a rustls crypto
    /// provider before the first `https` repository is polled.
    pub fn start(config: SourceConfig) -> Self {
        let shutdown = CancellationToken::new();
        let backend = Arc::new(Backend::new(config, shutdown.clone()));
        let (commands, inbox) = mpsc::channel(Self::QUEUE);
        let owner = Owner { backend: Arc::clone(&backend), pollers: BTreeMap::new(), idle: JoinSet::new() };
        tokio::spawn(owner.run(inbox, shutdown.clone()));
        Self { commands, backend, _alive: Arc::new(shutdown.drop_guard()) }
    }

    /// Follows a reference (`targetRevision`): branch, tag, full or abbreviated commit id, `HEAD` or nothing, or a
    /// version range on tags. The receiver wakes when the commit or the error changes. Polling ends when all receivers
    /// of the same repository, credentials and reference are gone. A repository or reference that can never work gives
    /// a receiver that already holds the error.
    pub async fn subscribe(&self, repository: &Repository, reference: &str) -> watch::Receiver<RefState> {
        let target = match self.target(repository, reference) {
            Ok(target) => target,
            Err(error) => return failed(error),
        };
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Subscribe(Box::new(target), reply)).await;
        match (sent, answer.await) {
            (Ok(()), Ok(receiver)) => receiver,
            _ => failed(SourceError::Closed),
        }
    }

    /// Makes the polls of a repository immediate: those of `reference` (`refs/heads/main` or a short name), or all
    /// without one. The URL matches in any spelling, see [`normalize_url`]. Gives the number of polls that were woken.
    pub async fn refresh(&self, repository_url: &str, reference: Option<&str>) -> usize {
        let (reply, answer) = oneshot::channel();
        let command = Command::Refresh {
            repository: normalize_url(repository_url),
            reference: reference.map(str::to_owned),
            reply,
        };
        match self.commands.send(command).await {
            Ok(()) => answer.await.unwrap_or(0),
            Err(_) => 0,
        }
    }

    /// The files of a commit, fetched if they are not here yet. Credentials are checked with the server once per start
    /// before anything is read from a mirror that other credentials may have filled. Reading blocks on the disk; call
    /// it from a worker thread.
    pub async fn tree(&self, repository: &Repository, commit: &CommitId) -> Result<Arc<dyn Tree>, SourceError> {
        let remote = Arc::new(self.backend.admit(repository)?);
        let tree = self.backend.tree(&remote, commit).await?;
        Ok(tree)
    }

    /// Resolves a reference now, without a poller: for previews and one-off commands.
    pub async fn resolve(&self, repository: &Repository, reference: &str) -> Result<CommitId, SourceError> {
        let target = self.target(repository, reference)?;
        let resolved = self.backend.resolve(&target.remote, &target.wanted).await?;
        Ok(resolved.commit)
    }

    fn target(&self, repository: &Repository, reference: &str) -> Result<Target, SourceError> {
        let remote = self.backend.admit(repository)?;
        Ok(Target { wanted: Wanted::parse(reference)?, name: normalize_url(&remote.label), remote: Arc::new(remote) })
    }
}

/// Something to poll.
#[derive(Debug, Clone)]
struct Target {
    remote: Arc<Remote>,
    wanted: Wanted,
    /// The repository's normalized URL.
    name: String,
}

type Key = (String, Fingerprint, String);

impl Target {
    fn key(&self) -> Key {
        (self.remote.label.clone(), self.remote.fingerprint(), self.wanted.text().to_owned())
    }
}

#[derive(Debug)]
enum Command {
    Subscribe(Box<Target>, oneshot::Sender<watch::Receiver<RefState>>),
    Refresh { repository: String, reference: Option<String>, reply: oneshot::Sender<usize> },
}

fn failed(error: SourceError) -> watch::Receiver<RefState> {
    let state = RefState { error: Some(error), checked_at_ms: now_ms(), ..RefState::default() };
    watch::channel(state).1
}

/// Owns the table of pollers.
struct Owner {
    backend: Arc<Backend>,
    pollers: BTreeMap<Key, Poller>,
    /// One task per poller that ends when its last receiver is gone.
    idle: JoinSet<Key>,
}

struct Poller {
    target: Target,
    state: watch::Sender<RefState>,
    wake: Arc<Notify>,
    stop: CancellationToken,
}

impl Owner {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>, shutdown: CancellationToken) {
        // Ends every poller and operation when this task ends, also when the runtime drops it.
        let _stop = shutdown.drop_guard();
        loop {
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => self.handle_command(command),
                    None => return,
                },
                Some(ended) = self.idle.join_next(), if !self.idle.is_empty() => {
                    if let Ok(key) = ended {
                        self.handle_idle(key);
                    }
                }
            }
        }
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Subscribe(target, reply) => {
                let receiver = self.subscribe(*target);
                // Whoever asked may have gone; its receiver is dropped with the message.
                let _ = reply.send(receiver);
            }
            Command::Refresh { repository, reference, reply } => {
                let mut woken = 0;
                for poller in self.pollers.values() {
                    let hit = reference.as_deref().is_none_or(|reference| poller.target.wanted.affected_by(reference));
                    if hit && poller.target.name == repository {
                        poller.wake.notify_one();
                        woken += 1;
                    }
                }
                let _ = reply.send(woken);
            }
        }
    }

    fn subscribe(&mut self, target: Target) -> watch::Receiver<RefState> {
        let key = target.key();
        if let Some(poller) = self.pollers.get(&key) {
            return poller.state.subscribe();
        }
        let allowed = self.backend.config().max_pollers;
        if self.pollers.len() >= allowed {
            return failed(SourceError::TooManyReferences { allowed });
        }
        let (state, receiver) = watch::channel(RefState::default());
        let poller = Poller {
            target,
            state: state.clone(),
            wake: Arc::new(Notify::new()),
            stop: self.backend.shutdown().child_token(),
        };
        let task = PollTask {
            backend: Arc::clone(&self.backend),
            target: poller.target.clone(),
            state: state.clone(),
            wake: Arc::clone(&poller.wake),
            failures: 0,
            polls: 0,
        };
        let stop = poller.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task.run() => {}
            }
        });
        self.watch_idle(key.clone(), state);
        self.pollers.insert(key, poller);
        receiver
    }

    fn watch_idle(&mut self, key: Key, state: watch::Sender<RefState>) {
        let stop = self.backend.shutdown().clone();
        self.idle.spawn(async move {
            tokio::select! {
                () = state.closed() => {}
                () = stop.cancelled() => {}
            }
            key
        });
    }

    fn handle_idle(&mut self, key: Key) {
        if self.backend.shutdown().is_cancelled() {
            return;
        }
        let Some(poller) = self.pollers.get(&key) else { return };
        if poller.state.receiver_count() > 0 {
            // Someone subscribed between the end of the last receiver and now.
            let state = poller.state.clone();
            self.watch_idle(key, state);
            return;
        }
        poller.stop.cancel();
        self.pollers.remove(&key);
    }
}

/// Polls one reference until it is stopped.
struct PollTask {
    backend: Arc<Backend>,
    target: Target,
    state: watch::Sender<RefState>,
    wake: Arc<Notify>,
    failures: u32,
    polls: u64,
}

impl PollTask {
    async fn run(mut self) {
        let mirror = self.backend.mirror(&self.target.remote);
        loop {
            let outcome = self.backend.resolve(&self.target.remote, &self.target.wanted).await;
            self.polls += 1;
            let pause = self.pause(&outcome);
            self.publish(outcome);
            let sleep = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => {}
                () = self.wake.notified() => {}
                () = mirror.damage.notified() => {}
            }
        }
    }

    /// How long to wait; `None` for a commit that is here, which can never change.
    fn pause(&mut self, outcome: &Result<Resolved, SourceError>) -> Option<Duration> {
        let config = self.backend.config();
        let period = config.poll_period;
        match outcome {
            Ok(resolved) => {
                self.failures = 0;
                resolved.name.as_ref()?;
                Some(period + self.jitter(config.poll_jitter))
            }
            Err(error) if error.is_transient() => {
                let factor = 2u32.saturating_pow(self.failures.min(16));
                self.failures = self.failures.saturating_add(1);
                let delay = config.retry_delay.saturating_mul(factor).min(period);
                Some(delay + self.jitter(delay.min(config.poll_jitter)))
            }
            Err(_) => Some(period + self.jitter(config.poll_jitter)),
        }
    }

    /// Spreads pollers over time. A hash of what is polled is as good as chance here and needs no generator.
    fn jitter(&self, most: Duration) -> Duration {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.target.remote.label.as_bytes());
        hasher.update(self.target.wanted.text().as_bytes());
        hasher.update(&self.polls.to_le_bytes());
        hasher.update(&std::process::id().to_le_bytes());
        let share = hasher.finalize().as_bytes().first().copied().unwrap_or_default();
        most.mul_f64(f64::from(share) / 255.0)
    }

    fn publish(&self, outcome: Result<Resolved, SourceError>) {
        let checked_at_ms = now_ms();
        self.state.send_if_modified(|state| {
            let first = state.checked_at_ms == 0;
            state.checked_at_ms = checked_at_ms;
            match outcome {
                Ok(resolved) => {
                    let same = state.error.is_none() && state.commit.as_ref() == Some(&resolved.commit);
                    state.commit = Some(resolved.commit);
                    state.resolved = resolved.name;
                    state.error = None;
                    first || !same
                }
                Err(error) => {
                    tracing::warn!(revision = self.target.wanted.text(), %error, "cannot poll a source");
                    let same = state.error.as_ref() == Some(&error);
                    state.error = Some(error);
                    first || !same
                }
            }
        });
    }
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or_default()
}
