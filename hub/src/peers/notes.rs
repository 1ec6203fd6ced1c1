//! What is wrong with peers, told once per change and not at every attempt.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::raft::NodeId;

/// Which side opened the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// We dialled.
    Out,
    /// The peer dialled.
    In,
}

/// Peers with a trouble that was told. Numbers come out of verified certificates, so they are few; the bound is for a
/// trust domain gone mad.
const TOLD_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Notes {
    told: Mutex<BTreeMap<(Way, NodeId), String>>,
}

impl Notes {
    /// Something is wrong with a peer.
    pub(super) fn trouble(&self, way: Way, node: NodeId, reason: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&(way, node)).is_some_and(|before| before == reason) {
            return;
        }
        if told.len() >= TOLD_MAX {
            told.pop_first();
        }
        told.insert((way, node), reason.to_owned());
        drop(told);
        match way {
            Way::Out => tracing::warn!(peer = node, reason, "peer cannot be reached"),
            Way::In => tracing::warn!(peer = node, reason, "peer was turned away"),
        }
    }

    /// All is well.
    pub(super) fn fine(&self, way: Way, node: NodeId) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(&(way, node));
    }

    /// What was told last.
    #[cfg(test)]
    pub(super) fn told(&self, way: Way, node: NodeId) -> Option<String> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).get(&(way, node)).cloned()
    }
}
