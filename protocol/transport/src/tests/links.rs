//! Connections between known peers: who is let in, and what streams do.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use windlass_protocol::codec::{CodecError, encode};

use super::*;
use crate::{
    endpoint::{CloseCode, Closed, FrameLimits, Peer},
    identity::Subject,
    stream::StreamError,
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Message {
    Ping(u64),
    Blob(Vec<u8>),
}

/// The reason with which dialling failed.
fn refusal(result: Result<Connection, DialError>) -> Closed {
    match result {
        Err(DialError::Handshake { source, .. }) => source,
        other => panic!("expected a failed handshake, got {other:?}"),
    }
}

#[tokio::test]
async fn issued_certificates_work_both_ways() {
    let world = World::new("fleet.example");
    let mut listener = world.listen(ListenerLimits::default());
    let dialer = dialer();
    let (client, server) = soon(connect(&dialer, &mut listener, &world.enrolled())).await;
    let Peer::Authenticated(agent) = server.peer() else {
        panic!("the agent showed its certificate");
    };
    assert_eq!(agent.serial, 77);
    let Peer::Authenticated(hub) = client.peer() else {
        panic!("the hub showed its certificate");
    };
    assert_eq!(hub.subject, Subject::Hub { node: "n1".into() });

    // Several streams: an authenticated peer has its full limits.
    for round in 0..20 {
        let (mut send, mut receive) = soon(client.open_bi()).await.unwrap();
        soon(send.send(&Message::Ping(round))).await.unwrap();
        let (mut answer, mut ask) = soon(server.accept_bi()).await.unwrap();
        let asked: Message = soon(ask.recv()).await.unwrap().unwrap();
        assert_eq!(asked, Message::Ping(round));
        soon(answer.send(&Message::Ping(round + 1))).await.unwrap();
        soon(answer.finish()).await.unwrap();
        let answered: Message = soon(receive.recv()).await.unwrap().unwrap();
        assert_eq!(answered, Message::Ping(round + 1));
        assert_eq!(soon(receive.recv::<Message>()).await, Ok(None));
    }
    assert_eq!(listener.control().stats().accepted, 1);
    assert_eq!(listener.control().stats().open, 1);
    client.close(CloseCode(99), "enough");
    assert_eq!(soon(server.closed()).await, Closed::Peer { code: CloseCode(99), reason: "enough".into() });
}

#[tokio::test]
async fn another_trust_domain_is_refused_by_both_sides() {
    let ours = World::new("fleet.example");
    let theirs = World::new("other.example");
    let mut listener = ours.listen(ListenerLimits::default());
    let dialer = dialer();
    let end = refusal(soon(dial(&dialer, &listener, &theirs.enrolled())).await);
    assert!(matches!(end, Closed::Untrusted { .. }), "{end}");

    // Believes our hub, but shows a certificate of theirs: refused by the hub, noticed after the handshake.
    let mixed = ClientTls::enrolled(ours.bundle(), theirs.agent(around_now(DAY)));
    let client = soon(dial(&dialer, &listener, &mixed)).await.unwrap();
    let end = soon(client.closed()).await;
    assert!(matches!(end, Closed::Untrusted { .. }), "{end}");
    assert_eq!(listener.control().stats().accepted, 0);

    // A root of the same name is still another root.
    let namesake = World::new("fleet.example");
    let forged = ClientTls::enrolled(ours.bundle(), namesake.agent(around_now(DAY)));
    let client = soon(dial(&dialer, &listener, &forged)).await.unwrap();
    assert!(matches!(soon(client.closed()).await, Closed::Untrusted { .. }));

    let (_client, server) = soon(connect(&dialer, &mut listener, &ours.enrolled())).await;
    assert!(matches!(server.peer(), Peer::Authenticated(_)));
}

#[tokio::test]
async fn expired_certificates_are_refused_by_both_sides() {
    let world = World::new("fleet.example");
    let past = Validity::new(now() - 2 * DAY, now() - DAY).unwrap();
    let listener = world.listen(ListenerLimits::default());
    let dialer = dialer();
    let tls = ClientTls::enrolled(world.bundle(), world.agent(past));
    let client = soon(dial(&dialer, &listener, &tls)).await.unwrap();
    let end = soon(client.closed()).await;
    assert!(matches!(end, Closed::Untrusted { .. }), "{end}");

    let hub = world.hub_valid("n1", 11, past);
    let tls = ServerTls::new(hub, world.bundle(), PeerAdmission::Enrolment).unwrap();
    let listener = Listener::bind(loopback(), &tls, ListenerLimits::default()).unwrap();
    let end = refusal(soon(dial(&dialer, &listener, &world.enrolled())).await);
    assert!(matches!(&end, Closed::Untrusted { reason } if reason.contains("expired")), "{end}");
}

#[tokio::test]
async fn an_agent_cannot_pose_as_a_hub() {
    let world = World::new("fleet.example");
    let agent = world.agent(around_now(DAY));
    // `ServerTls` refuses to be built from it, so the impostor makes its own.
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(agent.chain().to_vec(), agent.key().private_der())
        .unwrap();
    tls.alpn_protocols = vec![b"windlass/1".to_vec()];
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let endpoint = quinn::Endpoint::server(config, loopback()).unwrap();
    let address = endpoint.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move { endpoint.accept().await.unwrap().await });
    let end = refusal(soon(dialer().dial(&address, &world.enrolled())).await);
    assert!(matches!(end, Closed::Untrusted { .. }), "{end}");
    assert!(soon(serving).await.unwrap().is_err());
}

#[tokio::test]
async fn another_hub_than_the_expected_one_is_refused() {
    let world = World::new("fleet.example");
    let mut listener = world.listen(ListenerLimits::default());
    let dialer = dialer();
    let wrong = world.enrolled().expecting("n2");
    let end = refusal(soon(dial(&dialer, &listener, &wrong)).await);
    assert!(matches!(&end, Closed::Untrusted { reason } if reason.contains("hub n2")), "{end}");
    let right = world.enrolled().expecting("n1");
    let (client, _server) = soon(connect(&dialer, &mut listener, &right)).await;
    assert!(client.close_reason().is_none());
}

#[tokio::test]
async fn a_replaced_certificate_serves_new_connections() {
    let world = World::new("fleet.example");
    let mut listener = world.listen(ListenerLimits::default());
    let dialer = dialer();
    let serial = |connection: &Connection| match connection.peer() {
        Peer::Authenticated(identity) => identity.serial,
        Peer::Unauthenticated => 0,
    };
    let (old, _old_server) = soon(connect(&dialer, &mut listener, &world.enrolled())).await;
    assert_eq!(serial(&old), 10);

    let next = World::new("next.example");
    let renewed = ServerTls::new(world.hub("n1", 20), world.bundle(), PeerAdmission::Enrolment);
    listener.control().update_tls(&renewed.unwrap()).unwrap();
    let (new, _new_server) = soon(connect(&dialer, &mut listener, &world.enrolled())).await;
    assert_eq!(serial(&new), 20);
    assert!(old.close_reason().is_none(), "open connections live on");

    // The bundle is replaced with it: peers of another root are accepted from now on, old ones are not.
    listener.control().update_tls(&next.server()).unwrap();
    let (_client, server) = soon(connect(&dialer, &mut listener, &next.enrolled())).await;
    assert!(matches!(server.peer(), Peer::Authenticated(_)));
    let end = refusal(soon(dial(&dialer, &listener, &world.enrolled())).await);
    assert!(matches!(end, Closed::Untrusted { .. }), "{end}");
}

#[tokio::test]
async fn a_stalled_transfer_does_not_hold_up_other_streams() {
    let world = World::new("fleet.example");
    let mut listener = world.listen(ListenerLimits::default());
    let tuning = Tuning { send_window: 1024 * 1024, ..Tuning::default() };
    let dialer = Dialer::bind_to(loopback(), tuning).unwrap();
    let (client, server) = soon(connect(&dialer, &mut listener, &world.enrolled())).await;

    let mut bulk = soon(client.open_uni()).await.unwrap();
    let blob = Message::Blob(vec![7; 256 * 1024]);
    let frames = 12;
    let sending = tokio::spawn(async move {
        for _ in 0..frames {
            bulk.send(&blob).await.unwrap();
        }
        bulk.finish().await.unwrap();
        bulk.delivered().await.unwrap();
    });
    // Nobody reads the bulk stream yet: it fills its window and stands.
    let mut stalled = soon(server.accept_uni()).await.unwrap();
    let (mut send, _receive) = soon(client.open_bi()).await.unwrap();
    for round in 0..100 {
        soon(send.send(&Message::Ping(round))).await.unwrap();
    }
    let (_answer, mut ask) = soon(server.accept_bi()).await.unwrap();
    for round in 0..100 {
        let got: Message = soon(ask.recv()).await.unwrap().unwrap();
        assert_eq!(got, Message::Ping(round));
    }
    assert!(!sending.is_finished(), "3 MiB exceed the windows of both sides");
    for _ in 0..frames {
        let got: Message = soon(stalled.recv()).await.unwrap().unwrap();
        assert!(matches!(got, Message::Blob(bytes) if bytes.len() == 256 * 1024));
    }
    assert_eq!(soon(stalled.recv::<Message>()).await, Ok(None));
    soon(sending).await.unwrap();
}

#[tokio::test]
async fn a_cancelled_send_does_not_break_the_frames() {
    let world = World::new("fleet.example");
    let mut listener = world.listen(ListenerLimits::default());
    let dialer = dialer();
    let (client, server) = soon(connect(&dialer, &mut listener, &world.enrolled())).await;
    let mut send = soon(client.open_uni()).await.unwrap();
    // Fill the window until a send does not finish, and drop it half-way.
    let blob = Message::Blob(vec![1; 600 * 1024]);
    let mut sent = 0_u64;
    loop {
        sent += 1;
        let attempt = tokio::time::timeout(Duration::from_millis(100), send.send(&blob)).await;
        if attempt.is_err() {
            break;
        }
    }
    let reading = tokio::spawn(async move {
        let mut receive = server.accept_uni().await.unwrap();
        let mut seen = Vec::new();
        while let Some(message) = receive.recv::<Message>().await.unwrap() {
            seen.push(message);
        }
        seen
    });
    soon(send.send(&Message::Ping(5))).await.unwrap();
    soon(send.finish()).await.unwrap();
    let seen = soon(reading).await.unwrap();
    assert_eq!(seen.len() as u64, sent + 1);
    assert_eq!(seen.last(), Some(&Message::Ping(5)));
}

#[tokio::test]
async fn frames_have_limits_and_deadlines() {
    let world = World::new("fleet.example");
    let mut limits = ListenerLimits::default();
    limits.tuning.frames =
        FrameLimits { frame: 1000, receive_deadline: Duration::from_millis(50), ..FrameLimits::default() };
    let mut listener = world.listen(limits);
    let dialer = dialer();
    let (client, server) = soon(connect(&dialer, &mut listener, &world.enrolled())).await;

    // Too long for the receiver, who refuses it from the header and stops the stream.
    let mut send = soon(client.open_uni()).await.unwrap();
    soon(send.send(&Message::Blob(vec![0; 2000]))).await.unwrap();
    let mut receive = soon(server.accept_uni()).await.unwrap();
    assert!(matches!(
        soon(receive.recv::<Message>()).await,
        Err(StreamError::Codec(CodecError::TooLong { limit: 1000, .. }))
    ));
    assert_eq!(soon(send.delivered()).await, Err(StreamError::Stopped { code: CloseCode::LIMIT }));

    // Too long for the sender: nothing is sent, the stream stays usable.
    let mut back = soon(server.open_uni()).await.unwrap();
    assert!(matches!(
        soon(back.send(&Message::Blob(vec![0; 2000]))).await,
        Err(StreamError::Codec(CodecError::TooLong { .. }))
    ));
    soon(back.send(&Message::Ping(1))).await.unwrap();
    let mut receive = soon(client.accept_uni()).await.unwrap();
    let got: Message = soon(receive.recv()).await.unwrap().unwrap();
    assert_eq!(got, Message::Ping(1));

    // A frame that begins and never ends: the receiver gives up after its deadline.
    let whole = encode(&Message::Blob(vec![0; 500]), 1000).unwrap();
    let mut slow = soon(client.open_uni()).await.unwrap();
    soon(slow.send_frame(whole[..30].to_vec().into())).await.unwrap();
    let mut receive = soon(server.accept_uni()).await.unwrap();
    assert!(matches!(soon(receive.recv::<Message>()).await, Err(StreamError::Deadline { .. })));

    // A frame cut by the end of the stream is an error, not an end.
    let mut cut = soon(client.open_uni()).await.unwrap();
    soon(cut.send_frame(whole[..30].to_vec().into())).await.unwrap();
    soon(cut.finish()).await.unwrap();
    let mut receive = soon(server.accept_uni()).await.unwrap();
    assert!(matches!(soon(receive.recv::<Message>()).await, Err(StreamError::Codec(CodecError::Truncated { .. }))));

    // Silence can be bounded, too, and the stream lives on.
    let mut quiet = soon(client.open_uni()).await.unwrap();
    soon(quiet.send(&Message::Ping(2))).await.unwrap();
    let mut receive = soon(server.accept_uni()).await.unwrap();
    let _: Option<Message> = soon(receive.recv()).await.unwrap();
    let nothing = receive.recv_within::<Message>(Duration::from_millis(10));
    assert!(matches!(soon(nothing).await, Err(StreamError::Deadline { .. })));
    soon(quiet.send(&Message::Ping(3))).await.unwrap();
    let got: Option<Message> = soon(receive.recv()).await.unwrap();
    assert_eq!(got, Some(Message::Ping(3)));
}

#[tokio::test]
async fn a_connection_survives_a_change_of_address() {
    let world = World::new("fleet.example");
    let mut listener = world.listen(ListenerLimits::default());
    let dialer = dialer();
    let (client, server) = soon(connect(&dialer, &mut listener, &world.enrolled())).await;
    let (mut send, _receive) = soon(client.open_bi()).await.unwrap();
    soon(send.send(&Message::Ping(1))).await.unwrap();
    let (_answer, mut ask) = soon(server.accept_bi()).await.unwrap();
    let _: Option<Message> = soon(ask.recv()).await.unwrap();
    let before = server.remote_address();
    dialer.rebind(loopback()).unwrap();
    soon(send.send(&Message::Ping(2))).await.unwrap();
    let got: Option<Message> = soon(ask.recv()).await.unwrap();
    assert_eq!(got, Some(Message::Ping(2)));
    assert_ne!(server.remote_address(), before);
    assert!(client.close_reason().is_none());
}

#[tokio::test]
async fn hubs_are_tried_in_order() {
    let world = World::new("fleet.example");
    let mut listener = world.listen(ListenerLimits::default());
    let dialer = dialer();
    let addresses = vec!["not an address:x".to_owned(), listener.local_address().unwrap().to_string()];
    let (index, _client) = soon(dialer.dial_first(&addresses, &world.enrolled())).await.unwrap();
    assert_eq!(index, 1);
    assert!(soon(listener.accept()).await.is_some());
    let errors = soon(dialer.dial_first(&addresses[..1], &world.enrolled())).await.unwrap_err();
    assert!(matches!(errors.as_slice(), [DialError::Address { .. }]));
}

#[tokio::test]
async fn a_closed_listener_tells_its_peers_and_ends() {
    let world = World::new("fleet.example");
    let mut listener = world.listen(ListenerLimits::default());
    let dialer = dialer();
    let (client, _server) = soon(connect(&dialer, &mut listener, &world.enrolled())).await;
    listener.control().close(CloseCode(70), "drain");
    assert_eq!(soon(client.closed()).await, Closed::Peer { code: CloseCode(70), reason: "drain".into() });
    assert!(soon(listener.accept()).await.is_none());
}
