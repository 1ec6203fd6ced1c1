//! How long ago this node last heard of a leader that works.

use std::time::Duration;

use super::{Role, node::RaftNode};

/// The engine answers at once unless the disk holds it up.
const PATIENCE: Duration = Duration::from_secs(1);

impl RaftNode {
    /// On the leader, how long ago a quorum last confirmed it; elsewhere, the age of the leader's last message. `None` while no
    /// leader is known. Heartbeats keep it far below a second.
    pub async fn leader_contact(&self) -> Option<Duration> {
        let quorum_age = {
            let status = self.status();
            let status = status.borrow();
            status.leader?;
            if status.role == Role::Leader {
                return status.quorum_age;
            }
            self.raft().with_raft_state(|state| state.vote_last_modified().map(|at| at.elapsed()))
        };
        tokio::time::timeout(PATIENCE, quorum_age).await.ok()?.ok()?
    }
}
