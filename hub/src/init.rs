//! `windlass-hub init`: makes a new group of one node: trust domain, root, cluster id, first voter, admin account.
//!
//! A directory with data is never initialised again: a node with data never bootstraps.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;
use windlass_hub_core::{Command, ObjectKey, command::Write};
use windlass_protocol::{
    ids::Digest,
    resource::{CONTROL_NAMESPACE, Kind},
};
use windlass_transport::identity::RootPin;

use crate::{
    backup::RESTORING,
    config::Config,
    group::announce::announcement,
    machine::StateMachine,
    raft::{NoPeers, Peer, RaftConfig, RaftNode},
    replica::{Replica, wall_clock},
    sealing::Sealer,
    store::{Identity, Store, StoreId, StoreOptions, disk},
    trust::{Trust, operator_key, write_private},
};

/// The Secret that holds the hashes of account tokens, by account.
pub const ACCOUNTS_SECRET: &str = "windlass-accounts";
/// The account that `init` makes.
pub const ADMIN_ACCOUNT: &str = "admin";
/// Id of the first node.
const FIRST_NODE: u64 = 1;

/// What `init` has made.
#[derive(Debug)]
pub struct Initialized {
    /// What agents check before they trust.
    pub pin: RootPin,
    /// Name in all certificates.
    pub trust_domain: String,
    /// The administrator's bearer token; kept nowhere but in the kubeconfig.
    pub admin_token: AdminToken,
    /// A kubeconfig with the administrator's token.
    pub kubeconfig: PathBuf,
    /// The operator key, if `init` made one.
    pub operator_key: Option<PathBuf>,
}

/// A bearer token; never printed by accident.
#[derive(Clone)]
pub struct AdminToken(String);

impl AdminToken {
    /// From fresh random bytes.
    pub(crate) fn new(random: [u8; 32]) -> Self {
        Self(format!("wla_{}", URL_SAFE_NO_PAD.encode(random)))
    }

    /// How an account's Secret keeps it: base64 of the hash's digits.
    pub(crate) fn kept(&self) -> String {
        STANDARD.encode(Digest::of(self.0.as_bytes()).to_string())
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

/// Makes a new group in an empty directory.
///
/// # Errors
/// When the directory holds a group already, or something cannot be made; nothing is left half done that `serve` would take.
pub async fn init(config: &Config) -> anyhow::Result<Initialized> {
    let store_folder = config.data.join("store");
    if let Some(identity) = Store::peek(&store_folder)? {
        bail!(
            "{} holds node {} of the group {} already: use `windlass-hub serve`, or another --data directory",
            config.data.display(),
            identity.node,
            identity.cluster
        );
    }
    if config.data.join(RESTORING).exists() {
        bail!("{} holds an interrupted restore: run it again, or empty the directory", config.data.display());
    }
    disk::check_free(&config.data, disk::START_BYTES)?;
    disk::create_directory(&config.data).with_context(|| format!("cannot create {}", config.data.display()))?;
    let random = SystemRandom::new();
    let made_key = !config.operator_key_file.exists();
    let sealer = operator_key(config, Some(random_bytes(&random)?))?;
    let cluster = StoreId::random()?;
    let short: String = cluster.to_string().chars().take(12).collect();
    let trust_domain = config.trust_domain.clone().unwrap_or_else(|| format!("windlass-{short}"));
    let serial_random = random.clone();
    let serial = move || u128::from_be_bytes(random_bytes(&serial_random).unwrap_or([1; 16])) >> 1;
    let trust = Trust::create(config, &sealer, &trust_domain, FIRST_NODE, wall_clock(), serial)?;
    let identity = Identity { cluster, node: FIRST_NODE, store: StoreId::random()? };
    let store = tokio::task::spawn_blocking(move || Store::create(&store_folder, identity, &StoreOptions::default()))
        .await
        .context("the store's worker ended")??;
    let admin_token = AdminToken::new(random_bytes(&random)?);
    found(config, store, &trust, &trust_domain, &sealer, &admin_token).await?;
    let port = config.listen_api.port();
    let server = config.advertise.first().cloned().unwrap_or_else(|| format!("127.0.0.1:{port}"));
    let kubeconfig = config.data.join("admin.kubeconfig");
    let text = self::kubeconfig(&format!("https://{server}"), trust.bundle().pem(), admin_token.expose());
    write_private(&kubeconfig, text.as_bytes())?;
    let operator_key = made_key.then(|| config.operator_key_file.clone());
    Ok(Initialized { pin: trust.pin(), trust_domain, admin_token, kubeconfig, operator_key })
}

/// Writes the first entries of the log.
async fn found(
    config: &Config,
    store: Store,
    trust: &Trust,
    trust_domain: &str,
    sealer: &Sealer,
    admin_token: &AdminToken,
) -> anyhow::Result<()> {
    let identity = store.identity();
    let machine = Arc::new(StateMachine::default());
    let raft_config = RaftConfig::new(config.data.join("snapshots"));
    let raft = RaftNode::start(raft_config, store, Arc::clone(&machine) as _, Arc::new(NoPeers)).await?;
    let address = config.advertise_peers.clone().unwrap_or_default();
    raft.bootstrap(BTreeMap::from([(FIRST_NODE, Peer { name: "hub-1".to_owned(), address })])).await?;
    let replica = Replica::new(machine, raft.clone());
    let uids = (0..3).map(|_| replica.new_uid()).collect::<Result<_, _>>()?;
    let (cluster_id, trust_domain) = (identity.cluster.to_string(), trust_domain.to_owned());
    let bootstrap = Command::Bootstrap { cluster_id, trust_domain, uids };
    replica.propose("hub", "init", Vec::new(), bootstrap).await?;
    let record = Trust::founding_record(config)?;
    replica.propose("hub", "init", Vec::new(), Command::SetTrust { trust: record }).await?;
    let announce = Command::AnnounceHub {
        node: FIRST_NODE,
        store: *identity.store.as_bytes(),
        key: trust.issuer_digest(),
        hub: announcement(config, Some(FIRST_NODE), config.agent_addresses()),
    };
    replica.propose("hub", "init", Vec::new(), announce).await?;
    let mut secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": ACCOUNTS_SECRET, "namespace": CONTROL_NAMESPACE},
        "data": {ADMIN_ACCOUNT: admin_token.kept()},
    });
    let sealed = Some(sealer.split_secret(&mut secret)?);
    let key = ObjectKey::new(Kind::Secret, CONTROL_NAMESPACE, ACCOUNTS_SECRET);
    let write = Write::Create { key, uid: replica.new_uid()?, body: secret.to_string(), sealed };
    replica.propose("hub", "init", Vec::new(), Command::Write { writes: vec![write] }).await?;
    raft.shutdown().await;
    Ok(())
}

/// A kubeconfig for one server and one token.
#[must_use]
pub fn kubeconfig(server: &str, roots: &str, token: &str) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "windlass",
        "clusters": [{"name": "windlass", "cluster": {
            "server": server, "certificate-authority-data": STANDARD.encode(roots),
        }}],
        "users": [{"name": "windlass", "user": {"token": token}}],
        "contexts": [{"name": "windlass", "context": {
            "cluster": "windlass", "user": "windlass", "namespace": CONTROL_NAMESPACE,
        }}],
    });
    windlass_protocol::yaml::to_yaml(&config)
}

/// A secret for a join token, and its name in the log.
pub(crate) fn join_token(random: [u8; 32]) -> (String, Digest) {
    let token = format!("wlj_{}", URL_SAFE_NO_PAD.encode(random));
    let hash = Digest::of(token.as_bytes());
    (token, hash)
}

fn random_bytes<const N: usize>(random: &SystemRandom) -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    random.fill(&mut bytes).ok().context("the operating system gives no random numbers")?;
    Ok(bytes)
}
