//! On a quorum before it is proposed.
//!
//! A round tells every other voter to hold some digests; each fetches what it lacks from here, syncs it and answers. The
//! round ends with a majority (of both sets, while the membership changes); whoever is slower finishes behind it. What
//! comes while rounds are under way waits and shares the next one: one sync per hub for many.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::PoisonError;
use std::time::Duration;

use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};
use windlass_protocol::ids::Digest;

use super::{
    BundleError, Bundles,
    group::{Group, NoQuorum, satisfied},
    wire::{Answer, HOLD_DIGESTS_MAX, Request},
};
use crate::{raft::NodeId, store::blobs::BlobLease};

/// Between two attempts at one node within a round.
const PAUSE: Duration = Duration::from_millis(200);
/// Rounds at a time: half of the bulk calls that a peer takes. The other half is for the fetches that they cause, in
/// both directions: else two hubs could wait for each other.
const ROUNDS_MAX: usize = crate::peers::BULK_CALLS_MAX / 2;
/// Rounds that have their majority, and finish with the slower nodes.
const BEHIND_MAX: usize = 16;
/// Digests that wait for a round; more are refused.
const WAITING_MAX: usize = 1 << 18;

/// Who waits for a round.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    tickets: VecDeque<Ticket>,
    digests: usize,
    rounds: usize,
}

#[derive(Debug)]
struct Ticket {
    digests: Vec<Digest>,
    done: oneshot::Sender<Result<(), NoQuorum>>,
}

impl Bundles {
    /// Has the blobs of these leases on a majority of voters, this node included, and keeps them from collection there
    /// and here for ten minutes: time enough to commit what references them. Without a group, they are here.
    ///
    /// # Errors
    /// [`BundleError::NoQuorum`] names the nodes that did not answer within ten seconds.
    pub async fn secure<'a>(&self, leases: impl IntoIterator<Item = &'a BlobLease>) -> Result<(), BundleError> {
        let digests: BTreeSet<Digest> =
            leases.into_iter().flat_map(|lease| lease.digests().iter().map(|digest| Digest(digest.0))).collect();
        let digests: Vec<Digest> = digests.into_iter().collect();
        self.keep(&digests);
        let Some(group) = self.group() else { return Ok(()) };
        // Alone, and the blobs are here: nobody to ask.
        if satisfied(&group.quorums(), &BTreeSet::from([group.this()])) {
            return Ok(());
        }
        let mut answers = Vec::new();
        for some in digests.chunks(HOLD_DIGESTS_MAX) {
            answers.push(self.queue(&group, some.to_vec())?);
        }
        for answer in answers {
            answer.await.map_err(|_| BundleError::Worker("the round ended".to_owned()))??;
        }
        Ok(())
    }

    fn queue(
        &self,
        group: &Group,
        digests: Vec<Digest>,
    ) -> Result<oneshot::Receiver<Result<(), NoQuorum>>, BundleError> {
        let (done, answer) = oneshot::channel();
        let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.digests + digests.len() > WAITING_MAX {
            return Err(BundleError::Overloaded);
        }
        waiting.digests += digests.len();
        waiting.tickets.push_back(Ticket { digests, done });
        if waiting.rounds < ROUNDS_MAX {
            waiting.rounds += 1;
            let (this, group) = (self.clone(), Group::clone(group));
            tokio::spawn(async move { this.rounds(group).await });
        }
        Ok(answer)
    }

    /// Makes rounds until nobody waits.
    async fn rounds(self, group: Group) {
        while let Some(tickets) = self.next_round() {
            let digests: BTreeSet<Digest> = tickets.iter().flat_map(|ticket| ticket.digests.iter().copied()).collect();
            let result = self.round(&group, digests.into_iter().collect()).await;
            for ticket in tickets {
                // An error says that nobody waits any more.
                let _ = ticket.done.send(result.clone());
            }
        }
    }

    /// Takes whole tickets up to the size of one request; ends this series of rounds when there is none.
    fn next_round(&self) -> Option<Vec<Ticket>> {
        let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut tickets, mut size) = (Vec::new(), 0);
        while let Some(ticket) = waiting.tickets.pop_front() {
            if !tickets.is_empty() && size + ticket.digests.len() > HOLD_DIGESTS_MAX {
                waiting.tickets.push_front(ticket);
                break;
            }
            size += ticket.digests.len();
            tickets.push(ticket);
        }
        waiting.digests = waiting.digests.saturating_sub(size);
        if tickets.is_empty() {
            waiting.rounds = waiting.rounds.saturating_sub(1);
            return None;
        }
        Some(tickets)
    }

    async fn round(&self, group: &Group, digests: Vec<Digest>) -> Result<(), NoQuorum> {
        let limit = self.shared.timing.round;
        let deadline = Instant::now() + limit;
        let (this, quorums) = (group.this(), group.quorums());
        let mut held = BTreeSet::from([this]);
        let mut failed: BTreeMap<NodeId, String> = BTreeMap::new();
        let mut asked = JoinSet::new();
        for node in quorums.iter().flatten().copied().collect::<BTreeSet<_>>().into_iter().filter(|node| *node != this)
        {
            failed.insert(node, format!("no answer within {limit:?}"));
            let (group, digests, bundles) = (Group::clone(group), digests.clone(), self.clone());
            asked.spawn(async move { (node, bundles.hold(&group, node, digests, deadline).await) });
        }
        loop {
            if satisfied(&quorums, &held) {
                self.finish_behind(asked);
                return Ok(());
            }
            match timeout_at(deadline, asked.join_next()).await {
                Ok(Some(Ok((node, Ok(()))))) => {
                    failed.remove(&node);
                    held.insert(node);
                }
                Ok(Some(Ok((node, Err(reason))))) => drop(failed.insert(node, reason)),
                Ok(Some(Err(error))) => tracing::error!(%error, "a round of blobs ended"),
                Ok(None) | Err(_) => return Err(NoQuorum { held, failed }),
            }
        }
    }

    /// Asks one node until it holds them, or time is up.
    async fn hold(&self, group: &Group, node: NodeId, digests: Vec<Digest>, deadline: Instant) -> Result<(), String> {
        let request = Request::Hold { digests };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let reason = match self.ask(group, node, &request, left).await {
                Ok(Answer::Held) => return Ok(()),
                Ok(_) => return Err("it answered something else".to_owned()),
                Err(error) => error.to_string(),
            };
            if left <= PAUSE {
                return Err(reason);
            }
            sleep(PAUSE).await;
        }
    }

    /// Lets the slower nodes of a round finish, in bounds: the others get the blobs by repair.
    fn finish_behind(&self, mut rest: JoinSet<(NodeId, Result<(), String>)>) {
        if rest.is_empty() {
            return;
        }
        let Ok(place) = std::sync::Arc::clone(&self.shared.behind).try_acquire_owned() else { return };
        tokio::spawn(async move {
            while rest.join_next().await.is_some() {}
            drop(place);
        });
    }
}

/// Places for rounds that finish behind.
pub(super) fn behind() -> std::sync::Arc<tokio::sync::Semaphore> {
    std::sync::Arc::new(tokio::sync::Semaphore::new(BEHIND_MAX))
}
