//! This node's replica of the state, and the one way to change it: a command in an envelope, proposed to Raft.
//!
//! Clocks and randomness enter here and nowhere deeper: wall time, request ids, uids.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ring::rand::{SecureRandom, SystemRandom};
use windlass_hub_core::{Command, Envelope, Precondition, Rejection, Reply, State, command::ENVELOPE_BYTES_MAX};
use windlass_protocol::{
    codec,
    ids::{RequestId, uuid_v4},
    time::Millis,
};

use crate::{
    machine::{StateMachine, decode_reply},
    raft::{ProposeError, RaftNode, ReadError},
};

/// Attempts of one proposal whose outcome is unknown; the request id makes repetition safe.
const ATTEMPTS_MAX: usize = 5;
/// Wait between attempts.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(100);

/// The state of the group as this node sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Replica {
    machine: Arc<StateMachine>,
    raft: RaftNode,
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
    /// Over a running Raft node and its machine.
    #[must_use]
    pub fn new(machine: Arc<StateMachine>, raft: RaftNode) -> Self {
        Self { machine, raft, random: SystemRandom::new() }
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
        self.raft.read_index().await.map(drop)
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
        let mut attempts = 0;
        loop {
            attempts += 1;
            let answer = match self.raft.propose(encoded.clone()).await {
                Ok(answer) => answer,
                // Between leaders nothing is lost by asking once more under the same request id.
                Err(ProposeError::NotLeader { .. } | ProposeError::Timeout) if attempts < ATTEMPTS_MAX => {
                    tokio::time::sleep(ATTEMPT_PAUSE).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            return Ok(decode_reply(&answer).map_err(CommandError::Encoding)??);
        }
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

/// Wall time of this node, for timestamps, windows and expiry only.
#[must_use]
pub fn wall_clock() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
