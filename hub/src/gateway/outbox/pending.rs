//! What waits for the next batch, joined per cluster: the newest of each counts. Time comes in; nothing here does IO.

use std::collections::{BTreeMap, VecDeque};

use tokio::{sync::oneshot, time::Instant};
use windlass_hub_core::{
    State,
    command::{ENVELOPE_OBJECTS_MAX, ReceiptBatch, SessionChange},
};
use windlass_protocol::{
    ids::{Epoch, Generation, Incarnation},
    json::{self, Json},
};

use super::{
    Verdict,
    judge::{Admission, Waiter},
};

/// Changes and receipts in one batch.
pub(super) const ITEMS_MAX: usize = ENVELOPE_OBJECTS_MAX;
/// Facts in one batch, in bytes: with 500 receipts of 512 bytes they stay far below the largest entry.
const FACTS_BYTES_MAX: usize = 256 * 1024;

/// What one cluster's sessions want to say.
#[derive(Debug, Default)]
struct Changes {
    connected: Option<(Admission, oneshot::Sender<Verdict>)>,
    acknowledged: Option<(Epoch, Generation)>,
    facts: Option<Json>,
}

/// Everything that waits.
#[derive(Debug, Default)]
pub(super) struct Pending {
    changes: BTreeMap<String, Changes>,
    /// Clusters in `changes`, in the order in which they came.
    order: VecDeque<String>,
    receipts: VecDeque<(ReceiptBatch, oneshot::Sender<Verdict>)>,
    receipts_count: usize,
    /// Agents that went, and when that is to be believed.
    leaving: BTreeMap<String, (Incarnation, Instant)>,
}

/// What goes into one entry.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) sessions: Vec<SessionChange>,
    pub(super) receipts: Vec<ReceiptBatch>,
    pub(super) waiters: Vec<Waiter>,
}

impl Batch {
    pub(super) const fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.receipts.is_empty()
    }

    /// Leaves out what nobody waits for any more, before another attempt: an agent that has gone to another hub meanwhile must
    /// not be recorded here after all.
    pub(super) fn drop_gone(&mut self) {
        let Self { sessions, receipts, waiters } = self;
        waiters.retain(|waiter| {
            if waiter.is_gone() {
                sessions.retain(|change| !waiter.is_about_session(change));
                receipts.retain(|batch| !waiter.is_about_receipts(batch));
            }
            !waiter.is_gone()
        });
    }
}

impl Pending {
    pub(super) fn connected(&mut self, admission: Admission, reply: oneshot::Sender<Verdict>) {
        if self.leaving.get(&admission.cluster).is_some_and(|(incarnation, _)| *incarnation <= admission.incarnation) {
            self.leaving.remove(&admission.cluster);
        }
        // An older question of the same cluster loses its answer: its agent has come again.
        let cluster = admission.cluster.clone();
        self.of(&cluster).connected = Some((admission, reply));
    }

    pub(super) fn disconnected(&mut self, cluster: &str, incarnation: Incarnation, due: Instant) {
        self.leaving.insert(cluster.to_owned(), (incarnation, due));
    }

    pub(super) fn acknowledged(&mut self, cluster: &str, epoch: Epoch, generation: Generation) {
        self.of(cluster).acknowledged = Some((epoch, generation));
    }

    pub(super) fn facts(&mut self, cluster: &str, facts: Json) {
        self.of(cluster).facts = Some(facts);
    }

    pub(super) fn receipts(&mut self, batch: ReceiptBatch, reply: oneshot::Sender<Verdict>) {
        self.receipts_count += batch.receipts.len();
        self.receipts.push_back((batch, reply));
    }

    fn of(&mut self, cluster: &str) -> &mut Changes {
        if !self.changes.contains_key(cluster) {
            self.order.push_back(cluster.to_owned());
        }
        self.changes.entry(cluster.to_owned()).or_default()
    }

    /// When the next batch should go: not before `earliest` unless it is full.
    pub(super) fn due(&self, earliest: Instant) -> Option<Instant> {
        let waiting = self.order.len() + self.receipts_count;
        if waiting >= ITEMS_MAX {
            return Some(Instant::now());
        }
        if waiting > 0 {
            return Some(earliest);
        }
        self.leaving.values().map(|(_, due)| (*due).max(earliest)).min()
    }

    /// Takes the next batch; leaves out what the state says already. `absent` tells whether an agent that went is recorded
    /// here and has not come back.
    pub(super) fn take(
        &mut self,
        node: u64,
        state: &State,
        now: Instant,
        absent: impl Fn(&str, Incarnation) -> bool,
    ) -> Batch {
        let mut batch = Batch::default();
        self.take_leaving(now, absent, &mut batch);
        self.take_changes(node, state, &mut batch);
        self.take_receipts(&mut batch);
        batch
    }

    fn take_leaving(&mut self, now: Instant, absent: impl Fn(&str, Incarnation) -> bool, batch: &mut Batch) {
        let due = self.leaving.iter().filter(|(_, (_, due))| *due <= now);
        let due: Vec<(String, Incarnation)> =
            due.take(ITEMS_MAX).map(|(cluster, (incarnation, _))| (cluster.clone(), *incarnation)).collect();
        for (cluster, incarnation) in due {
            self.leaving.remove(&cluster);
            if absent(&cluster, incarnation) {
                batch.sessions.push(SessionChange::Disconnected { cluster, incarnation });
            }
        }
    }

    fn take_changes(&mut self, node: u64, state: &State, batch: &mut Batch) {
        let mut facts_bytes = 0;
        // A cluster has at most three changes.
        while batch.sessions.len() + 3 <= ITEMS_MAX && facts_bytes < FACTS_BYTES_MAX {
            let Some(cluster) = self.order.pop_front() else { return };
            let Some(Changes { connected, acknowledged, facts }) = self.changes.remove(&cluster) else { continue };
            if let Some((admission, reply)) = connected {
                if admission.is_recorded(state, node) {
                    Waiter::admission(admission, reply).answer(Verdict::Taken);
                } else if !reply.is_closed() {
                    let Admission { cluster, incarnation, serial, .. } = admission.clone();
                    batch.sessions.push(SessionChange::Connected { cluster, incarnation, serial });
                    batch.waiters.push(Waiter::admission(admission, reply));
                }
            }
            if let Some((epoch, generation)) = acknowledged.filter(|(epoch, generation)| {
                let known = state.cluster(&cluster).map(|record| record.acknowledged);
                *epoch == state.meta().epoch && known.is_some_and(|known| *generation > known)
            }) {
                batch.sessions.push(SessionChange::Acknowledged { cluster: cluster.clone(), epoch, generation });
            }
            if let Some(facts) = facts.filter(|facts| !is_known(state, &cluster, facts)) {
                facts_bytes += facts.to_string().len();
                batch.sessions.push(SessionChange::Facts { cluster, facts });
            }
        }
    }

    fn take_receipts(&mut self, batch: &mut Batch) {
        let mut room = ITEMS_MAX.saturating_sub(batch.sessions.len());
        while let Some((receipts, _)) = self.receipts.front() {
            let count = receipts.receipts.len();
            if count > room {
                return;
            }
            let Some((receipts, reply)) = self.receipts.pop_front() else { return };
            self.receipts_count = self.receipts_count.saturating_sub(count);
            if reply.is_closed() {
                // The session is gone: the agent sends them again.
                continue;
            }
            room -= count;
            let cluster = receipts.cluster.clone();
            batch.waiters.push(Waiter::receipts(cluster, receipts.incarnation, receipts.up_to, reply));
            batch.receipts.push(receipts);
        }
    }
}

/// Whether the Cluster's status holds these facts already.
fn is_known(state: &State, cluster: &str, facts: &Json) -> bool {
    let Some(record) = state.cluster(cluster) else { return true };
    let key = windlass_hub_core::ObjectKey::new(windlass_protocol::resource::Kind::Cluster, "", record.name.as_str());
    let Some(object) = state.object(&key) else { return true };
    json::at(&object.value(), &["status", "facts"]) == Some(&facts.0)
}
