//! Nodes as their users see them: one alone, three over a memory network, and what is left of one after a crash.

mod slow_disk;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::log::LogStore;
use super::memory_network::MemoryNetwork;
use super::snapshot::SnapshotFolder;
use super::state_machine::StateMachine;
use super::types::{Config, StorageError};
use super::*;
use crate::store::{Identity, Store, StoreId, StoreOptions, SyncHook};

/// Keeps every command: the state is the history.
#[derive(Default)]
struct History(Mutex<Vec<Vec<u8>>>);

impl History {
    fn commands(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().clone()
    }
}

impl Machine for History {
    fn apply(&self, _: u64, _: u64, command: &[u8]) -> Vec<u8> {
        assert_ne!(command, b"poison");
        let mut commands = self.0.lock().unwrap();
        commands.push(command.to_vec());
        (commands.len() as u64).to_be_bytes().to_vec()
    }

    fn snapshot(&self) -> Box<dyn SnapshotSource> {
        Box::new(Picture(self.commands()))
    }

    fn restore(&self, input: &mut dyn Read) -> Result<(), RestoreError> {
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes)?;
        let mut rest = bytes.as_slice();
        let mut commands = Vec::new();
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let (command, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
            commands.push(command.to_vec());
            rest = tail;
        }
        *self.0.lock().unwrap() = commands;
        Ok(())
    }
}

struct Picture(Vec<Vec<u8>>);

impl SnapshotSource for Picture {
    fn write(self: Box<Self>, out: &mut dyn Write) -> std::io::Result<()> {
        for command in &self.0 {
            out.write_all(&u32::try_from(command.len()).unwrap().to_be_bytes())?;
            out.write_all(command)?;
        }
        Ok(())
    }
}

const CLUSTER: StoreId = StoreId::from_bytes([7; 16]);
const PATIENCE: Duration = Duration::from_secs(30);

fn identity(node: NodeId) -> Identity {
    Identity { cluster: CLUSTER, node, store: StoreId::from_bytes(u128::from(node).to_be_bytes()) }
}

fn config(directory: &Path) -> RaftConfig {
    RaftConfig { answer_timeout: PATIENCE, ..RaftConfig::new(directory.join("snapshots")) }
}

/// Small enough that a test sees several snapshots.
fn compacting(directory: &Path) -> RaftConfig {
    RaftConfig { compact_entries: 1_000_000, compact_bytes: 64 << 10, ..config(directory) }
}

fn open(directory: &Path, node: NodeId) -> Store {
    let store = directory.join("store");
    match Store::peek(&store).unwrap() {
        Some(_) => Store::open(&store, &StoreOptions::default()).unwrap(),
        None => Store::create(&store, identity(node), &StoreOptions::default()).unwrap(),
    }
}

async fn start(config: RaftConfig, network: Arc<dyn PeerNetwork>, node: NodeId) -> (RaftNode, Arc<History>) {
    let machine = Arc::new(History::default());
    let directory = config.snapshots.parent().unwrap().to_path_buf();
    let store = open(&directory, node);
    let started = RaftNode::start(config, store, Arc::clone(&machine) as Arc<dyn Machine>, network).await.unwrap();
    (started, machine)
}

async fn start_alone(config: RaftConfig) -> (RaftNode, Arc<History>) {
    start(config, Arc::new(NoPeers), 1).await
}

fn members(nodes: &[NodeId]) -> BTreeMap<NodeId, Peer> {
    let peer = |node: &NodeId| Peer { name: format!("hub-{node}"), address: format!("hub-{node}:7444") };
    nodes.iter().map(|node| (*node, peer(node))).collect()
}

async fn until(node: &RaftNode, what: &str, condition: impl FnMut(&Status) -> bool) -> Status {
    let mut status = node.status();
    let waited = tokio::time::timeout(PATIENCE, status.wait_for(condition)).await;
    waited.unwrap_or_else(|_| panic!("{what}: {:?}", node.status().borrow())).unwrap().clone()
}

async fn lead(node: &RaftNode) {
    until(node, "leads", |status| status.role == Role::Leader).await;
    node.read_index().await.unwrap();
}

async fn write(node: &RaftNode, commands: std::ops::Range<usize>) {
    for number in commands {
        node.propose(command(number)).await.unwrap();
    }
}

fn command(number: usize) -> Vec<u8> {
    format!("{number:01024}").into_bytes()
}

fn commands(range: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    range.map(command).collect()
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .collect();
    files.sort();
    files
}

fn flip_middle_byte(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

struct Builder;

impl StoreBuilder<Config, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError> {
        let directory = tempfile::tempdir().unwrap();
        let log = LogStore::load(open(directory.path(), 0)).unwrap();
        let folder = Arc::new(SnapshotFolder::open(&directory.path().join("snapshots")).unwrap());
        let state = StateMachine::restore(0, Arc::new(History::default()), folder).unwrap();
        Ok((directory, log, state))
    }
}

#[test]
fn passes_the_storage_suite_of_openraft() {
    Suite::<Config, LogStore, StateMachine, Builder, TempDir>::test_all(Builder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_writes_reads_and_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let (node, machine) = start_alone(config(directory.path())).await;
    let refused = node.propose(b"early".to_vec()).await.unwrap_err();
    assert_eq!(refused, ProposeError::NotLeader { leader: None, address: None });
    node.bootstrap(members(&[1])).await.unwrap();
    assert_eq!(node.bootstrap(members(&[1])).await.unwrap_err(), BootstrapError::HasData);
    lead(&node).await;
    assert_eq!(node.propose(b"a".to_vec()).await.unwrap(), 1_u64.to_be_bytes());
    // Together, so that some share an entry.
    let many = (0..200).map(|number| node.propose(command(number)));
    let answers = futures::future::join_all(many).await;
    let mut positions: Vec<Vec<u8>> = answers.into_iter().map(Result::unwrap).collect();
    positions.sort();
    assert_eq!(positions, (2..=201_u64).map(|at| at.to_be_bytes().to_vec()).collect::<Vec<_>>());
    let status = until(&node, "applied", |status| status.applied == status.last_log).await;
    assert!(status.last_log.unwrap() < 200, "commands that wait together share entries");
    assert_eq!((status.leader, status.voters.len(), status.learners.len()), (Some(1), 1, 0));
    let before = machine.commands();
    node.shutdown().await;
    assert!(matches!(node.propose(b"late".to_vec()).await, Err(ProposeError::Stopped { .. })));

    let (node, machine) = start_alone(config(directory.path())).await;
    lead(&node).await;
    assert_eq!(machine.commands(), before);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_in_a_copy_taken_while_the_node_runs() {
    let directory = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let (node, _machine) = start_alone(config(directory.path())).await;
    node.bootstrap(members(&[1])).await.unwrap();
    lead(&node).await;
    write(&node, 0..30).await;
    // What a killed process leaves: files as they are, nothing closed.
    copy_directory(directory.path(), copy.path());
    drop(node);
    let (survivor, machine) = start_alone(config(copy.path())).await;
    lead(&survivor).await;
    assert_eq!(machine.commands(), commands(0..30));
    survivor.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_newest_snapshot_costs_a_replay_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let (node, _machine) = start_alone(compacting(directory.path())).await;
    node.bootstrap(members(&[1])).await.unwrap();
    lead(&node).await;
    let snapshots = directory.path().join("snapshots");
    let mut written = 0;
    while node.status().borrow().purged.is_none() || files(&snapshots, ".windlass").len() < 2 {
        assert!(written < 2_000, "compaction by bytes never happened");
        write(&node, written..written + 20).await;
        written += 20;
    }
    node.shutdown().await;
    let kept = files(&snapshots, ".windlass");
    assert_eq!(kept.len(), 2);
    flip_middle_byte(&kept[1]);

    let (node, machine) = start_alone(compacting(directory.path())).await;
    lead(&node).await;
    assert_eq!(machine.commands(), commands(0..written));
    assert_eq!(files(&snapshots, ".damaged").len(), 1, "set aside, not deleted");
    node.shutdown().await;

    // Without any snapshot the log has lost its beginning: no node may start from that.
    for snapshot in files(&snapshots, ".windlass") {
        flip_middle_byte(&snapshot);
    }
    let machine = Arc::new(History::default());
    let started = RaftNode::start(
        compacting(directory.path()),
        open(directory.path(), 1),
        Arc::clone(&machine) as Arc<dyn Machine>,
        Arc::new(NoPeers),
    )
    .await;
    let error = started.unwrap_err().to_string();
    assert!(error.contains("has a hole: entry 0 is missing"), "{error}");
    assert!(machine.commands().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_machine_stops_the_node_and_says_where() {
    let directory = tempfile::tempdir().unwrap();
    let (node, _machine) = start_alone(config(directory.path())).await;
    node.bootstrap(members(&[1])).await.unwrap();
    lead(&node).await;
    let refused = node.propose(b"poison".to_vec()).await.unwrap_err();
    assert!(matches!(&refused, ProposeError::Stopped { .. }), "{refused}");
    let status = until(&node, "stops", |status| status.role == Role::Stopped).await;
    assert!(status.failure.unwrap().contains("panicked on this entry"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_disk_stops_the_node_and_acknowledges_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&broken);
    let sync = move || if seen.load(Ordering::Relaxed) { Err(std::io::Error::other("full")) } else { Ok(()) };
    let options = StoreOptions { before_sync: Some(SyncHook(Arc::new(sync))), ..StoreOptions::default() };
    let store = Store::create(&directory.path().join("store"), identity(1), &options).unwrap();
    let machine = Arc::new(History::default());
    let node = RaftNode::start(config(directory.path()), store, machine, Arc::new(NoPeers)).await.unwrap();
    node.bootstrap(members(&[1])).await.unwrap();
    lead(&node).await;
    broken.store(true, Ordering::Relaxed);
    let refused = node.propose(b"a".to_vec()).await.unwrap_err();
    assert!(matches!(&refused, ProposeError::Stopped { .. }), "{refused}");
    let status = until(&node, "stops", |status| status.role == Role::Stopped).await;
    assert!(status.failure.unwrap().contains("the store stopped after a failed write"));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_refused_by_name() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let network = Arc::new(MemoryNetwork::default());
    let limited = |directory: &Path| RaftConfig {
        in_flight_max: 1,
        command_bytes_max: 100,
        answer_timeout: Duration::from_millis(200),
        ..config(directory)
    };
    let (one, _) = start(limited(first.path()), network.of(1), 1).await;
    let (two, _) = start(limited(second.path()), network.of(2), 2).await;
    network.join(&one);
    network.join(&two);
    one.bootstrap(members(&[1, 2])).await.unwrap();
    let leader =
        if until(&one, "elects", |status| status.leader.is_some()).await.leader == Some(1) { one } else { two };
    until(&leader, "leads", |status| status.role == Role::Leader).await;
    assert_eq!(leader.propose(vec![0; 101]).await.unwrap_err(), ProposeError::TooLarge { size: 101, maximum: 100 });
    network.isolate(1);
    let (stuck, refused) = tokio::join!(leader.propose(b"a".to_vec()), leader.propose(b"b".to_vec()));
    assert_eq!(stuck.unwrap_err(), ProposeError::Timeout, "without a quorum the outcome is unknown");
    assert_eq!(refused.unwrap_err(), ProposeError::Overloaded { limit: "raft.in_flight" });
    let read = leader.read_index().await.unwrap_err();
    assert!(matches!(read, ReadError::NoQuorum | ReadError::Timeout | ReadError::NotLeader { .. }), "{read}");
}

struct Three {
    network: Arc<MemoryNetwork>,
    directories: Vec<TempDir>,
    nodes: BTreeMap<NodeId, (RaftNode, Arc<History>)>,
}

impl Three {
    async fn start() -> Self {
        let directories = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let mut this = Self { network: Arc::default(), directories, nodes: BTreeMap::new() };
        for node in 1..=3 {
            this.start_node(node).await;
        }
        this.nodes[&1].0.bootstrap(members(&[1, 2, 3])).await.unwrap();
        this
    }

    async fn start_node(&mut self, node: NodeId) {
        let directory = self.directories[usize::try_from(node - 1).unwrap()].path();
        let started = start(compacting(directory), self.network.of(node), node).await;
        self.network.join(&started.0);
        self.nodes.insert(node, started);
    }

    async fn stop_node(&mut self, node: NodeId) {
        self.network.leave(node);
        self.nodes.remove(&node).unwrap().0.shutdown().await;
    }

    /// The one of `among` that leads.
    async fn leader(&self, among: &[NodeId]) -> RaftNode {
        let search = async {
            loop {
                let leads = |node: &NodeId| {
                    let mut status = self.nodes[node].0.status();
                    Box::pin(async move { drop(status.wait_for(|status| status.role == Role::Leader).await) })
                };
                // One may still take itself for the leader; only the one that a quorum confirms is meant.
                let (_, at, _) = futures::future::select_all(among.iter().map(leads)).await;
                let node = &self.nodes[&among[at]].0;
                if node.read_index().await.is_ok() {
                    return node.clone();
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("no leader among {among:?}"))
    }

    async fn caught_up(&self, node: NodeId, commands: &[Vec<u8>]) {
        let (raft, machine) = &self.nodes[&node];
        until(raft, "catches up", |_| machine.commands().len() >= commands.len()).await;
        assert_eq!(machine.commands(), commands, "node {node}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_elect_replicate_and_survive_a_follower() {
    let mut three = Three::start().await;
    let leader = three.leader(&[1, 2, 3]).await;
    write(&leader, 0..10).await;
    for node in 1..=3 {
        three.caught_up(node, &commands(0..10)).await;
    }
    let leader_id = leader.identity().node;
    let follower = (1..=3).find(|node| *node != leader_id).unwrap();
    let refused = three.nodes[&follower].0.propose(b"x".to_vec()).await.unwrap_err();
    let address = Some(format!("hub-{leader_id}:7444"));
    assert_eq!(refused, ProposeError::NotLeader { leader: Some(leader_id), address });

    three.stop_node(follower).await;
    write(&leader, 10..20).await;
    // The largest command there may be: an entry of many records on every node.
    let large = vec![0x5a; 1 << 20];
    leader.propose(large.clone()).await.unwrap();
    three.start_node(follower).await;
    let expected = [commands(0..20), vec![large]].concat();
    for node in 1..=3 {
        three.caught_up(node, &expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_takes_over_with_everything_acknowledged() {
    let three = Three::start().await;
    let leader = three.leader(&[1, 2, 3]).await;
    write(&leader, 0..10).await;
    let old = leader.identity().node;
    three.network.isolate(old);
    let others: Vec<NodeId> = (1..=3).filter(|node| *node != old).collect();
    let new = three.leader(&others).await;
    write(&new, 10..20).await;
    three.network.heal();
    for node in 1..=3 {
        three.caught_up(node, &commands(0..20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_behind_the_purged_log_resumes_a_broken_snapshot() {
    let mut three = Three::start().await;
    let leader = three.leader(&[1, 2, 3]).await;
    let follower = (1..=3).find(|node| *node != leader.identity().node).unwrap();
    three.stop_node(follower).await;
    let mut written = 0;
    while leader.status().borrow().purged.is_none() {
        assert!(written < 2_000, "compaction by bytes never happened");
        write(&leader, written..written + 20).await;
        written += 20;
    }
    three.network.break_next_stream_after(10_000);
    three.start_node(follower).await;
    write(&leader, written..written + 5).await;
    three.caught_up(follower, &commands(0..written + 5)).await;
    until(&three.nodes[&follower].0, "has it", |status| status.snapshot.is_some()).await;
    let streams = three.network.streams();
    assert_eq!(streams.first(), Some(&10_000));
    assert!(streams.len() >= 2, "{streams:?}");

    // And it starts again from what it was sent.
    three.stop_node(follower).await;
    three.start_node(follower).await;
    three.caught_up(follower, &commands(0..written + 5)).await;
}

/// Refuses the first snapshot, and notes what it was asked.
#[derive(Default)]
struct Gate(Mutex<Vec<(NodeId, BTreeSet<NodeId>, usize)>>);

impl SnapshotGate for Gate {
    fn before_install(
        &self,
        from: NodeId,
        members: BTreeSet<NodeId>,
        open: OpenSnapshot,
    ) -> futures::future::BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let mut state = Vec::new();
            open().unwrap().read_to_end(&mut state).unwrap();
            let mut asked = self.0.lock().unwrap();
            asked.push((from, members, state.len()));
            if asked.len() == 1 { Err("not yet".to_owned()) } else { Ok(()) }
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_installed_when_the_gate_opens() {
    let mut three = Three::start().await;
    let leader = three.leader(&[1, 2, 3]).await;
    let from = leader.identity().node;
    let follower = (1..=3).find(|node| *node != from).unwrap();
    three.stop_node(follower).await;
    let mut written = 0;
    while leader.status().borrow().purged.is_none() {
        assert!(written < 2_000, "compaction by bytes never happened");
        write(&leader, written..written + 20).await;
        written += 20;
    }
    three.start_node(follower).await;
    let gate = Arc::new(Gate::default());
    three.nodes[&follower].0.gate_snapshots(Arc::clone(&gate) as Arc<dyn SnapshotGate>);
    write(&leader, written..written + 5).await;
    three.caught_up(follower, &commands(0..written + 5)).await;
    let asked = gate.0.lock().unwrap().clone();
    assert!(asked.len() >= 2, "{asked:?}");
    let (sender, members, state) = &asked[0];
    assert_eq!((*sender, members), (from, &BTreeSet::from([1, 2, 3])));
    assert!(*state > 10_000 && state.is_multiple_of(4 + 1_024), "{state} bytes of state");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_for_somebody_else_are_refused() {
    use super::wire::{Envelope, Request};

    let directory = tempfile::tempdir().unwrap();
    let (node, _machine) = start_alone(config(directory.path())).await;
    let vote = openraft::raft::VoteRequest::new(openraft::Vote::new(9, 2), None);
    let request = |cluster, from, to| Request::Vote(vote.clone()).encode(&Envelope { cluster, from, to });
    let cluster = *CLUSTER.as_bytes();
    assert_eq!(node.serve(2, &request([0; 16], 2, 1)).await, Err(ServeError::OtherCluster));
    assert_eq!(node.serve(2, &request(cluster, 2, 3)).await, Err(ServeError::OtherNode { wanted: 3, this: 1 }));
    let impostor = ServeError::OtherSender { claimed: 2, authenticated: 3 };
    assert_eq!(node.serve(3, &request(cluster, 2, 1)).await, Err(impostor));
    let whole = request(cluster, 2, 1);
    for cut in 0..whole.len() {
        assert!(matches!(node.serve(2, &whole[..cut]).await, Err(ServeError::Malformed(_))));
    }
    assert_eq!(node.status().borrow().term, 0, "nothing of that reached Raft");
    assert!(node.serve(2, &whole).await.is_ok());
}
