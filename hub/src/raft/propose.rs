//! Commands on their way into the log: bounded, and written in groups.
//!
//! The library appends and syncs one entry at a time, so an entry carries every command that came in while the entry
//! before it was written. A group is never held back to grow.

use std::sync::Arc;

use openraft::error::{ClientWriteError, Fatal, ForwardToLeader};
use tokio::sync::{OwnedRwLockWriteGuard, OwnedSemaphorePermit, RwLock, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::types::{Commands, NodeId, Peer, Raft};

/// Why a command has no answer. Only [`ProposeError::Timeout`] and [`ProposeError::Stopped`] leave open whether it was
/// or will be applied: the caller's request id decides when it tries again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead; nothing was applied.
    #[error("this hub is not the leader{}", at_leader(leader.as_ref(), address.as_deref()))]
    NotLeader {
        /// Who leads, when that is known.
        leader: Option<NodeId>,
        /// Where its peers reach it.
        address: Option<String>,
    },
    /// Too much is waiting; nothing was applied.
    #[error("too many commands are waiting (limit {limit}); try again later")]
    Overloaded {
        /// The name of the limit.
        limit: &'static str,
    },
    /// The command breaks the limit; nothing was applied.
    #[error("the command has {size} bytes, the limit raft.command_bytes is {maximum}")]
    TooLarge {
        /// Bytes of the command.
        size: usize,
        /// Most bytes allowed.
        maximum: usize,
    },
    /// No answer in time, probably for want of a quorum; it may still be applied.
    #[error("no quorum answered in time; the command may or may not take effect")]
    Timeout,
    /// The node stopped; it may still be applied by the others.
    #[error("this hub stopped ({reason}); the command may or may not take effect")]
    Stopped {
        /// What stopped it.
        reason: String,
    },
}

pub(super) fn at_leader(leader: Option<&NodeId>, address: Option<&str>) -> String {
    match (leader, address) {
        (Some(node), Some(address)) => format!(", node {node} at {address} is"),
        (Some(node), None) => format!(", node {node} is"),
        (None, _) => ", and there is no leader at the moment".into(),
    }
}

/// The leader as an error of the library names it.
pub(super) fn leader_of(forward: ForwardToLeader<NodeId, Peer>) -> (Option<NodeId>, Option<String>) {
    (forward.leader_id, forward.leader_node.map(|peer| peer.address))
}

pub(super) fn stopped(fatal: &Fatal<NodeId>) -> String {
    match fatal {
        Fatal::Stopped => "it is shutting down".into(),
        other => other.to_string(),
    }
}

type Reply = oneshot::Sender<Result<Vec<u8>, ProposeError>>;

struct Proposal {
    command: Arc<[u8]>,
    reply: Reply,
    /// Held until the answer: what is in flight counts, not what is queued.
    permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

/// The way in.
pub(super) struct Proposer {
    queue: mpsc::Sender<Proposal>,
    commands: Arc<Semaphore>,
    kibibytes: Arc<Semaphore>,
    command_bytes_max: usize,
    /// Read by each group that is written; written to hold them.
    gate: Arc<RwLock<()>>,
}

impl Proposer {
    /// A proposer and the task that writes for it.
    pub(super) fn start(
        raft: Raft,
        in_flight_max: usize,
        in_flight_bytes_max: usize,
        command_bytes_max: usize,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let in_flight_max = in_flight_max.clamp(1, Semaphore::MAX_PERMITS);
        let (queue, proposals) = mpsc::channel(in_flight_max);
        let proposer = Self {
            queue,
            commands: Arc::new(Semaphore::new(in_flight_max)),
            kibibytes: Arc::new(Semaphore::new((in_flight_bytes_max >> 10).clamp(1, Semaphore::MAX_PERMITS))),
            command_bytes_max,
            gate: Arc::default(),
        };
        let gate = Arc::clone(&proposer.gate);
        (proposer, write_groups(raft, proposals, gate, stop))
    }

    /// Groups wait while the guard lives.
    pub(super) async fn hold(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.gate).write_owned().await
    }

    /// Queues a command; the receiver yields its answer.
    pub(super) fn queue(
        &self,
        command: Vec<u8>,
    ) -> Result<oneshot::Receiver<Result<Vec<u8>, ProposeError>>, ProposeError> {
        let size = command.len();
        if size > self.command_bytes_max {
            return Err(ProposeError::TooLarge { size, maximum: self.command_bytes_max });
        }
        let overloaded = |limit| move |_| ProposeError::Overloaded { limit };
        let kibibytes = u32::try_from(size.div_ceil(1_024)).unwrap_or(u32::MAX);
        let count = Arc::clone(&self.commands).try_acquire_owned().map_err(overloaded("raft.in_flight"))?;
        let bytes = Arc::clone(&self.kibibytes)
            .try_acquire_many_owned(kibibytes)
            .map_err(overloaded("raft.in_flight_bytes"))?;
        let (reply, answer) = oneshot::channel();
        let proposal = Proposal { command: command.into(), reply, permits: (count, bytes) };
        // The queue holds as many as may be in flight, so it is only ever closed, not full.
        self.queue.try_send(proposal).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded { limit: "raft.in_flight" },
            mpsc::error::TrySendError::Closed(_) => ProposeError::Stopped { reason: "it is shutting down".into() },
        })?;
        Ok(answer)
    }
}

async fn write_groups(
    raft: Raft,
    mut proposals: mpsc::Receiver<Proposal>,
    gate: Arc<RwLock<()>>,
    stop: CancellationToken,
) {
    let pipeline = Arc::new(Semaphore::new(PIPELINE));
    let mut carried = None;
    loop {
        let first = match carried.take() {
            Some(proposal) => proposal,
            None => tokio::select! {
                () = stop.cancelled() => return,
                proposal = proposals.recv() => match proposal {
                    Some(proposal) => proposal,
                    None => return,
                },
            },
        };
        let slot = tokio::select! {
            () = stop.cancelled() => return,
            slot = Arc::clone(&pipeline).acquire_owned() => match slot {
                Ok(slot) => slot,
                Err(_) => return,
            },
        };
        let mut bytes = first.command.len();
        let mut group = vec![first];
        while group.len() < GROUP_COMMANDS {
            let Ok(next) = proposals.try_recv() else {
                break;
            };
            bytes += next.command.len();
            if bytes > GROUP_BYTES {
                carried = Some(next);
                break;
            }
            group.push(next);
        }
        let open = tokio::select! {
            () = stop.cancelled() => return,
            open = gate.read() => open,
        };
        // Queued here and not in the task below, so that groups keep their order.
        let commands = Commands(group.iter().map(|proposal| Arc::clone(&proposal.command)).collect());
        let written = raft.client_write_ff(commands).await;
        drop(open);
        tokio::spawn(async move {
            let outcome = match written {
                Err(fatal) => Err(ProposeError::Stopped { reason: stopped(&fatal) }),
                Ok(answers) => match answers.await {
                    Ok(Ok(response)) => Ok(response.data.0),
                    Ok(Err(ClientWriteError::ForwardToLeader(forward))) => {
                        let (leader, address) = leader_of(forward);
                        Err(ProposeError::NotLeader { leader, address })
                    }
                    Ok(Err(ClientWriteError::ChangeMembershipError(error))) => {
                        Err(ProposeError::Stopped { reason: error.to_string() })
                    }
                    Err(_) => Err(ProposeError::Stopped { reason: "it is shutting down".into() }),
                },
            };
            drop(slot);
            answer(group, outcome);
        });
    }
}

fn answer(group: Vec<Proposal>, outcome: Result<Vec<Vec<u8>>, ProposeError>) {
    let mut answers = match &outcome {
        Ok(answers) => answers.iter(),
        Err(_) => [].iter(),
    };
    for proposal in group {
        let one = match &outcome {
            Err(error) => Err(error.clone()),
            Ok(_) => {
                answers.next().cloned().ok_or_else(|| ProposeError::Stopped { reason: "an answer is missing".into() })
            }
        };
        drop(proposal.permits);
        // The caller may have given up.
        drop(proposal.reply.send(one));
    }
}

/// Entries that may be under way at once: one is synced here while the one before it travels to the peers. More only
/// make smaller groups, since the library syncs one entry after the other.
const PIPELINE: usize = 2;
/// Most commands in one entry.
const GROUP_COMMANDS: usize = 500;
/// Most bytes in one entry, but for a single command that is larger.
const GROUP_BYTES: usize = 1 << 20;
