//! Who is turned away, and with which words.

use bytes::Bytes;
use windlass_transport::endpoint::{ClientTls, Closed, Connection, Dialer, PeerAdmission, Protocol, ServerTls, Tuning};

use super::fixture::*;
use crate::peers::hello::{Hello, Reply};
use crate::peers::notes::Way;
use crate::peers::{Expected, Peers};
use crate::raft::LinkError;
use crate::store::{Identity, StoreId};

/// The words that the caller and the called side got.
async fn words(caller: &Peers, node: u64, called: &Peers) -> String {
    let refused = soon(caller.service(node, Bytes::from_static(b"x"), PATIENCE)).await.unwrap_err();
    let LinkError::Refused(said) = refused else { panic!("expected a refusal, got {refused}") };
    let from = caller.shared().identity.node;
    eventually("the other side knows why, too", async || {
        called.shared().notes.told(Way::In, from).is_some_and(|told| told == said)
    })
    .await;
    said
}

#[tokio::test]
async fn another_cluster_is_refused() {
    let world = World::new();
    let (two, _) = world.echo(2);
    let stray = Identity { cluster: StoreId::from_bytes([8; 16]), ..identity(1) };
    let one = world.start(world.config(stray));
    let said = words(&one, 2, &two).await;
    assert!(said.contains("node 1 belongs to cluster 0808") && said.contains("check the peer addresses"), "{said}");
}

#[tokio::test]
async fn a_wiped_disk_is_recognised_whoever_calls() {
    let world = World::new();
    let (one, _) = world.echo(1);
    let wiped = Identity { store: StoreId::from_bytes([9; 16]), ..identity(2) };
    let two = world.start(world.config(wiped));
    for said in [words(&two, 1, &one).await, words(&one, 2, &two).await] {
        assert!(said.contains("node 2 answers with another store"), "{said}");
        assert!(said.contains("`windlass hub remove 2`"), "{said}");
    }
    // Not yet known: a store that joins right now.
    world.expected.lock().unwrap().insert(2, Expected::Unknown);
    eventually("it is admitted", async || two.service(1, Bytes::from_static(b"x"), PATIENCE).await.is_ok()).await;
    world.expected.lock().unwrap().insert(2, Expected::Removed);
    two.disconnect(1);
    one.disconnect(2);
    let said = words(&two, 1, &one).await;
    assert!(said.contains("node 2 was removed from this cluster"), "{said}");
}

#[tokio::test]
async fn a_member_that_is_removed_is_cut_off() {
    let world = World::new();
    let one = Peers::looking(world.config(identity(1)), std::time::Duration::from_millis(20)).unwrap();
    one.serve(std::sync::Arc::new(Echo::default()));
    world.addresses.lock().unwrap().insert(1, one.local_address().unwrap().to_string());
    let (two, _) = world.echo(2);
    soon(two.service(1, Bytes::from_static(b"x"), PATIENCE)).await.unwrap();
    world.expected.lock().unwrap().insert(2, Expected::Removed);
    eventually("the connection ends", async || !two.status()[0].connected).await;
    let said = words(&two, 1, &one).await;
    assert!(said.contains("node 2 was removed from this cluster"), "{said}");
}

async fn dial(peers: &Peers, tls: &ClientTls) -> Connection {
    let dialer = Dialer::bind_to(loopback(), Tuning::default()).unwrap();
    let address = peers.local_address().unwrap().to_string();
    soon(dialer.dial(&address, &tls.clone().speaking(Protocol::Peers))).await.unwrap()
}

#[tokio::test]
async fn a_node_with_the_certificate_of_another_is_refused() {
    let world = World::new();
    let (one, _) = world.echo(1);
    let connection = dial(&one, &ClientTls::enrolled(world.bundle(), world.hub(2))).await;
    let (mut send, mut receive) = soon(connection.open_bi()).await.unwrap();
    soon(send.send(&Hello::new(&identity(3), "x"))).await.unwrap();
    let reply: Reply = soon(receive.recv()).await.unwrap().unwrap();
    let Reply::Refused(said) = reply else { panic!("welcomed") };
    assert!(said.contains("it is node 3, its certificate is that of node 2"), "{said}");
    let Closed::Peer { reason, .. } = soon(connection.closed()).await else { panic!("closed by the hub") };
    assert_eq!(reason, said);
    // A listener with the wrong data directory is found out by the dialler in the same way.
    let tls = ServerTls::new(world.hub(2), world.bundle(), PeerAdmission::Enrolment).unwrap();
    let limits = crate::peers::limits::listener(windlass_transport::endpoint::RestartKey::new([0; 32]));
    let listener =
        windlass_transport::endpoint::Listener::bind(loopback(), &tls.speaking(Protocol::Peers), limits).unwrap();
    world.addresses.lock().unwrap().insert(2, listener.local_address().unwrap().to_string());
    let impostor = async {
        let mut listener = listener;
        let connection = listener.accept().await.unwrap();
        let (mut send, mut receive) = connection.accept_bi().await.unwrap();
        let _: Option<Hello> = receive.recv().await.unwrap();
        send.send(&Reply::Welcome(Hello::new(&identity(3), "x"))).await.unwrap();
        connection.closed().await
    };
    let call = one.service(2, Bytes::from_static(b"x"), PATIENCE);
    let (called, closed) = soon(async { tokio::join!(call, impostor) }).await;
    assert_eq!(called.unwrap_err(), LinkError::Refused(said.clone()));
    assert!(matches!(&closed, Closed::Peer { reason, .. } if *reason == said), "{closed}");
}

#[tokio::test]
async fn agents_and_foreign_roots_are_refused() {
    let (world, foreign) = (World::new(), World::new());
    let (one, _) = world.echo(1);
    let agent = dial(&one, &ClientTls::enrolled(world.bundle(), world.agent())).await;
    let Closed::Peer { reason, .. } = soon(agent.closed()).await else { panic!("closed by the hub") };
    assert!(reason.contains("agents use the agents' port"), "{reason}");
    let hub = dial(&one, &ClientTls::enrolled(world.bundle(), foreign.hub(2))).await;
    let end = soon(hub.closed()).await;
    assert!(matches!(end, Closed::Untrusted { .. }), "{end}");
}

#[tokio::test]
async fn a_hub_that_is_starting_says_so() {
    let world = World::new();
    let (one, _) = world.echo(1);
    let _two = world.start(world.config(identity(2)));
    let refused = soon(one.service(2, Bytes::from_static(b"x"), PATIENCE)).await.unwrap_err();
    assert!(matches!(&refused, LinkError::Refused(said) if said.contains("is starting")), "{refused}");
}
