//! Seals what must not be readable at rest: Secret data and rendered Secrets, before they are proposed or stored.
//!
//! ChaCha20-Poly1305 (RFC 8439) under a key derived from the operator key, a random nonce per value, the key's id in front, so
//! that a rotation can tell old from new. Names of sealed blobs are BLAKE3 keyed by another derived key, so that nobody can
//! guess a content from its name.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use serde_json::{Map, Value, json};
use windlass_protocol::{ids::Digest, json};

/// Bytes of an operator key.
pub const OPERATOR_KEY_BYTES: usize = 32;
const FORMAT: u8 = 1;
const KEY_ID_BYTES: usize = 8;

/// Seals and opens with the keys derived from one operator key.
pub struct Sealer {
    key: LessSafeKey,
    key_id: [u8; KEY_ID_BYTES],
    naming: [u8; 32],
    backups: [u8; 32],
    random: SystemRandom,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("key_id", &self.key_id()).finish_non_exhaustive()
    }
}

/// A value cannot be sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Sealed with another operator key.
    #[error(
        "sealed with operator key {found}, this hub has {ours}: start it with the key that the data was written with"
    )]
    WrongKey {
        /// Id in the value.
        found: String,
        /// Id of this hub's key.
        ours: String,
    },
    /// Changed, or cut off.
    #[error("the sealed value is damaged")]
    Damaged,
    /// Written by a newer build.
    #[error("the sealed value has format {0}, this build knows {FORMAT}: upgrade this node")]
    Format(u8),
    /// The operating system gives no random numbers, or the key is unusable.
    #[error("the value could not be sealed")]
    Crypto,
    /// A Secret's data is not base64, or not a map of texts.
    #[error("{0}")]
    Content(String),
}

impl Sealer {
    /// From the operator key.
    ///
    /// # Errors
    /// [`SealError::Crypto`] if the cipher refuses the key.
    pub fn new(operator_key: &[u8; OPERATOR_KEY_BYTES]) -> Result<Self, SealError> {
        let sealing = blake3::derive_key("windlass.io 2026 sealing of secrets at rest", operator_key);
        let naming = blake3::derive_key("windlass.io 2026 names of sealed blobs", operator_key);
        let backups = blake3::derive_key("windlass.io 2026 encryption of backups", operator_key);
        let id = blake3::derive_key("windlass.io 2026 id of an operator key", operator_key);
        let mut key_id = [0; KEY_ID_BYTES];
        key_id.iter_mut().zip(id).for_each(|(to, from)| *to = from);
        let key = UnboundKey::new(&CHACHA20_POLY1305, &sealing).map_err(|_| SealError::Crypto)?;
        Ok(Self { key: LessSafeKey::new(key), key_id, naming, backups, random: SystemRandom::new() })
    }

    /// Names the key without telling anything about it.
    #[must_use]
    pub fn key_id(&self) -> String {
        hex(&self.key_id)
    }

    /// The address of a content that must not be guessed.
    #[must_use]
    pub fn name(&self, content: &[u8]) -> Digest {
        Digest::keyed(&self.naming, content)
    }

    /// The key of one backup: no two files share one, so that each may number its chunks from zero.
    pub(crate) fn backup_key(&self, salt: &Digest) -> Result<LessSafeKey, SealError> {
        let key = Digest::keyed(&self.backups, &salt.0);
        UnboundKey::new(&CHACHA20_POLY1305, &key.0).map(LessSafeKey::new).map_err(|_| SealError::Crypto)
    }

    /// Fresh random bytes to name or key something with.
    pub(crate) fn random(&self) -> Result<[u8; 32], SealError> {
        let mut bytes = [0; 32];
        self.random.fill(&mut bytes).map_err(|_| SealError::Crypto)?;
        Ok(bytes)
    }

    /// Seals a content; `context` must be the same when it is opened.
    ///
    /// # Errors
    /// [`SealError::Crypto`] without random numbers.
    pub fn seal(&self, context: &[u8], content: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| SealError::Crypto)?;
        let mut body = content.to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut body)
            .map_err(|_| SealError::Crypto)?;
        let mut sealed = Vec::with_capacity(1 + KEY_ID_BYTES + NONCE_LEN + body.len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&self.key_id);
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut body);
        Ok(sealed)
    }

    /// Opens what [`Self::seal`] made.
    ///
    /// # Errors
    /// [`SealError`] when the key is another or the value was changed.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (format, rest) = sealed.split_first().ok_or(SealError::Damaged)?;
        if *format != FORMAT {
            return Err(SealError::Format(*format));
        }
        let (key_id, rest) = rest.split_first_chunk::<KEY_ID_BYTES>().ok_or(SealError::Damaged)?;
        if *key_id != self.key_id {
            return Err(SealError::WrongKey { found: hex(key_id), ours: self.key_id() });
        }
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Damaged)?;
        let mut body = body.to_vec();
        let opened = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(context), &mut body)
            .map_err(|_| SealError::Damaged)?;
        Ok(opened.to_vec())
    }

    /// Takes the data out of a Secret: what stays can be stored in clear, the rest is sealed for this name.
    /// `stringData` is folded into `data`, as the API server does.
    ///
    /// # Errors
    /// [`SealError::Content`] naming the key whose value is not base64 or not a text.
    pub fn split_secret(&self, secret: &mut Value) -> Result<Vec<u8>, SealError> {
        let mut data = match json::remove(secret, &["data"]) {
            Some(Value::Object(data)) => data,
            None | Some(Value::Null) => Map::new(),
            Some(_) => return Err(SealError::Content("data: must be a map of base64 texts".to_owned())),
        };
        for (key, value) in &data {
            let valid = value.as_str().is_some_and(|text| STANDARD.decode(text).is_ok());
            if !valid {
                return Err(SealError::Content(format!("data.{key}: must be base64")));
            }
        }
        match json::remove(secret, &["stringData"]) {
            Some(Value::Object(texts)) => {
                for (key, value) in texts {
                    let text = value
                        .as_str()
                        .ok_or_else(|| SealError::Content(format!("stringData.{key}: must be a text")))?;
                    data.insert(key, json!(STANDARD.encode(text)));
                }
            }
            None | Some(Value::Null) => {}
            Some(_) => return Err(SealError::Content("stringData: must be a map of texts".to_owned())),
        }
        let content = Value::Object(data).to_string();
        self.seal(&secret_context(secret), content.as_bytes())
    }

    /// Puts the sealed data back into a Secret.
    ///
    /// # Errors
    /// [`SealError`] when it cannot be opened.
    pub fn join_secret(&self, secret: &mut Value, sealed: &[u8]) -> Result<(), SealError> {
        let content = self.open(&secret_context(secret), sealed)?;
        let data: Value = serde_json::from_slice(&content).map_err(|_| SealError::Damaged)?;
        json::set(secret, &["data"], data);
        Ok(())
    }
}

/// Data sealed for one Secret cannot be moved to another.
fn secret_context(secret: &Value) -> Vec<u8> {
    let name = json::text(secret, &["metadata", "name"]);
    let namespace = json::text(secret, &["metadata", "namespace"]);
    format!("secret/{namespace}/{name}").into_bytes()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_values_open_only_where_they_belong() {
        let sealer = Sealer::new(&[7; 32]).unwrap();
        let sealed = sealer.seal(b"a", b"content").unwrap();
        assert!(!sealed.windows(7).any(|part| part == b"content"));
        assert_eq!(sealer.open(b"a", &sealed).unwrap(), b"content");
        assert_eq!(sealer.open(b"b", &sealed), Err(SealError::Damaged));
        let mut flipped = sealed.clone();
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(sealer.open(b"a", &flipped), Err(SealError::Damaged));
        let other = Sealer::new(&[8; 32]).unwrap();
        assert!(matches!(other.open(b"a", &sealed), Err(SealError::WrongKey { .. })));
        assert!(!format!("{sealer:?}").contains('7'.to_string().repeat(8).as_str()));
    }

    #[test]
    fn secrets_are_split_and_joined() {
        let sealer = Sealer::new(&[7; 32]).unwrap();
        let mut secret = json!({
            "metadata": {"name": "s", "namespace": "n"}, "data": {"a": "eA=="}, "stringData": {"b": "y"},
        });
        let sealed = sealer.split_secret(&mut secret).unwrap();
        assert_eq!(secret, json!({"metadata": {"name": "s", "namespace": "n"}}));
        sealer.join_secret(&mut secret, &sealed).unwrap();
        assert_eq!(secret["data"], json!({"a": "eA==", "b": "eQ=="}));
        let mut bad = json!({"metadata": {"name": "s"}, "data": {"a": "§"}});
        assert!(sealer.split_secret(&mut bad).unwrap_err().to_string().contains("data.a"));
    }
}
