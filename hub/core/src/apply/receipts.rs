//! What agents prove: receipts change assignments, finish tombstones, and move Rollouts.

use windlass_protocol::{
    ids::{Incarnation, NamespacedName, ReceiptSeq},
    message::{AssignmentReceipt, Receipt},
};

use super::Transaction;
use crate::command::{ENVELOPE_OBJECTS_MAX, Rejection};

/// Orphaned assignments of one cluster that are listed.
const ORPHANED_MAX: usize = 1_000;

impl Transaction {
    pub(super) fn receipts(
        &mut self,
        cluster: &str,
        incarnation: Incarnation,
        up_to: ReceiptSeq,
        receipts: &[Receipt],
    ) -> Result<(), Rejection> {
        let gone = || Rejection::Precondition(format!("cluster {cluster} is not registered"));
        let mut record = (**self.state.cluster(cluster).ok_or_else(gone)?).clone();
        if incarnation < record.incarnation {
            let newest = record.incarnation;
            return Err(Rejection::Precondition(format!(
                "receipts of incarnation {incarnation}, the newest is {newest}"
            )));
        }
        let (count, limit) = (receipts.len(), ENVELOPE_OBJECTS_MAX);
        if count > limit {
            return Err(Rejection::Invalid(format!("{count} receipts in one command; the limit is {limit}")));
        }
        if incarnation > record.incarnation {
            // A newer process counts from the beginning. Its session may become known only later: what it proves must not be
            // taken for a repetition of what the process before it said.
            record.incarnation = incarnation;
            record.receipts = ReceiptSeq::ZERO;
        }
        if up_to <= record.receipts {
            // Sent again after a lost acknowledgement.
            return Ok(());
        }
        record.receipts = up_to;
        self.state.clusters.insert_mut(cluster.to_owned(), std::sync::Arc::new(record));
        for receipt in receipts {
            match receipt {
                Receipt::V1(receipt) => self.receipt(cluster, receipt),
                Receipt::Ended { application, uid } => self.ended(cluster, application, uid),
                Receipt::Orphaned { application, uid } => self.orphaned(cluster, application, uid),
                Receipt::EndFailed { application, uid, message } => self.end_failed(application, uid, message),
            }
        }
        Ok(())
    }

    fn receipt(&mut self, cluster: &str, receipt: &AssignmentReceipt) {
        let Some(record) = self.state.assignment(&receipt.application).cloned() else { return };
        // A late receipt about another object of the same name, or another cluster's, proves nothing.
        if record.cluster != cluster || record.uid != receipt.uid || receipt.release > record.release {
            return;
        }
        let mut record = (*record).clone();
        record.receipt = Some(receipt.clone());
        let released = record.released.as_ref().map(|bundle| bundle.digest);
        let proven = crate::state::is_proven(&record, receipt);
        if proven && receipt.applied == released {
            record.last_good.clone_from(&record.released);
        }
        self.progress_rollout(&receipt.application, &record);
        self.keep_assignment(&receipt.application, record);
    }

    fn ended(&mut self, cluster: &str, application: &NamespacedName, uid: &str) {
        let Some(record) = self.state.cluster(cluster).cloned() else { return };
        let mut record = (*record).clone();
        record.tombstones.retain(|_, tombstone| tombstone.application != *application || tombstone.uid != uid);
        record.orphaned.remove(application);
        self.put_cluster(cluster, record);
        self.dirty_applications.insert(application.clone());
    }

    fn orphaned(&mut self, cluster: &str, application: &NamespacedName, uid: &str) {
        let Some(record) = self.state.cluster(cluster).cloned() else { return };
        if record.orphaned.len() < ORPHANED_MAX {
            let mut record = (*record).clone();
            record.orphaned.insert(application.clone(), uid.to_owned());
            self.put_cluster(cluster, record);
        }
    }

    fn end_failed(&mut self, application: &NamespacedName, uid: &str, message: &str) {
        let key = super::assignments::application_key(application);
        if self.state.object(&key).is_some_and(|record| record.uid == uid && record.deleting) {
            let now = self.wall.rfc3339();
            let condition = windlass_protocol::status::Condition::new("DeletionError", message);
            self.edit_status(&key, |status| crate::status::set_conditions(status, &[condition], &now));
        }
    }
}
