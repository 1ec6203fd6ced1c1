//! Tests over loopback sockets: identities, admission, limits, streams, HTTPS.
//!
//! Nothing sleeps to wait: ends of connections and frames are awaited, limits are made small.

mod identities;
mod links;
mod ports;
mod strangers;
mod web;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, SystemTime},
};

use crate::{
    endpoint::{ClientTls, Connection, DialError, Dialer, Listener, ListenerLimits, PeerAdmission, ServerTls, Tuning},
    identity::{
        HubNames, Identity, IssuingAuthority, KeyMaterial, SubjectKey, TrustBundle, TrustDomain, TrustDomainName,
        Validity,
    },
};

pub(super) const DAY: u64 = 24 * 60 * 60;

/// A trust domain with one hub that issues.
pub(super) struct World {
    pub(super) root: TrustDomain,
    pub(super) issuer: IssuingAuthority,
}

impl World {
    pub(super) fn new(name: &str) -> Self {
        let name = TrustDomainName::new(name).unwrap();
        let key = KeyMaterial::generate().unwrap();
        let root = TrustDomain::create(&name, key, 1, around_now(3650 * DAY)).unwrap();
        let key = KeyMaterial::generate().unwrap();
        let chain = root.sign_issuer(&key.public(), "n1", 2, around_now(365 * DAY)).unwrap();
        let issuer = IssuingAuthority::from_pem(&chain, key).unwrap();
        Self { root, issuer }
    }

    pub(super) fn bundle(&self) -> TrustBundle {
        self.root.bundle().unwrap()
    }

    pub(super) fn hub(&self, node: &str, serial: u128) -> Identity {
        self.hub_valid(node, serial, around_now(DAY))
    }

    pub(super) fn hub_valid(&self, node: &str, serial: u128, validity: Validity) -> Identity {
        let key = KeyMaterial::generate().unwrap();
        let names = HubNames::new(&["localhost", "127.0.0.1"]).unwrap();
        let chain = self.issuer.issue_hub(&key.public(), node, &names, serial, validity).unwrap();
        Identity::new(&chain, key).unwrap()
    }

    pub(super) fn agent(&self, validity: Validity) -> Identity {
        let key = KeyMaterial::generate().unwrap();
        let subject = SubjectKey::from_signing_request(&key.signing_request().unwrap()).unwrap();
        let chain = self.issuer.issue_agent(&subject, "eu-1", "uid-7", 77, validity).unwrap();
        Identity::new(&chain, key).unwrap()
    }

    pub(super) fn server(&self) -> ServerTls {
        ServerTls::new(self.hub("n1", 10), self.bundle(), PeerAdmission::Enrolment).unwrap()
    }

    pub(super) fn enrolled(&self) -> ClientTls {
        ClientTls::enrolled(self.bundle(), self.agent(around_now(DAY)))
    }

    pub(super) fn listen(&self, limits: ListenerLimits) -> Listener {
        Listener::bind(loopback(), &self.server(), limits).unwrap()
    }
}

/// From a day ago until `seconds` from now. TLS itself reads the clock, so tests must, too.
pub(super) fn around_now(seconds: u64) -> Validity {
    Validity::new(now() - DAY, now() + seconds).unwrap()
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

pub(super) fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

pub(super) fn dialer() -> Dialer {
    Dialer::bind_to(loopback(), Tuning::default()).unwrap()
}

pub(super) async fn dial(dialer: &Dialer, listener: &Listener, tls: &ClientTls) -> Result<Connection, DialError> {
    let address = listener.local_address().unwrap().to_string();
    dialer.dial(&address, tls).await
}

/// Both ends of a new connection.
pub(super) async fn connect(dialer: &Dialer, listener: &mut Listener, tls: &ClientTls) -> (Connection, Connection) {
    let client = dial(dialer, listener, tls).await.unwrap();
    let server = listener.accept().await.unwrap();
    (client, server)
}

/// A bound on tests that would otherwise hang when they fail.
pub(super) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("done within 30 s")
}
