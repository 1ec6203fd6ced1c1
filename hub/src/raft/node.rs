//! One member of the group: start, propose, read, stop.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use openraft::error::{CheckIsLeaderError, InitializeError, RaftError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::compaction::Compaction;
use super::config::RaftConfig;
use super::log::{LogError, LogStore};
use super::machine::Machine;
use super::network::{Factory, PeerNetwork};
use super::propose::{ProposeError, Proposer, at_leader, leader_of, stopped};
use super::serve::SnapshotGate;
use super::snapshot::{SnapshotError, SnapshotFolder};
use super::state_machine::{InstallError, StateMachine};
use super::status::Status;
use super::types::{NodeId, Peer, Raft};
use crate::store::{Identity, Store};

/// Why a node did not start. Nothing was changed on disk, but for damaged files that were set aside.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Impossible settings.
    #[error("the Raft settings contradict each other: {0}")]
    Config(String),
    /// The log cannot be trusted.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The snapshots cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The newest snapshot could not become the state.
    #[error(transparent)]
    Restore(#[from] InstallError),
    /// The library refused.
    #[error("Raft did not start: {0}")]
    Raft(String),
}

/// Why a group was not founded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// There is a log or a vote already.
    #[error("this node already belongs to a group; a node with data never founds one")]
    HasData,
    /// This node is not in the list.
    #[error("node {0} is not among the members to found the group with")]
    NotAMember(NodeId),
    /// The node stopped.
    #[error("this hub stopped ({0})")]
    Stopped(String),
}

/// Why a read cannot be said to be current.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Ask the leader.
    #[error("this hub is not the leader{}", at_leader(leader.as_ref(), address.as_deref()))]
    NotLeader {
        /// Who leads, when that is known.
        leader: Option<NodeId>,
        /// Where its peers reach it.
        address: Option<String>,
    },
    /// It leads, but cannot prove it.
    #[error("no quorum of hubs answers; the state here may be old")]
    NoQuorum,
    /// No answer in time.
    #[error("no quorum of hubs answered in time; the state here may be old")]
    Timeout,
    /// The node stopped.
    #[error("this hub stopped ({0})")]
    Stopped(String),
}

/// A running member. Cheap to clone. Ends with [`RaftNode::shutdown`], or when the last clone is dropped.
#[derive(Clone)]
pub struct RaftNode {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    config: RaftConfig,
    raft: Raft,
    store: Store,
    folder: Arc<SnapshotFolder>,
    proposer: Proposer,
    status: watch::Receiver<Status>,
    receiving: tokio::sync::Mutex<()>,
    gate: RwLock<Option<Arc<dyn SnapshotGate>>>,
    stop: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl RaftNode {
    /// Verifies log and snapshots, rebuilds the state of `machine` (the newest snapshot and the committed log behind
    /// it), and takes part in the group. Node and cluster ids are those of `store`.
    ///
    /// # Errors
    /// [`StartError`] when log and snapshots do not make a whole history: such a node may not vote.
    pub async fn start(
        config: RaftConfig,
        store: Store,
        machine: Arc<dyn Machine>,
        network: Arc<dyn PeerNetwork>,
    ) -> Result<Self, StartError> {
        let settings = config.to_openraft().map_err(StartError::Config)?;
        let identity = store.identity();
        let (log_of, snapshots) = (store.clone(), config.snapshots.clone());
        let load = move || -> Result<_, StartError> {
            let log = LogStore::load(log_of)?;
            let folder = Arc::new(SnapshotFolder::open(&snapshots)?);
            // Before the machine is touched: a node with a hole does not even show its state.
            let snapshot = folder.newest().and_then(|(meta, _)| meta.last_log_id);
            log.check_against(snapshot.as_ref())?;
            log.reconcile(snapshot.as_ref())?;
            let state = StateMachine::restore(identity.node, machine, Arc::clone(&folder))?;
            Ok((log, folder, state))
        };
        let (log, folder, state) =
            tokio::task::spawn_blocking(load).await.map_err(|error| StartError::Raft(error.to_string()))??;
        tracing::info!(node = identity.node, snapshot = ?state.applied().map(|id| id.index), "state restored");
        let factory = Factory { network, cluster: *identity.cluster.as_bytes(), node: identity.node };
        let raft = Raft::new(identity.node, Arc::new(settings), factory, log.clone(), state)
            .await
            .map_err(|error| StartError::Raft(error.to_string()))?;
        Ok(Self::spawn(config, store, raft, log, folder))
    }

    fn spawn(config: RaftConfig, store: Store, raft: Raft, log: LogStore, folder: Arc<SnapshotFolder>) -> Self {
        let stop = CancellationToken::new();
        let (proposer, writing) = Proposer::start(
            raft.clone(),
            config.in_flight_max,
            config.in_flight_bytes_max,
            config.command_bytes_max,
            stop.clone(),
        );
        let compaction =
            Compaction { raft: raft.clone(), log, folder: Arc::clone(&folder), bytes_max: config.compact_bytes };
        let (publish, status) = watch::channel(Status::of(&raft.metrics().borrow()));
        let tasks = vec![
            tokio::spawn(writing),
            tokio::spawn(compaction.run(stop.clone())),
            tokio::spawn(publish_status(raft.clone(), publish)),
        ];
        let inner = Inner {
            identity: store.identity(),
            config,
            raft,
            store,
            folder,
            proposer,
            status,
            receiving: tokio::sync::Mutex::default(),
            gate: RwLock::default(),
            stop,
            tasks: Mutex::new(tasks),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Founds the group: every node of `members` may call this once with the same members, before any of them has
    /// data. A single member leads at once.
    pub async fn bootstrap(&self, members: BTreeMap<NodeId, Peer>) -> Result<(), BootstrapError> {
        self.inner.raft.initialize(members).await.map_err(|error| match error {
            RaftError::APIError(InitializeError::NotAllowed(_)) => BootstrapError::HasData,
            RaftError::APIError(InitializeError::NotInMembers(_)) => {
                BootstrapError::NotAMember(self.inner.identity.node)
            }
            RaftError::Fatal(fatal) => BootstrapError::Stopped(stopped(&fatal)),
        })
    }

    /// Proposes one command and returns the machine's answer, once the command is on disk on a quorum and applied
    /// here.
    pub async fn propose(&self, command: Vec<u8>) -> Result<Vec<u8>, ProposeError> {
        let answer = self.inner.proposer.queue(command)?;
        match tokio::time::timeout(self.inner.config.answer_timeout, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ProposeError::Stopped { reason: "it is shutting down".into() }),
            Err(_) => Err(ProposeError::Timeout),
        }
    }

    /// Read barrier: when it returns, the machine here holds everything that was acknowledged anywhere before the
    /// call. Returns the index up to which that is. Only on the leader.
    pub async fn read_index(&self) -> Result<u64, ReadError> {
        let confirmed = tokio::time::timeout(self.inner.config.answer_timeout, self.inner.raft.ensure_linearizable());
        match confirmed.await {
            Ok(Ok(id)) => Ok(id.map_or(0, |id| id.index)),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward)))) => {
                let (leader, address) = leader_of(forward);
                Err(ReadError::NotLeader { leader, address })
            }
            Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) => Err(ReadError::NoQuorum),
            Ok(Err(RaftError::Fatal(fatal))) => Err(ReadError::Stopped(stopped(&fatal))),
            Err(_) => Err(ReadError::Timeout),
        }
    }

    /// Keeps proposals waiting until the guard is dropped; those before it are under way.
    pub(super) async fn hold_proposals(&self) -> tokio::sync::OwnedRwLockWriteGuard<()> {
        self.inner.proposer.hold().await
    }

    /// What this node says about itself, now and at each change.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    /// Whose node this is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.inner.identity
    }

    /// Stops taking part, ends all tasks and closes the store. Commands in flight end as [`ProposeError::Stopped`].
    pub async fn shutdown(&self) {
        // It may hold this node in turn.
        drop(self.inner.gate.write().unwrap_or_else(PoisonError::into_inner).take());
        self.inner.stop.cancel();
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::error!(error = &error as &dyn std::error::Error, "the Raft task did not end well");
        }
        let tasks = std::mem::take(&mut *self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(error = &error as &dyn std::error::Error, "a Raft task did not end well");
            }
        }
        let (store, folder) = (self.inner.store.clone(), self.folder());
        let close = move || {
            folder.close();
            store.close();
        };
        if tokio::task::spawn_blocking(close).await.is_err() {
            tracing::error!("the store did not close well");
        }
    }

    pub(super) fn raft(&self) -> &Raft {
        &self.inner.raft
    }

    pub(super) fn config(&self) -> &RaftConfig {
        &self.inner.config
    }

    pub(super) fn folder(&self) -> Arc<SnapshotFolder> {
        Arc::clone(&self.inner.folder)
    }

    /// Asks `gate` before each snapshot that is received from now on, until the shutdown.
    pub fn gate_snapshots(&self, gate: Arc<dyn SnapshotGate>) {
        *self.inner.gate.write().unwrap_or_else(PoisonError::into_inner) = Some(gate);
    }

    pub(super) fn gate(&self) -> Option<Arc<dyn SnapshotGate>> {
        self.inner.gate.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn receiving(&self) -> &tokio::sync::Mutex<()> {
        &self.inner.receiving
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
        // The library's task does not end with its handles; without a runtime it is gone already.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let raft = self.raft.clone();
            runtime.spawn(async move { drop(raft.shutdown().await) });
        }
    }
}

impl fmt::Debug for RaftNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftNode").field("identity", &self.inner.identity).finish_non_exhaustive()
    }
}

async fn publish_status(raft: Raft, publish: watch::Sender<Status>) {
    let mut metrics = raft.metrics();
    drop(raft);
    // Ends with the node: the last change says that it stopped.
    while metrics.changed().await.is_ok() {
        let status = Status::of(&metrics.borrow_and_update());
        publish.send_if_modified(|published| {
            let changed = *published != status;
            *published = status;
            changed
        });
    }
}
