//! A running hub: builds the parts, starts their tasks, and drains them in order.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use windlass_render::Limits as RenderLimits;
use windlass_transport::{
    endpoint::{Listener, ListenerLimits, PeerAdmission, RestartKey, ServerTls},
    https::{HttpsLimits, HttpsListener},
    identity::RootPin,
};

use crate::{
    backup::{BackupDesk, BackupSource, Backups},
    blobs::{BundleLimits, Bundles, Hubs},
    config::Config,
    gateway::{Gateway, Registry},
    group::{
        GroupService,
        announce::{SOFTWARE, announce, announcement},
        compare::compare,
        join::Joins,
        members,
    },
    local::Local,
    machine::StateMachine,
    peers::{Expected, PeerTls, Peers, PeersConfig},
    raft::{RaftConfig, RaftNode},
    rendering::Renderer,
    replica::{Replica, wall_clock},
    sealing::Sealer,
    source::{LocalAccess, SourceConfig, Sources},
    store::{
        Identity, Store, StoreId, StoreOptions,
        blobs::{BlobOptions, BlobStore},
        disk,
    },
    tasks::{self, Planner},
    trust::{Listeners, Trust, keep, operator_key},
};

/// Sessions and requests get this long to end by themselves.
const DRAIN: Duration = Duration::from_secs(5);

/// A hub that serves.
#[derive(Debug)]
pub struct Node {
    /// State and proposals.
    pub replica: Replica,
    /// Where the API listens.
    pub api_address: SocketAddr,
    /// Where agents are served.
    pub agents_address: SocketAddr,
    /// What agents check before they trust.
    pub pin: RootPin,
    /// Roots (PEM).
    pub roots: String,
    /// Where agents are told to find this hub.
    pub hubs: Vec<String>,
    /// Where the other hubs are served.
    pub peers_address: SocketAddr,
    failure: watch::Receiver<Option<String>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Node {
    /// Starts a hub on the data that `init` made.
    ///
    /// # Errors
    /// What is missing or in the way, and what to do about it.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let sealer = operator_key(config, None)?;
        let trust = Arc::new(Trust::load(config, &sealer)?);
        let (replica, peers) = start_replica(config, &trust).await?;
        let node = replica.raft().identity().node;
        let names = names(config);
        let (listener, https) = listen(config, &trust, &replica, node, &names)?;
        let (api_address, agents_address) = (https.local_address(), listener.local_address()?);
        let hubs = if config.advertise.is_empty() {
            vec![reachable(agents_address).to_string()]
        } else {
            config.advertise.clone()
        };
        let parts = Parts::build(config, &replica, &trust, &sealer, node, hubs.clone())?;
        parts.bundles.join(Arc::new(Hubs { replica: replica.clone(), peers: peers.clone() }));
        replica.raft().gate_snapshots(Arc::new(parts.bundles.clone()));
        // Only now may others send anything: a snapshot must not pass its gate.
        peers.serve(Arc::new(parts.group_service()));
        let bundles = parts.bundles.clone();
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let listeners =
            Listeners { agents: listener.control(), api: https.control(), peers: Some(peers.clone()), names };
        tasks.spawn(keep(Arc::clone(&trust), sealer, replica.clone(), listeners, shutdown.clone()));
        parts.spawn(config, listener, https, &tasks, &shutdown)?;
        let peers_address = peers.local_address()?;
        let mut hub = announcement(config, Some(node), hubs.clone());
        if hub.address.is_empty() {
            hub.address = reachable(peers_address).to_string();
        }
        tasks.spawn(announce(replica.clone(), trust.issuer_digest(), hub, shutdown.clone()));
        tasks.spawn(members::follow(replica.clone(), bundles, shutdown.clone()));
        let (failed, failure) = watch::channel(None);
        tasks.spawn(watch_failure(replica.clone(), failed, shutdown.clone()));
        tasks.close();
        tracing::info!(node, api = %api_address, agents = %agents_address, "hub is serving");
        let (pin, roots) = (trust.pin(), trust.bundle().pem().to_owned());
        Ok(Self { replica, api_address, agents_address, pin, roots, hubs, peers_address, failure, tasks, shutdown })
    }

    /// Waits until this hub must not go on: its disk failed, or its state differs from that of the others.
    pub async fn failed(&mut self) -> String {
        match self.failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Lets another hub lead, ends sessions and requests, then Raft, the store and the peers.
    pub async fn stop(self) {
        // Before anything is closed: writes that wait for the new leader are still answered here.
        if self.replica.leads()
            && let Err(reason) = members::yield_leadership(&self.replica, None).await
        {
            tracing::debug!(reason, "leadership not handed over");
        }
        self.shutdown.cancel();
        if tokio::time::timeout(DRAIN, self.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        self.replica.raft().shutdown().await;
        if let Some(peers) = self.replica.peers() {
            peers.shutdown().await;
        }
    }
}

/// Everything that runs on top of the replica.
struct Parts {
    replica: Replica,
    gateway: Gateway,
    bundles: Bundles,
    planner: Planner,
    local: Arc<Local>,
    sealer: Arc<Sealer>,
    backups: Option<Backups>,
}

impl Parts {
    fn build(
        config: &Config,
        replica: &Replica,
        trust: &Arc<Trust>,
        sealer: &Arc<Sealer>,
        node: u64,
        hubs: Vec<String>,
    ) -> anyhow::Result<Self> {
        let limits = &config.limits;
        let options = BlobOptions {
            // The index of a large bundle is a blob too.
            blob_bytes_max: limits.manifest_bytes.max(windlass_protocol::session::BLOB_BYTES_MAX),
            batch_bytes_max: limits.bundle_bytes.saturating_mul(2),
        };
        let blobs = BlobStore::open(&config.data.join("blobs"), options)?;
        let bundle_limits = BundleLimits {
            resources: limits.bundle_resources,
            manifest_bytes: limits.manifest_bytes,
            bundle_bytes: limits.bundle_bytes,
        };
        let bundles = Bundles::new(blobs, Arc::clone(sealer), bundle_limits);
        let sources = Sources::start(source_config(config));
        let render_limits = RenderLimits {
            file: limits.source_file_bytes,
            files_per_tree: limits.tree_files,
            bytes_read: limits.render_bytes,
            resources: limits.bundle_resources,
            ..RenderLimits::default()
        };
        let timeout = Duration::from_secs(limits.render_seconds);
        let renderer = Renderer::new(bundles.clone(), render_limits, timeout, limits.renderers);
        let planner = Planner::new(replica.clone(), sources.clone(), renderer, Arc::clone(sealer), config.plan_period);
        let registry = Arc::new(Registry::default());
        let backup_source = BackupSource {
            replica: replica.clone(),
            bundles: bundles.clone(),
            sealer: Arc::clone(sealer),
            data: config.data.clone(),
        };
        let backups = config.backup.clone().map(|settings| Backups::new(backup_source.clone(), settings));
        let local = Arc::new(Local {
            backups: BackupDesk::new(backup_source),
            replica: replica.clone(),
            bundles: bundles.clone(),
            sources,
            sealer: Arc::clone(sealer),
            registry: Arc::clone(&registry),
            trust: Arc::clone(trust),
            hubs: hubs.clone(),
            webhook_secret: webhook_secret(config)?,
        });
        let gateway = Gateway::new(replica.clone(), Arc::clone(trust), bundles.clone(), registry, node, hubs);
        Ok(Self { replica: replica.clone(), gateway, bundles, planner, local, sealer: Arc::clone(sealer), backups })
    }

    fn group_service(&self) -> GroupService {
        GroupService {
            replica: self.replica.clone(),
            joins: Joins { sealer: Arc::clone(&self.sealer) },
            registry: Arc::clone(&self.gateway.registry),
            bundles: self.bundles.clone(),
        }
    }

    fn spawn(
        self,
        config: &Config,
        listener: Listener,
        https: HttpsListener,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<()> {
        tasks.spawn(self.gateway.run(listener, shutdown.clone()));
        tasks.spawn(self.planner.run(shutdown.clone()));
        tasks.spawn(tasks::tick(self.replica.clone(), shutdown.clone()));
        tasks.spawn(tasks::repair_blobs(self.bundles.clone(), shutdown.clone()));
        tasks.spawn(tasks::collect_garbage(self.replica.clone(), self.bundles, shutdown.clone()));
        if let Some(backups) = self.backups {
            tasks.spawn(backups.run(shutdown.clone()));
        }
        let api = crate::local::api(config, self.replica, self.sealer, self.local);
        tasks.spawn(crate::api::serve(https, api.router(), shutdown.clone()));
        Ok(())
    }
}

/// Opens the store, and takes part in the group over the peers' own threads.
async fn start_replica(config: &Config, trust: &Trust) -> anyhow::Result<(Replica, Peers)> {
    let folder = config.data.join("store");
    let options = StoreOptions { expect_node: config.node, ..StoreOptions::default() };
    let opening = tokio::task::spawn_blocking(move || {
        disk::check_free(&folder, disk::START_BYTES)?;
        Store::open(&folder, &options)
    });
    let store = opening.await.context("the store's worker ended")??;
    let machine = Arc::new(StateMachine::default());
    let peers = start_peers(config, trust, store.identity(), &machine)?;
    let raft_config = RaftConfig::new(config.data.join("snapshots"));
    let starting = RaftNode::start(raft_config, store, Arc::clone(&machine) as _, peers.network());
    let raft = peers.runtime().spawn(starting).await.context("Raft ended while it started")??;
    Ok((Replica::new(machine, raft).with_peers(peers.clone()), peers))
}

fn start_peers(
    config: &Config,
    trust: &Trust,
    identity: Identity,
    machine: &Arc<StateMachine>,
) -> anyhow::Result<Peers> {
    let serial = u128::from_be_bytes(*StoreId::random()?.as_bytes()) >> 1;
    let certificate = trust.hub_identity(identity.node, &[], wall_clock(), serial)?;
    let (known, addresses) = (Arc::clone(machine), Arc::clone(machine));
    let peers = PeersConfig {
        listen: config.listen_peers,
        identity,
        software: SOFTWARE.to_owned(),
        tls: PeerTls { certificate, bundle: trust.bundle() },
        expectations: Arc::new(move |node| match known.state().hub(node) {
            None => Expected::Unknown,
            Some(hub) if hub.removed => Expected::Removed,
            Some(hub) => Expected::Known(StoreId::from_bytes(hub.store)),
        }),
        directory: Arc::new(move |node| addresses.state().hub(node).map(|hub| hub.address.clone())),
    };
    let listen = config.listen_peers;
    Peers::start(peers).with_context(|| format!("cannot listen for the other hubs on {listen}/udp"))
}

/// Says once why this hub must not go on.
async fn watch_failure(replica: Replica, failed: watch::Sender<Option<String>>, shutdown: CancellationToken) {
    let mut status = replica.raft().status();
    let stopped = async {
        match status.wait_for(|status| status.failure.is_some()).await {
            Ok(status) => status.failure.clone(),
            Err(_) => None,
        }
    };
    let reason = tokio::select! {
        reason = compare(replica.clone(), shutdown) => reason,
        reason = stopped => reason,
    };
    if let Some(reason) = reason {
        tracing::error!(reason, "this hub stops");
        failed.send_replace(Some(reason));
    }
}

/// Names in this hub's certificate, for clients that check them.
fn names(config: &Config) -> Vec<String> {
    let mut names: Vec<String> = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.extend(config.advertise.iter().filter_map(|address| {
        let (host, _) = address.rsplit_once(':')?;
        Some(host.trim_start_matches('[').trim_end_matches(']').to_owned())
    }));
    let listening = config.listen_api.ip();
    if !listening.is_unspecified() {
        names.push(listening.to_string());
    }
    names.sort();
    names.dedup();
    names
}

fn listen(
    config: &Config,
    trust: &Trust,
    replica: &Replica,
    node: u64,
    names: &[String],
) -> anyhow::Result<(Listener, HttpsListener)> {
    let serial = u128::from_be_bytes(replica.random_bytes()?) >> 1;
    let identity = trust.hub_identity(node, names, wall_clock(), serial)?;
    let tls = ServerTls::new(identity, trust.bundle(), PeerAdmission::Enrolment)?;
    let mut limits = ListenerLimits { connections: config.limits.sessions, ..ListenerLimits::default() };
    limits.unauthenticated.connections = config.limits.strangers;
    limits.restart_key = Some(restart_key(&replica.raft().identity()));
    let listener = Listener::bind(config.listen_agents, &tls, limits)
        .with_context(|| format!("cannot listen for agents on {}/udp", config.listen_agents))?;
    let https = HttpsListener::bind(config.listen_api, &tls, HttpsLimits::default())
        .with_context(|| format!("cannot listen for the API on {}/tcp", config.listen_api))?;
    Ok((listener, https))
}

/// Lets agents notice a killed and restarted hub with their next packet. Cluster and store id are random.
fn restart_key(identity: &Identity) -> RestartKey {
    let secret = [identity.cluster.as_bytes().as_slice(), identity.store.as_bytes()].concat();
    RestartKey::new(blake3::derive_key("windlass 2026 agent listener stateless reset", &secret))
}

fn webhook_secret(config: &Config) -> anyhow::Result<Option<Vec<u8>>> {
    let Some(path) = &config.webhook_secret_file else { return Ok(None) };
    let secret = std::fs::read_to_string(path).with_context(|| format!("webhook secret {}", path.display()))?;
    Ok(Some(secret.trim().as_bytes().to_vec()))
}

fn source_config(config: &Config) -> SourceConfig {
    let mut sources = SourceConfig::new(config.data.join("git"));
    sources.poll_period = config.git_poll;
    sources.poll_jitter = config.git_jitter;
    sources.max_file_bytes = config.limits.source_file_bytes;
    sources.max_tree_entries = config.limits.tree_files;
    sources.local = if config.git_local { LocalAccess::Allowed } else { LocalAccess::Refused };
    sources
}

/// An address that something on this machine can dial.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() { SocketAddr::from(([127, 0, 0, 1], address.port())) } else { address }
}
