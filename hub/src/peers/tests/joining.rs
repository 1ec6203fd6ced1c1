//! Hubs without a certificate.

use bytes::Bytes;
use windlass_transport::endpoint::{ClientTls, Closed, Dialer, Protocol, Tuning};

use super::fixture::*;
use crate::peers::{JOIN_REQUEST_BYTES_MAX, JoinCallError, join_call};

#[tokio::test]
async fn a_joiner_gets_one_answer() {
    let world = World::new();
    let (one, _) = world.echo(1);
    let address = one.local_address().unwrap().to_string();
    let request = vec![b'x'; JOIN_REQUEST_BYTES_MAX];
    let answer = soon(join_call(&address, world.root.pin(), request.into())).await.unwrap();
    assert_eq!(answer.len(), JOIN_REQUEST_BYTES_MAX + 8);
    let long = vec![b'x'; JOIN_REQUEST_BYTES_MAX + 1];
    let refused = soon(join_call(&address, world.root.pin(), long.into())).await.unwrap_err();
    assert!(matches!(refused, JoinCallError::TooLarge { .. }), "{refused}");
    let other = World::new();
    let refused = soon(join_call(&address, other.root.pin(), Bytes::from_static(b"x"))).await.unwrap_err();
    assert!(crate::peers::link::chain(&refused).contains("no root with the pin"), "{refused:?}");
}

#[tokio::test]
async fn a_joiner_is_told_that_the_hub_is_starting() {
    let world = World::new();
    let one = world.start(world.config(identity(1)));
    let address = one.local_address().unwrap().to_string();
    let refused = soon(join_call(&address, world.root.pin(), Bytes::from_static(b"x"))).await.unwrap_err();
    assert!(matches!(&refused, JoinCallError::Refused { reason, .. } if reason.contains("starting")), "{refused}");
}

#[tokio::test]
async fn a_stranger_cannot_pass_for_a_peer() {
    let world = World::new();
    let (one, echo) = world.echo(1);
    let dialer = Dialer::bind_to(loopback(), Tuning::default()).unwrap();
    let address = one.local_address().unwrap().to_string();
    let tls = ClientTls::pinned(world.root.pin()).speaking(Protocol::Peers);
    let stranger = soon(dialer.dial(&address, &tls)).await.unwrap();
    // Says hello like a peer: to the hub it is just the bytes of a request to join.
    let (mut send, mut receive) = soon(stranger.open_bi()).await.unwrap();
    soon(send.send(&crate::peers::hello::Hello::new(&identity(2), "x"))).await.unwrap();
    assert!(soon(receive.recv_payload()).await.unwrap().unwrap().starts_with(b"welcome "));
    assert!(matches!(soon(stranger.closed()).await, Closed::Peer { .. }));
    assert_eq!(*echo.inside.borrow(), 0);
    assert_eq!(echo.most.load(std::sync::atomic::Ordering::SeqCst), 0, "no call reached the service");
}
