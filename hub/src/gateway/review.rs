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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use windlass_hub_core::{Command, Envelope, ObjectKey, command::Write};
    use windlass_protocol::{
        ids::{Digest, RequestId},
        resource::Kind,
        time::Millis,
    };

    use super::*;

    /// Three clusters; the first two with a session at hub 1, the third at hub 2.
    fn state() -> State {
        let mut state = State::default();
        let mut request = 0;
        let mut apply = |command| {
            request += 1;
            let envelope = Envelope {
                request: RequestId([request; 16]),
                subject: String::new(),
                source: String::new(),
                proposed_at: Millis::from_secs(1),
                preconditions: Vec::new(),
                command,
            };
            state.apply(&envelope).result.unwrap();
        };
        let uids = ["1", "2", "3"].map(str::to_owned).to_vec();
        apply(Command::Bootstrap { cluster_id: "c".to_owned(), trust_domain: "t".to_owned(), uids });
        for (name, hub) in [("a", 1), ("b", 1), ("c", 2)] {
            let body = json!({"apiVersion": "windlass.io/v1alpha1", "kind": "Cluster", "metadata": {"name": name}});
            let key = ObjectKey::new(Kind::Cluster, "", name);
            let uid = name.to_owned();
            apply(Command::Write { writes: vec![Write::Create { key, uid, body: body.to_string(), sealed: None }] });
            let hash = Digest::of(name.as_bytes());
            apply(Command::AddToken { hash, cluster: name.to_owned(), expires_at: Millis::from_secs(9) });
            apply(Command::RedeemToken { hash, key: hash, serial: [1; 16] });
            let (cluster, incarnation, serial) = (name.to_owned(), Incarnation(5), [1; 16]);
            apply(Command::Sessions { hub, changes: vec![SessionChange::Connected { cluster, incarnation, serial }] });
        }
        state
    }

    fn held(clusters: &[(&str, u64)]) -> BTreeMap<String, Incarnation> {
        clusters.iter().map(|(cluster, incarnation)| ((*cluster).to_owned(), Incarnation(*incarnation))).collect()
    }

    #[test]
    fn what_differs_twice_is_acted_on() {
        let state = state();
        // `a` was lost with an earlier process; `c` is at another hub; of `b`, an older process hangs on here.
        let first = Suspects::find(&state, 1, &held(&[("b", 4), ("c", 5)]));
        assert_eq!(first.confirmed(&Suspects::default()), (Vec::new(), Vec::new()));
        let (changes, unknown) = first.confirmed(&first);
        let (cluster, incarnation) = ("a".to_owned(), Incarnation(5));
        assert_eq!(changes, [SessionChange::Disconnected { cluster, incarnation }]);
        assert_eq!(unknown, ["b", "c"]);
        // Back in between: nothing to do.
        let second = Suspects::find(&state, 1, &held(&[("a", 5), ("b", 5)]));
        assert_eq!(second.confirmed(&first), (Vec::new(), Vec::new()));
    }

    #[test]
    fn the_leader_ends_the_sessions_of_a_hub_that_is_gone() {
        let state = state();
        assert!(stale_of_others(&state, &BTreeSet::from([3])).is_empty());
        let (cluster, incarnation) = ("c".to_owned(), Incarnation(5));
        let expected = BTreeMap::from([(2, vec![SessionChange::Disconnected { cluster, incarnation }])]);
        assert_eq!(stale_of_others(&state, &BTreeSet::from([2])), expected);
    }
}
