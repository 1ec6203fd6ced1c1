//! Raft members in one process, on real stores, with a network in memory.
//!
//! Each member lives in a folder of its own, `1`, `2`, `3`, below one data directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use windlass_hub::{
    raft::{
        LinkError, NodeId, Peer, PeerFuture, PeerLink, PeerNetwork, RaftConfig, RaftNode, Role, SnapshotStream, Status,
    },
    store::{Identity, Store, StoreId, StoreOptions},
};

use super::Tally;

/// One member: its node, its state, its store.
#[derive(Debug, Clone)]
pub struct Member {
    /// The Raft node.
    pub node: RaftNode,
    /// What it has applied.
    pub machine: Arc<Tally>,
    /// Where it lives.
    pub store: Store,
}

/// Members that can reach each other.
#[derive(Debug, Clone)]
pub struct Group {
    data: PathBuf,
    wires: Arc<Wires>,
    members: Arc<Mutex<BTreeMap<NodeId, Member>>>,
}

impl Group {
    /// A group without members, of the folders in `data`.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self { data: data.to_path_buf(), wires: Arc::default(), members: Arc::default() }
    }

    /// The settings of a member: quick elections, and compaction so early that a test sees it.
    #[must_use]
    pub fn config(folder: &Path) -> RaftConfig {
        RaftConfig {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(250),
            election_max: Duration::from_millis(500),
            compact_entries: 1_000_000,
            compact_bytes: 512 << 10,
            ..RaftConfig::new(folder.join("snapshots"))
        }
    }

    /// Makes the store of a member.
    ///
    /// # Errors
    /// What the store says.
    pub fn create(&self, id: NodeId) -> Result<()> {
        let store = StoreId::from_bytes((u128::from(id) + 100).to_be_bytes());
        let identity = Identity { cluster: StoreId::from_bytes([7; 16]), node: id, store };
        Store::create(&self.folder(id).join("store"), identity, &StoreOptions::default())?.close();
        Ok(())
    }

    /// Starts a member on its store.
    ///
    /// # Errors
    /// Why the store or the node refuses.
    pub async fn start(&self, id: NodeId) -> Result<Member> {
        let folder = self.folder(id);
        let path = folder.join("store");
        let open = move || Store::open(&path, &StoreOptions::default());
        let store = tokio::task::spawn_blocking(open).await.context("open a store")??;
        let machine = Arc::new(Tally::default());
        let network = Arc::new(View { wires: Arc::clone(&self.wires), from: id });
        let node = RaftNode::start(Self::config(&folder), store.clone(), Arc::clone(&machine) as _, network).await?;
        let member = Member { node, machine, store };
        self.wires.state().nodes.insert(id, member.node.clone());
        self.members().insert(id, member.clone());
        Ok(member)
    }

    /// Stops a member in order.
    pub async fn stop(&self, id: NodeId) {
        self.wires.state().nodes.remove(&id);
        let member = self.members().remove(&id);
        if let Some(member) = member {
            member.node.shutdown().await;
        }
    }

    /// Founds the group of the members `ids`.
    ///
    /// # Errors
    /// When there is a group already.
    pub async fn bootstrap(&self, ids: &[NodeId]) -> Result<()> {
        let peer = |id: &NodeId| (*id, Peer { name: format!("hub-{id}"), address: format!("hub-{id}:7444") });
        let first = ids.first().and_then(|id| self.member(*id)).context("no member runs")?;
        Ok(first.node.bootstrap(ids.iter().map(peer).collect()).await?)
    }

    /// A running member.
    #[must_use]
    pub fn member(&self, id: NodeId) -> Option<Member> {
        self.members().get(&id).cloned()
    }

    /// The members that run.
    #[must_use]
    pub fn running(&self) -> Vec<Member> {
        self.members().values().cloned().collect()
    }

    /// The member that takes itself for the leader, if there is one.
    #[must_use]
    pub fn leader(&self) -> Option<Member> {
        self.running().into_iter().find(|member| member.node.status().borrow().role == Role::Leader)
    }

    /// Waits for a leader that a quorum confirms.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn elected(&self, deadline: Duration) -> Result<Member> {
        let end = tokio::time::Instant::now() + deadline;
        loop {
            if let Some(leader) = self.leader()
                && leader.node.read_index().await.is_ok()
            {
                return Ok(leader);
            }
            let seen =
                || self.running().iter().map(|member| member.node.status().borrow().clone()).collect::<Vec<Status>>();
            anyhow::ensure!(tokio::time::Instant::now() < end, "no leader in time: {:?}", seen());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Cuts the ways from and to the members `ids`, and opens all others.
    pub fn isolate(&self, ids: &[NodeId]) {
        self.wires.state().isolated = ids.iter().copied().collect();
    }

    /// How many snapshots were streamed.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.wires.state().streams
    }

    fn folder(&self, id: NodeId) -> PathBuf {
        self.data.join(id.to_string())
    }

    fn members(&self) -> MutexGuard<'_, BTreeMap<NodeId, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Wires(Mutex<Wiring>);

#[derive(Debug, Default)]
struct Wiring {
    nodes: BTreeMap<NodeId, RaftNode>,
    isolated: BTreeSet<NodeId>,
    streams: usize,
}

impl Wires {
    fn state(&self) -> MutexGuard<'_, Wiring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn route(&self, from: NodeId, to: NodeId) -> Result<RaftNode, LinkError> {
        let state = self.state();
        if state.isolated.contains(&from) || state.isolated.contains(&to) {
            return Err(LinkError::Unreachable("isolated".into()));
        }
        state.nodes.get(&to).cloned().ok_or_else(|| LinkError::Unreachable("stopped".into()))
    }
}

struct View {
    wires: Arc<Wires>,
    from: NodeId,
}

impl PeerNetwork for View {
    fn link(&self, node: NodeId, _: &Peer) -> Arc<dyn PeerLink> {
        Arc::new(Link { wires: Arc::clone(&self.wires), from: self.from, to: node })
    }
}

struct Link {
    wires: Arc<Wires>,
    from: NodeId,
    to: NodeId,
}

impl PeerLink for Link {
    fn call(&self, request: Bytes, limit: Duration) -> PeerFuture<'_> {
        Box::pin(async move {
            let node = self.wires.route(self.from, self.to)?;
            match tokio::time::timeout(limit, node.serve(self.from, &request)).await {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(error)) => Err(LinkError::Refused(error.to_string())),
                Err(_) => Err(LinkError::Failed("time is up".into())),
            }
        })
    }

    fn stream(&self, header: Bytes, mut content: SnapshotStream) -> PeerFuture<'_> {
        Box::pin(async move {
            let node = self.wires.route(self.from, self.to)?;
            let response = node.serve_snapshot(self.from, &header, &mut content).await;
            self.wires.state().streams += 1;
            response.map_err(|error| LinkError::Refused(error.to_string()))
        })
    }
}
