//! Two protocols on two ports, one socket for both directions, longer answers to strangers, and raw content.

use tokio::io::AsyncReadExt;

use super::*;
use crate::{
    endpoint::{CloseCode, Closed, Peer, Protocol, UnauthenticatedLimits},
    stream::StreamError,
};

fn peer_port(world: &World, node: &str, limits: ListenerLimits) -> Listener {
    let tls = ServerTls::new(world.hub(node, 10), world.bundle(), PeerAdmission::Enrolment).unwrap();
    Listener::bind(loopback(), &tls.speaking(Protocol::Peers), limits).unwrap()
}

#[tokio::test]
async fn the_wrong_port_is_named_as_such() {
    let world = World::new("fleet.example");
    let (agents, hubs) = (world.listen(ListenerLimits::default()), peer_port(&world, "n1", ListenerLimits::default()));
    let hub = ClientTls::enrolled(world.bundle(), world.hub("n2", 20)).speaking(Protocol::Peers);
    for (listener, tls) in [(&hubs, world.enrolled()), (&agents, hub)] {
        match soon(dial(&dialer(), listener, &tls)).await {
            Err(DialError::Handshake { source: end @ Closed::OtherProtocol, .. }) => {
                assert!(end.to_string().contains("check the port"), "{end}");
            }
            other => panic!("expected a refusal, got {other:?}"),
        }
    }
}

#[tokio::test]
async fn hubs_dial_each_other_from_the_sockets_they_listen_on() {
    let world = World::new("fleet.example");
    let mut one = peer_port(&world, "n1", ListenerLimits::default());
    let mut two = peer_port(&world, "n2", ListenerLimits::default());
    let tls = |node: &str| ClientTls::enrolled(world.bundle(), world.hub(node, 20)).speaking(Protocol::Peers);
    let (client, server) = soon(connect(&one.control().dialer(), &mut two, &tls("n1").expecting("n2"))).await;
    assert_eq!(server.remote_address(), one.local_address().unwrap());
    let (_back, at_one) = soon(connect(&two.control().dialer(), &mut one, &tls("n2").expecting("n1"))).await;
    assert_eq!(at_one.remote_address(), two.local_address().unwrap());
    one.control().close(CloseCode(70), "drain");
    assert_eq!(soon(client.closed()).await, Closed::Local);
    assert_eq!(soon(server.closed()).await, Closed::Peer { code: CloseCode(70), reason: "drain".into() });
}

#[tokio::test]
async fn strangers_may_be_sent_more_than_they_send() {
    let world = World::new("fleet.example");
    let limits = UnauthenticatedLimits { answer: 64 * 1024, ..UnauthenticatedLimits::default() };
    let mut listener = peer_port(&world, "n1", ListenerLimits { unauthenticated: limits, ..ListenerLimits::default() });
    let tls = ClientTls::pinned(world.root.pin()).speaking(Protocol::Peers);
    let (client, server) = soon(connect(&dialer(), &mut listener, &tls)).await;
    assert_eq!(server.peer(), &Peer::Unauthenticated);
    let (mut send, mut receive) = soon(client.open_bi()).await.unwrap();
    soon(send.send_payload(&[1; 16_000])).await.unwrap();
    let (mut answer, mut ask) = soon(server.accept_bi()).await.unwrap();
    assert_eq!(soon(ask.recv_payload()).await.unwrap().unwrap().len(), 16_000);
    soon(answer.send_payload(&[2; 64 * 1024])).await.unwrap();
    assert_eq!(soon(receive.recv_payload()).await.unwrap().unwrap().len(), 64 * 1024);
    assert!(matches!(soon(answer.send_payload(&[2; 64 * 1024 + 1])).await, Err(StreamError::Codec(_))));
}

#[tokio::test]
async fn raw_content_follows_frames_and_never_ends_early() {
    let world = World::new("fleet.example");
    let mut listener = world.listen(ListenerLimits::default());
    let dialer = dialer();
    let (client, server) = soon(connect(&dialer, &mut listener, &world.enrolled())).await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let (mut send, mut answers) = soon(client.open_bi()).await.unwrap();
    let sending = {
        let content = content.clone();
        tokio::spawn(async move {
            send.send("header").await.unwrap();
            (send.send_content(&mut content.as_slice()).await.unwrap(), send)
        })
    };
    let (mut answer, mut receive) = soon(server.accept_bi()).await.unwrap();
    assert_eq!(soon(receive.recv::<String>()).await.unwrap().unwrap(), "header");
    let mut got = Vec::new();
    soon(receive.content().read_to_end(&mut got)).await.unwrap();
    assert!(got == content);
    assert_eq!(soon(sending).await.unwrap().0, 3_000_000);
    soon(answer.send("thanks")).await.unwrap();
    assert_eq!(soon(answers.recv::<String>()).await.unwrap().unwrap(), "thanks");

    // A sender that gives up is an error at the reader.
    let (mut send, _answers) = soon(client.open_bi()).await.unwrap();
    soon(send.send("header")).await.unwrap();
    let (_answer, mut receive) = soon(server.accept_bi()).await.unwrap();
    let _: Option<String> = soon(receive.recv()).await.unwrap();
    send.reset(CloseCode::DEADLINE);
    assert!(soon(receive.content().read_to_end(&mut got)).await.is_err());
}
