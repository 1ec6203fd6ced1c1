//! Reading certificates: who a peer is, and our own certificate with its key.
//!
//! Reading is not verifying. Chains are verified during the TLS handshake; what is read here comes either from a
//! finished handshake or from our own storage.

use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use super::{IdentityError, KeyMaterial, SpiffeId, Subject, SubjectKey, TrustDomainName, trust::certificates_from_pem};

/// Certificates in one chain: leaf, issuer, root, and one spare for a cross-signed root.
const MAX_CHAIN: usize = 4;

/// What a verified certificate says about its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The trust domain.
    pub trust_domain: TrustDomainName,
    /// Cluster or hub.
    pub subject: Subject,
    /// Serial number; the hub's state says whether it is the current one.
    pub serial: u128,
    /// Start of validity, Unix seconds.
    pub not_before_unix: u64,
    /// End of validity, Unix seconds.
    pub not_after_unix: u64,
    /// SHA-256 over the public key, as [`SubjectKey::digest`].
    pub key_digest: [u8; 32],
}

impl PeerIdentity {
    /// Reads a leaf certificate (DER).
    pub fn from_der(der: &[u8]) -> Result<Self, IdentityError> {
        let malformed = |reason: &str| IdentityError::malformed("peer certificate", reason);
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|error| IdentityError::malformed("peer certificate", error))?;
        if !rest.is_empty() {
            return Err(malformed("bytes after its end"));
        }
        let id = spiffe_of(&certificate)?;
        let key = SubjectKey::from_spki(certificate.public_key())?;
        let validity = certificate.validity();
        let seconds = |time: i64| u64::try_from(time).map_err(|_| malformed("dates before 1970"));
        Ok(Self {
            trust_domain: id.trust_domain().clone(),
            subject: id.subject().clone(),
            serial: serial_of(&certificate)?,
            not_before_unix: seconds(validity.not_before.timestamp())?,
            not_after_unix: seconds(validity.not_after.timestamp())?,
            key_digest: key.digest(),
        })
    }

    /// When to renew: two thirds of the lifetime after its start, Unix seconds.
    #[must_use]
    pub fn renew_at_unix(&self) -> u64 {
        let lifetime = self.not_after_unix.saturating_sub(self.not_before_unix);
        self.not_before_unix.saturating_add((lifetime / 3).saturating_mul(2))
    }
}

/// Our own certificate chain with its key, as used for TLS.
#[derive(Debug, Clone)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    chain_pem: String,
    key: KeyMaterial,
    leaf: PeerIdentity,
}

impl Identity {
    /// Puts a chain (PEM, leaf first) and its key together. Fails when they do not belong together.
    pub fn new(chain_pem: &str, key: KeyMaterial) -> Result<Self, IdentityError> {
        let chain = certificates_from_pem(chain_pem)?;
        if chain.len() > MAX_CHAIN {
            return Err(IdentityError::malformed("certificate chain", "more than 4 certificates"));
        }
        let first =
            chain.first().ok_or_else(|| IdentityError::malformed("certificate chain", "no certificate in it"))?;
        let leaf = PeerIdentity::from_der(first)?;
        if leaf.key_digest != key.public().digest() {
            return Err(IdentityError::mismatch("certificate", "it was issued for another key"));
        }
        Ok(Self { chain, chain_pem: chain_pem.to_owned(), key, leaf })
    }

    /// What peers will read out of our certificate.
    #[must_use]
    pub fn describe(&self) -> &PeerIdentity {
        &self.leaf
    }

    /// The chain as PEM, leaf first.
    #[must_use]
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &KeyMaterial {
        &self.key
    }

    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

/// The SPIFFE id in a leaf certificate (DER).
pub(crate) fn certificate_spiffe(der: &[u8]) -> Result<SpiffeId, IdentityError> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| IdentityError::malformed("peer certificate", error))?;
    spiffe_of(&certificate)
}

/// All URI names of a certificate.
pub(crate) fn certificate_uris(certificate: &X509Certificate<'_>) -> Result<Vec<String>, IdentityError> {
    let names =
        certificate.subject_alternative_name().map_err(|error| IdentityError::malformed("certificate names", error))?;
    let names = names.map_or(&[][..], |extension| extension.value.general_names.as_slice());
    Ok(names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        })
        .collect())
}

/// A leaf has exactly one URI name (X509-SVID section 2): two would leave open which one counts.
fn spiffe_of(certificate: &X509Certificate<'_>) -> Result<SpiffeId, IdentityError> {
    if certificate.is_ca() {
        return Err(IdentityError::malformed("peer certificate", "it is a certificate authority"));
    }
    match certificate_uris(certificate)?.as_slice() {
        [uri] => uri.parse(),
        uris => Err(IdentityError::malformed("peer certificate", format!("{} URI names instead of one", uris.len()))),
    }
}

fn serial_of(certificate: &X509Certificate<'_>) -> Result<u128, IdentityError> {
    certificate
        .raw_serial()
        .iter()
        .skip_while(|byte| **byte == 0)
        .try_fold((0_u128, 0_u8), |(serial, count), byte| {
            (count < 16).then(|| ((serial << 8) | u128::from(*byte), count.saturating_add(1)))
        })
        .map(|(serial, _)| serial)
        .ok_or_else(|| IdentityError::malformed("peer certificate", "serial above 128 bits"))
}
