//! Members of the group: every rule that `apply` enforces whatever a leader believes.

use windlass_protocol::{
    ids::{Digest, Incarnation},
    time::Millis,
};

use super::{CLUSTER, Hub};
use crate::{
    Command, Effect, Rejection, STATE_VERSION, State,
    apply::hubs::RESTORE_REVISIONS,
    command::{HubAnnouncement, SessionChange},
    snapshot,
    state::{HubRecord, TrustRecord},
};

fn announcement(port: u16) -> HubAnnouncement {
    HubAnnouncement {
        name: format!("hub-{port}"),
        address: format!("10.0.0.1:{port}"),
        agents: vec![format!("hub.example:{port}")],
        software: "windlass-hub/0.1.0".to_owned(),
        state_version: STATE_VERSION,
    }
}

fn announce(node: u64, store: u8) -> Command {
    Command::AnnounceHub { node, store: [store; 16], key: Digest([1; 32]), hub: announcement(1) }
}

fn admit(token: &[u8], key: u8, port: u16) -> Command {
    let (hash, key) = (Digest::of(token), Digest([key; 32]));
    Command::AdmitHub { hash, key, store: [key.0[0]; 16], hub: announcement(port) }
}

fn group() -> Hub {
    let mut hub = Hub::new();
    hub.apply(announce(1, 1)).unwrap();
    for token in [b"a", b"b"] {
        let expires_at = Millis::from_secs(2_000);
        hub.apply(Command::AddHubToken { hash: Digest::of(token), expires_at }).unwrap();
    }
    hub
}

fn nodes(state: &State) -> Vec<u64> {
    state.hubs().map(|(node, _)| node).collect()
}

#[test]
fn a_token_admits_one_node_once_and_ids_are_never_given_again() {
    let mut hub = group();
    let reply = hub.apply(admit(b"a", 2, 2)).unwrap();
    assert_eq!(reply.cluster, Some(("2".to_owned(), "c".to_owned())));
    assert_eq!(hub.effects, [Effect::Hubs]);
    assert_eq!(hub.apply(admit(b"a", 2, 2)).unwrap().cluster, reply.cluster, "the same key may ask again");
    assert!(matches!(hub.apply(admit(b"a", 3, 3)), Err(Rejection::Identity(_))), "another key");
    assert!(matches!(hub.apply(admit(b"unknown", 3, 3)), Err(Rejection::Identity(_))));
    assert!(matches!(hub.apply(admit(b"b", 3, 2)), Err(Rejection::Precondition(_))), "the address of node 2");
    let mut late = hub.envelope(admit(b"b", 3, 3), Vec::new());
    late.proposed_at = Millis::from_secs(2_001);
    assert!(hub.state.clone().apply(&late).result.is_err(), "expired");

    hub.apply(Command::RemoveHub { node: 2 }).unwrap();
    assert!(hub.apply(Command::RemoveHub { node: 2 }).is_err(), "gone");
    assert!(hub.apply(announce(2, 2)).is_err(), "removed for ever");
    assert!(hub.apply(admit(b"a", 2, 2)).is_err(), "its token, too");
    assert!(matches!(hub.apply(Command::RemoveHub { node: 1 }), Err(Rejection::Forbidden(_))), "the last one");
    hub.apply(admit(b"b", 3, 2)).unwrap();
    assert_eq!(nodes(&hub.state), [1, 3]);
}

#[test]
fn nobody_takes_the_first_hubs_id() {
    let mut hub = Hub::new();
    hub.apply(Command::AddHubToken { hash: Digest::of(b"a"), expires_at: Millis::from_secs(2_000) }).unwrap();
    assert!(hub.apply(admit(b"a", 2, 2)).is_err(), "before it is known");
    hub.apply(announce(1, 1)).unwrap();
    assert_eq!(hub.apply(admit(b"a", 2, 2)).unwrap().cluster, Some(("2".to_owned(), "c".to_owned())));
}

#[test]
fn a_disk_that_is_not_the_admitted_one_is_no_member() {
    let mut hub = group();
    hub.apply(announce(1, 1)).unwrap();
    assert!(hub.effects.is_empty(), "nothing new was said");
    assert!(matches!(hub.apply(announce(1, 9)), Err(Rejection::Identity(_))), "another store");
    assert!(matches!(hub.apply(announce(7, 7)), Err(Rejection::Identity(_))), "never admitted");
}

#[test]
fn the_version_rises_when_every_member_understands_it() {
    let mut hub = group();
    hub.state.meta.version = 1;
    let refused = hub.apply(Command::RemoveHub { node: 1 }).unwrap_err();
    assert!(refused.to_string().contains("state version 2"), "{refused}");
    assert_eq!(hub.state.next_version(), Some(2));
    hub.state.meta.version = 2;
    let old = HubAnnouncement { state_version: 1, ..announcement(2) };
    let join = Command::AdmitHub { hash: Digest::of(b"a"), key: Digest([2; 32]), store: [2; 16], hub: old };
    assert!(hub.apply(join).is_err(), "an older release does not join");
    assert!(hub.apply(Command::RaiseVersion { version: STATE_VERSION + 1 }).is_err(), "nobody understands it");
}

#[test]
fn trust_moves_one_version_at_a_time() {
    let mut hub = group();
    let trust = |version| TrustRecord { version, roots: format!("roots {version}"), ..TrustRecord::default() };
    hub.apply(Command::SetTrust { trust: trust(1) }).unwrap();
    assert_eq!(hub.effects, [Effect::Trust { version: 1 }]);
    assert!(hub.apply(Command::SetTrust { trust: trust(1) }).is_err(), "a racing rotation");
    assert_eq!(hub.state.trust().roots, "roots 1");
}

#[test]
fn replicas_state_their_hashes_and_the_majority_is_right() {
    let mut hub = group();
    for (token, key) in [(b"a", 2), (b"b", 3)] {
        hub.apply(admit(token, key, u16::from(key))).unwrap();
    }
    let mut state = |node, hash: u8| {
        hub.apply(Command::StateHash { node, applied: 10, hash: Digest([hash; 32]) }).unwrap();
        hub.state.hashes.majority(&[1, 2, 3])
    };
    assert_eq!(state(1, 1), None);
    assert_eq!(state(9, 1), None, "a stranger has no voice");
    assert_eq!(state(3, 2), None);
    assert_eq!(state(2, 1), Some(Digest([1; 32])));
    hub.apply(Command::StateHash { node: 1, applied: 9, hash: Digest([5; 32]) }).unwrap();
    assert!(hub.effects.is_empty(), "an older point is over");
}

#[test]
fn a_restore_raises_the_epoch_deletes_nothing_and_trusts_keys() {
    let mut hub = group();
    let before = hub.state.clone();
    let record = (**before.hub(1).unwrap()).clone();
    let restored =
        Command::Restored { cluster_id: "new".to_owned(), node: 1, hub: HubRecord { store: [7; 16], ..record } };
    hub.apply(restored.clone()).unwrap();
    assert!(hub.apply(restored).is_err(), "once");
    assert_eq!(hub.state.meta().epoch.0, before.meta().epoch.0 + 1);
    assert!(hub.state.meta().revision.0 >= before.meta().revision.0 + RESTORE_REVISIONS);
    assert_eq!(hub.state.objects.size(), before.objects.size());
    let copy = snapshot_of(&hub.state);
    assert_eq!(snapshot::hash(&copy), snapshot::hash(&hub.state), "all of it is in snapshots");

    // The agent renewed after the backup was made: its key proves it, once.
    let (newer, key) = ([0x55; 16], Digest([9; 32]));
    assert!(hub.state.admit_key(CLUSTER, &newer, &Digest([8; 32]), Incarnation(4)).is_err(), "another key");
    hub.state.admit_key(CLUSTER, &newer, &key, Incarnation(4)).unwrap();
    let connected =
        SessionChange::Connected { cluster: CLUSTER.to_owned(), incarnation: Incarnation(4), serial: newer };
    hub.apply(Command::Batch { hub: 1, sessions: vec![connected], receipts: Vec::new() }).unwrap();
    hub.state.admit_key(CLUSTER, &newer, &key, Incarnation(4)).unwrap();
    assert!(hub.state.admit_key(CLUSTER, &[9; 16], &key, Incarnation(4)).is_err(), "the one from before is over");
}

fn snapshot_of(state: &State) -> State {
    let mut records = Vec::new();
    snapshot::write::<snapshot::SnapshotError>(state, |record| {
        records.push(record);
        Ok(())
    })
    .unwrap();
    snapshot::read(records.iter().map(Vec::as_slice)).unwrap()
}
