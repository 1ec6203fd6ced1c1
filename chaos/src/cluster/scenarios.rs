//! Named faults, one invariant each: the hub's rows of the failure model.
//!
//! Each starts a group of its own under load and ends with the same examination: everything acknowledged is there, the history
//! is linearizable, replicas are equal. What a scenario asks beyond that is the sentence at its name.

mod disks;
mod fleet;
mod leader;
mod members;
mod network;

use std::time::Duration;

use anyhow::Result;
use clap::Subcommand;

use super::group::{GroupOptions, Network};

/// What to do to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Scenario {
    /// The leader is killed: another one leads, and writes go on.
    LeaderKilled,
    /// The leader is paused for 5 s and goes on: it serves no stale read as current and acknowledges no write of its own.
    LeaderPaused,
    /// The leader is cut off from its peers: another one leads; the old one vouches for no read and acknowledges no write.
    LeaderPartitioned,
    /// Datagrams go only one way between the leader and its peers, either way in turn: writes go on.
    OneWayPartition,
    /// A sync takes 1 s on the leader: no acknowledged write is lost, writes go on.
    SlowDiskLeader,
    /// A sync takes 1 s on a follower: the others make a quorum, writes go on as before.
    SlowDiskFollower,
    /// The disk of the leader is full: writes go on without it, and it is back once there is room.
    FullDisk,
    /// A hub is cut off from its peers but not from agents: it says GoAway, and the agent is at another hub within seconds.
    AgentMoves,
    /// A cluster is removed while its agent's hub is cut off from its peers: the agent has no session 5 s later.
    Revocation,
    /// Two of three hubs are killed: reads are labelled, nothing is written, and agents heal drift all the same.
    QuorumLost,
    /// All hubs are killed at once with agents connected: the same state afterwards, and nothing is applied again.
    AllKilled,
    /// A hub is replaced by a new one, then another is lost: every rendered manifest is still at every hub.
    NodeReplaced,
    /// Links lose 30 %, delay, double and reorder: writes go on.
    RoughLinks,
    /// The leader's clock jumps by an hour, both ways: it leads on, writes go on, the agent stays connected.
    ClockJump,
    /// All hubs are restarted one by one under load: no client that retries sees an error.
    RollingRestart,
}

impl Scenario {
    /// What lies between the hubs.
    #[must_use]
    pub const fn network(self) -> Network {
        match self {
            Self::LeaderPartitioned
            | Self::OneWayPartition
            | Self::AgentMoves
            | Self::Revocation
            | Self::RoughLinks => Network::Proxied,
            Self::LeaderKilled
            | Self::LeaderPaused
            | Self::SlowDiskLeader
            | Self::SlowDiskFollower
            | Self::FullDisk
            | Self::QuorumLost
            | Self::AllKilled
            | Self::NodeReplaced
            | Self::ClockJump
            | Self::RollingRestart => Network::Direct,
        }
    }

    /// Runs it; says what was seen and measured.
    ///
    /// # Errors
    /// What does not hold.
    pub async fn run(self, options: &GroupOptions) -> Result<String> {
        match self {
            Self::LeaderKilled => leader::killed(options).await,
            Self::LeaderPaused => leader::paused(options).await,
            Self::LeaderPartitioned => network::leader_partitioned(options).await,
            Self::OneWayPartition => network::one_way(options).await,
            Self::RoughLinks => network::rough(options).await,
            Self::SlowDiskLeader => disks::slow_leader(options).await,
            Self::SlowDiskFollower => disks::slow_follower(options).await,
            Self::FullDisk => disks::full(options).await,
            Self::ClockJump => disks::clock_jump(options).await,
            Self::AgentMoves => fleet::agent_moves(options).await,
            Self::Revocation => fleet::revocation(options).await,
            Self::QuorumLost => fleet::quorum_lost(options).await,
            Self::AllKilled => fleet::all_killed(options).await,
            Self::NodeReplaced => members::replaced(options).await,
            Self::RollingRestart => members::rolling_restart(options).await,
        }
    }
}

/// How long a fault lasts when it is not said otherwise: several elections.
const FAULT: Duration = Duration::from_secs(3);
