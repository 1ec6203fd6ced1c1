//! The periodic looks of a gateway: at the leader, at what the state records of sessions, and at who has too many of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use windlass_protocol::message::GoAway;

use super::{
    Gateway, SessionCommand,
    balance::Balance,
    contact::{Contact, Turn},
    review::{Suspects, stale_of_others},
};

/// Looks at the leader.
const LOOK: Duration = Duration::from_millis(250);
/// Between two comparisons of sessions with the state; what two in a row find is acted on.
const REVIEW: Duration = Duration::from_secs(5);
/// A follower that takes nothing from the leader for this long is out of contact: its own agents have left long before.
const FOLLOWER_LOST: Duration = Duration::from_secs(30);

/// What the looks remember.
struct Watch {
    gateway: Gateway,
    contact: Contact,
    suspects: Suspects,
    balance: Balance,
    followers: BTreeMap<u64, (Option<u64>, Instant)>,
}

pub(super) async fn run(gateway: Gateway, stop: CancellationToken) {
    let now = Instant::now();
    let mut watch = Watch {
        gateway,
        contact: Contact::new(now),
        suspects: Suspects::default(),
        balance: Balance::default(),
        followers: BTreeMap::new(),
    };
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // A hub that starts first hears of what it has missed, and agents come back to it.
    let (mut review, mut balance) = (now + REVIEW, now + Duration::from_secs(1));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = look.tick() => {}
        }
        watch.contact().await;
        if Instant::now() >= balance {
            balance = Instant::now() + Duration::from_secs(1);
            watch.balance();
        }
        if Instant::now() >= review {
            watch.review().await;
            watch.followers().await;
            review = Instant::now() + REVIEW;
        }
    }
}

impl Watch {
    async fn contact(&mut self) {
        let age = self.gateway.replica.raft().leader_contact().await;
        match self.contact.look(Instant::now(), age) {
            None => {}
            Some(Turn::Found) => {
                tracing::info!("this hub has a leader again");
                self.gateway.cut_off.store(false, Ordering::Relaxed);
            }
            Some(Turn::Lost) => {
                self.gateway.cut_off.store(true, Ordering::Relaxed);
                let sessions = self.gateway.registry.leave(GoAway::NoQuorum, None);
                tracing::warn!(sessions, "this hub has lost the others: its agents are sent away");
            }
        }
    }

    fn balance(&mut self) {
        if self.gateway.is_cut_off() {
            return;
        }
        let state = self.gateway.replica.state();
        let mut sessions: BTreeMap<u64, usize> = state.hubs().map(|(node, _)| (node, 0)).collect();
        if sessions.len() < 2 {
            return;
        }
        for (_, record) in state.clusters() {
            if let Some(count) = record.session.and_then(|node| sessions.get_mut(&node)) {
                *count += 1;
            }
        }
        let leaving = self.balance.turn(Instant::now(), self.gateway.node, &sessions);
        if leaving > 0 {
            tracing::debug!(leaving, ?sessions, "agents are sent to other hubs");
            self.gateway.registry.leave(GoAway::Rebalance, Some(leaving));
        }
    }

    async fn review(&mut self) {
        let suspects = {
            let state = self.gateway.replica.state();
            Suspects::find(&state, self.gateway.node, &self.gateway.registry.held())
        };
        let (changes, unknown) = suspects.confirmed(&self.suspects);
        self.suspects = suspects;
        for cluster in unknown {
            let reason = "the state does not record this session".to_owned();
            self.gateway.registry.send(&cluster, &SessionCommand::Disconnect { keep_serial: None, reason });
        }
        if !changes.is_empty() {
            tracing::info!(sessions = changes.len(), "sessions of an earlier time are ended");
            if let Err(error) = self.gateway.outbox.ended(self.gateway.node, changes).await {
                tracing::debug!(%error, "stale sessions are looked at again");
            }
        }
    }

    /// The leader alone sees who follows.
    async fn followers(&mut self) {
        if !self.gateway.replica.leads() {
            self.followers.clear();
            return;
        }
        let status = self.gateway.replica.raft().status().borrow().clone();
        let now = Instant::now();
        let mut gone = BTreeSet::new();
        for (node, matched) in status.replicated.iter().filter(|(node, _)| **node != status.node) {
            let (known, since) = self.followers.entry(*node).or_insert((*matched, now));
            if *known != *matched || *matched >= status.last_log {
                (*known, *since) = (*matched, now);
            } else if now.saturating_duration_since(*since) >= FOLLOWER_LOST {
                gone.insert(*node);
            }
        }
        let stale = stale_of_others(&self.gateway.replica.state(), &gone);
        for (node, changes) in stale {
            tracing::info!(node, sessions = changes.len(), "sessions of a hub that is out of contact are ended");
            if let Err(error) = self.gateway.outbox.ended(node, changes).await {
                tracing::debug!(%error, "stale sessions are looked at again");
            }
        }
    }
}
