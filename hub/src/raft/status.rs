//! What a node says about its part in the group.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::{RaftMetrics, ServerState};

use super::types::{NodeId, Peer};

/// What a node is in the group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// Follows without a vote.
    #[default]
    Learner,
    /// Follows a leader, or waits for one.
    Follower,
    /// Stands for election.
    Candidate,
    /// Orders the log.
    Leader,
    /// Stopped, by request or by a failure.
    Stopped,
}

/// One look at a node. Indexes are those of log entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub node: NodeId,
    /// The leader, as far as this node knows.
    pub leader: Option<NodeId>,
    /// The term this node is in.
    pub term: u64,
    /// Newest entry in the log.
    pub last_log: Option<u64>,
    /// Newest entry in the state.
    pub applied: Option<u64>,
    /// Newest entry in a snapshot.
    pub snapshot: Option<u64>,
    /// Newest entry that was removed from the log.
    pub purged: Option<u64>,
    /// Members that vote.
    pub voters: BTreeMap<NodeId, Peer>,
    /// The sets of voters of which each needs a majority: one, or two while the membership changes.
    pub quorums: Vec<BTreeSet<NodeId>>,
    /// Members that only follow.
    pub learners: BTreeMap<NodeId, Peer>,
    /// What this node is.
    pub role: Role,
    /// On the leader: how long ago a quorum last confirmed it, as of this look.
    pub quorum_age: Option<Duration>,
    /// On the leader: the newest entry each follower is known to hold.
    pub replicated: BTreeMap<NodeId, Option<u64>>,
    /// Why the node stopped, when it was not asked to.
    pub failure: Option<String>,
}

impl Status {
    pub(super) fn of(metrics: &RaftMetrics<NodeId, Peer>) -> Self {
        let membership = metrics.membership_config.membership();
        let is_voter = |node: &NodeId| membership.voter_ids().any(|voter| voter == *node);
        let (voters, learners) =
            membership.nodes().map(|(node, peer)| (*node, peer.clone())).partition(|(node, _)| is_voter(node));
        let failure = match &metrics.running_state {
            Ok(()) | Err(openraft::error::Fatal::Stopped) => None,
            Err(error) => Some(error.to_string()),
        };
        Self {
            node: metrics.id,
            leader: metrics.current_leader,
            term: metrics.current_term,
            last_log: metrics.last_log_index,
            applied: metrics.last_applied.map(|id| id.index),
            snapshot: metrics.snapshot.map(|id| id.index),
            purged: metrics.purged.map(|id| id.index),
            voters,
            quorums: membership.get_joint_config().clone(),
            learners,
            role: match (&metrics.running_state, metrics.state) {
                (Err(_), _) | (_, ServerState::Shutdown) => Role::Stopped,
                (_, ServerState::Learner) => Role::Learner,
                (_, ServerState::Follower) => Role::Follower,
                (_, ServerState::Candidate) => Role::Candidate,
                (_, ServerState::Leader) => Role::Leader,
            },
            quorum_age: metrics.millis_since_quorum_ack.map(Duration::from_millis),
            replicated: metrics.replication.iter().flatten().map(|(node, id)| (*node, id.map(|id| id.index))).collect(),
            failure,
        }
    }

    /// Where the leader can be reached.
    #[must_use]
    pub fn leader_peer(&self) -> Option<&Peer> {
        let leader = self.leader?;
        self.voters.get(&leader).or_else(|| self.learners.get(&leader))
    }
}
