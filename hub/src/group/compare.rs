//! Replicas are compared: at every 10,000th envelope each hub states the hash of its state. One that differs from the majority
//! has a damaged memory or disk, or a build whose `apply` differs: it stops before it can answer anybody.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use windlass_hub_core::{Command, Effect, State, snapshot, state::Hashes};
use windlass_protocol::ids::Digest;

use crate::replica::Replica;

/// Envelopes between two comparisons.
pub const COMPARE_EVERY: u64 = 10_000;
/// Pause before a hash is stated again that no leader took.
const PAUSE: Duration = Duration::from_secs(1);
/// Attempts to state a hash: the next one comes anyway.
const ATTEMPTS_MAX: usize = 5;

/// Hashes what the machine has picked, states it, and looks at what the others state. Returns when this hub differs: the caller
/// stops it.
pub async fn compare(replica: Replica, shutdown: CancellationToken) -> Option<String> {
    let mut picked = replica.machine().picked();
    let mut effects = replica.machine().effects();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return None,
            changed = picked.changed() => {
                let state = picked.borrow_and_update().clone();
                match (changed, state) {
                    (Err(_), _) => return None,
                    (Ok(()), Some(state)) => state_hash(&replica, state).await,
                    (Ok(()), None) => {}
                }
            }
            batch = effects.recv() => match batch {
                Ok(batch) => {
                    let stated = batch.iter().filter_map(|effect| match effect {
                        Effect::Hashes(hashes) => Some(hashes),
                        _ => None,
                    });
                    for hashes in stated {
                        if let Some(reason) = differs(&replica, hashes) {
                            return Some(reason);
                        }
                    }
                }
                // The next comparison is as good.
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return None,
            },
        }
    }
}

async fn state_hash(replica: &Replica, state: Arc<State>) {
    let applied = state.meta().applied;
    let hashing = tokio::task::spawn_blocking(move || snapshot::hash(&state));
    let Ok(hash) = hashing.await else { return };
    replica.machine().set_hashed(applied, hash);
    tracing::debug!(applied, %hash, "state hashed");
    let node = replica.raft().identity().node;
    for _ in 0..ATTEMPTS_MAX {
        if replica.state().meta().version < 2 {
            return;
        }
        let command = Command::StateHash { node, applied, hash };
        match replica.propose("hub", "compare", Vec::new(), command).await {
            Ok(_) => return,
            Err(error) => tracing::debug!(%error, "hash not stated"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Why this hub must stop.
fn differs(replica: &Replica, hashes: &Hashes) -> Option<String> {
    let (applied, own) = replica.machine().hashed()?;
    let voters: Vec<u64> = replica.raft().status().borrow().voters.keys().copied().collect();
    let majority: Digest = hashes.majority(&voters)?;
    (applied == hashes.applied && own != majority).then(|| {
        format!(
            "the state of this hub differs from that of the majority after {applied} commands ({own}, not {majority}): \
             remove it (`windlass hub remove {}`), empty its directory and let it join again; keep a copy for a bug report",
            replica.raft().identity().node
        )
    })
}
