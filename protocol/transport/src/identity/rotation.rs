//! Replacing a root: the new one is signed by the old one, so that whoever knows only the old one still gets through.
//!
//! Both roots carry the same name; key identifiers tell them apart.

use x509_parser::{certificate::X509Certificate, extensions::ParsedExtension, prelude::FromDer};

use super::{
    Identity, IdentityError, RootPin, TrustBundle, TrustDomain, Validity,
    authority::{authority_params, load_issuer},
};

impl TrustDomain {
    /// A certificate (PEM) for the key of `successor`, signed by this root. A hub that shows it after its issuer's certificate
    /// is believed by those who know only this root; its pin is the successor's.
    ///
    /// # Errors
    /// [`IdentityError`] when the successor is of another trust domain, or signing fails.
    pub fn cross_sign(&self, successor: &Self, serial: u128, validity: Validity) -> Result<String, IdentityError> {
        if self.name() != successor.name() {
            let reason = format!("it is of {}, this root is of {}", successor.name(), self.name());
            return Err(IdentityError::mismatch("new root", reason));
        }
        let subject = format!("Windlass root {}", successor.name());
        let params = authority_params(successor.name(), &subject, 1, serial, validity)?;
        let root = load_issuer(self.certificate_pem(), self.key())?;
        params
            .signed_by(&successor.key().public(), &root)
            .map(|certificate| certificate.pem())
            .map_err(|error| IdentityError::crypto("cross-signing the new root", error))
    }
}

impl Identity {
    /// The root of the bundle that this chain was issued below; `None` when that root is not in the bundle.
    #[must_use]
    pub fn root_among(&self, bundle: &TrustBundle) -> Option<RootPin> {
        let authorities: Vec<Vec<u8>> =
            self.chain().iter().filter_map(|der| key_ids(der)).filter_map(|(_, by)| by).collect();
        bundle.roots().iter().find_map(|root| {
            let (own, _) = key_ids(root)?;
            authorities.contains(&own?).then(|| RootPin::of_der(root).ok())?
        })
    }
}

/// As a certificate has it, if it does.
type KeyId = Option<Vec<u8>>;

/// Identifiers of a certificate's own key and of the key that signed it.
fn key_ids(der: &[u8]) -> Option<(KeyId, KeyId)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let (mut own, mut by) = (None, None);
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => own = Some(id.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(id) => by = id.key_identifier.as_ref().map(|id| id.0.to_vec()),
            _ => {}
        }
    }
    Some((own, by))
}
