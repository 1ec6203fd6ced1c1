//! What is trusted: a pin of one root before enrolment, a bundle of roots afterwards.

use std::{fmt, str::FromStr};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{
    IdentityError, TrustDomainName,
    key::{hex, sha256},
    peer::certificate_uris,
};

/// Roots in one bundle: the current one, its successor, and room for a botched rotation.
const MAX_ROOTS: usize = 8;

/// Longest bundle in bytes of PEM; a root takes about 800.
const MAX_BUNDLE: usize = 64 * 1024;

/// SHA-256 over the SubjectPublicKeyInfo of a root; printed as `sha256:<hex>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RootPin([u8; 32]);

impl RootPin {
    /// The pin of a root certificate (DER).
    pub(crate) fn of_der(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|error| IdentityError::malformed("root certificate", error))?;
        Ok(Self(sha256(certificate.public_key().raw)))
    }

    /// The digest itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for RootPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex(&self.0))
    }
}

impl fmt::Debug for RootPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootPin({self})")
    }
}

impl FromStr for RootPin {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let refused = || IdentityError::Name {
            what: "root pin",
            value: text.chars().take(80).collect(),
            rule: "sha256: and 64 hexadecimal digits",
        };
        let digits = text.strip_prefix("sha256:").ok_or_else(refused)?;
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refused());
        }
        let mut out = [0; 32];
        for (index, byte) in out.iter_mut().enumerate() {
            let start = index.saturating_mul(2);
            *byte = digits
                .get(start..start.saturating_add(2))
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .ok_or_else(refused)?;
        }
        Ok(Self(out))
    }
}

/// The roots of one trust domain, 1 to 8: more than one while a root is being replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundle {
    trust_domain: TrustDomainName,
    pem: String,
    roots: Vec<CertificateDer<'static>>,
}

impl TrustBundle {
    /// Reads concatenated root certificates in PEM. All must be certificate authorities of one trust domain.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        let malformed = |reason: &str| IdentityError::malformed("trust bundle", reason);
        if pem.len() > MAX_BUNDLE {
            return Err(malformed("longer than 64 KiB"));
        }
        let roots = certificates_from_pem(pem)?;
        if roots.len() > MAX_ROOTS {
            return Err(malformed("more than 8 roots"));
        }
        let mut trust_domain = None;
        for root in &roots {
            let domain = root_domain(root)?;
            if trust_domain.get_or_insert_with(|| domain.clone()) != &domain {
                return Err(malformed("roots of different trust domains"));
            }
        }
        let trust_domain = trust_domain.ok_or_else(|| malformed("no certificate in it"))?;
        Ok(Self { trust_domain, pem: pem.to_owned(), roots })
    }

    /// The trust domain that all roots share.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomainName {
        &self.trust_domain
    }

    /// The bundle as PEM, as it was read.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Pins of all roots, in order.
    pub fn pins(&self) -> Result<Vec<RootPin>, IdentityError> {
        self.roots.iter().map(|root| RootPin::of_der(root)).collect()
    }

    pub(super) fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    pub(crate) fn store(&self) -> Result<RootCertStore, IdentityError> {
        let mut store = RootCertStore::empty();
        for root in &self.roots {
            store.add(root.clone()).map_err(|error| IdentityError::malformed("root certificate", error))?;
        }
        Ok(store)
    }
}

/// The trust domain named by a root or issuer: one URI `spiffe://<trust-domain>` without a path.
pub(crate) fn root_domain(der: &[u8]) -> Result<TrustDomainName, IdentityError> {
    let malformed = |reason: &str| IdentityError::malformed("authority certificate", reason);
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| IdentityError::malformed("authority certificate", error))?;
    if !certificate.is_ca() {
        return Err(malformed("not a certificate authority"));
    }
    let uris = certificate_uris(&certificate)?;
    let [uri] = uris.as_slice() else {
        return Err(malformed("expected exactly one URI name"));
    };
    let name = uri.strip_prefix("spiffe://").ok_or_else(|| malformed("its URI name is not a SPIFFE id"))?;
    TrustDomainName::new(name)
}

pub(crate) fn certificates_from_pem(pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| IdentityError::malformed("certificate PEM", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_is_printed_and_parsed_back() {
        let pin = RootPin([0xa7; 32]);
        assert_eq!(pin.to_string().parse::<RootPin>().unwrap(), pin);
        assert_eq!(pin.to_string().len(), "sha256:".len() + 64);
    }

    #[test]
    fn other_forms_of_a_pin_are_refused() {
        let long = format!("sha256:{}", "a".repeat(65));
        let sign = format!("sha256:{}", "+a".repeat(32));
        let wide = format!("sha256:{}", "ä".repeat(32));
        for text in ["", "sha256:", "sha256:00", "md5:00", &long, &sign, &wide] {
            assert!(text.parse::<RootPin>().is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn a_bundle_needs_a_root() {
        assert!(TrustBundle::from_pem("").is_err());
        assert!(TrustBundle::from_pem("-----BEGIN CERTIFICATE-----\nAAAA\n").is_err());
    }
}
