//! This node's replica of the state, and the one way to change it: a command in an envelope, proposed to Raft, here or through
//! the leader.
//!
//! Clocks and randomness enter here and nowhere deeper: wall time, request ids, uids.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::{Instant, sleep_until, timeout_at};
use windlass_hub_core::{Command, Envelope, Precondition, Rejection, Reply, State, command::ENVELOPE_BYTES_MAX};
use windlass_protocol::{
    codec,
    ids::{RequestId, StateRevision, uuid_v4},
    time::Millis,
};

use crate::{
    group::wire::{self, Ask, Told},
    machine::{StateMachine, decode_reply},
    peers::Peers,
    raft::{LinkError, ProposeError, RaftNode, ReadError},
};

/// A proposal is tried for so long, through elections and lost connections: the request id makes repetition safe.
const PATIENCE: Duration = Duration::from_secs(10);
/// Wait between attempts.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(50);
/// A leader that says nothing for so long is asked again; it may have lost its quorum, or the connection may be dead.
const ASK_TIME_MAX: Duration = Duration::from_secs(4);
/// After a forwarded write its author finds it here; a follower that is further behind answers without it.
const CATCH_UP_TIME_MAX: Duration = Duration::from_secs(2);

/// The state of the group as this node sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Replica {
    machine: Arc<StateMachine>,
    raft: RaftNode,
    peers: Option<Peers>,
    random: SystemRandom,
}

/// Why a command was not applied, or may not have been.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommandError {
    /// The state refused it; nothing changed.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// No leader, no quorum, overload; try again.
    #[error(transparent)]
    Unavailable(#[from] ProposeError),
    /// Too large, or not encodable.
    #[error("the command cannot be encoded: {0}")]
    Encoding(String),
    /// The operating system gives no random numbers.
    #[error("the operating system gives no random numbers")]
    Random,
}

impl Replica {
    /// Over a running Raft node and its machine, with nobody to forward to.
    #[must_use]
    pub fn new(machine: Arc<StateMachine>, raft: RaftNode) -> Self {
        Self { machine, raft, peers: None, random: SystemRandom::new() }
    }

    /// Forwards to the leader through `peers`.
    #[must_use]
    pub fn with_peers(self, peers: Peers) -> Self {
        Self { peers: Some(peers), ..self }
    }

    /// The state as of the newest applied entry of this node.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        self.machine.state()
    }

    /// Effects, revision and events.
    #[must_use]
    pub fn machine(&self) -> &StateMachine {
        &self.machine
    }

    /// The Raft node.
    #[must_use]
    pub const fn raft(&self) -> &RaftNode {
        &self.raft
    }

    /// The ways to the other hubs.
    #[must_use]
    pub const fn peers(&self) -> Option<&Peers> {
        self.peers.as_ref()
    }

    /// Whether this node leads the group.
    #[must_use]
    pub fn leads(&self) -> bool {
        let status = self.raft.status();
        let status = status.borrow();
        status.leader == Some(status.node)
    }

    /// Waits until everything acknowledged anywhere before is in [`Self::state`].
    ///
    /// # Errors
    /// [`ReadError`] without a leader or a quorum.
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        let leader = self.raft.status().borrow().leader;
        let node = self.raft.identity().node;
        let (Some(peers), Some(leader)) = (&self.peers, leader.filter(|leader| *leader != node)) else {
            return self.raft.read_index().await.map(drop);
        };
        let not_leader = || ReadError::NotLeader { leader: Some(leader), address: None };
        match ask(peers, leader, &Ask::ReadIndex, ASK_TIME_MAX).await {
            Ok(Told::Index(index)) => {
                let reached = self.raft.wait_applied(index, CATCH_UP_TIME_MAX).await;
                if reached { Ok(()) } else { Err(not_leader()) }
            }
            Ok(Told::Unknown(_)) => Err(ReadError::NoQuorum),
            _ => Err(not_leader()),
        }
    }

    /// Proposes a command for a subject (`user:admin`) from a source (an address, or a task of the hub).
    ///
    /// # Errors
    /// [`CommandError`]; only [`ProposeError::Timeout`] and [`ProposeError::Stopped`] leave the outcome open.
    pub async fn propose(
        &self,
        subject: &str,
        source: &str,
        preconditions: Vec<Precondition>,
        command: Command,
    ) -> Result<Reply, CommandError> {
        let envelope = Envelope {
            request: RequestId(self.random_bytes()?),
            subject: subject.to_owned(),
            source: source.to_owned(),
            proposed_at: wall_clock(),
            preconditions,
            command,
        };
        let encoded = codec::to_bytes(&envelope, ENVELOPE_BYTES_MAX)
            .map_err(|error| CommandError::Encoding(error.to_string()))?;
        let answer = self.propose_anywhere(encoded).await?;
        let reply = decode_reply(&answer).map_err(CommandError::Encoding)??;
        self.catch_up(reply.revision).await;
        Ok(reply)
    }

    /// Proposes an encoded envelope to whoever leads, again and again under its request id.
    async fn propose_anywhere(&self, encoded: Vec<u8>) -> Result<Vec<u8>, ProposeError> {
        let deadline = Instant::now() + PATIENCE;
        let (mut status, mut leaves) = (self.raft.status(), self.raft.status());
        let mut open = false;
        loop {
            let known = status.wait_for(|status| status.leader.is_some());
            let leader = match timeout_at(deadline, known).await {
                Ok(Ok(status)) => status.leader,
                Ok(Err(_)) => return Err(ProposeError::Stopped { reason: "it is shutting down".into() }),
                Err(_) => None,
            };
            let Some(leader) = leader else {
                return Err(if open {
                    ProposeError::Timeout
                } else {
                    ProposeError::NotLeader { leader: None, address: None }
                });
            };
            // A leader that is gone answers nobody: who hears of another one asks there.
            let outcome = tokio::select! {
                outcome = self.propose_at(leader, &encoded) => outcome,
                _ = leaves.wait_for(|status| status.leader != Some(leader)) => Err(ProposeError::Timeout),
                () = sleep_until(deadline) => Err(ProposeError::Timeout),
            };
            match outcome {
                Err(error @ (ProposeError::NotLeader { .. } | ProposeError::Timeout)) => {
                    open |= error == ProposeError::Timeout;
                    if Instant::now() + ATTEMPT_PAUSE >= deadline {
                        return Err(if open { ProposeError::Timeout } else { error });
                    }
                    tokio::time::sleep(ATTEMPT_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn propose_at(&self, leader: u64, encoded: &[u8]) -> Result<Vec<u8>, ProposeError> {
        if leader == self.raft.identity().node {
            return self.raft.propose(encoded.to_vec()).await;
        }
        let not_leader = || ProposeError::NotLeader { leader: Some(leader), address: None };
        let Some(peers) = &self.peers else { return Err(not_leader()) };
        match ask(peers, leader, &Ask::Propose(encoded.to_vec()), ASK_TIME_MAX).await {
            Ok(Told::Answer(answer)) => Ok(answer),
            Ok(Told::Overloaded) => Err(ProposeError::Overloaded { limit: "raft.in_flight" }),
            Ok(Told::TooLarge { size, maximum }) => Err(ProposeError::TooLarge {
                size: usize::try_from(size).unwrap_or(usize::MAX),
                maximum: usize::try_from(maximum).unwrap_or(usize::MAX),
            }),
            Ok(Told::NotLeader) | Err(LinkError::Unreachable(_) | LinkError::Refused(_)) => Err(not_leader()),
            // It may have been proposed.
            Ok(_) | Err(LinkError::Failed(_)) => Err(ProposeError::Timeout),
        }
    }

    /// Waits until this node has what its caller just wrote.
    async fn catch_up(&self, revision: StateRevision) {
        let mut revisions = self.machine.revision();
        // Late is not lost: the write stands.
        let _ = tokio::time::timeout(CATCH_UP_TIME_MAX, revisions.wait_for(|now| *now >= revision)).await;
    }

    /// A new `metadata.uid`.
    ///
    /// # Errors
    /// [`CommandError::Random`] when the operating system gives no random numbers.
    pub fn new_uid(&self) -> Result<String, CommandError> {
        Ok(uuid_v4(self.random_bytes()?))
    }

    /// Fresh random bytes.
    ///
    /// # Errors
    /// [`CommandError::Random`] when the operating system gives no random numbers.
    pub fn random_bytes<const N: usize>(&self) -> Result<[u8; N], CommandError> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes).map_err(|_| CommandError::Random)?;
        Ok(bytes)
    }
}

/// Asks another hub.
///
/// # Errors
/// [`LinkError`] when there is no answer that this release can read.
pub async fn ask(peers: &Peers, node: u64, ask: &Ask, limit: Duration) -> Result<Told, LinkError> {
    let request = wire::encode(ask).map_err(LinkError::Refused)?;
    let answer = peers.service(node, request.into(), limit).await?;
    wire::decode(&answer).map_err(LinkError::Refused)
}

/// Wall time of this node, for timestamps, windows and expiry only.
#[must_use]
pub fn wall_clock() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
