//! A new group from a backup: its first node, made in an empty directory.
//!
//! The new group has its own cluster id, store and issuing key, the trust domain and root of the old one, and the state of
//! the backup with [`Command::Restored`] applied: a raised epoch, a revision past anything that the old group can have handed
//! out, and this node as the only hub. Everything is made in a folder beside, and moved into place with the store last:
//! what `serve` would take is either whole or not there.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use serde_json::{Value, json};
use windlass_hub_core::{
    Command, Envelope, ObjectKey, State,
    command::{HubAnnouncement, Part, Write},
    snapshot, state,
};
use windlass_protocol::{
    backup::Header,
    ids::{Digest, Epoch, RequestId, StateRevision},
    json,
    resource::{CONTROL_NAMESPACE, Kind},
    time::Millis,
};
use windlass_transport::identity::RootPin;

use super::{
    BackupError, StateHash, TrustMaterial,
    records::{End, Record, RecordReader},
};
use crate::{
    config::Config,
    group::announce::announcement,
    init::{ACCOUNTS_SECRET, ADMIN_ACCOUNT, AdminToken, kubeconfig},
    machine::picture,
    raft::{Peer, found_from},
    sealing::Sealer,
    store::{
        Identity, Store, StoreId, StoreOptions,
        blobs::{BlobDigest, BlobOptions, BlobStore},
        disk,
    },
    trust::{Trust, write_private},
};

/// Everything is made in this folder of the data directory first.
pub(crate) const RESTORING: &str = ".restoring";
/// The parts, in the order in which they are moved: with the last one the directory belongs to a node.
const PARTS: [&str; 4] = ["blobs", "trust", "snapshots", "store"];
/// Id of the first node.
const NODE: u64 = 1;
/// The state version that knows [`Command::Restored`].
const RESTORE_VERSION: u32 = 2;
/// Blobs of one batch: one file and one sync.
const BATCH_BYTES: usize = 16 << 20;
const BATCH_BLOBS: usize = 10_000;

/// What a restore has made.
#[derive(Debug)]
pub struct Restored {
    /// What the backup says about itself.
    pub header: Header,
    /// Id of the new group.
    pub cluster_id: String,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its revision.
    pub revision: StateRevision,
    /// What agents check before they trust: that of the old group.
    pub pin: RootPin,
    /// Blobs that came with it.
    pub blobs: u64,
    /// Blobs that the backup lacks.
    pub missing: u64,
    /// A new administrator's token, where one was asked for, and the kubeconfig with it.
    pub admin: Option<(AdminToken, PathBuf)>,
}

/// Whether the administrator gets a new token; the old one stays valid otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminAccess {
    /// Tokens stay as they are in the backup.
    Keep,
    /// A new one replaces the administrator's.
    NewToken,
}

/// Makes the first node of a new group in `config.data` out of a backup. Blocks.
///
/// # Errors
/// [`BackupError`]; then the directory is as it was before.
pub fn restore(
    config: &Config,
    sealer: &Arc<Sealer>,
    input: impl Read,
    access: AdminAccess,
    now: Millis,
) -> Result<Restored, BackupError> {
    check_target(config)?;
    // The key is checked before anything is made.
    let reader = RecordReader::start(input, sealer)?;
    let made = !config.data.exists();
    let partial = config.data.join(RESTORING);
    let result = (|| {
        clear(&config.data)?;
        fs::create_dir_all(&partial).map_err(BackupError::file("create", &partial))?;
        let aside = Config { data: partial.clone(), ..config.clone() };
        let restored = fill(&aside, sealer, reader, access, now)?;
        publish(&config.data, &partial)?;
        Ok(restored)
    })();
    match result {
        Ok(mut restored) => {
            if let Some((token, path)) = &mut restored.admin {
                *path = config.data.join("admin.kubeconfig");
                write_kubeconfig(config, token, path)?;
            }
            Ok(restored)
        }
        Err(error) => {
            // The first error counts; what cannot be removed now is removed by the next attempt.
            let _ = clear(&config.data);
            if made {
                let _ = fs::remove_dir(&config.data);
            }
            Err(error)
        }
    }
}

/// Only the operator key, and the rest of a restore that was interrupted, may be there.
fn check_target(config: &Config) -> Result<(), BackupError> {
    let directory = &config.data;
    if let Some(identity) = Store::peek(&directory.join("store"))? {
        let found = format!("node {} of the group {}", identity.node, identity.cluster);
        return Err(BackupError::NotEmpty { directory: directory.clone(), found });
    }
    let interrupted = directory.join(RESTORING).exists();
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BackupError::file("list", directory)(error)),
    };
    for entry in entries {
        let path = entry.map_err(BackupError::file("list", directory))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ours = name == RESTORING || interrupted && PARTS.contains(&name.as_str());
        if path != config.operator_key_file && name != "lost+found" && !ours {
            return Err(BackupError::NotEmpty { directory: directory.clone(), found: name });
        }
    }
    Ok(())
}

/// Removes what an interrupted restore left; without its folder nothing is touched.
fn clear(directory: &Path) -> Result<(), BackupError> {
    let partial = directory.join(RESTORING);
    if !partial.exists() {
        return Ok(());
    }
    for path in PARTS.iter().map(|part| directory.join(part)).chain([partial]) {
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(BackupError::file("remove", path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Moves everything into place, the store last.
fn publish(directory: &Path, partial: &Path) -> Result<(), BackupError> {
    for part in PARTS {
        let from = partial.join(part);
        disk::sync_directory(&from)?;
        fs::rename(&from, directory.join(part)).map_err(BackupError::file("rename", &from))?;
        disk::sync_directory(directory)?;
    }
    fs::remove_dir(partial).map_err(BackupError::file("remove", partial))?;
    disk::sync_directory(directory)?;
    Ok(())
}

fn fill<R: Read>(
    config: &Config,
    sealer: &Arc<Sealer>,
    reader: RecordReader<R>,
    access: AdminAccess,
    now: Millis,
) -> Result<Restored, BackupError> {
    let Content { header, mut state, trust: material, end } = read(&config.data.join("blobs"), reader)?;
    // A group of an earlier release has its root only on the disk of the node that made it.
    let root = match state.trust() {
        known if known.version > 0 => known.clone(),
        _ => crate::trust::root_record(sealer, &material)?,
    };
    let serial = sealer.random()?.iter().take(16).fold(0_u128, |serial, byte| serial << 8 | u128::from(*byte)) >> 1;
    let trust = Trust::restore(config, sealer, &root, NODE, now, serial)?;
    let identity = Identity { cluster: StoreId::random()?, node: NODE, store: StoreId::random()? };
    let hub = announcement(config, Some(NODE), config.agent_addresses());
    let founder = Founder { identity, key: trust.issuer_digest(), hub: &hub, root, now };
    let admin = take_over(sealer, &mut state, founder, access)?;
    let (epoch, revision) = (state.meta().epoch, state.meta().revision);
    let peer = Peer { name: hub.name, address: hub.address };
    found_from(&config.data.join("snapshots"), NODE, peer, picture(Arc::new(state)))?;
    Store::create(&config.data.join("store"), identity, &StoreOptions::default())?.close();
    Ok(Restored {
        header,
        cluster_id: identity.cluster.to_string(),
        epoch,
        revision,
        pin: trust.pin(),
        blobs: end.blobs,
        missing: end.missing,
        admin: admin.map(|token| (token, PathBuf::new())),
    })
}

struct Content {
    header: Header,
    state: State,
    trust: TrustMaterial,
    end: End,
}

/// Reads the whole backup: the state into memory, the blobs into their folder.
fn read<R: Read>(blobs: &Path, mut reader: RecordReader<R>) -> Result<Content, BackupError> {
    let largest = super::records::RECORD_BYTES_MAX;
    let options = BlobOptions { blob_bytes_max: largest, batch_bytes_max: largest.saturating_mul(2) };
    let blobs = BlobStore::open(blobs, options)?;
    let (mut state, mut hash, mut trust) = (snapshot::Reader::default(), StateHash::default(), None);
    let (mut seen, mut batch, mut batch_bytes) = (End::default(), Vec::new(), 0);
    let end = loop {
        match reader.next()? {
            Record::Trust(material) => trust = Some(material),
            Record::State(record) => {
                hash.record(&record);
                seen.records += 1;
                state.record(&record)?;
            }
            Record::Blob(digest, content) => {
                seen.blobs += 1;
                seen.blob_bytes += content.len() as u64;
                batch_bytes += content.len();
                batch.push((BlobDigest(digest.0), Bytes::from(content)));
                if batch_bytes >= BATCH_BYTES || batch.len() >= BATCH_BLOBS {
                    drop(blobs.put_batch(std::mem::take(&mut batch))?);
                    batch_bytes = 0;
                }
            }
            Record::End(end) => break end,
        }
    };
    drop(blobs.put_batch(batch)?);
    let header = reader.header().clone();
    let whole = (End { missing: end.missing, ..seen }) == end && hash.finish() == header.state_hash;
    match trust {
        Some(trust) if whole => Ok(Content { header, state: state.finish()?, trust, end }),
        _ => Err(BackupError::damaged("it does not hold what it counts at its end")),
    }
}

/// The new group's first node.
struct Founder<'a> {
    identity: Identity,
    key: Digest,
    hub: &'a HubAnnouncement,
    root: state::TrustRecord,
    now: Millis,
}

/// Makes the state that of the new group.
fn take_over(
    sealer: &Sealer,
    state: &mut State,
    founder: Founder<'_>,
    access: AdminAccess,
) -> Result<Option<AdminToken>, BackupError> {
    let apply = |state: &mut State, command: Command| -> Result<(), BackupError> {
        let random = sealer.random()?;
        let mut request = [0; 16];
        request.iter_mut().zip(random).for_each(|(to, from)| *to = from);
        let envelope = Envelope {
            request: RequestId(request),
            subject: "hub".to_owned(),
            source: "restore".to_owned(),
            proposed_at: founder.now,
            preconditions: Vec::new(),
            command,
        };
        state.apply(&envelope).result?;
        Ok(())
    };
    let known = windlass_hub_core::STATE_VERSION;
    if state.meta().version < RESTORE_VERSION {
        apply(state, Command::RaiseVersion { version: RESTORE_VERSION })?;
    }
    let hub = state::HubRecord {
        store: *founder.identity.store.as_bytes(),
        name: founder.hub.name.clone(),
        address: founder.hub.address.clone(),
        agents: founder.hub.agents.clone(),
        key: founder.key,
        software: founder.hub.software.clone(),
        state_version: known,
        joined_at: founder.now,
        removed: false,
    };
    apply(state, Command::Restored { cluster_id: founder.identity.cluster.to_string(), node: NODE, hub })?;
    // The only hub of the new group understands it.
    apply(state, Command::RaiseVersion { version: known })?;
    if state.trust().version == 0 {
        apply(state, Command::SetTrust { trust: founder.root })?;
    }
    if access == AdminAccess::Keep {
        return Ok(None);
    }
    let token = AdminToken::new(sealer.random()?);
    let write = admit(state, sealer, &token)?;
    apply(state, Command::Write { writes: vec![write] })?;
    Ok(Some(token))
}

/// Replaces the administrator's token; other accounts stay.
fn admit(state: &State, sealer: &Sealer, token: &AdminToken) -> Result<Write, BackupError> {
    let key = ObjectKey::new(Kind::Secret, CONTROL_NAMESPACE, ACCOUNTS_SECRET);
    let Some(record) = state.object(&key) else {
        let mut secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": ACCOUNTS_SECRET, "namespace": CONTROL_NAMESPACE},
            "data": {ADMIN_ACCOUNT: token.kept()},
        });
        let sealed = Some(sealer.split_secret(&mut secret)?);
        let uid = Digest(sealer.random()?).to_string();
        return Ok(Write::Create { key, uid, body: secret.to_string(), sealed });
    };
    let mut secret: Value = record.value();
    if let Some(sealed) = &record.sealed {
        sealer.join_secret(&mut secret, sealed)?;
    }
    json::set(&mut secret, &["data", ADMIN_ACCOUNT], json!(token.kept()));
    let sealed = Some(sealer.split_secret(&mut secret)?);
    Ok(Write::Replace { key, part: Part::Main, body: secret.to_string(), sealed })
}

fn write_kubeconfig(config: &Config, token: &AdminToken, path: &Path) -> Result<(), BackupError> {
    let port = config.listen_api.port();
    let server = config.advertise.first().cloned().unwrap_or_else(|| format!("127.0.0.1:{port}"));
    let roots = config.data.join("trust/root.pem");
    let roots = fs::read_to_string(&roots).map_err(BackupError::file("read", &roots))?;
    let text = kubeconfig(&format!("https://{server}"), &roots, token.expose());
    Ok(write_private(path, text.as_bytes())?)
}
