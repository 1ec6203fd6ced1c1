//! Calls: classes, bounds, hung peers, restarts and new addresses.

use std::net::UdpSocket;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;

use super::fixture::*;
use crate::peers::{BULK_CALLS_MAX, PEER_FRAME_BYTES_MAX, Peers, SERVICE_CALLS_MAX};
use crate::raft::{LinkError, Peer};

fn bytes(text: &str) -> Bytes {
    text.as_bytes().to_vec().into()
}

#[tokio::test]
async fn requests_of_every_kind_are_answered() {
    let world = World::new();
    let (one, two) = (world.echo(1).0, world.echo(2).0);
    assert_eq!(soon(one.service(2, bytes("a"), PATIENCE)).await.unwrap(), "1 Service a");
    assert_eq!(soon(one.bulk(2, bytes("b"), PATIENCE)).await.unwrap(), "1 Bulk b");
    assert_eq!(soon(two.service(1, bytes("c"), PATIENCE)).await.unwrap(), "2 Service c");
    let link = one.network().link(2, &Peer::default());
    assert_eq!(soon(link.call(bytes("d"), PATIENCE)).await.unwrap(), "1 Raft d");
    let refused = soon(one.service(2, bytes("no"), PATIENCE)).await.unwrap_err();
    assert_eq!(refused, LinkError::Refused("no, said the service".into()));
    // As large as Raft may make it, and one above the limit.
    let large = vec![7; PEER_FRAME_BYTES_MAX - 100];
    assert_eq!(soon(link.call(large.clone().into(), PATIENCE)).await.unwrap().len(), large.len() + 7);
    let refused = soon(link.call(vec![7; PEER_FRAME_BYTES_MAX + 1].into(), PATIENCE)).await.unwrap_err();
    assert!(refused.to_string().contains("peers.frame_bytes"), "{refused}");
    let status = one.status();
    assert!(status[0].connected && status[0].software.as_deref() == Some("windlass-hub test"), "{status:?}");
    soon(one.shutdown()).await;
    soon(two.shutdown()).await;
}

#[tokio::test]
async fn calls_beyond_the_limit_wait_and_other_classes_do_not() {
    let world = World::new();
    let (one, (_two, echo)) = (world.echo(1).0, world.echo(2));
    echo.shut.send_replace(true);
    let many = (0..3 * SERVICE_CALLS_MAX).map(|number| {
        let one = one.clone();
        tokio::spawn(async move { one.service(2, bytes(&number.to_string()), PATIENCE).await })
    });
    let many: Vec<_> = many.collect();
    soon(echo.inside.subscribe().wait_for(|inside| *inside == SERVICE_CALLS_MAX)).await.unwrap();
    let named = soon(one.service(2, bytes("late"), Duration::from_millis(50))).await.unwrap_err();
    assert!(named.to_string().contains("limit peers.service_calls"), "{named}");
    // Raft passes although everything else is held up.
    let link = one.network().link(2, &Peer::default());
    assert_eq!(soon(link.call(bytes("vote"), PATIENCE)).await.unwrap(), "1 Raft vote");
    echo.shut.send_replace(false);
    for (number, answer) in soon(join_all(many)).await.into_iter().enumerate() {
        assert_eq!(answer.unwrap().unwrap(), format!("1 Service {number}"));
    }
    assert_eq!(echo.most.load(Ordering::SeqCst), SERVICE_CALLS_MAX + 1, "the vote was the one above");
}

#[tokio::test]
async fn a_raft_call_overtakes_bulk_under_way() {
    let world = World::new();
    let (one, (_two, echo)) = (world.echo(1).0, world.echo(2));
    let link = one.network().link(2, &Peer::default());
    soon(link.call(bytes("connect"), PATIENCE)).await.unwrap();
    echo.shut.send_replace(true);
    let bulk: Vec<_> = (0..BULK_CALLS_MAX)
        .map(|_| {
            let one = one.clone();
            tokio::spawn(async move { one.bulk(2, vec![1; 3 << 20].into(), PATIENCE).await })
        })
        .collect();
    assert_eq!(soon(link.call(vec![2; 2 << 20].into(), PATIENCE)).await.unwrap().len(), (2 << 20) + 7);
    assert!(bulk.iter().all(|call| !call.is_finished()));
    echo.shut.send_replace(false);
    for call in soon(join_all(bulk)).await {
        assert_eq!(call.unwrap().unwrap().len(), (3 << 20) + 7);
    }
}

#[tokio::test]
async fn a_hung_peer_holds_up_nobody_else() {
    let world = World::new();
    let (one, _two, (_three, hung)) = (world.echo(1).0, world.echo(2), world.echo(3));
    hung.shut.send_replace(true);
    // A machine that swallows packets.
    let silent = UdpSocket::bind(loopback()).unwrap();
    world.addresses.lock().unwrap().insert(4, silent.local_addr().unwrap().to_string());
    let to_three = (0..SERVICE_CALLS_MAX).map(|_| one.service(3, bytes("x"), Duration::from_millis(300)));
    let to_four = (0..10).map(|_| one.service(4, bytes("x"), Duration::from_millis(300)));
    let to_two = async {
        for _ in 0..50 {
            assert_eq!(one.service(2, bytes("x"), PATIENCE).await.unwrap(), "1 Service x");
        }
        Instant::now()
    };
    let (three, four, done) = soon(async { tokio::join!(join_all(to_three), join_all(to_four), to_two) }).await;
    assert!(three.iter().all(|end| matches!(end, Err(LinkError::Failed(_)))), "{three:?}");
    assert!(four.iter().all(|end| matches!(end, Err(LinkError::Unreachable(_)))), "{four:?}");
    assert!(done <= Instant::now());
    let unknown = soon(one.service(9, bytes("x"), PATIENCE)).await.unwrap_err();
    assert_eq!(unknown, LinkError::Unreachable("the address of node 9 is not known here".into()));
}

#[tokio::test]
async fn a_peer_that_restarts_or_moves_is_dialled_again() {
    let world = World::new();
    let (one, (two, _)) = (world.echo(1).0, world.echo(2));
    let member = |address: &str| Peer { name: "hub-2".into(), address: address.into() };
    let address = two.local_address().unwrap();
    let link = one.network().link(2, &member(&address.to_string()));
    soon(link.call(bytes("a"), PATIENCE)).await.unwrap();

    // While it is away, calls fail long before their deadline.
    soon(two.shutdown()).await;
    let down = soon(one.service(2, bytes("b"), PATIENCE)).await.unwrap_err();
    assert!(matches!(down, LinkError::Unreachable(_) | LinkError::Failed(_)), "{down}");

    let mut config = world.config(identity(2));
    config.listen = address;
    let two = world.start(config);
    two.serve(std::sync::Arc::new(Echo::default()));
    eventually("it is found again", async || link.call(bytes("c"), PATIENCE).await.is_ok()).await;

    // Another node's address first: its certificate says so. Then the right one.
    let (three, _) = world.echo(3);
    world.addresses.lock().unwrap().remove(&2);
    let elsewhere = three.local_address().unwrap().to_string();
    let link = one.network().link(2, &member(&elsewhere));
    let wrong = soon(link.call(bytes("d"), PATIENCE)).await.unwrap_err();
    assert!(wrong.to_string().contains("/hub/3 answered instead of hub 2"), "{wrong}");
    let link = one.network().link(2, &member(&address.to_string()));
    eventually("it answers at its address", async || link.call(bytes("e"), PATIENCE).await.is_ok()).await;
}

#[tokio::test]
async fn a_peer_that_was_killed_and_is_back_is_noticed_at_once() {
    let world = World::new();
    let (one, (two, echo)) = (world.echo(1).0, world.echo(2));
    let address = two.local_address().unwrap();
    soon(one.service(2, bytes("a"), PATIENCE)).await.unwrap();
    // Threads and socket are gone, nobody was told.
    drop((two, echo));
    let successor = async {
        loop {
            let mut config = world.config(identity(2));
            config.listen = address;
            match Peers::start(config) {
                Ok(peers) => return peers,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let two = soon(successor).await;
    two.serve(std::sync::Arc::new(Echo::default()));
    // Said by the successor; not found out by waiting.
    if let Err(error) = soon(one.service(2, bytes("b"), PATIENCE)).await {
        assert!(error.to_string().contains("reset by the peer"), "{error}");
    }
    eventually("it is found again", async || one.service(2, bytes("c"), PATIENCE).await.is_ok()).await;
}

#[tokio::test]
async fn certificates_and_roots_are_replaced_under_way() {
    let (old, new) = (World::new(), World::new());
    let (one, (two, _)) = (old.echo(1).0, old.echo(2));
    soon(one.service(2, bytes("a"), PATIENCE)).await.unwrap();
    one.set_tls(&new.tls(1)).unwrap();
    assert!(soon(one.service(2, bytes("b"), PATIENCE)).await.is_ok(), "open connections live on");
    one.disconnect(2);
    let refused = soon(one.service(2, bytes("c"), PATIENCE)).await.unwrap_err();
    assert!(refused.to_string().contains("certificate"), "{refused}");
    two.set_tls(&new.tls(2)).unwrap();
    eventually("both trust the new root", async || one.service(2, bytes("d"), PATIENCE).await.is_ok()).await;
    assert!(one.set_tls(&new.tls(2)).unwrap_err().to_string().contains("that of hub 2, this is node 1"));
}
