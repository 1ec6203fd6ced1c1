//! The leader makes Raft's members equal to the hubs that the state knows: new hubs learn, those that hold everything vote,
//! removed ones leave; and it raises the state's version once every hub understands it.
//!
//! One change at a time, looked at afresh after each: a leader that dies in the middle leaves the rest to the next one.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use windlass_hub_core::{Command, Effect, State, state::HubRecord};

use super::wire::{Ask, MemberStatus, Told};
use crate::{
    blobs::Bundles,
    raft::{Peer, Role, Status},
    replica::{Replica, ask},
};

/// Between two looks, besides the signals.
const PERIOD: Duration = Duration::from_secs(1);
/// A learner that is behind by at most so many entries gets its vote: the rest reaches it within a round trip.
const LAG_MAX: u64 = 100;
/// A hub answers about itself within this time.
const STATUS_TIME_MAX: Duration = Duration::from_secs(1);
/// A transfer ends within this time, on the other side.
const YIELD_TIME_MAX: Duration = Duration::from_secs(6);

/// The next thing that brings Raft's members closer to the hubs of the state. Pure.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Everybody understands a newer version.
    Raise(u32),
    /// A removed hub still takes part.
    Expel(u64),
    /// An admitted hub takes no part yet.
    Learn(u64, Peer),
    /// A hub has moved.
    Relocate(u64, Peer),
    /// A learner may vote once it holds everything.
    Promote(u64),
}

/// Keeps the members right until shutdown.
pub async fn follow(replica: Replica, bundles: Bundles, shutdown: CancellationToken) {
    let mut effects = replica.machine().effects();
    let mut status = replica.raft().status();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = hubs_changed(&mut effects) => {}
            changed = status.wait_for(|status| status.role == Role::Leader) => if changed.is_err() { return },
            () = tokio::time::sleep(PERIOD) => {}
        }
        while replica.leads() {
            let (state, status) = (replica.state(), replica.raft().status().borrow().clone());
            let Some(step) = next_step(&state, &status) else { break };
            if let Err(reason) = take(&replica, &bundles, step.clone(), &status).await {
                tracing::debug!(?step, reason, "not now");
                break;
            }
            tracing::info!(?step, "members changed");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PERIOD / 4) => {}
        }
    }
}

async fn hubs_changed(effects: &mut tokio::sync::broadcast::Receiver<Arc<Vec<Effect>>>) {
    loop {
        match effects.recv().await {
            Ok(batch) if batch.contains(&Effect::Hubs) => return,
            Ok(_) => {}
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => return,
            Err(tokio::sync::broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn next_step(state: &State, status: &Status) -> Option<Step> {
    if let Some(version) = state.next_version() {
        return Some(Step::Raise(version));
    }
    let members: BTreeSet<u64> = status.voters.keys().chain(status.learners.keys()).copied().collect();
    // Somebody else first: a leader that was removed sees the others through before it goes.
    let removed = |node: &u64| state.hub(*node).is_some_and(|hub| hub.removed);
    let mut leaving: Vec<u64> = members.iter().copied().filter(removed).collect();
    leaving.sort_by_key(|node| *node == status.node);
    if let Some(node) = leaving.first() {
        return Some(Step::Expel(*node));
    }
    for (node, hub) in state.hubs() {
        let peer = peer(hub);
        match status.voters.get(&node).or_else(|| status.learners.get(&node)) {
            None => return Some(Step::Learn(node, peer)),
            Some(known) if *known != peer => return Some(Step::Relocate(node, peer)),
            Some(_) => {}
        }
    }
    let newest = status.last_log.unwrap_or_default();
    let close =
        |node: &&u64| status.replicated.get(*node).copied().flatten().is_some_and(|index| index + LAG_MAX >= newest);
    status.learners.keys().find(close).copied().map(Step::Promote)
}

fn peer(hub: &HubRecord) -> Peer {
    Peer { name: hub.name.clone(), address: hub.address.clone() }
}

async fn take(replica: &Replica, bundles: &Bundles, step: Step, status: &Status) -> Result<(), String> {
    let raft = replica.raft();
    let changed = match step {
        Step::Raise(version) => {
            let raised = replica.propose("hub", "members", Vec::new(), Command::RaiseVersion { version }).await;
            return raised.map(drop).map_err(|error| error.to_string());
        }
        Step::Expel(node) => raft.expel(node).await,
        Step::Learn(node, peer) => raft.add_learner(node, peer).await,
        Step::Relocate(node, peer) => raft.relocate(node, peer).await,
        Step::Promote(node) => {
            let learner = status_of(replica, node).await.ok_or("the learner does not answer")?;
            if learner.applied < status.applied.map(|index| index.saturating_sub(LAG_MAX)) {
                return Err("it has not applied what it holds".to_owned());
            }
            let blobs = bundles.completeness_of(node).await.map_err(|error| error.to_string())?;
            if blobs.missing > 0 {
                return Err(format!("{} manifests have not reached it", blobs.missing));
            }
            raft.promote(node).await
        }
    };
    changed.map_err(|error| error.to_string())
}

/// What another hub says about itself.
pub async fn status_of(replica: &Replica, node: u64) -> Option<MemberStatus> {
    match ask(replica.peers()?, node, &Ask::Status, STATUS_TIME_MAX).await {
        Ok(Told::Status(status)) => Some(status),
        _ => None,
    }
}

/// Lets another member lead, wherever the leader is: `to`, or the voter that holds most.
///
/// # Errors
/// A sentence when nobody took over.
pub fn transfer(replica: &Replica, to: Option<u64>) -> BoxFuture<'_, Result<(), String>> {
    Box::pin(async move {
        let status = replica.raft().status().borrow().clone();
        let leader = status.leader.ok_or("there is no leader at the moment")?;
        if leader == status.node {
            return yield_leadership(replica, to).await;
        }
        if to == Some(leader) {
            return Ok(());
        }
        let peers = replica.peers().ok_or("this hub was started without peers")?;
        match ask(peers, leader, &Ask::Yield { to }, YIELD_TIME_MAX).await {
            Ok(Told::Done) => Ok(()),
            Ok(Told::Failed(reason)) => Err(reason),
            Ok(_) => Err("the leader did not understand".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    })
}

/// On the leader.
///
/// # Errors
/// A sentence when it still leads.
pub async fn yield_leadership(replica: &Replica, to: Option<u64>) -> Result<(), String> {
    let status = replica.raft().status().borrow().clone();
    if status.role != Role::Leader {
        return Err("this hub does not lead".to_owned());
    }
    let newest = status.last_log.unwrap_or_default();
    let behind = |node: u64| newest.saturating_sub(status.replicated.get(&node).copied().flatten().unwrap_or_default());
    let heir = match to {
        Some(node) if node == status.node => return Ok(()),
        Some(node) if !status.voters.contains_key(&node) => return Err(format!("node {node} is no voter")),
        Some(node) => node,
        None => {
            let others = status.voters.keys().copied().filter(|node| *node != status.node);
            others.min_by_key(|node| behind(*node)).ok_or("there is no other voter")?
        }
    };
    if behind(heir) > LAG_MAX {
        return Err(format!("node {heir} is {} entries behind", behind(heir)));
    }
    let peers = replica.peers().ok_or("this hub was started without peers")?;
    let campaign = async {
        if let Err(error) = ask(peers, heir, &Ask::Campaign, STATUS_TIME_MAX).await {
            tracing::debug!(heir, %error, "no campaign");
        }
    };
    let yielded = replica.raft().yield_leadership(campaign).await;
    if yielded { Ok(()) } else { Err(format!("node {heir} was not elected; this hub goes on to lead")) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn status(voters: &[u64], learners: &[u64], replicated: &[(u64, u64)]) -> Status {
        let peers = |nodes: &[u64]| -> BTreeMap<u64, Peer> {
            nodes.iter().map(|node| (*node, Peer { name: String::new(), address: format!("a:{node}") })).collect()
        };
        Status {
            node: 1,
            last_log: Some(1_000),
            voters: peers(voters),
            learners: peers(learners),
            replicated: replicated.iter().map(|(node, index)| (*node, Some(*index))).collect(),
            ..Status::default()
        }
    }

    fn check(hubs: &[(u64, bool)], status: &Status, expect: Option<Step>) {
        let mut state = super::super::tests::state_of(hubs);
        assert_eq!(next_step(&state, status), expect, "{hubs:?} {status:?}");
        state = State::default();
        assert_eq!(next_step(&state, status), state.next_version().map(Step::Raise), "an empty state comes first");
    }

    #[test]
    fn members_follow_the_hubs_one_step_at_a_time() {
        let all = [(1, false), (2, false), (3, false)];
        let peer = |node: u64| Peer { name: String::new(), address: format!("a:{node}") };
        check(&all, &status(&[1], &[], &[]), Some(Step::Learn(2, peer(2))));
        check(&all, &status(&[1], &[2], &[(2, 10)]), Some(Step::Learn(3, peer(3))));
        check(&all, &status(&[1], &[2, 3], &[(2, 10), (3, 950)]), Some(Step::Promote(3)));
        check(&all, &status(&[1], &[2, 3], &[(2, 10), (3, 10)]), None);
        check(&all, &status(&[1, 2, 3], &[], &[]), None);
        let gone = [(1, true), (2, false), (3, true)];
        check(&gone, &status(&[1, 2, 3], &[], &[]), Some(Step::Expel(3)));
        check(&gone, &status(&[1, 2], &[], &[]), Some(Step::Expel(1)));
        let mut moved = status(&[1, 2, 3], &[], &[]);
        moved.voters.insert(2, Peer { name: String::new(), address: "elsewhere:1".to_owned() });
        check(&all, &moved, Some(Step::Relocate(2, peer(2))));
    }
}
