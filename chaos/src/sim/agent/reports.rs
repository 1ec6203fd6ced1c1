//! Numbered receipts, kept until the hub has committed them; at most one waits for each assignment.

use std::collections::BTreeMap;

use windlass_engine::StatusView;
use windlass_protocol::{
    ids::{NamespacedName, ReceiptSeq},
    message::{AssignmentReceipt, RECEIPT_MESSAGE_MAX, Receipt},
    status::HealthStatus,
    time::Millis,
};

/// Receipts of one process.
#[derive(Debug, Default)]
pub(super) struct Reports {
    next: u64,
    waiting: BTreeMap<ReceiptSeq, Receipt>,
    told: BTreeMap<NamespacedName, (AssignmentReceipt, Option<ReceiptSeq>)>,
    failures: BTreeMap<NamespacedName, String>,
}

impl Reports {
    /// Takes the state of an assignment; makes a receipt only of what is new.
    pub(super) fn offer(&mut self, view: &StatusView, now: Millis) -> bool {
        let mut receipt = view.receipt(Millis::default(), None);
        let mut replaced = None;
        if let Some((told, waiting)) = self.told.get(&view.application).filter(|(told, _)| told.uid == view.uid) {
            let unheard = if waiting.is_some() { told.worst_health } else { HealthStatus::Healthy };
            receipt.worst_health = receipt.worst_health.max(unheard);
            let comparable = |receipt: &AssignmentReceipt| AssignmentReceipt {
                worst_health: HealthStatus::Healthy,
                observed_at: Millis::default(),
                ..receipt.clone()
            };
            let worse = receipt.worst_health > told.worst_health.max(told.health);
            if !worse && comparable(told) == comparable(&receipt) {
                return false;
            }
            replaced = *waiting;
        }
        if let Some(seq) = replaced {
            self.waiting.remove(&seq);
        }
        receipt.observed_at = now;
        let seq = self.push(Receipt::V1(receipt.clone()));
        self.told.insert(view.application.clone(), (receipt, Some(seq)));
        true
    }

    pub(super) fn ended(&mut self, application: &NamespacedName, uid: &str) {
        if let Some((_, Some(seq))) = self.told.remove(application) {
            self.waiting.remove(&seq);
        }
        self.failures.remove(application);
        self.push(Receipt::Ended { application: application.clone(), uid: uid.to_owned() });
    }

    pub(super) fn orphaned(&mut self, application: &NamespacedName, uid: &str) {
        self.push(Receipt::Orphaned { application: application.clone(), uid: uid.to_owned() });
    }

    pub(super) fn failing(&mut self, application: &NamespacedName, uid: &str, message: &str) {
        let message: String = message.chars().take(RECEIPT_MESSAGE_MAX).collect();
        if self.failures.get(application) != Some(&message) {
            self.failures.insert(application.clone(), message.clone());
            self.push(Receipt::EndFailed { application: application.clone(), uid: uid.to_owned(), message });
        }
    }

    /// Everything up to a number is committed; gives the ends that the hub now knows.
    pub(super) fn committed(&mut self, up_to: ReceiptSeq) -> Vec<(NamespacedName, String)> {
        let rest = self.waiting.split_off(&up_to.next());
        let done = std::mem::replace(&mut self.waiting, rest);
        for (_, waiting) in self.told.values_mut() {
            if waiting.is_some_and(|seq| seq <= up_to) {
                *waiting = None;
            }
        }
        let ended = done.into_values().filter_map(|receipt| match receipt {
            Receipt::Ended { application, uid } => Some((application, uid)),
            Receipt::V1(_) | Receipt::Orphaned { .. } | Receipt::EndFailed { .. } => None,
        });
        ended.collect()
    }

    /// What waits behind a cursor, which moves on.
    pub(super) fn upload(&self, cursor: &mut ReceiptSeq) -> Vec<(ReceiptSeq, Receipt)> {
        let receipts: Vec<_> =
            self.waiting.range(cursor.next()..).map(|(seq, receipt)| (*seq, receipt.clone())).collect();
        if let Some((seq, _)) = receipts.last() {
            *cursor = *seq;
        }
        receipts
    }

    fn push(&mut self, receipt: Receipt) -> ReceiptSeq {
        self.next += 1;
        let seq = ReceiptSeq(self.next);
        self.waiting.insert(seq, receipt);
        seq
    }
}
