//! The other hubs, as far as blobs are concerned.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use windlass_hub_core::State;
use windlass_protocol::ids::Digest;

use crate::{
    peers::Peers,
    raft::{LinkError, NodeId},
    replica::Replica,
};

/// What a state references.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Referenced {
    /// Revision of the state.
    pub revision: u64,
    /// Indexes of bundles; what these name is referenced, too.
    pub bundles: BTreeSet<Digest>,
    /// Details of receipts.
    pub details: BTreeSet<Digest>,
}

impl Referenced {
    /// Reads a state.
    #[must_use]
    pub fn of(state: &State) -> Self {
        let bundles = state.assignments().flat_map(|(_, record)| record.bundles().map(|bundle| bundle.digest));
        let bundles: BTreeSet<Digest> = bundles.collect();
        let details = state.referenced().filter(|digest| !bundles.contains(digest)).collect();
        Self { revision: state.meta().revision.0, bundles, details }
    }
}

/// The group that this hub is in.
pub trait BlobGroup: Send + Sync + 'static {
    /// This node.
    fn this(&self) -> NodeId;

    /// The sets of voters of which each needs a majority: one, or two while the membership changes.
    fn quorums(&self) -> Vec<BTreeSet<NodeId>>;

    /// All members, learners too.
    fn members(&self) -> BTreeSet<NodeId>;

    /// What the newest applied state of this node references. May be slow.
    fn referenced(&self) -> Referenced;

    /// Sends a request to [`super::Bundles::serve_peer`] of another node.
    fn ask(&self, node: NodeId, request: Bytes, limit: Duration) -> BoxFuture<'_, Result<Bytes, LinkError>>;
}

/// The group over Raft and the peer transport.
#[derive(Clone, Debug)]
pub struct Hubs {
    /// State and membership.
    pub replica: Replica,
    /// The ways.
    pub peers: Peers,
}

impl BlobGroup for Hubs {
    fn this(&self) -> NodeId {
        self.replica.raft().identity().node
    }

    fn quorums(&self) -> Vec<BTreeSet<NodeId>> {
        self.replica.raft().status().borrow().quorums.clone()
    }

    fn members(&self) -> BTreeSet<NodeId> {
        let status = self.replica.raft().status();
        let status = status.borrow();
        status.voters.keys().chain(status.learners.keys()).copied().collect()
    }

    fn referenced(&self) -> Referenced {
        Referenced::of(&self.replica.state())
    }

    fn ask(&self, node: NodeId, request: Bytes, limit: Duration) -> BoxFuture<'_, Result<Bytes, LinkError>> {
        Box::pin(self.peers.bulk(node, request, limit))
    }
}

/// Whether every set has its majority among `held`. No set at all asks for nothing: such a node cannot propose either.
pub(super) fn satisfied(quorums: &[BTreeSet<NodeId>], held: &BTreeSet<NodeId>) -> bool {
    quorums.iter().all(|voters| voters.intersection(held).count() * 2 > voters.len())
}

/// Too few voters have what is to be proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoQuorum {
    /// Who has it.
    pub held: BTreeSet<NodeId>,
    /// Who does not, and why.
    pub failed: BTreeMap<NodeId, String>,
}

impl std::fmt::Display for NoQuorum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let held: Vec<String> = self.held.iter().map(ToString::to_string).collect();
        write!(f, "no majority of hubs has the manifests, so nothing is proposed: node {} has them", held.join(", "))?;
        self.failed.iter().try_for_each(|(node, reason)| write!(f, "; node {node}: {reason}"))
    }
}

impl std::error::Error for NoQuorum {}

/// The group, once it is known.
pub(super) type Group = Arc<dyn BlobGroup>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_joint_membership_needs_both_majorities() {
        let set = |nodes: &[NodeId]| nodes.iter().copied().collect::<BTreeSet<_>>();
        let joint = [set(&[1, 2, 3]), set(&[3, 4, 5])];
        for (held, enough) in
            [(&[1, 2][..], false), (&[1, 3], false), (&[1, 3, 4], true), (&[1, 2, 4, 5], true), (&[3, 4, 5], false)]
        {
            assert_eq!(satisfied(&joint, &set(held)), enough, "{held:?}");
        }
        assert!(satisfied(&[set(&[1])], &set(&[1])) && !satisfied(&[set(&[1, 2])], &set(&[1])));
    }
}
