//! Turns the state of assignments into numbered receipts, kept until the hub has committed them.
//!
//! Per assignment at most one receipt waits: a newer one replaces it and carries on the worst health that no acknowledged
//! receipt has told. A receipt is made only when something changed. Details (JSON) are made at most once per interval and
//! assignment, at once when the first one is due, when an operation fails for the first time, and when it has ended. Never
//! talks to the hub: the uplink asks for [`Reporter::next_upload`].

use std::collections::{BTreeMap, BTreeSet};

use windlass_engine::{End, StatusView};
use windlass_protocol::{
    ids::{Digest, NamespacedName, ReceiptSeq},
    message::{AssignmentReceipt, CHUNK_BYTES, RECEIPT_MESSAGE_MAX, Receipt, ReceiptUpload},
    status::{HealthStatus, SyncStatus},
    time::Millis,
};

use crate::limits::Limits;

/// Receipts in one upload; the hub takes 500.
const BATCH: usize = 256;
/// Bytes that a receipt counts for against the queue's limit.
const RECEIPT_COST: u64 = 512;

/// The receipts of one agent process.
#[derive(Debug)]
pub(crate) struct Reporter {
    limits: Limits,
    next: u64,
    waiting: BTreeMap<ReceiptSeq, Waiting>,
    /// Sum of the details that wait.
    detail_bytes: u64,
    assignments: BTreeMap<NamespacedName, Entry>,
    /// Receipts given up because the queue was full.
    dropped: u64,
}

#[derive(Debug)]
struct Waiting {
    receipt: Receipt,
    detail: Option<(Digest, Vec<u8>)>,
}

/// What is known to have been told about one assignment.
#[derive(Debug, Default)]
struct Entry {
    /// The newest receipt made, without times.
    told: Option<AssignmentReceipt>,
    /// Its number, while it waits.
    waiting: Option<ReceiptSeq>,
    detail: Option<Digest>,
    detail_at: Option<Millis>,
    /// End, as told.
    end: Option<EndTold>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum EndTold {
    Failing(String),
    Orphaned,
}

/// How far a connection has sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor(Option<ReceiptSeq>);

impl Reporter {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            limits: limits.clone(),
            next: 1,
            waiting: BTreeMap::new(),
            detail_bytes: 0,
            assignments: BTreeMap::new(),
            dropped: 0,
        }
    }

    /// Takes the state of an assignment. Gives when it wants to be offered again, for a detail that is not due yet.
    pub(crate) fn offer(&mut self, view: &StatusView, now: Millis) -> Option<Millis> {
        let entry = self.assignments.entry(view.application.clone()).or_default();
        if entry.told.as_ref().is_some_and(|told| told.uid != view.uid) {
            *entry = Entry { waiting: entry.waiting, ..Entry::default() };
        }
        let (detail, due) = self.due_detail(view, now);
        let entry = self.assignments.entry(view.application.clone()).or_default();
        let digest = detail.as_ref().map_or(entry.detail, |(digest, _)| Some(*digest));
        let mut receipt = view.receipt(Millis::default(), digest);
        let unheard = entry.waiting.and_then(|seq| match &self.waiting.get(&seq)?.receipt {
            Receipt::V1(receipt) if receipt.uid == view.uid => Some(receipt.worst_health),
            _ => None,
        });
        receipt.worst_health = receipt.worst_health.max(unheard.unwrap_or(HealthStatus::Healthy)).max(receipt.health);
        if !entry.told.as_ref().is_none_or(|told| differs(told, &receipt)) {
            return due;
        }
        let previous = entry.waiting.take();
        entry.told = Some(receipt.clone());
        receipt.observed_at = now;
        if let Some((digest, _)) = &detail {
            entry.detail = Some(*digest);
            entry.detail_at = Some(now);
        }
        // A detail that the replaced receipt was to bring along is not with the hub yet.
        let inherited = previous.and_then(|seq| self.remove(seq)).and_then(|waiting| waiting.detail);
        let detail = detail.or_else(|| inherited.filter(|(inherited, _)| Some(*inherited) == digest));
        let seq = self.push(Receipt::V1(receipt), detail);
        if let Some(entry) = self.assignments.get_mut(&view.application) {
            entry.waiting = Some(seq);
        }
        due
    }

    /// Says how the end of an assignment goes.
    pub(crate) fn ending(&mut self, application: &NamespacedName, uid: &str, end: &End) {
        let End::Failing(message) = end else { return };
        let message: String = message.chars().take(RECEIPT_MESSAGE_MAX).collect();
        let told = EndTold::Failing(message.clone());
        if self.assignments.entry(application.clone()).or_default().end.as_ref() != Some(&told) {
            self.push(Receipt::EndFailed { application: application.clone(), uid: uid.to_owned(), message }, None);
            self.assignments.entry(application.clone()).or_default().end = Some(told);
        }
    }

    /// Nothing of the assignment is left in the cluster.
    pub(crate) fn ended(&mut self, application: &NamespacedName, uid: &str) {
        if let Some(seq) = self.assignments.remove(application).and_then(|entry| entry.waiting) {
            self.remove(seq);
        }
        self.push(Receipt::Ended { application: application.clone(), uid: uid.to_owned() }, None);
    }

    /// The hub's epoch does not know the assignment.
    pub(crate) fn orphaned(&mut self, application: &NamespacedName, uid: &str) {
        let entry = self.assignments.entry(application.clone()).or_default();
        if entry.end != Some(EndTold::Orphaned) {
            entry.end = Some(EndTold::Orphaned);
            self.push(Receipt::Orphaned { application: application.clone(), uid: uid.to_owned() }, None);
        }
    }

    /// The hub has committed everything up to a number. Gives the tombstones that it now knows to be carried out.
    pub(crate) fn committed(&mut self, up_to: ReceiptSeq) -> Vec<(NamespacedName, String)> {
        let done: Vec<ReceiptSeq> = self.waiting.range(..=up_to).map(|(seq, _)| *seq).collect();
        let mut ended = Vec::new();
        for seq in done {
            let Some(waiting) = self.remove(seq) else { continue };
            match waiting.receipt {
                Receipt::Ended { application, uid } => ended.push((application, uid)),
                Receipt::V1(receipt) => {
                    if let Some(entry) = self.assignments.get_mut(&receipt.application)
                        && entry.waiting == Some(seq)
                    {
                        entry.waiting = None;
                    }
                }
                Receipt::Orphaned { .. } | Receipt::EndFailed { .. } => {}
            }
        }
        ended
    }

    /// What to send next on a connection, if anything waits behind its cursor.
    pub(crate) fn next_upload(&self, cursor: &mut Cursor) -> Option<Vec<ReceiptUpload>> {
        let from = cursor.0.map_or(ReceiptSeq::ZERO, ReceiptSeq::next);
        let mut uploads = Vec::new();
        let mut receipts = Vec::new();
        let mut sent = BTreeSet::new();
        for (seq, waiting) in self.waiting.range(from..).take(BATCH) {
            if let Some((digest, content)) = &waiting.detail
                && sent.insert(*digest)
            {
                uploads.extend(chunks(*digest, content));
            }
            receipts.push((*seq, waiting.receipt.clone()));
            cursor.0 = Some(*seq);
            // One large detail a batch keeps the memory of a batch small.
            if uploads.len() > 8 {
                break;
            }
        }
        if receipts.is_empty() {
            return None;
        }
        uploads.push(ReceiptUpload::Receipts { receipts });
        Some(uploads)
    }

    /// Receipts that wait for the hub.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The detail to send now, if it changed and is due; else when it will be.
    fn due_detail(&self, view: &StatusView, now: Millis) -> (Option<(Digest, Vec<u8>)>, Option<Millis>) {
        let Ok(content) = serde_json::to_vec(&view.detail()) else { return (None, None) };
        let digest = Digest::of(&content);
        let entry = self.assignments.get(&view.application);
        let before = entry.and_then(|entry| entry.detail);
        if before == Some(digest) {
            return (None, None);
        }
        let told = entry.and_then(|entry| entry.told.as_ref()).and_then(|told| told.operation.as_ref());
        let ended = view.operation.as_ref().is_some_and(|operation| {
            operation.phase.is_final()
                && told.is_none_or(|told| !told.phase.is_final() || told.started_at != operation.started_at)
        });
        // The first failure too: its words must not wait while the attempt is repeated.
        let retried = view.operation.as_ref().is_some_and(|operation| {
            operation.retries > 0
                && told.is_none_or(|told| told.retries == 0 || told.started_at != operation.started_at)
        });
        if before.is_none() && is_blank(view) {
            return (None, None);
        }
        let due = entry
            .and_then(|entry| entry.detail_at)
            .map_or(now, |at| at.plus(Millis::from_secs(self.limits.detail_interval_seconds)));
        if !ended && !retried && due > now {
            return (None, Some(due));
        }
        let bytes = u64::try_from(content.len()).unwrap_or(u64::MAX);
        if self.bytes().saturating_add(bytes) > self.limits.receipt_queue_bytes {
            tracing::warn!(application = %view.application, bytes, limit = "receipt_queue_bytes", "detail held back");
            return (None, Some(now.plus(Millis::from_secs(self.limits.detail_interval_seconds))));
        }
        (Some((digest, content)), None)
    }

    fn push(&mut self, receipt: Receipt, detail: Option<(Digest, Vec<u8>)>) -> ReceiptSeq {
        if self.waiting.len() >= Limits::count(self.limits.receipt_queue)
            && let Some(oldest) = self.waiting.keys().next().copied()
        {
            // Cannot happen below `receipt_queue` assignments: each has one receipt at most.
            self.remove(oldest);
            self.dropped = self.dropped.saturating_add(1);
            tracing::warn!(dropped = self.dropped, limit = "receipt_queue", "the oldest receipt is given up");
        }
        let seq = ReceiptSeq(self.next);
        self.next = self.next.saturating_add(1);
        let bytes = detail.as_ref().map_or(0, |(_, content)| content.len());
        self.detail_bytes = self.detail_bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.waiting.insert(seq, Waiting { receipt, detail });
        seq
    }

    fn remove(&mut self, seq: ReceiptSeq) -> Option<Waiting> {
        let waiting = self.waiting.remove(&seq)?;
        let bytes = waiting.detail.as_ref().map_or(0, |(_, content)| content.len());
        self.detail_bytes = self.detail_bytes.saturating_sub(u64::try_from(bytes).unwrap_or(u64::MAX));
        Some(waiting)
    }

    fn bytes(&self) -> u64 {
        let receipts = u64::try_from(self.waiting.len()).unwrap_or(u64::MAX).saturating_mul(RECEIPT_COST);
        receipts.saturating_add(self.detail_bytes)
    }
}

/// Whether a receipt says something that the one before did not. That the worst is over is no news: every receipt says
/// how it is now.
fn differs(told: &AssignmentReceipt, new: &AssignmentReceipt) -> bool {
    let comparable = |receipt: &AssignmentReceipt| AssignmentReceipt {
        worst_health: HealthStatus::Healthy,
        observed_at: Millis::default(),
        ..receipt.clone()
    };
    new.worst_health > told.worst_health.max(told.health) || comparable(told) != comparable(new)
}

/// Nothing is observed yet and nothing wrong: such a first detail would only hold back the one that says something.
fn is_blank(view: &StatusView) -> bool {
    view.sync == SyncStatus::Unknown
        && view.operation.is_none()
        && view.conditions.is_empty()
        && view.sync_result.is_empty()
}

fn chunks(digest: Digest, content: &[u8]) -> impl Iterator<Item = ReceiptUpload> {
    let total = u64::try_from(content.len()).unwrap_or(u64::MAX);
    let mut offset = 0_u64;
    content.chunks(CHUNK_BYTES).map(move |chunk| {
        let at = offset;
        offset = offset.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        ReceiptUpload::Detail { digest, offset: at, total, content: chunk.to_vec() }
    })
}

#[cfg(test)]
mod tests;
