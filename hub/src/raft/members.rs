//! Members of the group: who takes part, who votes, who leads. All but [`RaftNode::campaign`] work on the leader only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};

use super::node::RaftNode;
use super::propose::{leader_of, stopped};
use super::types::{NodeId, Peer};
use super::{ProposeError, Role};

/// Why the members were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// Ask the leader.
    #[error(transparent)]
    Raft(#[from] ProposeError),
    /// A change before it is not finished, or the change makes no sense.
    #[error("{0}")]
    Refused(String),
}

impl RaftNode {
    /// Makes a node follow without a vote. It must be reachable at the address; it gets log and snapshots.
    pub async fn add_learner(&self, node: NodeId, peer: Peer) -> Result<(), MembersError> {
        self.change(ChangeMembers::AddNodes(BTreeMap::from([(node, peer)]))).await
    }

    /// Gives a learner a vote.
    pub async fn promote(&self, node: NodeId) -> Result<(), MembersError> {
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([node]))).await
    }

    /// Takes a node out, whatever it was. A leader that is taken out leads until that is committed.
    pub async fn expel(&self, node: NodeId) -> Result<(), MembersError> {
        let voter = self.status().borrow().voters.contains_key(&node);
        let nodes = BTreeSet::from([node]);
        self.change(if voter { ChangeMembers::RemoveVoters(nodes) } else { ChangeMembers::RemoveNodes(nodes) }).await
    }

    /// Changes name and address of a member.
    pub async fn relocate(&self, node: NodeId, peer: Peer) -> Result<(), MembersError> {
        self.change(ChangeMembers::SetNodes(BTreeMap::from([(node, peer)]))).await
    }

    async fn change(&self, change: ChangeMembers<NodeId, Peer>) -> Result<(), MembersError> {
        let changed = self.raft().change_membership(change, false);
        let refused = |error: ChangeMembershipError<NodeId>| MembersError::Refused(error.to_string());
        match tokio::time::timeout(self.config().answer_timeout, changed).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                let (leader, address) = leader_of(forward);
                Err(ProposeError::NotLeader { leader, address }.into())
            }
            Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error)))) => Err(refused(error)),
            Ok(Err(RaftError::Fatal(fatal))) => Err(ProposeError::Stopped { reason: stopped(&fatal) }.into()),
            Err(_) => Err(ProposeError::Timeout.into()),
        }
    }

    /// Asks for votes at once. They are refused while the others hear from a leader.
    pub async fn campaign(&self) -> Result<(), ProposeError> {
        let asked = self.raft().trigger().elect().await;
        asked.map_err(|fatal| ProposeError::Stopped { reason: stopped(&fatal) })
    }

    /// Lets go of the leadership: writes wait, the others hear nothing for as long as their lease on this leader lasts,
    /// then `campaign` is called, which must make another member stand for election. Returns once this node leads no
    /// more, or says that it still does; writes go on in either case.
    ///
    /// The library has no transfer of its own; this costs one lease, without the randomness of an election timeout.
    pub async fn yield_leadership(&self, campaign: impl Future<Output = ()> + Send) -> bool {
        let mut status = self.status();
        if status.borrow_and_update().role != Role::Leader {
            return true;
        }
        let pause = self.hold_proposals().await;
        self.raft().runtime_config().heartbeat(false);
        tokio::time::sleep(self.config().election_max + LEASE_MARGIN).await;
        campaign.await;
        let lost = status.wait_for(|status| status.role != Role::Leader);
        let yielded = tokio::time::timeout(YIELD_TIME_MAX, lost).await.is_ok_and(|outcome| outcome.is_ok());
        self.raft().runtime_config().heartbeat(true);
        drop(pause);
        yielded
    }

    /// Waits until the state here holds everything up to `index`.
    pub async fn wait_applied(&self, index: u64, limit: Duration) -> bool {
        let mut status = self.status();
        let applied = status.wait_for(|status| status.applied >= Some(index));
        tokio::time::timeout(limit, applied).await.is_ok_and(|outcome| outcome.is_ok())
    }
}

/// Beyond the lease: clocks of two processes and a message.
const LEASE_MARGIN: Duration = Duration::from_millis(20);
/// Another leader is known within this time, or the old one goes on.
const YIELD_TIME_MAX: Duration = Duration::from_secs(2);
