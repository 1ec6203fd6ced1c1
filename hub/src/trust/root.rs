//! The root of the trust domain as the group keeps it: in the replicated state, its key sealed with the operator key. Opened
//! only to sign an issuing key: at a join and at a rotation.

use windlass_hub_core::state::TrustRecord;
use windlass_protocol::time::Millis;
use windlass_transport::identity::{KeyMaterial, SubjectKey, TrustDomain};

use super::{ISSUER_LIFE, ROOT_KEY_FILE, TrustError, validity};
use crate::sealing::{SealError, Sealer};

/// The root that signs.
#[derive(Debug)]
pub struct SigningRoot {
    root: TrustDomain,
}

impl SigningRoot {
    /// Opens what the state holds.
    ///
    /// # Errors
    /// [`TrustError`] when there is none, or it is sealed with another operator key.
    pub fn open(trust: &TrustRecord, sealer: &Sealer) -> Result<Self, TrustError> {
        let seal = |source| TrustError::Seal { path: ROOT_KEY_FILE.into(), source };
        let key = sealer.open(ROOT_KEY_FILE.as_bytes(), &trust.sealed_root_key).map_err(seal)?;
        let key = String::from_utf8(key).map_err(|_| seal(SealError::Damaged))?;
        // The first one signs.
        let first = super::rotation::blocks(&trust.roots).into_iter().next().unwrap_or_default();
        Ok(Self { root: TrustDomain::from_pem(first, KeyMaterial::from_pem(&key)?)? })
    }

    /// A chain (PEM, leaf first) for the issuing key of a node.
    ///
    /// # Errors
    /// [`TrustError::Identity`].
    pub fn sign_issuer(&self, key: &SubjectKey, node: u64, serial: u128, now: Millis) -> Result<String, TrustError> {
        Ok(self.root.sign_issuer(key, &node.to_string(), serial, validity(now, ISSUER_LIFE)?)?)
    }

    pub(super) const fn root(&self) -> &TrustDomain {
        &self.root
    }
}
