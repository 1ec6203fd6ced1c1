//! A hub's outbox: changes and receipts of all its sessions go into one batch, a moment later. What became of a part is read from
//! the state, as the answer does not say it.

use windlass_hub_core::{
    Command, Rejection, Reply,
    command::{ReceiptBatch, SessionChange},
};
use windlass_protocol::{
    ids::{Incarnation, ReceiptSeq},
    time::Millis,
};

use super::{World, event::Event, hub::Waiter};

/// Longest wait of what could go at once.
const PERIOD: u64 = 50;

/// What waits at one hub; gone with its process.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    sessions: Vec<SessionChange>,
    receipts: Vec<(u64, ReceiptBatch)>,
    due: bool,
}

/// A session that waits for its part of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) link: u64,
    cluster: String,
    incarnation: Incarnation,
    pub(crate) up_to: ReceiptSeq,
}

impl World {
    pub(crate) fn session_change(&mut self, hub: u64, change: SessionChange) {
        self.outboxes.entry(hub).or_default().sessions.push(change);
        self.flush_soon(hub);
    }

    pub(crate) fn propose_receipts(&mut self, hub: u64, link: u64, batch: ReceiptBatch) {
        self.outboxes.entry(hub).or_default().receipts.push((link, batch));
        self.flush_soon(hub);
    }

    fn flush_soon(&mut self, hub: u64) {
        let delay = Millis(self.time.random.below(PERIOD));
        let outbox = self.outboxes.entry(hub).or_default();
        if !std::mem::replace(&mut outbox.due, true) {
            self.time.after(delay, Event::Flush(hub));
        }
    }

    /// One entry with everything that waits.
    pub(crate) fn flush(&mut self, hub: u64) {
        let Outbox { sessions, receipts, .. } = self.outboxes.remove(&hub).unwrap_or_default();
        if !self.hubs.get(&hub).is_some_and(|node| node.up) || (sessions.is_empty() && receipts.is_empty()) {
            return;
        }
        if receipts.len() > 1 {
            self.coverage.batched += 1;
        }
        let part = |(link, batch): &(u64, ReceiptBatch)| Part {
            link: *link,
            cluster: batch.cluster.clone(),
            incarnation: batch.incarnation,
            up_to: batch.up_to,
        };
        let waiter = Waiter::Batch(receipts.iter().map(part).collect());
        let receipts = receipts.into_iter().map(|(_, batch)| batch).collect();
        self.propose(hub, ("hub:gateway", Command::Batch { hub, sessions, receipts }), Vec::new(), waiter);
    }

    /// The hub has applied a batch, or nobody knows.
    pub(crate) fn batch_answered(&mut self, hub: u64, parts: Vec<Part>, result: Option<&Result<Reply, Rejection>>) {
        for part in parts {
            let taken = self
                .hubs
                .get(&hub)
                .and_then(|node| node.state.cluster(&part.cluster))
                .is_some_and(|record| record.incarnation == part.incarnation && record.receipts >= part.up_to);
            let is_taken = matches!(result, Some(Ok(_))) && taken;
            if result.is_some() && !is_taken {
                self.coverage.refused_parts += 1;
            }
            self.receipts_answered(part.link, part.up_to, is_taken);
        }
    }
}
