//! Who is who: trust domain, keys, certificates, and reading them back.
//!
//! ```text
//! root (P-256, long-lived, key encrypted by the operator)        TrustDomain, RootPin, TrustBundle
//!  └─ issuer of one hub (path length 0)                           IssuingAuthority
//!      ├─ hub     spiffe://<trust-domain>/hub/<node>              server and client
//!      └─ cluster spiffe://<trust-domain>/cluster/<name>/<uid>    client only
//! ```
//!
//! Names are decided by the issuer; a signing request contributes its public key and nothing else. Times are
//! parameters in seconds since the Unix epoch; only key generation touches the system (its random source).
//! Nothing here stores anything, and no `Debug` or error ever shows a private key.

mod authority;
mod key;
mod peer;
mod rotation;
mod spiffe;
mod trust;

pub use authority::{HubNames, IssuingAuthority, TrustDomain, Validity};
pub use key::{KeyMaterial, SubjectKey};
pub use peer::{Identity, PeerIdentity};
pub use spiffe::{SpiffeId, Subject, TrustDomainName};
pub use trust::{RootPin, TrustBundle};

pub(crate) use peer::certificate_spiffe;
pub(crate) use trust::root_domain;

/// Why an identity could not be made, read, or trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// A trust domain, cluster name, uid, node or host name has a form that certificates cannot carry.
    #[error("{what} {value:?} is not valid: {rule}")]
    Name {
        /// What the value was meant to be.
        what: &'static str,
        /// The refused value.
        value: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// PEM or DER that is not what it should be.
    #[error("{what} cannot be read: {reason}")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A signing request whose signature does not fit its key, or with a key that is not ECDSA P-256.
    #[error("signing request is refused: {reason}")]
    Request {
        /// What is wrong with it.
        reason: String,
    },
    /// Parts that do not belong together, such as a key and the certificate of another key.
    #[error("{what} does not match: {reason}")]
    Mismatch {
        /// The part that does not fit.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// A validity that ends before it starts, or a time that certificates cannot express.
    #[error("validity from {not_before} to {not_after} (Unix seconds) is not possible")]
    Validity {
        /// Start, Unix seconds.
        not_before: u64,
        /// End, Unix seconds.
        not_after: u64,
    },
    /// The cryptographic library failed.
    #[error("{what} failed: {reason}")]
    Crypto {
        /// The operation.
        what: &'static str,
        /// What the library said.
        reason: String,
    },
}

impl IdentityError {
    pub(crate) fn malformed(what: &'static str, reason: impl ToString) -> Self {
        Self::Malformed { what, reason: reason.to_string() }
    }

    pub(crate) fn crypto(what: &'static str, reason: impl ToString) -> Self {
        Self::Crypto { what, reason: reason.to_string() }
    }

    pub(crate) fn mismatch(what: &'static str, reason: impl ToString) -> Self {
        Self::Mismatch { what, reason: reason.to_string() }
    }
}
