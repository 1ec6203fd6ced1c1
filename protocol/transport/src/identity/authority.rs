//! Issuing certificates: the root of a trust domain, and the issuing key of one hub.
//!
//! Serials and validity come from the caller, who decides them through the replicated state. Nothing here keeps
//! a list of what was issued.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd, string::Ia5String,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{
    IdentityError, KeyMaterial, RootPin, SpiffeId, SubjectKey, TrustBundle, TrustDomainName,
    trust::{certificates_from_pem, root_domain},
};

/// 9999-12-31T23:59:59Z, the last time that X.509 can express.
const LAST_UNIX: u64 = 253_402_300_799;

/// Names besides the SPIFFE id in one hub certificate.
const MAX_HUB_NAMES: usize = 64;

/// From when to when a certificate holds, in Unix seconds, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    not_before: u64,
    not_after: u64,
}

impl Validity {
    /// Fails unless `not_before < not_after` and both can be written into a certificate.
    pub fn new(not_before: u64, not_after: u64) -> Result<Self, IdentityError> {
        if not_before >= not_after || not_after > LAST_UNIX {
            return Err(IdentityError::Validity { not_before, not_after });
        }
        Ok(Self { not_before, not_after })
    }
}

/// DNS names and addresses under which browsers, kubectl and other HTTPS clients reach a hub. Agents and hubs
/// verify the SPIFFE id instead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HubNames(Vec<SanType>);

impl HubNames {
    /// Takes DNS names (wildcards are refused) and IP addresses in text form, at most 64.
    pub fn new<S: AsRef<str>>(names: &[S]) -> Result<Self, IdentityError> {
        let refused = |name: &str| IdentityError::Name {
            what: "hub host name",
            value: name.chars().take(80).collect(),
            rule: "an IP address, or a DNS name of letters, digits, - and ., at most 253 bytes, 64 names",
        };
        let mut out = Vec::with_capacity(names.len());
        for name in names {
            let name = name.as_ref();
            let san = match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) if is_dns_name(name) => ia5(name).map(SanType::DnsName)?,
                Err(_) => return Err(refused(name)),
            };
            if out.len() >= MAX_HUB_NAMES {
                return Err(refused(name));
            }
            out.push(san);
        }
        Ok(Self(out))
    }
}

/// The root authority of a trust domain. Needed only for init, join and rotation.
#[derive(Debug)]
pub struct TrustDomain {
    name: TrustDomainName,
    certificate_pem: String,
    pin: RootPin,
    key: KeyMaterial,
}

impl TrustDomain {
    /// Makes a self-signed root with the given key.
    pub fn create(
        name: &TrustDomainName,
        key: KeyMaterial,
        serial: u128,
        validity: Validity,
    ) -> Result<Self, IdentityError> {
        // Issuer and, for clients that trust the root before only, its cross-signed successor.
        let params = authority_params(name, &format!("Windlass root {name}"), 2, serial, validity)?;
        let certificate = params
            .self_signed(key.pair())
            .map_err(|error| IdentityError::crypto("signing the root certificate", error))?;
        Self::from_pem(&certificate.pem(), key)
    }

    /// Loads a root that was stored as [`certificate_pem`](Self::certificate_pem) and the key's PEM.
    pub fn from_pem(certificate_pem: &str, key: KeyMaterial) -> Result<Self, IdentityError> {
        let certificates = certificates_from_pem(certificate_pem)?;
        let [root] = certificates.as_slice() else {
            return Err(IdentityError::malformed("root certificate", "expected exactly one certificate"));
        };
        check_key(root, &key)?;
        Ok(Self {
            name: root_domain(root)?,
            certificate_pem: certificate_pem.to_owned(),
            pin: RootPin::of_der(root)?,
            key,
        })
    }

    /// The trust domain's name.
    #[must_use]
    pub fn name(&self) -> &TrustDomainName {
        &self.name
    }

    /// The pin that a join command prints.
    #[must_use]
    pub fn pin(&self) -> RootPin {
        self.pin
    }

    /// The root certificate as PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The root's private key. The caller encrypts it before storing it.
    #[must_use]
    pub fn key(&self) -> &KeyMaterial {
        &self.key
    }

    /// A bundle of this root alone.
    pub fn bundle(&self) -> Result<TrustBundle, IdentityError> {
        TrustBundle::from_pem(&self.certificate_pem)
    }

    /// Signs the issuing key of hub `node`. Returns the issuer's chain (issuer, root) as PEM.
    pub fn sign_issuer(
        &self,
        issuer: &SubjectKey,
        node: &str,
        serial: u128,
        validity: Validity,
    ) -> Result<String, IdentityError> {
        // Checks the node name, which goes into the subject here and into the SPIFFE id of leaves later.
        SpiffeId::hub(self.name.clone(), node)?;
        let common_name = format!("Windlass issuer {node}");
        let params = authority_params(&self.name, &common_name, 0, serial, validity)?;
        let root = load_issuer(&self.certificate_pem, &self.key)?;
        let certificate = params
            .signed_by(issuer, &root)
            .map_err(|error| IdentityError::crypto("signing the issuer certificate", error))?;
        Ok(format!("{}{}", certificate.pem(), self.certificate_pem))
    }
}

/// The issuing key of one hub with its chain.
#[derive(Debug)]
pub struct IssuingAuthority {
    trust_domain: TrustDomainName,
    chain_pem: String,
    issuer_pem: String,
    key: KeyMaterial,
}

impl IssuingAuthority {
    /// Loads the chain (issuer, root) that [`TrustDomain::sign_issuer`] returned, with the issuer's key.
    pub fn from_pem(chain_pem: &str, key: KeyMaterial) -> Result<Self, IdentityError> {
        let certificates = certificates_from_pem(chain_pem)?;
        let [issuer, root] = certificates.as_slice() else {
            return Err(IdentityError::malformed("issuer chain", "expected the issuer's and the root's certificate"));
        };
        check_key(issuer, &key)?;
        let trust_domain = root_domain(issuer)?;
        if root_domain(root)? != trust_domain {
            return Err(IdentityError::mismatch("issuer certificate", "its root is of another trust domain"));
        }
        Ok(Self { trust_domain, chain_pem: chain_pem.to_owned(), issuer_pem: first_pem(chain_pem)?, key })
    }

    /// The trust domain that this authority issues for.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomainName {
        &self.trust_domain
    }

    /// The issuer's own chain (issuer, root) as PEM.
    #[must_use]
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// The issuer's key, for storage by a caller that protects it.
    #[must_use]
    pub fn key(&self) -> &KeyMaterial {
        &self.key
    }

    /// Issues the certificate of hub `node`: server and client. Returns leaf, issuer and root as PEM: the root goes
    /// along because a peer before enrolment knows no more than its pin.
    pub fn issue_hub(
        &self,
        key: &SubjectKey,
        node: &str,
        names: &HubNames,
        serial: u128,
        validity: Validity,
    ) -> Result<String, IdentityError> {
        let id = SpiffeId::hub(self.trust_domain.clone(), node)?;
        let usages = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = self.issue(key, &id, &names.0, &usages, serial, validity)?;
        Ok(format!("{}{}", leaf.pem(), self.chain_pem))
    }

    /// Issues the certificate of a cluster's agent: client only. Returns leaf and issuer as PEM.
    ///
    /// Every name comes from the caller; take `key` from [`SubjectKey::from_signing_request`].
    pub fn issue_agent(
        &self,
        key: &SubjectKey,
        name: &str,
        uid: &str,
        serial: u128,
        validity: Validity,
    ) -> Result<String, IdentityError> {
        let id = SpiffeId::cluster(self.trust_domain.clone(), name, uid)?;
        let usages = [ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = self.issue(key, &id, &[], &usages, serial, validity)?;
        Ok(format!("{}{}", leaf.pem(), self.issuer_pem))
    }

    fn issue(
        &self,
        key: &SubjectKey,
        id: &SpiffeId,
        names: &[SanType],
        usages: &[ExtendedKeyUsagePurpose],
        serial: u128,
        validity: Validity,
    ) -> Result<Certificate, IdentityError> {
        let mut params = dated_params(serial, validity)?;
        params.distinguished_name = common_name("Windlass");
        params.subject_alt_names = vec![SanType::URI(ia5(&id.to_string())?)];
        params.subject_alt_names.extend_from_slice(names);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        params.is_ca = IsCa::ExplicitNoCa;
        params
            .signed_by(key, &load_issuer(&self.issuer_pem, &self.key)?)
            .map_err(|error| IdentityError::crypto("signing a certificate", error))
    }
}

fn dated_params(serial: u128, validity: Validity) -> Result<CertificateParams, IdentityError> {
    if serial == 0 {
        return Err(IdentityError::Name {
            what: "serial",
            value: serial.to_string(),
            rule: "a positive number (RFC 5280 section 4.1.2.2)",
        });
    }
    let epoch = date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    // `Validity` bounds both times to the year 9999, where this addition still holds.
    params.not_before = epoch + std::time::Duration::from_secs(validity.not_before);
    params.not_after = epoch + std::time::Duration::from_secs(validity.not_after);
    params.serial_number = Some(SerialNumber::from_slice(&serial.to_be_bytes()));
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

pub(super) fn authority_params(
    name: &TrustDomainName,
    subject: &str,
    path_length: u8,
    serial: u128,
    validity: Validity,
) -> Result<CertificateParams, IdentityError> {
    let mut params = dated_params(serial, validity)?;
    // X.520 bounds a common name to 64; nobody compares it, so a long one is cut.
    let subject: String = subject.chars().take(64).collect();
    params.distinguished_name = common_name(&subject);
    params.subject_alt_names = vec![SanType::URI(ia5(&name.uri())?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

/// Rebuilds what rcgen needs to sign below a stored authority: subject and key identifier. Both follow from how
/// this file makes authorities (one common name, identifier from the key), so reading the name is enough.
pub(super) fn load_issuer<'a>(
    certificate_pem: &str,
    key: &'a KeyMaterial,
) -> Result<Issuer<'static, &'a KeyPair>, IdentityError> {
    let malformed = |reason: &str| IdentityError::malformed("authority certificate", reason);
    let certificates = certificates_from_pem(certificate_pem)?;
    let der = certificates.first().ok_or_else(|| malformed("no certificate in it"))?;
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| IdentityError::malformed("authority certificate", error))?;
    let attributes: Vec<&str> =
        certificate.subject().iter_attributes().map(|attribute| attribute.as_str().unwrap_or_default()).collect();
    let [subject] = attributes.as_slice() else {
        return Err(malformed("its subject is not one common name"));
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(subject);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(Issuer::new(params, key.pair()))
}

fn check_key(der: &[u8], key: &KeyMaterial) -> Result<(), IdentityError> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| IdentityError::malformed("authority certificate", error))?;
    if SubjectKey::from_spki(certificate.public_key())? == key.public() {
        return Ok(());
    }
    Err(IdentityError::mismatch("authority certificate", "it was issued for another key"))
}

/// The first PEM block, with its line end.
fn first_pem(chain: &str) -> Result<String, IdentityError> {
    const END: &str = "-----END CERTIFICATE-----";
    chain
        .split_once(END)
        .map(|(first, _)| format!("{}{END}\n", first.trim_start()))
        .ok_or_else(|| IdentityError::malformed("certificate chain", "no certificate in it"))
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn ia5(text: &str) -> Result<Ia5String, IdentityError> {
    Ia5String::try_from(text).map_err(|error| IdentityError::malformed("certificate name", error))
}

fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}
