//! Compares the sessions of this hub with those that the state records here. Pure.
//!
//! Whatever was lost (a crash, an unknown outcome) is found here, after it was seen in two looks:
//!
//! | state | this hub | then |
//! |---|---|---|
//! | this hub holds the session | it does not (it was restarted, or killed) | say that it is over |
//! | nobody holds it | it does | end it: the agent comes back and is recorded |
//! | another hub, or a newer process of the agent | it does | end it: a connection that is dead, or a clone |
//!
//! The sessions of a hub that is gone are ended by the leader, which alone sees who follows it: [`stale_of_others`].

use std::collections::{BTreeMap, BTreeSet};

use windlass_hub_core::{State, command::SessionChange};
use windlass_protocol::ids::Incarnation;

/// What one look suspects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Suspects {
    /// Recorded here, not held.
    stale: BTreeSet<(String, Incarnation)>,
    /// Held, not recorded here.
    unknown: BTreeSet<(String, Incarnation)>,
}

impl Suspects {
    /// A look.
    pub(super) fn find(state: &State, node: u64, held: &BTreeMap<String, Incarnation>) -> Self {
        let stale =
            state.clusters().filter(|(cluster, record)| record.session == Some(node) && !held.contains_key(*cluster));
        let recorded = |cluster: &str, incarnation: Incarnation| {
            state
                .cluster(cluster)
                .is_some_and(|record| record.session == Some(node) && record.incarnation == incarnation)
        };
        let unknown = held.iter().filter(|(cluster, incarnation)| !recorded(cluster, **incarnation));
        Self {
            stale: stale.map(|(cluster, record)| (cluster.clone(), record.incarnation)).collect(),
            unknown: unknown.map(|(cluster, incarnation)| (cluster.clone(), *incarnation)).collect(),
        }
    }

    /// What the look before suspected too: changes for the log, and clusters whose sessions here end.
    pub(super) fn confirmed(&self, before: &Self) -> (Vec<SessionChange>, Vec<String>) {
        let stale = self.stale.intersection(&before.stale).cloned();
        let changes = stale.map(|(cluster, incarnation)| SessionChange::Disconnected { cluster, incarnation });
        let unknown = self.unknown.intersection(&before.unknown).map(|(cluster, _)| cluster.clone());
        (changes.collect(), unknown.collect())
    }
}

/// Sessions recorded with hubs that are out of contact, by hub.
pub(super) fn stale_of_others(state: &State, gone: &BTreeSet<u64>) -> BTreeMap<u64, Vec<SessionChange>> {
    let mut changes: BTreeMap<u64, Vec<SessionChange>> = BTreeMap::new();
    for (cluster, record) in state.clusters() {
        if let Some(node) = record.session.filter(|node| gone.contains(node)) {
            let (cluster, incarnation) = (cluster.clone(), record.incarnation);
            changes.entry(node).or_default().push(SessionChange::Disconnected { cluster, incarnation });
        }
    }
    changes
}
