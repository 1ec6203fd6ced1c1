//! A new hub joins: it shows a token, gets a node id and a certificate for its issuing key, and only then writes anything.

use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::time::Instant;
use windlass_hub_core::{Command, command::HubAnnouncement};
use windlass_protocol::ids::Digest;
use windlass_transport::{
    endpoint::{Closed, DialError},
    identity::{KeyMaterial, RootPin, SubjectKey},
};

use super::{
    announce::announcement,
    wire::{self, JoinAnswer, JoinRequest},
};
use crate::{
    config::Config,
    peers::join_call,
    replica::{CommandError, Replica, wall_clock},
    sealing::Sealer,
    store::{Identity, Store, StoreId, StoreOptions},
    trust::{SigningRoot, Trust, operator_key},
};

/// Between two attempts, while the group has no leader or cannot be reached.
const PAUSE: Duration = Duration::from_secs(2);
/// What a hub token starts with.
const TOKEN_PREFIX: &str = "wlh_";

/// Admits hubs on behalf of the group.
#[derive(Debug)]
pub struct Joins {
    /// Opens the root key.
    pub sealer: Arc<Sealer>,
}

impl Joins {
    /// Answers a stranger.
    pub async fn answer(&self, replica: &Replica, remote: SocketAddr, request: &[u8]) -> JoinAnswer {
        let answer = match wire::decode::<JoinRequest>(request) {
            Ok(request) => self.admit(replica, remote, request).await,
            Err(_) => refused("the request cannot be read: use the release that the group runs".to_owned()),
        };
        match &answer {
            JoinAnswer::V1 { node, .. } => tracing::info!(node, %remote, "hub admitted"),
            JoinAnswer::Refused { reason, .. } => tracing::warn!(%remote, reason, "hub not admitted"),
        }
        answer
    }

    async fn admit(&self, replica: &Replica, remote: SocketAddr, request: JoinRequest) -> JoinAnswer {
        let JoinRequest::V1 { token, signing_request, store, hub, operator_key } = request;
        if operator_key != self.sealer.key_id() {
            let ours = self.sealer.key_id();
            return refused(format!(
                "the group uses the operator key {ours}, this node was given {operator_key}: copy the group's key and name it with --operator-key-file"
            ));
        }
        let key = match SubjectKey::from_signing_request(&signing_request) {
            Ok(key) => key,
            Err(error) => return refused(format!("the signing request is not usable: {error}")),
        };
        let command = Command::AdmitHub { hash: hash(&token), key: Digest(key.digest()), store, hub };
        let reply = match replica.propose("hub:unknown", &remote.to_string(), Vec::new(), command).await {
            Ok(reply) => reply,
            Err(CommandError::Rejected(rejection)) => return refused(rejection.to_string()),
            Err(error) => return JoinAnswer::Refused { reason: error.to_string(), later: true },
        };
        match self.welcome(replica, &key, reply.cluster) {
            Ok(answer) => answer,
            Err(error) => JoinAnswer::Refused { reason: format!("{error:#}"), later: true },
        }
    }

    fn welcome(
        &self,
        replica: &Replica,
        key: &SubjectKey,
        admitted: Option<(String, String)>,
    ) -> anyhow::Result<JoinAnswer> {
        let (node, cluster) = admitted.context("the answer names no node")?;
        let node: u64 = node.parse().context("the answer names no node")?;
        let cluster: StoreId = cluster.parse().ok().context("the answer names no cluster")?;
        let state = replica.state();
        let root = SigningRoot::open(state.trust(), &self.sealer)?;
        let serial = u128::from_be_bytes(replica.random_bytes()?) >> 1;
        Ok(JoinAnswer::V1 {
            node,
            cluster: *cluster.as_bytes(),
            trust_domain: state.meta().trust_domain.clone(),
            issuer: root.sign_issuer(key, node, serial, wall_clock())?,
            roots: state.trust().roots.clone(),
        })
    }
}

/// A new hub token for the root with this pin, and its name in the log.
///
/// # Errors
/// When the operating system gives no random numbers.
pub fn new_token(replica: &Replica, pin: RootPin) -> Result<(String, Digest), CommandError> {
    let secret: String = replica.random_bytes::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect();
    let secret = format!("{TOKEN_PREFIX}{secret}");
    let hash = hash(&secret);
    // The pin goes with the secret: who has the token need not be told whom to believe.
    Ok((format!("{secret}.{}", pin.to_string().trim_start_matches("sha256:")), hash))
}

fn hash(secret: &str) -> Digest {
    Digest::of(secret.as_bytes())
}

/// Takes a token apart.
fn parse_token(token: &str) -> anyhow::Result<(String, RootPin)> {
    let parts = token.trim().split_once('.').filter(|(secret, _)| secret.starts_with(TOKEN_PREFIX));
    let (secret, pin) = parts.context("this is no hub token: get one with `windlass hub token`")?;
    let pin = format!("sha256:{pin}").parse().context("the hub token is cut: copy the whole line")?;
    Ok((secret.to_owned(), pin))
}

/// Joins the group at `address`, trying for as long as `patience`, and makes this node's data directory. Does nothing in a directory that has joined already.
///
/// # Errors
/// What is wrong and what to do; the directory is unchanged then.
pub async fn join(config: &Config, address: &str, token: &str, patience: Duration) -> anyhow::Result<()> {
    let folder = config.data.join("store");
    if let Some(identity) = Store::peek(&folder)? {
        tracing::info!(node = identity.node, cluster = %identity.cluster, "this node has joined already");
        return Ok(());
    }
    let (token, pin) = parse_token(token)?;
    let sealer = operator_key(config, None)?;
    let key = KeyMaterial::generate()?;
    // A token that is spent for a hub that cannot listen is of no use.
    drop(UdpSocket::bind(config.listen_peers).with_context(|| {
        format!("cannot listen for the other hubs on {}/udp: another process has the port", config.listen_peers)
    })?);
    let store = StoreId::random()?;
    let hub = announcement(config, None, config.agent_addresses());
    if hub.address.is_empty() {
        bail!("advertise_peers: say under which host:port the other hubs reach this one (--advertise-peers)");
    }
    let request = JoinRequest::V1 {
        token,
        signing_request: key.signing_request()?,
        store: *store.as_bytes(),
        hub: named(hub)?,
        operator_key: sealer.key_id(),
    };
    let request = wire::encode(&request).map_err(anyhow::Error::msg)?;
    let answer = ask(address, pin, request, patience).await?;
    let JoinAnswer::V1 { node, cluster, trust_domain, issuer, roots } = answer else {
        bail!("the hub at {address} refused without a reason");
    };
    Trust::adopt(config, &sealer, &key, &issuer, &roots)?;
    let identity = Identity { cluster: StoreId::from_bytes(cluster), node, store };
    create(&folder, identity).await?;
    tracing::info!(node, trust_domain, "joined; this node follows as a learner until it has everything");
    Ok(())
}

/// A name for people: that of the machine would need a system call; the random part tells nodes apart until an
/// administrator sets one.
fn named(hub: HubAnnouncement) -> anyhow::Result<HubAnnouncement> {
    if !hub.name.is_empty() {
        return Ok(hub);
    }
    let mut random = [0; 3];
    SystemRandom::new().fill(&mut random).ok().context("the operating system gives no random numbers")?;
    let name = random.iter().fold("hub-".to_owned(), |name, byte| name + &format!("{byte:02x}"));
    Ok(HubAnnouncement { name, ..hub })
}

async fn create(folder: &Path, identity: Identity) -> anyhow::Result<()> {
    let folder = folder.to_owned();
    let making = tokio::task::spawn_blocking(move || Store::create(&folder, identity, &StoreOptions::default()));
    making.await.context("the store's worker ended")??.close();
    Ok(())
}

async fn ask(address: &str, pin: RootPin, request: Vec<u8>, patience: Duration) -> anyhow::Result<JoinAnswer> {
    let deadline = Instant::now() + patience;
    loop {
        let failure = match join_call(address, pin, request.clone().into()).await {
            Ok(answer) => match wire::decode::<JoinAnswer>(&answer).map_err(anyhow::Error::msg)? {
                JoinAnswer::Refused { reason, later: true } => anyhow::anyhow!(reason),
                JoinAnswer::Refused { reason, later: false } => bail!("the hub at {address} refused: {reason}"),
                accepted @ JoinAnswer::V1 { .. } => return Ok(accepted),
            },
            Err(error) => error.into(),
        };
        if is_final(&failure) {
            return Err(failure.context(format!(
                "the hub at {address} cannot prove that it belongs to the token's group: take a token of this group, and check the clocks"
            )));
        }
        if Instant::now() + PAUSE >= deadline {
            return Err(failure.context(format!(
                "cannot join through {address} (the peer address of a hub, port 7444/udp unless it was changed)"
            )));
        }
        tracing::warn!(error = format!("{failure:#}"), "not joined yet");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether trying again is no use: the other end shows certificates that nobody here believes, or speaks something else.
fn is_final(failure: &anyhow::Error) -> bool {
    let dial = failure.chain().find_map(|cause| cause.downcast_ref::<DialError>());
    matches!(dial, Some(DialError::Handshake { source: Closed::Untrusted { .. }, .. }))
}

fn refused(reason: String) -> JoinAnswer {
    JoinAnswer::Refused { reason, later: false }
}
