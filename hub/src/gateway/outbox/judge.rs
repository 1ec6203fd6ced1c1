//! Whether the state has taken what a session waits for. Pure.

use tokio::sync::oneshot;
use windlass_hub_core::{
    State,
    command::{ReceiptBatch, SessionChange},
};
use windlass_protocol::ids::{Digest, Incarnation, ReceiptSeq};

use super::Verdict;

/// A session that asks to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::gateway) struct Admission {
    /// uid of the Cluster.
    pub(in crate::gateway) cluster: String,
    /// Process of the agent.
    pub(in crate::gateway) incarnation: Incarnation,
    /// Of its certificate.
    pub(in crate::gateway) serial: [u8; 16],
    /// Of its public key.
    pub(in crate::gateway) key: Digest,
}

impl Admission {
    /// Whether the state names exactly this session, and nothing is left to be noted about its certificate.
    pub(super) fn is_recorded(&self, state: &State, node: u64) -> bool {
        self.judge(state, node) == Some(Verdict::Taken)
            && state
                .cluster(&self.cluster)
                .is_some_and(|record| record.serial == Some(self.serial) && record.previous_serial.is_none())
    }

    fn judge(&self, state: &State, node: u64) -> Option<Verdict> {
        if let Err(refusal) = state.admit_key(&self.cluster, &self.serial, &self.key, self.incarnation) {
            return Some(Verdict::Refused(refusal.to_string()));
        }
        let recorded = state
            .cluster(&self.cluster)
            .is_some_and(|record| record.session == Some(node) && record.incarnation == self.incarnation);
        recorded.then_some(Verdict::Taken)
    }
}

/// Something that a session waits for.
#[derive(Debug)]
pub(super) struct Waiter {
    what: What,
    reply: oneshot::Sender<Verdict>,
}

#[derive(Debug)]
enum What {
    Admission(Admission),
    Receipts { cluster: String, incarnation: Incarnation, up_to: ReceiptSeq },
}

impl Waiter {
    pub(super) const fn admission(admission: Admission, reply: oneshot::Sender<Verdict>) -> Self {
        Self { what: What::Admission(admission), reply }
    }

    pub(super) const fn receipts(
        cluster: String,
        incarnation: Incarnation,
        up_to: ReceiptSeq,
        reply: oneshot::Sender<Verdict>,
    ) -> Self {
        Self { what: What::Receipts { cluster, incarnation, up_to }, reply }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.reply.is_closed()
    }

    pub(super) fn is_about_session(&self, change: &SessionChange) -> bool {
        matches!((&self.what, change), (What::Admission(admission), SessionChange::Connected { cluster, .. })
            if admission.cluster == *cluster)
    }

    pub(super) fn is_about_receipts(&self, batch: &ReceiptBatch) -> bool {
        matches!(&self.what, What::Receipts { cluster, up_to, .. } if batch.cluster == *cluster && batch.up_to == *up_to)
    }

    pub(super) fn answer(self, verdict: Verdict) {
        // The session may have ended meanwhile.
        let _ = self.reply.send(verdict);
    }

    /// Answers if the state decides it; gives the waiter back otherwise, unless it is `late`.
    pub(super) fn judge(self, state: &State, node: u64, late: bool) -> Option<Self> {
        let verdict = match &self.what {
            What::Admission(admission) => admission.judge(state, node),
            What::Receipts { cluster, incarnation, up_to } => taken(state, cluster, *incarnation, *up_to),
        };
        match verdict {
            Some(verdict) => self.answer(verdict),
            None if late => self.answer(Verdict::Unknown("the state does not show it".to_owned())),
            None => return Some(self),
        }
        None
    }
}

fn taken(state: &State, cluster: &str, incarnation: Incarnation, up_to: ReceiptSeq) -> Option<Verdict> {
    let Some(record) = state.cluster(cluster) else {
        return Some(Verdict::Refused(format!("cluster {cluster} is not registered")));
    };
    if record.incarnation > incarnation {
        let newest = record.incarnation;
        return Some(Verdict::Refused(format!("receipts of incarnation {incarnation}, the newest is {newest}")));
    }
    (record.incarnation == incarnation && record.receipts >= up_to).then_some(Verdict::Taken)
}
