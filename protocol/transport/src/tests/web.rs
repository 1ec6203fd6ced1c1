//! The HTTPS listener: ALPN, names, replaced certificates, silent clients.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::{
    https::{HttpVersion, HttpsLimits, HttpsListener},
    identity::{PeerIdentity, RootPin},
    root::fetch_root,
};

/// An ordinary HTTPS client: believes the root, verifies the host name.
async fn browse(
    world: &World,
    address: SocketAddr,
    name: &str,
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for root in world.bundle().store().unwrap().roots {
        roots.roots.push(root);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

fn serial(stream: &TlsStream<TcpStream>) -> u128 {
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    PeerIdentity::from_der(&chain[0]).unwrap().serial
}

#[tokio::test]
async fn bytes_pass_and_the_version_is_negotiated() {
    let world = World::new("fleet.example");
    let mut listener = HttpsListener::bind(loopback(), &world.server(), HttpsLimits::default()).unwrap();
    let address = listener.local_address();
    for (name, offered, expected) in [
        ("localhost", &["h2", "http/1.1"][..], HttpVersion::Http2),
        ("127.0.0.1", &["http/1.1"][..], HttpVersion::Http1),
        ("localhost", &[][..], HttpVersion::Http1),
    ] {
        let mut client = soon(browse(&world, address, name, offered)).await.unwrap();
        let (mut server, _) = soon(listener.accept()).await.unwrap();
        assert_eq!(server.http_version(), expected);
        soon(client.write_all(b"hello")).await.unwrap();
        let mut got = [0; 5];
        soon(server.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"hello");
        soon(server.write_all(b"world")).await.unwrap();
        soon(server.flush()).await.unwrap();
        soon(client.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"world");
    }
    assert!(soon(browse(&world, address, "elsewhere.example", &[])).await.is_err());
}

#[tokio::test]
async fn a_replaced_certificate_is_shown_to_new_clients() {
    let world = World::new("fleet.example");
    let mut listener = HttpsListener::bind(loopback(), &world.server(), HttpsLimits::default()).unwrap();
    let address = listener.local_address();
    let first = soon(browse(&world, address, "localhost", &[])).await.unwrap();
    assert_eq!(serial(&first), 10);
    let renewed = ServerTls::new(world.hub("n1", 20), world.bundle(), PeerAdmission::Enrolment);
    listener.control().update_tls(&renewed.unwrap()).unwrap();
    let second = soon(browse(&world, address, "localhost", &[])).await.unwrap();
    assert_eq!(serial(&second), 20);
    assert!(soon(listener.accept()).await.is_some());
    assert!(soon(listener.accept()).await.is_some());
}

#[tokio::test]
async fn silent_clients_give_their_slot_back() {
    let world = World::new("fleet.example");
    let limits = HttpsLimits { handshakes: 1, handshake_timeout: Duration::from_millis(100), ..HttpsLimits::default() };
    let mut listener = HttpsListener::bind(loopback(), &world.server(), limits).unwrap();
    let address = listener.local_address();
    let mut silent = soon(TcpStream::connect(address)).await.unwrap();
    let _client = soon(browse(&world, address, "localhost", &[])).await.unwrap();
    assert!(soon(listener.accept()).await.is_some());
    let mut rest = Vec::new();
    // Cut off by the timeout: an end or a reset, depending on the system.
    let _ = soon(silent.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn garbage_is_no_handshake() {
    let world = World::new("fleet.example");
    let mut listener = HttpsListener::bind(loopback(), &world.server(), HttpsLimits::default()).unwrap();
    let address = listener.local_address();
    let mut garbage = soon(TcpStream::connect(address)).await.unwrap();
    soon(garbage.write_all(b"GET / HTTP/1.1\r\n\r\n")).await.unwrap();
    let _client = soon(browse(&world, address, "localhost", &[])).await.unwrap();
    assert!(soon(listener.accept()).await.is_some());
}

#[tokio::test]
async fn the_root_is_fetched_by_its_pin_alone() {
    let world = World::new("fleet.example");
    let other = World::new("fleet.example");
    let listener = HttpsListener::bind(loopback(), &world.server(), HttpsLimits::default()).unwrap();
    let address = listener.local_address().to_string();
    let pin = world.bundle().pins().unwrap()[0];
    let der = soon(fetch_root(&address, pin, Duration::from_secs(5))).await.unwrap();
    assert_eq!(RootPin::of_der(&der).unwrap(), pin);
    let wrong = other.bundle().pins().unwrap()[0];
    let error = soon(fetch_root(&address, wrong, Duration::from_secs(5))).await.unwrap_err();
    assert!(error.to_string().contains("no root with the pin"), "{error}");
}
