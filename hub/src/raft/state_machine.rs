//! Between openraft and the [`Machine`]: applies entries in order, makes and installs snapshots.
//!
//! What is applied lives in memory only; last applied entry and membership are part of each snapshot's header, so that
//! state and position can never disagree.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, RaftSnapshotBuilder, Snapshot};

use super::machine::{Machine, RestoreError, SnapshotSource};
use super::snapshot::{self, SnapshotError, SnapshotFile, SnapshotFolder};
use super::types::{
    Answers, Commands, Config, Entry, LogId, NodeId, SnapshotMeta, StorageError, StorageIoError, StoredMembership,
};

pub(super) struct StateMachine {
    node: NodeId,
    machine: Arc<dyn Machine>,
    folder: Arc<SnapshotFolder>,
    applied: Option<LogId>,
    membership: StoredMembership,
}

/// Why a snapshot did not become the state.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The file.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The content.
    #[error("cannot restore the state from snapshot {id}")]
    Restore { id: String, source: RestoreError },
}

/// The machine broke its promise.
#[derive(Debug, thiserror::Error)]
#[error("the state machine panicked on this entry; this is a bug: stop this hub and report it")]
struct Panicked;

impl StateMachine {
    /// A state machine that stands where the newest whole snapshot of `folder` ends. Blocks.
    pub(super) fn restore(
        node: NodeId,
        machine: Arc<dyn Machine>,
        folder: Arc<SnapshotFolder>,
    ) -> Result<Self, InstallError> {
        let mut this = Self { node, machine, folder, applied: None, membership: StoredMembership::default() };
        if let Some((meta, file)) = this.folder.newest() {
            load(this.machine.as_ref(), &meta, &file)?;
            this.stand_at(meta);
        }
        Ok(this)
    }

    /// The last entry that is part of the state.
    pub(super) fn applied(&self) -> Option<&LogId> {
        self.applied.as_ref()
    }

    fn stand_at(&mut self, meta: SnapshotMeta) {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership;
    }

    fn apply_commands(&self, at: &LogId, commands: &[Arc<[u8]>]) -> Result<Answers, Panicked> {
        // A panic in `apply` would leave every caller waiting: the node stops instead, and says at which entry.
        let apply = || {
            let apply = |command: &Arc<[u8]>| self.machine.apply(at.index, at.leader_id.term, command);
            Answers(commands.iter().map(apply).collect())
        };
        std::panic::catch_unwind(AssertUnwindSafe(apply)).map_err(|_| Panicked)
    }
}

impl RaftStateMachine<Config> for StateMachine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Answers>, StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut answers = Vec::new();
        for entry in entries {
            let answer = match entry.payload {
                EntryPayload::Blank => Answers(Vec::new()),
                EntryPayload::Normal(Commands(commands)) => self
                    .apply_commands(&entry.log_id, &commands)
                    .map_err(|error| StorageIoError::apply(entry.log_id, AnyError::new(&error)))?,
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Answers(Vec::new())
                }
            };
            self.applied = Some(entry.log_id);
            answers.push(answer);
            // A long replay must not hold the runtime's thread.
            tokio::task::consume_budget().await;
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let (index, term) = self.applied.map_or((0, 0), |id| (id.index, id.leader_id.term));
        let meta = SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: format!("{term}-{index}-{}", self.node),
        };
        let source = Mutex::new(Some(self.machine.snapshot()));
        Builder { meta, source, folder: Arc::clone(&self.folder) }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotFile>, StorageError> {
        // Only asked for by the library's own chunked transport, which is not used.
        let (_, file) = self.folder.resume("").map_err(|error| snapshot_failed(&error))?;
        Ok(Box::new(file))
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, file: Box<SnapshotFile>) -> Result<(), StorageError> {
        let (folder, machine) = (Arc::clone(&self.folder), Arc::clone(&self.machine));
        let install = move || -> Result<SnapshotMeta, InstallError> {
            let (meta, file) = folder.install(&file)?;
            load(machine.as_ref(), &meta, &file)?;
            Ok(meta)
        };
        let installed = blocking(install).await?.map_err(|error| snapshot_failed(&error))?;
        if installed.last_log_id != meta.last_log_id {
            let reason = AnyError::error("the received snapshot is not the one that was offered");
            return Err(StorageIoError::write_snapshot(Some(meta.signature()), reason).into());
        }
        self.stand_at(installed);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Config>>, StorageError> {
        Ok(self.folder.newest().map(|(meta, file)| Snapshot { meta, snapshot: Box::new(file) }))
    }
}

/// Writes one picture of the state, beside the task that applies.
pub(super) struct Builder {
    meta: SnapshotMeta,
    /// In a lock only because the library wants builders to be shareable; nobody shares this one.
    source: Mutex<Option<Box<dyn SnapshotSource>>>,
    folder: Arc<SnapshotFolder>,
}

impl RaftSnapshotBuilder<Config> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Config>, StorageError> {
        let Some(source) = self.source.get_mut().unwrap_or_else(PoisonError::into_inner).take() else {
            let reason = AnyError::error("a snapshot builder builds once");
            return Err(StorageIoError::write_snapshot(Some(self.meta.signature()), reason).into());
        };
        let (folder, meta) = (Arc::clone(&self.folder), self.meta.clone());
        let file = blocking(move || folder.write(meta, source)).await?.map_err(|error| snapshot_failed(&error))?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: Box::new(file) })
    }
}

fn load(machine: &dyn Machine, meta: &SnapshotMeta, file: &SnapshotFile) -> Result<(), InstallError> {
    let (_, mut state) = snapshot::open(&file.path)?;
    machine.restore(&mut state).map_err(|source| InstallError::Restore { id: meta.snapshot_id.clone(), source })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StorageError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| StorageIoError::write_snapshot(None, AnyError::new(&error)).into())
}

fn snapshot_failed(error: &(impl std::error::Error + 'static)) -> StorageError {
    StorageIoError::write_snapshot(None, AnyError::new(error)).into()
}
