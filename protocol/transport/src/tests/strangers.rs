//! Peers without a certificate: pinned enrolment, and the limits on strangers.

use super::*;
use crate::{
    endpoint::{CloseCode, Closed, Peer, Trust, UnauthenticatedLimits},
    stream::StreamError,
};

fn limits(strangers: UnauthenticatedLimits) -> ListenerLimits {
    let mut limits = ListenerLimits { unauthenticated: strangers, ..ListenerLimits::default() };
    limits.tuning.frames.open_deadline = Duration::from_millis(200);
    limits
}

/// Gives up on opening a stream soon.
fn impatient() -> Dialer {
    let mut tuning = Tuning::default();
    tuning.frames.open_deadline = Duration::from_millis(200);
    Dialer::bind_to(loopback(), tuning).unwrap()
}

#[tokio::test]
async fn enrolment_needs_the_pin_and_nothing_else() {
    let world = World::new("fleet.example");
    let mut listener = world.listen(ListenerLimits::default());
    let dialer = dialer();
    let pinned = ClientTls::pinned(world.root.pin());
    let (client, server) = soon(connect(&dialer, &mut listener, &pinned)).await;
    assert_eq!(server.peer(), &Peer::Unauthenticated);
    assert!(matches!(client.peer(), Peer::Authenticated(_)));

    // The exchange that enrolment makes: request out, certificate back, then a session with it.
    let key = KeyMaterial::generate().unwrap();
    let (mut send, mut receive) = soon(client.open_bi()).await.unwrap();
    soon(send.send(&key.signing_request().unwrap())).await.unwrap();
    let (mut answer, mut ask) = soon(server.accept_bi()).await.unwrap();
    let request: Vec<u8> = soon(ask.recv()).await.unwrap().unwrap();
    let subject = SubjectKey::from_signing_request(&request).unwrap();
    let issued = world.issuer.issue_agent(&subject, "eu-1", "uid-7", 5, around_now(DAY)).unwrap();
    let reply = (issued, world.bundle().pem().to_owned());
    soon(answer.send(&reply)).await.unwrap();
    soon(answer.finish()).await.unwrap();
    let (chain, bundle): (String, String) = soon(receive.recv()).await.unwrap().unwrap();
    let tls = ClientTls::enrolled(TrustBundle::from_pem(&bundle).unwrap(), Identity::new(&chain, key).unwrap());
    let (_client, server) = soon(connect(&dialer, &mut listener, &tls)).await;
    assert!(matches!(server.peer(), Peer::Authenticated(agent) if agent.serial == 5));
}

#[tokio::test]
async fn a_wrong_pin_is_refused() {
    let world = World::new("fleet.example");
    let other = World::new("fleet.example");
    let listener = world.listen(ListenerLimits::default());
    let dialer = dialer();
    let tls = ClientTls { trust: Trust::Pin(other.root.pin()), ..ClientTls::pinned(world.root.pin()) };
    match soon(dial(&dialer, &listener, &tls)).await {
        Err(DialError::Handshake { source: Closed::Untrusted { reason }, .. }) => {
            assert!(reason.contains("pin"), "{reason}")
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[tokio::test]
async fn a_stranger_has_one_stream() {
    let world = World::new("fleet.example");
    let mut listener = world.listen(limits(UnauthenticatedLimits::default()));
    let dialer = impatient();
    let pinned = ClientTls::pinned(world.root.pin());
    let (client, server) = soon(connect(&dialer, &mut listener, &pinned)).await;
    let (mut send, mut receive) = soon(client.open_bi()).await.unwrap();
    soon(send.send("hello")).await.unwrap();
    soon(send.finish()).await.unwrap();
    assert!(matches!(soon(client.open_bi()).await, Err(StreamError::Deadline { .. })));
    assert!(matches!(soon(client.open_uni()).await, Err(StreamError::Deadline { .. })));

    // Nor a second one after the first has ended on both sides.
    {
        let (mut answer, mut ask) = soon(server.accept_bi()).await.unwrap();
        let hello: String = soon(ask.recv()).await.unwrap().unwrap();
        assert_eq!(hello, "hello");
        assert_eq!(soon(ask.recv::<String>()).await, Ok(None));
        soon(answer.finish()).await.unwrap();
        assert_eq!(soon(receive.recv::<String>()).await, Ok(None));
        soon(answer.delivered()).await.unwrap();
    }
    assert!(matches!(soon(client.open_bi()).await, Err(StreamError::Deadline { .. })));
}

#[tokio::test]
async fn a_stranger_sends_few_bytes() {
    let world = World::new("fleet.example");
    let few = UnauthenticatedLimits { bytes: 4096, ..UnauthenticatedLimits::default() };
    let mut listener = world.listen(limits(few));
    let dialer = dialer();
    let pinned = ClientTls::pinned(world.root.pin());
    let (client, server) = soon(connect(&dialer, &mut listener, &pinned)).await;
    let (mut send, _receive) = soon(client.open_bi()).await.unwrap();
    let sending = tokio::spawn(async move {
        loop {
            if let Err(error) = send.send(&vec![0_u8; 1000]).await {
                return error;
            }
        }
    });
    let (_answer, mut ask) = soon(server.accept_bi()).await.unwrap();
    let mut frames = 0;
    let end = loop {
        match soon(ask.recv::<Vec<u8>>()).await {
            Ok(_) => frames += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(frames, 4, "four frames of 1,021 bytes fit into 4,096");
    assert_eq!(end, StreamError::Connection(Closed::Local));
    let Closed::Peer { code, reason } = soon(client.closed()).await else {
        panic!("closed by the hub");
    };
    assert_eq!(code, CloseCode::LIMIT);
    assert!(reason.contains("too many bytes"), "{reason}");
    assert!(matches!(soon(sending).await.unwrap(), StreamError::Connection(_)));
}

#[tokio::test]
async fn a_stranger_that_is_not_read_cannot_fill_memory() {
    let world = World::new("fleet.example");
    let mut listener = world.listen(limits(UnauthenticatedLimits::default()));
    let tuning = Tuning {
        // The client's own buffer must not take what the hub does not.
        send_window: 4096,
        ..Tuning::default()
    };
    let dialer = Dialer::bind_to(loopback(), tuning).unwrap();
    let pinned = ClientTls::pinned(world.root.pin());
    let (client, _server) = soon(connect(&dialer, &mut listener, &pinned)).await;
    let (mut send, _receive) = soon(client.open_bi()).await.unwrap();
    soon(send.send(&vec![0_u8; 14 * 1024])).await.unwrap();
    // The second does not fit into what the hub takes unread, however long one waits.
    let more = vec![0_u8; 14 * 1024];
    let waited = tokio::time::timeout(Duration::from_millis(500), send.send(&more)).await;
    assert!(waited.is_err());
    assert!(client.close_reason().is_none());
}

#[tokio::test]
async fn a_stranger_does_not_stay() {
    let world = World::new("fleet.example");
    let short = UnauthenticatedLimits { lifetime: Duration::from_millis(100), ..UnauthenticatedLimits::default() };
    let mut listener = world.listen(limits(short));
    let dialer = dialer();
    let pinned = ClientTls::pinned(world.root.pin());
    let (client, _server) = soon(connect(&dialer, &mut listener, &pinned)).await;
    let end = soon(client.closed()).await;
    assert!(matches!(&end, Closed::Peer { code: CloseCode::DEADLINE, .. }), "{end}");
    // A known peer is not touched by that limit.
    let (known, _server) = soon(connect(&dialer, &mut listener, &world.enrolled())).await;
    let stays = tokio::time::timeout(Duration::from_millis(300), known.closed()).await;
    assert!(stays.is_err());
}

#[tokio::test]
async fn strangers_are_few() {
    let world = World::new("fleet.example");
    let one = UnauthenticatedLimits { connections: 1, ..UnauthenticatedLimits::default() };
    let mut listener = world.listen(limits(one));
    let dialer = dialer();
    let pinned = ClientTls::pinned(world.root.pin());
    let (first, first_server) = soon(connect(&dialer, &mut listener, &pinned)).await;
    let second = soon(dial(&dialer, &listener, &pinned)).await.unwrap();
    let end = soon(second.closed()).await;
    assert!(matches!(end, Closed::Peer { code: CloseCode::BUSY, .. }), "{end}");
    // A place is free again once the first has gone; known peers never needed one.
    let (_known, _) = soon(connect(&dialer, &mut listener, &world.enrolled())).await;
    first.close(CloseCode::DONE, "");
    soon(first_server.closed()).await;
    loop {
        let next = soon(dial(&dialer, &listener, &pinned)).await.unwrap();
        tokio::select! {
            admitted = listener.accept() => { assert!(admitted.is_some()); break; }
            _ = next.closed() => {}
        }
    }
}

#[tokio::test]
async fn a_listener_can_insist_on_certificates() {
    let world = World::new("fleet.example");
    let tls = ServerTls::new(world.hub("n1", 10), world.bundle(), PeerAdmission::CertificateRequired).unwrap();
    let listener = Listener::bind(loopback(), &tls, ListenerLimits::default()).unwrap();
    let dialer = dialer();
    let client = soon(dial(&dialer, &listener, &ClientTls::pinned(world.root.pin()))).await.unwrap();
    let end = soon(client.closed()).await;
    assert!(matches!(end, Closed::Untrusted { .. }), "{end}");
    assert_eq!(listener.control().stats().accepted, 0);
}

#[tokio::test]
async fn a_flood_is_paced_and_everyone_gets_in() {
    let world = World::new("fleet.example");
    let mut limits = ListenerLimits { handshakes: 4, handshakes_per_second: 200, ..ListenerLimits::default() };
    limits.tuning.socket_buffer = 1024 * 1024;
    let mut listener = world.listen(limits);
    let address = listener.local_address().unwrap().to_string();
    let dialer = dialer();
    let tls = world.enrolled();
    let count = 100;
    let mut dials = tokio::task::JoinSet::new();
    for _ in 0..count {
        let (dialer, tls, address) = (dialer.clone(), tls.clone(), address.clone());
        dials.spawn(async move { dialer.dial(&address, &tls).await });
    }
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(soon(listener.accept()).await.unwrap());
    }
    let stats = listener.control().stats();
    assert_eq!(stats.accepted, count);
    assert!(stats.retried > 0, "under pressure addresses are proved first");
    while let Some(dialed) = soon(dials.join_next()).await {
        dialed.unwrap().unwrap();
    }
}
