//! rustls configurations, and who they accept.
//!
//! Host names are never what is verified between hubs and agents: a hub is dialled by whatever address reaches it.
//! What counts is the chain to a trusted root and the SPIFFE id in the leaf. Session tickets and 0-RTT are off:
//! a resumed session would skip the check of a certificate that has expired since.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use crate::identity::{
    Identity, IdentityError, RootPin, Subject, TrustBundle, TrustDomainName, certificate_spiffe, root_domain,
};

/// What is spoken on a port, agreed on by ALPN: who dials the wrong port is told so during the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Agents with hubs (7443/udp).
    Agents,
    /// Hubs among themselves (7444/udp).
    Peers,
}

impl Protocol {
    /// Port where an address names none.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::Agents => 7443,
            Self::Peers => 7444,
        }
    }

    fn alpn(self) -> Vec<Vec<u8>> {
        let name: &[u8] = match self {
            Self::Agents => b"windlass/1",
            Self::Peers => b"windlass-peer/1",
        };
        vec![name.to_vec()]
    }
}

/// Makes ring the process-wide TLS provider, for libraries that ask for the default one. To be called first in
/// `main`; calling it again changes nothing. This crate itself does not depend on it.
pub fn install_crypto_provider() {
    // An error says that a provider is installed already, which is what was asked for.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Whether a listener admits peers without a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerAdmission {
    /// They may open one small, short stream, to enrol.
    Enrolment,
    /// They are refused during the handshake.
    CertificateRequired,
}

/// TLS of a listener: who we are and whom we believe.
#[derive(Debug, Clone)]
pub struct ServerTls {
    identity: Identity,
    bundle: TrustBundle,
    admission: PeerAdmission,
    protocol: Protocol,
}

impl ServerTls {
    /// For agents; see [`speaking`](Self::speaking). Fails unless `identity` is a hub of the bundle's trust domain.
    pub fn new(identity: Identity, bundle: TrustBundle, admission: PeerAdmission) -> Result<Self, IdentityError> {
        let own = identity.describe();
        if &own.trust_domain != bundle.trust_domain() {
            return Err(IdentityError::mismatch(
                "trust bundle",
                format!("it is of {}, we are of {}", bundle.trust_domain(), own.trust_domain),
            ));
        }
        if !matches!(own.subject, Subject::Hub { .. }) {
            return Err(IdentityError::mismatch("certificate", "not one of a hub"));
        }
        Ok(Self { identity, bundle, admission, protocol: Protocol::Agents })
    }

    /// Speaks another protocol.
    #[must_use]
    pub fn speaking(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Our identity.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Configuration for QUIC: TLS 1.3, client certificates checked against the bundle.
    pub(crate) fn quic(&self) -> Result<ServerConfig, IdentityError> {
        let provider = provider();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.bundle.store()?), provider.clone());
        let verifier = match self.admission {
            PeerAdmission::Enrolment => verifier.allow_unauthenticated(),
            PeerAdmission::CertificateRequired => verifier,
        };
        let inner = verifier.build().map_err(|error| IdentityError::crypto("client verification setup", error))?;
        let verifier = PeerVerifier { inner, trust_domain: self.bundle.trust_domain().clone() };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| IdentityError::crypto("TLS setup", error))?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(self.identity.chain().to_vec(), self.identity.key().private_der())
            .map_err(|error| IdentityError::crypto("TLS setup", error))?;
        config.alpn_protocols = self.protocol.alpn();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// Configuration for HTTPS: TLS 1.2 and 1.3, no client certificates.
    pub(crate) fn https(&self) -> Result<ServerConfig, IdentityError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| IdentityError::crypto("TLS setup", error))?
            .with_no_client_auth()
            .with_single_cert(self.identity.chain().to_vec(), self.identity.key().private_der())
            .map_err(|error| IdentityError::crypto("TLS setup", error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Whom a dialer believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Before enrolment: only a chain that ends in this root.
    Pin(RootPin),
    /// Afterwards: the roots handed out by the hub.
    Bundle(TrustBundle),
}

/// Which hub has to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedHub {
    /// Any hub of the trust domain (agents).
    Any,
    /// This node alone (hubs dialling each other).
    Node(String),
}

/// TLS of a dialer.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// Whom to believe.
    pub trust: Trust,
    /// Our certificate; none before enrolment.
    pub identity: Option<Identity>,
    /// Who has to answer.
    pub expected: ExpectedHub,
    /// What has to be spoken.
    pub protocol: Protocol,
}

impl ClientTls {
    /// For enrolment: no certificate yet, any hub below the pinned root.
    #[must_use]
    pub fn pinned(pin: RootPin) -> Self {
        Self { trust: Trust::Pin(pin), identity: None, expected: ExpectedHub::Any, protocol: Protocol::Agents }
    }

    /// For a session: our certificate, any hub of the bundle's trust domain.
    #[must_use]
    pub fn enrolled(bundle: TrustBundle, identity: Identity) -> Self {
        let expected = ExpectedHub::Any;
        Self { trust: Trust::Bundle(bundle), identity: Some(identity), expected, protocol: Protocol::Agents }
    }

    /// Speaks another protocol.
    #[must_use]
    pub fn speaking(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Accepts this node alone.
    #[must_use]
    pub fn expecting(mut self, node: &str) -> Self {
        self.expected = ExpectedHub::Node(node.to_owned());
        self
    }

    pub(crate) fn quic(&self) -> Result<ClientConfig, IdentityError> {
        let provider = provider();
        let verifier = HubVerifier {
            anchors: match &self.trust {
                Trust::Pin(pin) => Anchors::Pin(*pin),
                Trust::Bundle(bundle) => Anchors::Bundle(bundle.store()?, bundle.trust_domain().clone()),
            },
            expected: self.expected.clone(),
            algorithms: provider.signature_verification_algorithms,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| IdentityError::crypto("TLS setup", error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder
                .with_client_auth_cert(identity.chain().to_vec(), identity.key().private_der())
                .map_err(|error| IdentityError::crypto("TLS setup", error))?,
        };
        config.alpn_protocols = self.protocol.alpn();
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

impl ClientTls {
    /// Configuration for a look at the API's certificates over TCP.
    pub(crate) fn https(&self) -> Result<ClientConfig, IdentityError> {
        let mut config = self.quic()?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Checks client certificates: chain and dates by webpki, then that the leaf is of our trust domain.
#[derive(Debug)]
struct PeerVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    trust_domain: TrustDomainName,
}

impl ClientCertVerifier for PeerVerifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // None: a peer has one certificate, and hints would tell strangers about our roots.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        let id = certificate_spiffe(end_entity).map_err(refused)?;
        if id.trust_domain() != &self.trust_domain {
            return Err(refused(IdentityError::mismatch(
                "peer certificate",
                format!("{id} is not of trust domain {}", self.trust_domain),
            )));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[derive(Debug)]
enum Anchors {
    Pin(RootPin),
    Bundle(RootCertStore, TrustDomainName),
}

/// Checks hub certificates: chain and dates by webpki, then the SPIFFE id. The host name is not looked at.
#[derive(Debug)]
struct HubVerifier {
    anchors: Anchors,
    expected: ExpectedHub,
    algorithms: WebPkiSupportedAlgorithms,
}

impl HubVerifier {
    fn verify_chain(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<TrustDomainName, rustls::Error> {
        let leaf = ParsedCertificate::try_from(end_entity)?;
        let chains_to = |roots: &RootCertStore| {
            verify_server_cert_signed_by_trust_anchor(&leaf, roots, intermediates, now, self.algorithms.all)
        };
        match &self.anchors {
            Anchors::Bundle(roots, trust_domain) => {
                chains_to(roots)?;
                Ok(trust_domain.clone())
            }
            Anchors::Pin(pin) => {
                let root =
                    intermediates.iter().find(|der| RootPin::of_der(der).as_ref() == Ok(pin)).ok_or_else(|| {
                        refused(IdentityError::mismatch(
                            "hub certificate",
                            format!("no root with the pin {pin} in its chain"),
                        ))
                    })?;
                let mut roots = RootCertStore::empty();
                roots.add(root.clone().into_owned())?;
                chains_to(&roots)?;
                root_domain(root).map_err(refused)
            }
        }
    }
}

impl ServerCertVerifier for HubVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let trust_domain = self.verify_chain(end_entity, intermediates, now)?;
        let id = certificate_spiffe(end_entity).map_err(refused)?;
        let answers = match (id.subject(), &self.expected) {
            (Subject::Hub { .. }, ExpectedHub::Any) => true,
            (Subject::Hub { node }, ExpectedHub::Node(expected)) => node == expected,
            (Subject::Cluster { .. }, _) => false,
        };
        if !answers || id.trust_domain() != &trust_domain {
            let expected = match &self.expected {
                ExpectedHub::Any => format!("a hub of {trust_domain}"),
                ExpectedHub::Node(node) => format!("hub {node} of {trust_domain}"),
            };
            return Err(refused(IdentityError::mismatch(
                "hub certificate",
                format!("{id} answered instead of {expected}"),
            )));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn refused(error: IdentityError) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
