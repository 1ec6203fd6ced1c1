//! Who this hub is: the root of the trust domain, this node's issuing key and certificate, and the operator key that protects
//! them on disk. Private keys are sealed with the operator key before they are written.
//!
//! What everybody trusts is decided in the state; the files here are what this node last saw of it, so that it can find the
//! group again. [`Trust::follow`] makes them equal.

mod keep;
mod root;
mod rotation;

pub use self::{
    keep::{Listeners, keep},
    root::SigningRoot,
    rotation::{RotationError, begin, finish, is_rotating, unready},
};

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use windlass_hub_core::state::TrustRecord;
use windlass_protocol::{ids::Digest, time::Millis};
use windlass_transport::identity::{
    HubNames, Identity, IdentityError, IssuingAuthority, KeyMaterial, RootPin, SubjectKey, TrustBundle, TrustDomain,
    TrustDomainName, Validity,
};

use crate::{
    backup::TrustMaterial,
    config::Config,
    sealing::{OPERATOR_KEY_BYTES, SealError, Sealer},
    store::disk,
};

/// Certificates begin to hold this long before they are made, but never longer than half of their life: clocks of agents
/// differ, and a short certificate must not be due for renewal from the start.
const BACKDATE_MAX: Millis = Millis::from_secs(24 * 3600);
/// Life of the root: replaced by rotation long before.
const ROOT_LIFE: Millis = Millis::from_secs(10 * 365 * 24 * 3600);
/// File of the root's key in the trust folder of the node that made it; also what it is sealed for.
const ROOT_KEY_FILE: &str = "root.key.sealed";
/// Life of a node's issuing key.
const ISSUER_LIFE: Millis = Millis::from_secs(5 * 365 * 24 * 3600);
/// Life of a hub's own certificate; a new one is made at each start.
const HUB_LIFE: Millis = Millis::from_secs(365 * 24 * 3600);

/// Keys and certificates of this node; replaced while it runs.
#[derive(Debug)]
pub struct Trust {
    folder: PathBuf,
    agent_life: Millis,
    keys: RwLock<Arc<Keys>>,
}

/// What is used at one time.
#[derive(Debug)]
struct Keys {
    issuer: IssuingAuthority,
    bundle: TrustBundle,
    pin: RootPin,
    /// The first root signed by the one before it, for those who know only that one; empty before the first rotation.
    cross: String,
}

/// Keys or certificates cannot be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The operator key is not usable.
    #[error("operator key {}: {message}", path.display())]
    OperatorKey {
        /// Its file.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// A certificate or key is not usable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A sealed key cannot be opened.
    #[error("{}: {source}", path.display())]
    Seal {
        /// Its file.
        path: PathBuf,
        /// Why not.
        source: SealError,
    },
}

impl Trust {
    /// Makes root and issuing key for a new group; `random` supplies serial numbers.
    ///
    /// # Errors
    /// [`TrustError`] when something cannot be made or written.
    pub fn create(
        config: &Config,
        sealer: &Sealer,
        trust_domain: &str,
        node: u64,
        now: Millis,
        mut random: impl FnMut() -> u128,
    ) -> Result<Self, TrustError> {
        let name = TrustDomainName::new(trust_domain)?;
        let root = TrustDomain::create(&name, KeyMaterial::generate()?, random(), validity(now, ROOT_LIFE)?)?;
        let issuer_key = KeyMaterial::generate()?;
        let chain = root.sign_issuer(&issuer_key.public(), &node.to_string(), random(), validity(now, ISSUER_LIFE)?)?;
        let folder = folder(config);
        make_folder(&folder)?;
        write_sealed(sealer, &folder.join(ROOT_KEY_FILE), &root.key().expose_pem())?;
        Self::adopt(config, sealer, &issuer_key, &chain, root.certificate_pem())?;
        Self::load(config, sealer)
    }

    /// Writes what a group gave to this node: its issuing key with its certificates, and the roots (PEM).
    ///
    /// # Errors
    /// [`TrustError`] when something cannot be written.
    pub fn adopt(
        config: &Config,
        sealer: &Sealer,
        issuer_key: &KeyMaterial,
        chain: &str,
        roots: &str,
    ) -> Result<(), TrustError> {
        let folder = folder(config);
        make_folder(&folder)?;
        write_sealed(sealer, &folder.join("issuer.key.sealed"), &issuer_key.expose_pem())?;
        write_private(&folder.join("root.pem"), roots.as_bytes())?;
        write_private(&folder.join("issuer.pem"), chain.as_bytes())
    }

    /// Goes on with the root of a restored group: a new issuing key for this node, signed by it.
    ///
    /// # Errors
    /// [`TrustError`] when the root cannot be opened, or something cannot be written.
    pub(crate) fn restore(
        config: &Config,
        sealer: &Sealer,
        root: &TrustRecord,
        node: u64,
        now: Millis,
        serial: u128,
    ) -> Result<Self, TrustError> {
        let key = KeyMaterial::generate()?;
        let chain = SigningRoot::open(root, sealer)?.sign_issuer(&key.public(), node, serial, now)?;
        Self::adopt(config, sealer, &key, &chain, &root.roots)?;
        Self::load(config, sealer)
    }

    /// What goes into the state of a new group: the root, and its key as it lies sealed on the disk of the node that made it.
    ///
    /// # Errors
    /// [`TrustError::Io`] when this node did not make the root.
    pub fn founding_record(config: &Config) -> Result<TrustRecord, TrustError> {
        let folder = folder(config);
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).map_err(io("read", &path))
        };
        let roots = String::from_utf8_lossy(&read("root.pem")?).into_owned();
        Ok(TrustRecord { version: 1, roots, sealed_root_key: read(ROOT_KEY_FILE)?, cross: String::new() })
    }

    /// Fingerprint of the issuing key.
    #[must_use]
    pub fn issuer_digest(&self) -> Digest {
        Digest(self.keys().issuer.key().public().digest())
    }

    /// Reads what [`Self::create`] wrote.
    ///
    /// # Errors
    /// [`TrustError`] when a file is missing, or sealed with another operator key.
    pub fn load(config: &Config, sealer: &Sealer) -> Result<Self, TrustError> {
        let folder = folder(config);
        let keys = Keys::load(&folder, sealer)?;
        let agent_life = Millis(u64::try_from(config.agent_certificate.as_millis()).unwrap_or(u64::MAX));
        Ok(Self { folder, agent_life, keys: RwLock::new(Arc::new(keys)) })
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// This hub's own identity for all listeners.
    ///
    /// # Errors
    /// [`TrustError::Identity`] when a name cannot stand in a certificate.
    pub fn hub_identity(&self, node: u64, names: &[String], now: Millis, serial: u128) -> Result<Identity, TrustError> {
        let keys = self.keys();
        let key = KeyMaterial::generate()?;
        let names = HubNames::new(names)?;
        let validity = validity(now, HUB_LIFE)?;
        let chain = keys.issuer.issue_hub(&key.public(), &node.to_string(), &names, serial, validity)?;
        Ok(Identity::new(&keys.shown(&chain), key)?)
    }

    /// A certificate chain (PEM) for an agent's key.
    ///
    /// # Errors
    /// [`TrustError::Identity`] when the name cannot stand in a certificate.
    pub fn agent_certificate(
        &self,
        key: &SubjectKey,
        cluster: &str,
        uid: &str,
        serial: [u8; 16],
        now: Millis,
    ) -> Result<String, TrustError> {
        let validity = validity(now, self.agent_life)?;
        Ok(self.keys().issuer.issue_agent(key, cluster, uid, u128::from_be_bytes(serial), validity)?)
    }

    /// The roots to trust.
    #[must_use]
    pub fn bundle(&self) -> TrustBundle {
        self.keys().bundle.clone()
    }

    /// What an agent checks before it has a bundle.
    #[must_use]
    pub fn pin(&self) -> RootPin {
        self.keys().pin
    }
}

/// Roots and root key in clear, for a backup: from the state, or in a group of an earlier release from this node's files.
///
/// # Errors
/// [`TrustError`] when neither is here, or it was sealed with another operator key.
pub(crate) fn root_material(data: &Path, sealer: &Sealer, known: &TrustRecord) -> Result<TrustMaterial, TrustError> {
    let path = data.join("trust").join(ROOT_KEY_FILE);
    if known.version > 0 {
        let seal = |source| TrustError::Seal { path: PathBuf::from("the root key in the state"), source };
        let key = sealer.open(ROOT_KEY_FILE.as_bytes(), &known.sealed_root_key).map_err(seal)?;
        let root_key = String::from_utf8(key).map_err(|_| seal(SealError::Damaged))?;
        return Ok(TrustMaterial { roots: known.roots.clone(), root_key });
    }
    let root = path.with_file_name("root.pem");
    let roots = fs::read_to_string(&root).map_err(io("read", &root))?;
    Ok(TrustMaterial { roots, root_key: read_sealed(sealer, &path)? })
}

/// What [`root_material`] finds, as a state keeps it.
///
/// # Errors
/// [`TrustError::Seal`].
pub(crate) fn root_record(sealer: &Sealer, material: &TrustMaterial) -> Result<TrustRecord, TrustError> {
    let seal = |source| TrustError::Seal { path: PathBuf::from("the root key in the state"), source };
    let sealed_root_key = sealer.seal(ROOT_KEY_FILE.as_bytes(), material.root_key.as_bytes()).map_err(seal)?;
    Ok(TrustRecord { version: 1, roots: material.roots.clone(), sealed_root_key, cross: String::new() })
}

/// Reads the operator key; with `create`, makes one where the configured file is the default one and missing.
///
/// # Errors
/// [`TrustError::OperatorKey`] with what to do.
pub fn operator_key(config: &Config, create: Option<[u8; OPERATOR_KEY_BYTES]>) -> Result<Arc<Sealer>, TrustError> {
    let path = &config.operator_key_file;
    let bad = |message: String| TrustError::OperatorKey { path: path.clone(), message };
    if let (Some(key), false) = (create, path.exists()) {
        if let Some(parent) = path.parent() {
            make_folder(parent)?;
        }
        let text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        write_private(path, format!("{text}\n").as_bytes())?;
    }
    let text = fs::read_to_string(path).map_err(|error| {
        bad(format!("{error}: name its file with --operator-key-file; without it nothing sealed can be read"))
    })?;
    let mode = fs::metadata(path).map_err(io("inspect", path))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(bad("others can read the file: chmod 600".to_owned()));
    }
    let key = parse_key(text.trim()).ok_or_else(|| bad("expected 64 hexadecimal digits".to_owned()))?;
    Sealer::new(&key).map(Arc::new).map_err(|source| TrustError::Seal { path: path.clone(), source })
}

fn parse_key(text: &str) -> Option<[u8; OPERATOR_KEY_BYTES]> {
    let digest: Digest = text.parse().ok()?;
    Some(digest.0)
}

/// Writes a file that only the owner can read, in one step.
///
/// # Errors
/// [`TrustError::Io`].
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), TrustError> {
    let temporary = path.with_extension("tmp");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(io("write", &temporary))?;
    file.write_all(content).map_err(io("write", &temporary))?;
    file.sync_all().map_err(io("sync", &temporary))?;
    fs::rename(&temporary, path).map_err(io("rename", path))?;
    // Without it the old name may be back after a power cut, or none.
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => disk::sync_directory(parent).map_err(|error| io("sync", parent)(std::io::Error::other(error))),
        None => Ok(()),
    }
}

fn make_folder(folder: &Path) -> Result<(), TrustError> {
    disk::create_directory(folder).map_err(|error| io("create", folder)(std::io::Error::other(error)))
}

fn write_sealed(sealer: &Sealer, path: &Path, content: &str) -> Result<(), TrustError> {
    let sealed = sealer
        .seal(context(path).as_bytes(), content.as_bytes())
        .map_err(|source| TrustError::Seal { path: path.to_owned(), source })?;
    write_private(path, &sealed)
}

fn read_sealed(sealer: &Sealer, path: &Path) -> Result<String, TrustError> {
    let sealed = fs::read(path).map_err(io("read", path))?;
    let seal = |source| TrustError::Seal { path: path.to_owned(), source };
    let content = sealer.open(context(path).as_bytes(), &sealed).map_err(seal)?;
    String::from_utf8(content).map_err(|_| seal(SealError::Damaged))
}

/// A sealed key opens only under its own name.
fn context(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn folder(config: &Config) -> PathBuf {
    config.data.join("trust")
}

fn validity(now: Millis, life: Millis) -> Result<Validity, IdentityError> {
    let backdate = BACKDATE_MAX.min(Millis(life.0 / 2));
    Validity::new(now.since(backdate).as_secs(), now.plus(life).as_secs())
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> TrustError {
    let path = path.to_owned();
    move |source| TrustError::Io { action, path, source }
}
