//! What this hub's sessions want in the log: one [`Command::Batch`] for all of them.
//!
//! | what | why |
//! |---|---|
//! | a batch goes at once when none has gone for [`PERIOD`], otherwise when that has passed or it is full | a first connect does not wait, a storm makes few entries |
//! | one batch is in flight | users' and rollouts' commands find room in the log, and the order of a session's changes is kept |
//! | what is not committed is tried again until its session is gone | an agent is never told that receipts are safe because later ones are |
//! | changes of one cluster are joined | what waits is bounded by the number of clusters |
//!
//! A batch may be refused in part, and the answer does not say which part: the state does. Nothing here reads streams.

mod judge;
mod pending;

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::{
    sync::{Notify, Semaphore, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use windlass_hub_core::{
    Command, State,
    command::{ReceiptBatch, SessionChange},
};
use windlass_protocol::{
    ids::{Epoch, Generation, Incarnation},
    json::Json,
};

pub(super) use self::judge::Admission;
use self::pending::{Batch, Pending};
use super::Registry;
use crate::replica::{CommandError, Replica};

/// Between two batches that are not full (DESIGN.md section 5).
const PERIOD: Duration = Duration::from_millis(50);
/// An agent that comes back within this time, to this hub or another, was never away.
const ABSENCE: Duration = Duration::from_secs(2);
/// Receipts that wait in all sessions together; beyond, sessions read no further. 50,000 of 512 bytes are 25 MiB.
const RECEIPTS_WAITING_MAX: usize = 50_000;
/// Between attempts without a leader.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// A follower may apply an entry later than the leader has answered.
const SETTLE: Duration = Duration::from_secs(3);
const SETTLE_STEP: Duration = Duration::from_millis(2);
/// The state version from which on every member knows [`Command::Batch`].
const BATCH_VERSION: u32 = 2;

/// What became of something that a session waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is in the state.
    Taken,
    /// The state will not take it: the session ends with this sentence.
    Refused(String),
    /// Nobody knows, or not now: the agent has to come again.
    Unknown(String),
}

/// The log and the state, as far as an outbox needs them.
pub(super) trait Ledger: Send + Sync + 'static {
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<(), CommandError>>;
    fn state(&self) -> Arc<State>;
}

/// [`Ledger`] of this node.
pub(super) struct GroupLedger {
    pub(super) replica: Replica,
    pub(super) subject: String,
}

impl Ledger for GroupLedger {
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<(), CommandError>> {
        Box::pin(async move { self.replica.propose(&self.subject, "gateway", Vec::new(), command).await.map(drop) })
    }

    fn state(&self) -> Arc<State> {
        self.replica.state()
    }
}

/// The way of all sessions of this hub into the log.
pub(crate) struct Outbox {
    node: u64,
    ledger: Box<dyn Ledger>,
    registry: Arc<Registry>,
    pending: std::sync::Mutex<Pending>,
    wake: Notify,
    room: Semaphore,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Outbox {
    pub(super) fn new(node: u64, ledger: Box<dyn Ledger>, registry: Arc<Registry>) -> Self {
        Self {
            node,
            ledger,
            registry,
            pending: std::sync::Mutex::default(),
            wake: Notify::new(),
            room: Semaphore::new(RECEIPTS_WAITING_MAX),
        }
    }

    /// Records a session; answers once the state names this hub and this process of the agent.
    pub(super) async fn connected(&self, admission: Admission) -> Verdict {
        let (reply, answer) = oneshot::channel();
        self.change(|pending| pending.connected(admission, reply));
        answer.await.unwrap_or_else(|_| Verdict::Unknown("another session of this agent began".to_owned()))
    }

    /// The last session of a cluster at this hub has ended.
    pub(super) fn disconnected(&self, cluster: &str, incarnation: Incarnation) {
        let due = Instant::now() + ABSENCE;
        self.change(|pending| pending.disconnected(cluster, incarnation, due));
    }

    /// What the agent has on its disk.
    pub(super) fn acknowledged(&self, cluster: &str, epoch: Epoch, generation: Generation) {
        self.change(|pending| pending.acknowledged(cluster, epoch, generation));
    }

    /// What the agent says about its cluster.
    pub(super) fn facts(&self, cluster: &str, facts: Json) {
        self.change(|pending| pending.facts(cluster, facts));
    }

    /// Commits the receipts of one upload; waits for room first.
    pub(super) async fn receipts(&self, batch: ReceiptBatch) -> Verdict {
        let count = u32::try_from(batch.receipts.len()).unwrap_or(u32::MAX);
        let Ok(_room) = self.room.acquire_many(count).await else {
            return Verdict::Unknown("the hub shuts down".to_owned());
        };
        let (reply, answer) = oneshot::channel();
        self.change(|pending| pending.receipts(batch, reply));
        answer.await.unwrap_or_else(|_| Verdict::Unknown("the hub shuts down".to_owned()))
    }

    /// Says of sessions that nobody holds any more that they are over; `node` is their hub.
    pub(super) async fn ended(&self, node: u64, sessions: Vec<SessionChange>) -> Result<(), CommandError> {
        for part in sessions.chunks(pending::ITEMS_MAX) {
            self.propose(node, part.to_vec(), Vec::new()).await?;
        }
        Ok(())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Pending) -> T) -> T {
        let changed = change(&mut self.pending.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        self.wake.notify_one();
        changed
    }

    /// Sends batches until `stop`; then one more with what is left, and without waiting for agents that may come back.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut next = Instant::now();
        loop {
            let due = self.locked().due(next);
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.wake.notified(), if due.is_none_or(|due| due > Instant::now()) => continue,
                () = tokio::time::sleep_until(due.unwrap_or(next)), if due.is_some() => {}
            }
            let batch = self.take(false);
            if !batch.is_empty() {
                next = Instant::now() + PERIOD;
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = self.deliver(batch) => {}
                }
            }
        }
        let last = self.take(true);
        let _ = self.propose(self.node, last.sessions, last.receipts).await;
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn take(&self, all: bool) -> Batch {
        let state = self.ledger.state();
        let absent = |cluster: &str, incarnation| {
            let recorded = state
                .cluster(cluster)
                .is_some_and(|record| record.session == Some(self.node) && record.incarnation == incarnation);
            recorded && !self.registry.holds(cluster)
        };
        let now = if all { Instant::now() + ABSENCE } else { Instant::now() };
        self.locked().take(self.node, &state, now, absent)
    }

    /// Until it is committed, or nobody waits for it any more.
    async fn deliver(&self, mut batch: Batch) {
        let mut pause = RETRY;
        loop {
            match self.propose(self.node, batch.sessions.clone(), batch.receipts.clone()).await {
                Ok(()) => break,
                Err(CommandError::Rejected(rejection)) => {
                    // The batch as a whole is only refused for its form: a bug, not a condition to wait for.
                    tracing::error!(%rejection, "a batch of sessions was refused");
                    batch.waiters.drain(..).for_each(|waiter| waiter.answer(Verdict::Unknown(rejection.to_string())));
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, "a batch of sessions is tried again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                    batch.drop_gone();
                    if batch.is_empty() {
                        return;
                    }
                }
            }
        }
        self.settle(batch).await;
    }

    /// Looks what the state has taken; on a follower it may come a moment later.
    async fn settle(&self, mut batch: Batch) {
        let deadline = Instant::now() + SETTLE;
        while !batch.waiters.is_empty() {
            let state = self.ledger.state();
            let late = Instant::now() >= deadline;
            batch.waiters =
                batch.waiters.drain(..).filter_map(|waiter| waiter.judge(&state, self.node, late)).collect();
            if !batch.waiters.is_empty() {
                tokio::time::sleep(SETTLE_STEP).await;
            }
        }
    }

    async fn propose(
        &self,
        hub: u64,
        sessions: Vec<SessionChange>,
        receipts: Vec<ReceiptBatch>,
    ) -> Result<(), CommandError> {
        if sessions.is_empty() && receipts.is_empty() {
            return Ok(());
        }
        if self.ledger.state().meta().version >= BATCH_VERSION {
            return self.ledger.propose(Command::Batch { hub, sessions, receipts }).await;
        }
        // A member of the group does not know batches yet.
        if !sessions.is_empty() {
            self.ledger.propose(Command::Sessions { hub, changes: sessions }).await?;
        }
        for ReceiptBatch { cluster, incarnation, up_to, receipts } in receipts {
            match self.ledger.propose(Command::Receipts { cluster, incarnation, up_to, receipts }).await {
                // Each stands alone, as in a batch.
                Ok(()) | Err(CommandError::Rejected(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
