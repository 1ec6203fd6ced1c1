//! The agent's key and certificate, and what it needs to come back: kept in a file or in a Secret, always written before it
//! is used.
//!
//! The record holds a private key: it is never logged, and the file is readable by the agent's user only.

use std::{
    fmt,
    fs::{self, File},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use windlass_protocol::{
    ids::{Digest, Incarnation},
    message::Enrolled,
};
use windlass_transport::identity::{Identity, IdentityError, KeyMaterial, TrustBundle};

use crate::{
    clock,
    cluster::{ClusterError, SecretStore},
    config::Token,
};

/// Where the record is kept.
#[derive(Debug)]
pub(crate) enum IdentityPlace {
    /// `identity.json` in this folder.
    Folder(PathBuf),
    /// A Secret.
    Secret(SecretStore),
}

/// Everything that makes this agent the one that the hub knows. JSON, so that an older agent can read a newer record.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct IdentityRecord {
    /// Private key, PKCS#8 PEM.
    key: String,
    /// What the hub gave for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) enrolled: Option<Enrolled>,
    /// Digest of the token that was redeemed, so that a new token starts a new enrolment.
    #[serde(skip_serializing_if = "Option::is_none")]
    redeemed: Option<Digest>,
    /// Key of an enrolment under way while an older identity still holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_key: Option<String>,
    /// Raised at each start; a clone that starts later is newer.
    incarnation: u64,
}

impl fmt::Debug for IdentityRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityRecord").field("enrolled", &self.enrolled.is_some()).finish_non_exhaustive()
    }
}

/// Why the identity cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// The file cannot be read or written.
    #[error("cannot keep the identity in {path}")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The Secret cannot be read or written.
    #[error("cannot keep the identity in its Secret")]
    Secret(#[source] ClusterError),
    /// The record is not what it should be.
    #[error("the identity record cannot be read: {0}")]
    Unreadable(String),
    /// Key or certificate are unusable.
    #[error("the identity is unusable")]
    Unusable(#[from] IdentityError),
}

impl IdentityPlace {
    /// Reads the record, makes one with a new key where there is none, and raises the incarnation.
    pub(crate) async fn begin(&self) -> Result<IdentityRecord, RecordError> {
        let mut record = match self.read().await? {
            Some(bytes) => serde_json::from_slice::<IdentityRecord>(&bytes)
                .map_err(|error| RecordError::Unreadable(error.to_string()))?,
            None => IdentityRecord { key: KeyMaterial::generate()?.expose_pem(), ..IdentityRecord::default() },
        };
        // Wall time tells clones apart; the counter holds when the clock was set back.
        record.incarnation = record.incarnation.saturating_add(1).max(clock::wall().0);
        self.write(&record).await?;
        Ok(record)
    }

    /// Makes the record durable.
    pub(crate) async fn write(&self, record: &IdentityRecord) -> Result<(), RecordError> {
        let bytes = serde_json::to_vec(record).map_err(|error| RecordError::Unreadable(error.to_string()))?;
        match self {
            Self::Folder(folder) => {
                write_file(folder, &bytes).map_err(|source| RecordError::File { path: path(folder), source })
            }
            Self::Secret(secret) => secret.write(&bytes).await.map_err(RecordError::Secret),
        }
    }

    async fn read(&self) -> Result<Option<Vec<u8>>, RecordError> {
        match self {
            Self::Folder(folder) => match fs::read(path(folder)) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(RecordError::File { path: path(folder), source }),
            },
            Self::Secret(secret) => secret.read().await.map_err(RecordError::Secret),
        }
    }
}

impl IdentityRecord {
    /// Which process of this agent it is.
    pub(crate) const fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation)
    }

    /// Whether a token asks for a new enrolment: there is no identity yet, or it came from another token.
    pub(crate) fn must_enrol(&self, token: Option<&Token>) -> bool {
        match (&self.enrolled, token) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(_), Some(token)) => self.redeemed != Some(digest(token)),
        }
    }

    /// The key to enrol with. The same until the enrolment has ended: a token is redeemed for one key. Write the record before
    /// the key is used.
    pub(crate) fn enrolment_key(&mut self) -> Result<KeyMaterial, RecordError> {
        if self.enrolled.is_none() {
            return Ok(KeyMaterial::from_pem(&self.key)?);
        }
        if let Some(key) = &self.next_key {
            return Ok(KeyMaterial::from_pem(key)?);
        }
        let key = KeyMaterial::generate()?;
        self.next_key = Some(key.expose_pem());
        Ok(key)
    }

    /// Takes what the hub gave, if it fits the key.
    pub(crate) fn enrol(&mut self, enrolled: Enrolled, token: &Token) -> Result<(), RecordError> {
        let key = self.next_key.clone().unwrap_or_else(|| self.key.clone());
        Identity::new(&enrolled.chain, KeyMaterial::from_pem(&key)?)?;
        TrustBundle::from_pem(&enrolled.roots)?;
        self.key = key;
        self.next_key = None;
        self.redeemed = Some(digest(token));
        self.enrolled = Some(enrolled);
        Ok(())
    }

    /// The token was refused for good: the older identity stays in force.
    pub(crate) fn give_up(&mut self, token: &Token) {
        if self.enrolled.is_some() {
            self.next_key = None;
            self.redeemed = Some(digest(token));
        }
    }

    /// Certificate and key for a session.
    pub(crate) fn identity(&self) -> Result<Option<(Identity, TrustBundle)>, RecordError> {
        let Some(enrolled) = &self.enrolled else { return Ok(None) };
        let identity = Identity::new(&enrolled.chain, KeyMaterial::from_pem(&self.key)?)?;
        Ok(Some((identity, TrustBundle::from_pem(&enrolled.roots)?)))
    }

    /// Takes a renewed certificate, if it fits the key.
    pub(crate) fn renew(&mut self, chain: String) -> Result<(), RecordError> {
        Identity::new(&chain, KeyMaterial::from_pem(&self.key)?)?;
        if let Some(enrolled) = &mut self.enrolled {
            enrolled.chain = chain;
        }
        Ok(())
    }

    /// Takes what a hub gave for the key and identity at hand.
    pub(crate) fn renewed(&mut self, enrolled: Enrolled) -> Result<(), RecordError> {
        Identity::new(&enrolled.chain, KeyMaterial::from_pem(&self.key)?)?;
        TrustBundle::from_pem(&enrolled.roots)?;
        self.enrolled = Some(enrolled);
        Ok(())
    }

    /// Takes new roots and hubs, if they are usable.
    pub(crate) fn trust(&mut self, roots: String, hubs: Vec<String>) -> Result<(), RecordError> {
        TrustBundle::from_pem(&roots)?;
        if let Some(enrolled) = &mut self.enrolled {
            enrolled.roots = roots;
            if !hubs.is_empty() {
                enrolled.hubs = hubs;
            }
        }
        Ok(())
    }
}

fn digest(token: &Token) -> Digest {
    Digest::of(token.reveal().as_bytes())
}

fn path(folder: &Path) -> PathBuf {
    folder.join("identity.json")
}

/// Written beside, synced, renamed: there is always one whole record.
fn write_file(folder: &Path, bytes: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let temporary = folder.join("identity.new");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path(folder))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn the_key_survives_and_incarnations_rise() {
        let folder = tempfile::tempdir().unwrap();
        let place = IdentityPlace::Folder(folder.path().to_owned());
        let first = place.begin().await.unwrap();
        let second = place.begin().await.unwrap();
        assert_eq!(first.key, second.key);
        assert!(second.incarnation() > first.incarnation());
        let mode = fs::metadata(path(folder.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{second:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_new_token_starts_a_new_enrolment() {
        let token = Token::new("one");
        let mut record = IdentityRecord::default();
        assert!(record.must_enrol(Some(&token)));
        record.enrolled = Some(Enrolled {
            cluster: "c".into(),
            cluster_uid: "u".into(),
            chain: String::new(),
            roots: String::new(),
            hubs: Vec::new(),
        });
        record.redeemed = Some(digest(&token));
        assert!(!record.must_enrol(Some(&token)));
        assert!(!record.must_enrol(None));
        assert!(record.must_enrol(Some(&Token::new("two"))));
        record.give_up(&Token::new("two"));
        assert!(!record.must_enrol(Some(&Token::new("two"))));
    }
}
