//! Private keys and the public keys of others. All keys are ECDSA P-256.
//!
//! A private key leaves this type only through [`KeyMaterial::expose_pem`]; `Debug` shows the public key's digest.

use std::fmt;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::{
    certification_request::X509CertificationRequest,
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256},
    prelude::FromDer,
    x509::SubjectPublicKeyInfo,
};

use super::IdentityError;

/// A signing request of one P-256 key has about 200 bytes; anything near this limit carries something else.
const MAX_REQUEST: usize = 4096;

/// Bytes of an uncompressed P-256 point.
const POINT_LEN: usize = 65;

/// A private key with its public half.
pub struct KeyMaterial {
    pair: KeyPair,
}

impl KeyMaterial {
    /// Makes a new key from the system's random source.
    pub fn generate() -> Result<Self, IdentityError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map(|pair| Self { pair })
            .map_err(|error| IdentityError::crypto("key generation", error))
    }

    /// Reads a PKCS#8 PEM. The error never quotes the input.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256)
            .map(|pair| Self { pair })
            .map_err(|error| IdentityError::malformed("private key", error))
    }

    /// The private key as PKCS#8 PEM, for storage by a caller that protects it.
    #[must_use]
    pub fn expose_pem(&self) -> String {
        self.pair.serialize_pem()
    }

    /// A signing request (PKCS#10, DER). It names nobody: the issuer decides the names.
    pub fn signing_request(&self) -> Result<Vec<u8>, IdentityError> {
        CertificateParams::default()
            .serialize_request(&self.pair)
            .map(|request| request.der().to_vec())
            .map_err(|error| IdentityError::crypto("signing request", error))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> SubjectKey {
        SubjectKey { point: self.pair.public_key_raw().to_vec() }
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.pair
    }

    pub(crate) fn private_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pair.serialize_der()).into()
    }
}

impl Clone for KeyMaterial {
    fn clone(&self) -> Self {
        let der = PrivatePkcs8KeyDer::from(self.pair.serialized_der());
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)
            .expect("a key pair reads back its own serialisation");
        Self { pair }
    }
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyMaterial").field("public", &self.public()).finish_non_exhaustive()
    }
}

/// A P-256 public key whose owner has proved to hold the private half.
#[derive(Clone, PartialEq, Eq)]
pub struct SubjectKey {
    point: Vec<u8>,
}

impl SubjectKey {
    /// Takes the key out of a signing request (DER) after checking the request's own signature.
    ///
    /// Names, extensions and attributes of the request are ignored. Fails on any key but ECDSA P-256, on a wrong
    /// signature, on trailing bytes, and above 4 KiB.
    pub fn from_signing_request(der: &[u8]) -> Result<Self, IdentityError> {
        let refused = |reason: &str| IdentityError::Request { reason: reason.to_owned() };
        if der.len() > MAX_REQUEST {
            return Err(refused("longer than 4096 bytes"));
        }
        let (rest, request) = X509CertificationRequest::from_der(der)
            .map_err(|error| IdentityError::malformed("signing request", error))?;
        if !rest.is_empty() {
            return Err(refused("bytes after its end"));
        }
        let info = &request.certification_request_info;
        let key = Self::from_spki(&info.subject_pki)?;
        if request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256 {
            return Err(refused("not signed with ECDSA and SHA-256"));
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key.point)
            .verify(info.raw, &request.signature_value.data)
            .map_err(|_| refused("its signature does not fit its key"))?;
        Ok(key)
    }

    /// SHA-256 over the key's SubjectPublicKeyInfo: what a token is bound to when it is redeemed.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        sha256(&self.subject_public_key_info())
    }

    pub(crate) fn from_spki(spki: &SubjectPublicKeyInfo<'_>) -> Result<Self, IdentityError> {
        let curve = spki.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        let point = &spki.subject_public_key.data;
        let expected = spki.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
            && curve == Some(OID_EC_P256)
            && point.len() == POINT_LEN
            && point.first() == Some(&4);
        if !expected {
            return Err(IdentityError::Request { reason: "its key is not an uncompressed ECDSA P-256 key".to_owned() });
        }
        Ok(Self { point: point.to_vec() })
    }
}

impl fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubjectKey(sha256:{})", hex(&self.digest()))
    }
}

impl PublicKeyData for SubjectKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    out
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
