//! Replacing the root of the trust domain while agents and hubs are connected.
//!
//! 1. [`begin`]: a new root, signed by the old one, stands first in the bundle. Every hub signs its own issuing key with it and
//!    shows the cross-signed certificate, so that whoever knows only the old root still gets through. Agents are told the
//!    bundle over their sessions and renew.
//! 2. [`finish`]: the old root leaves the bundle. Who was offline all the time still believes the hubs by the cross-signed
//!    certificate, is refused with its old certificate, and renews as a stranger.
//!
//! The records made here are proposed by the API; every hub follows the state.

use std::{fs, sync::Arc};

use windlass_hub_core::{ObjectKey, State, state::TrustRecord};
use windlass_protocol::{json, resource::Kind, time::Millis};
use windlass_transport::identity::{IdentityError, IssuingAuthority, KeyMaterial, RootPin, TrustBundle, TrustDomain};

use super::{Keys, ROOT_KEY_FILE, ROOT_LIFE, SigningRoot, Trust, TrustError, io, read_sealed, validity, write_private};
use crate::sealing::Sealer;

/// Clusters that a refusal names.
const NAMED_MAX: usize = 5;

/// The root cannot be replaced now.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// Two roots are in the bundle.
    #[error("a rotation is under way: finish it first (`windlass hub rotate-root --finish`)")]
    UnderWay,
    /// One root is in the bundle.
    #[error("no rotation is under way: begin one with `windlass hub rotate-root`")]
    NotUnderWay,
    /// A group of an earlier release has no root key in its state.
    #[error("the state holds no root key: upgrade every hub first")]
    NoRoot,
    /// A key or certificate.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

impl From<IdentityError> for RotationError {
    fn from(error: IdentityError) -> Self {
        Self::Trust(error.into())
    }
}

/// Whether the bundle holds more than one root.
#[must_use]
pub fn is_rotating(trust: &TrustRecord) -> bool {
    blocks(&trust.roots).len() > 1
}

/// A record with a new root before the present one. `random` supplies serial numbers.
///
/// # Errors
/// [`RotationError`] while another rotation is under way, or with another operator key.
pub fn begin(
    trust: &TrustRecord,
    sealer: &Sealer,
    now: Millis,
    mut random: impl FnMut() -> u128,
) -> Result<TrustRecord, RotationError> {
    if trust.version == 0 {
        return Err(RotationError::NoRoot);
    }
    if is_rotating(trust) {
        return Err(RotationError::UnderWay);
    }
    let opened = SigningRoot::open(trust, sealer)?;
    let old = opened.root();
    let new = TrustDomain::create(old.name(), KeyMaterial::generate()?, random(), validity(now, ROOT_LIFE)?)?;
    let cross = old.cross_sign(&new, random(), validity(now, ROOT_LIFE)?)?;
    let sealed = sealer.seal(ROOT_KEY_FILE.as_bytes(), new.key().expose_pem().as_bytes());
    Ok(TrustRecord {
        version: trust.version + 1,
        roots: format!("{}{}", new.certificate_pem(), old.certificate_pem()),
        sealed_root_key: sealed.map_err(|source| TrustError::Seal { path: ROOT_KEY_FILE.into(), source })?,
        cross,
    })
}

/// A record without the old root.
///
/// # Errors
/// [`RotationError::NotUnderWay`].
pub fn finish(trust: &TrustRecord) -> Result<TrustRecord, RotationError> {
    let roots = blocks(&trust.roots);
    match roots.as_slice() {
        [first, _, ..] => Ok(TrustRecord { version: trust.version + 1, roots: (*first).to_owned(), ..trust.clone() }),
        _ => Err(RotationError::NotUnderWay),
    }
}

/// Names of connected clusters whose agents would be refused once only the first root is left: they have not got it, or their
/// certificate was issued below another one. By what agents say of themselves; at most a few are named, with the number of all.
///
/// # Errors
/// [`RotationError::Trust`] when the roots cannot be read.
pub fn unready(state: &State) -> Result<(Vec<String>, usize), RotationError> {
    let first = TrustBundle::from_pem(&state.trust().roots)?.pins()?.first().map(RootPin::to_string);
    let first = first.unwrap_or_default();
    let mut names = Vec::new();
    let mut count = 0;
    for (_, record) in state.clusters().filter(|(_, record)| record.session.is_some()) {
        let key = ObjectKey::new(Kind::Cluster, "", record.name.as_str());
        let value = state.object(&key).map(|object| object.value()).unwrap_or_default();
        let knows = json::at(&value, &["status", "facts", "trust", "roots"])
            .and_then(serde_json::Value::as_array)
            .is_some_and(|roots| roots.iter().any(|root| root.as_str() == Some(&first)));
        if !knows || json::text(&value, &["status", "facts", "trust", "issuedBelow"]) != first {
            count += 1;
            if names.len() < NAMED_MAX {
                names.push(record.name.clone());
            }
        }
    }
    Ok((names, count))
}

impl Trust {
    /// Makes this node's keys and files follow the state; gives whether anything changed. Certificates of listeners are the
    /// caller's business.
    ///
    /// # Errors
    /// [`TrustError`] with another operator key, or when a file cannot be written; what was in use stays then.
    pub fn follow(
        &self,
        trust: &TrustRecord,
        sealer: &Sealer,
        node: u64,
        now: Millis,
        serial: u128,
    ) -> Result<bool, TrustError> {
        let keys = self.keys();
        if trust.version == 0 || (keys.bundle.pem() == trust.roots && keys.cross == trust.cross) {
            return Ok(false);
        }
        let first = blocks(&trust.roots).into_iter().next().unwrap_or_default();
        let signed_by_first = keys.issuer.chain_pem().ends_with(first);
        if !signed_by_first {
            let chain =
                SigningRoot::open(trust, sealer)?.sign_issuer(&keys.issuer.key().public(), node, serial, now)?;
            write_private(&self.folder.join("issuer.pem"), chain.as_bytes())?;
        }
        write_private(&self.folder.join("cross.pem"), trust.cross.as_bytes())?;
        write_private(&self.folder.join("root.pem"), trust.roots.as_bytes())?;
        let keys = Keys::load(&self.folder, sealer)?;
        *self.keys.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(keys);
        Ok(true)
    }
}

impl Keys {
    /// Reads what is in the trust folder.
    pub(super) fn load(folder: &std::path::Path, sealer: &Sealer) -> Result<Self, TrustError> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(io("read", &path))
        };
        let bundle = TrustBundle::from_pem(&read("root.pem")?)?;
        let key = read_sealed(sealer, &folder.join("issuer.key.sealed"))?;
        let issuer = IssuingAuthority::from_pem(&read("issuer.pem")?, KeyMaterial::from_pem(&key)?)?;
        let pin = bundle.pins()?.first().copied().ok_or_else(|| TrustError::OperatorKey {
            path: folder.join("root.pem"),
            message: "the bundle holds no root".to_owned(),
        })?;
        // There is none before the first rotation.
        let cross = if folder.join("cross.pem").exists() { read("cross.pem")? } else { String::new() };
        Ok(Self { issuer, bundle, pin, cross })
    }

    /// The chain that this hub shows for a leaf: with the cross-signed root, and the old one for those who have only its pin.
    /// The new root's own certificate is left out then: its pin is that of the cross-signed one.
    pub(super) fn shown(&self, chain: &str) -> String {
        let parts = blocks(chain);
        let [leaf, issuer, root] = parts.as_slice() else { return chain.to_owned() };
        if self.cross.is_empty() {
            return chain.to_owned();
        }
        let roots = blocks(self.bundle.pem());
        let last = roots.get(1).unwrap_or(root);
        format!("{leaf}{issuer}{}{last}", self.cross)
    }
}

/// The certificates of a PEM text, each with its line end.
pub(super) fn blocks(pem: &str) -> Vec<&str> {
    const END: &str = "-----END CERTIFICATE-----";
    let mut found = Vec::new();
    let mut rest = pem.trim_start();
    while let Some(at) = rest.find(END) {
        let end = at + END.len();
        let end = if rest.get(end..).is_some_and(|after| after.starts_with('\n')) { end + 1 } else { end };
        let (block, after) = rest.split_at(end);
        found.push(block);
        rest = after.trim_start();
    }
    found
}

#[cfg(test)]
mod tests;
