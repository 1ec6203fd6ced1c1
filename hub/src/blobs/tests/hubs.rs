//! Blobs of three hubs over loopback QUIC and Raft, with the real state.

use std::net::SocketAddr;

use futures::future::BoxFuture;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncRead;
use windlass_hub_core::{
    Command,
    command::{TargetChange, Write},
    state::ObjectKey,
};
use windlass_protocol::{
    ids::NamespacedName,
    message::{AssignmentPolicy, BundleRef},
    resource::Kind,
};

use super::*;
use crate::{
    machine::StateMachine,
    peers::{CallKind, PeerService, Peers, tests::fixture::*},
    raft::{Peer, RaftConfig, RaftNode},
    replica::Replica,
    store::{Store, StoreOptions},
};

struct Hub {
    peers: Peers,
    replica: Replica,
    bundles: Bundles,
}

impl PeerService for Hub {
    fn call(&self, from: NodeId, kind: CallKind, request: Bytes) -> BoxFuture<'_, Result<Bytes, String>> {
        Box::pin(async move {
            match kind {
                CallKind::Raft => self.replica.raft().serve(from, &request).await.map_err(|error| error.to_string()),
                _ => self.bundles.serve_peer(from, request).await,
            }
        })
    }

    fn snapshot<'a>(
        &'a self,
        from: NodeId,
        header: Bytes,
        content: &'a mut (dyn AsyncRead + Send + Unpin),
    ) -> BoxFuture<'a, Result<Bytes, String>> {
        Box::pin(async move {
            let served = self.replica.raft().serve_snapshot(from, &header, content).await;
            served.map_err(|error| error.to_string())
        })
    }

    fn stranger(&self, _: SocketAddr, _: Bytes) -> BoxFuture<'_, Bytes> {
        Box::pin(async { Bytes::new() })
    }
}

struct Group {
    world: World,
    folders: BTreeMap<NodeId, TempDir>,
    listen: BTreeMap<NodeId, SocketAddr>,
    hubs: BTreeMap<NodeId, Arc<Hub>>,
}

impl Group {
    async fn start() -> Self {
        let folders = (1..=3).map(|node| (node, tempfile::tempdir().unwrap())).collect();
        let mut this = Self { world: World::new(), folders, listen: BTreeMap::new(), hubs: BTreeMap::new() };
        for node in 1..=3 {
            this.start_hub(node).await;
        }
        let members = this
            .listen
            .iter()
            .map(|(node, address)| (*node, Peer { name: format!("hub-{node}"), address: address.to_string() }));
        this.hubs[&1].replica.raft().bootstrap(members.collect()).await.unwrap();
        this
    }

    async fn start_hub(&mut self, node: NodeId) {
        let mut config = self.world.config(identity(node));
        if let Some(address) = self.listen.get(&node) {
            config.listen = *address;
        }
        let peers = self.world.start(config);
        self.listen.insert(node, peers.local_address().unwrap());
        let folder = self.folders[&node].path();
        let store = folder.join("store");
        let store = match Store::peek(&store).unwrap() {
            Some(_) => Store::open(&store, &StoreOptions::default()).unwrap(),
            None => Store::create(&store, identity(node), &StoreOptions::default()).unwrap(),
        };
        let config = RaftConfig { compact_bytes: 16 << 10, ..RaftConfig::new(folder.join("snapshots")) };
        let machine = Arc::new(StateMachine::default());
        let starting = RaftNode::start(config, store, Arc::clone(&machine) as _, peers.network());
        let raft = peers.runtime().spawn(starting).await.unwrap().unwrap();
        let replica = Replica::new(machine, raft).with_peers(peers.clone());
        let bundles = bundles(&folder.join("blobs"));
        bundles.join(Arc::new(Hubs { replica: replica.clone(), peers: peers.clone() }));
        replica.raft().gate_snapshots(Arc::new(bundles.clone()));
        let hub = Arc::new(Hub { peers: peers.clone(), replica, bundles });
        peers.serve(Arc::clone(&hub) as Arc<dyn PeerService>);
        self.hubs.insert(node, hub);
    }

    async fn stop_hub(&mut self, node: NodeId) {
        let hub = self.hubs.remove(&node).unwrap();
        soon(hub.replica.raft().shutdown()).await;
        soon(hub.peers.shutdown()).await;
    }

    /// The one that a quorum confirms.
    async fn leader(&self) -> Arc<Hub> {
        let search = async {
            loop {
                for hub in self.hubs.values() {
                    if hub.replica.raft().read_index().await.is_ok() {
                        return Arc::clone(hub);
                    }
                }
                tokio::task::yield_now().await;
            }
        };
        soon(search).await
    }

    async fn propose(&self, command: Command) {
        let leader = self.leader().await;
        soon(leader.replica.propose("user:test", "test", Vec::new(), command)).await.unwrap();
    }

    async fn found(&self) {
        let uids = ["a", "b", "c"].map(str::to_owned).to_vec();
        self.propose(Command::Bootstrap { cluster_id: "c".into(), trust_domain: "t".into(), uids }).await;
        self.create(
            Kind::Cluster,
            "",
            "east",
            "cluster",
            json!({
                "apiVersion": "windlass.io/v1alpha1", "kind": "Cluster", "metadata": {"name": "east"},
            }),
        )
        .await;
    }

    async fn create(&self, kind: Kind, namespace: &str, name: &str, uid: &str, body: Value) {
        let key = ObjectKey::new(kind, namespace, name);
        let write = Write::Create { key, uid: uid.to_owned(), body: body.to_string(), sealed: None };
        self.propose(Command::Write { writes: vec![write] }).await;
    }

    /// An Application with a bundle, the way the planner does it.
    async fn deploy(&self, name: &str) -> Digest {
        self.create(
            Kind::Application,
            "argocd",
            name,
            name,
            json!({
                "apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": name},
                "spec": {"destination": {"name": "east"}},
            }),
        )
        .await;
        let leader = self.leader().await;
        let manifest = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        let (digest, lease) = leader.bundles.put(&[manifest]).unwrap();
        soon(leader.bundles.secure([&lease])).await.unwrap();
        let change = TargetChange {
            application: NamespacedName::new("argocd", name),
            uid: name.to_owned(),
            cluster: Some("cluster".to_owned()),
            tracking_name: name.to_owned(),
            namespace: "shop".to_owned(),
            target: Some(BundleRef { digest, revision: "commit".to_owned() }),
            policy: AssignmentPolicy::default(),
            conditions: Vec::new(),
            source_type: "Directory".to_owned(),
            images: Vec::new(),
        };
        self.propose(Command::Targets {
            rollout: NamespacedName::new("argocd", format!("{name}-r")),
            rollout_uid: format!("{name}-r"),
            owner: ObjectKey::new(Kind::Application, "argocd", name),
            cause: windlass_protocol::resource::RolloutCause::Commit,
            changes: vec![change],
        })
        .await;
        digest
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_brings_its_manifests_along() {
    let mut group = Group::start().await;
    group.found().await;
    let leader = group.leader().await;
    let away = (1..=3).find(|node| *node != leader.replica.raft().identity().node).unwrap();
    group.stop_hub(away).await;
    let mut digests = Vec::new();
    while leader.replica.raft().status().borrow().purged.is_none() {
        assert!(digests.len() < 1_000, "compaction by bytes never happened");
        digests.push(group.deploy(&format!("app-{}", digests.len())).await);
    }
    group.start_hub(away).await;
    let hub = Arc::clone(&group.hubs[&away]);
    let mut status = hub.replica.raft().status();
    let installed = status.wait_for(|status| status.snapshot.is_some());
    soon(installed).await.unwrap();
    // At this moment already, and with no repair: what the snapshot references is on this disk.
    let state = hub.replica.state();
    let referenced = Referenced::of(&state);
    assert!(!referenced.bundles.is_empty());
    for digest in &referenced.bundles {
        assert!(hub.bundles.manifests_here(digest).unwrap().is_ok(), "{digest}");
    }
    // The rest of the log references more; a repair brings it, and the others can ask.
    digests.push(group.deploy("last").await);
    let leader = group.leader().await;
    eventually("the hub is complete", async || {
        soon(hub.bundles.repair()).await.unwrap();
        let newest = leader.replica.state().meta().revision.0;
        soon(leader.bundles.completeness_of(away))
            .await
            .is_ok_and(|told| told == Completeness { revision: newest, missing: 0, lost: 0 })
    })
    .await;
    for digest in &digests {
        assert!(hub.bundles.manifests_here(digest).unwrap().is_ok(), "{digest}");
    }
    for node in 1..=3 {
        group.stop_hub(node).await;
    }
}
