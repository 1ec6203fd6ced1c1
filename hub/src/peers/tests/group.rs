//! Three Raft nodes over loopback QUIC.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::fixture::*;
use crate::peers::{CallKind, PeerService, Peers};
use crate::raft::{Machine, NodeId, Peer, RaftConfig, RaftNode, RestoreError, Role, SnapshotSource, Status};
use crate::store::{Store, StoreOptions};

/// Keeps every command, each of [`COMMAND`] bytes.
#[derive(Default)]
struct History(Mutex<Vec<u8>>);

const COMMAND: usize = 1_024;

fn command(number: usize) -> Vec<u8> {
    format!("{number:0COMMAND$}").into_bytes()
}

impl Machine for History {
    fn apply(&self, _: u64, _: u64, command: &[u8]) -> Vec<u8> {
        self.0.lock().unwrap().extend_from_slice(command);
        Vec::new()
    }

    fn snapshot(&self) -> Box<dyn SnapshotSource> {
        Box::new(Picture(self.0.lock().unwrap().clone()))
    }

    fn restore(&self, input: &mut dyn Read) -> Result<(), RestoreError> {
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes)?;
        *self.0.lock().unwrap() = bytes;
        Ok(())
    }
}

struct Picture(Vec<u8>);

impl SnapshotSource for Picture {
    fn write(self: Box<Self>, out: &mut dyn Write) -> std::io::Result<()> {
        out.write_all(&self.0)
    }
}

/// Hands everything to Raft; may break one snapshot stream, and counts the bytes of each.
struct ToRaft {
    raft: RaftNode,
    break_after: Mutex<Option<u64>>,
    streams: Mutex<Vec<u64>>,
}

impl PeerService for ToRaft {
    fn call(&self, from: NodeId, kind: CallKind, request: Bytes) -> BoxFuture<'_, Result<Bytes, String>> {
        assert_eq!(kind, CallKind::Raft);
        async move { self.raft.serve(from, &request).await.map_err(|error| error.to_string()) }.boxed()
    }

    fn snapshot<'a>(
        &'a self,
        from: NodeId,
        header: Bytes,
        content: &'a mut (dyn AsyncRead + Send + Unpin),
    ) -> BoxFuture<'a, Result<Bytes, String>> {
        async move {
            let broken = self.break_after.lock().unwrap().take();
            let mut counted = Counted(content.take(broken.unwrap_or(u64::MAX)), 0);
            let answer = self.raft.serve_snapshot(from, &header, &mut counted).await;
            self.streams.lock().unwrap().push(counted.1);
            if broken.is_some() { Err("the stream broke".into()) } else { answer.map_err(|error| error.to_string()) }
        }
        .boxed()
    }

    fn stranger(&self, _: SocketAddr, _: Bytes) -> BoxFuture<'_, Bytes> {
        async { Bytes::new() }.boxed()
    }
}

struct Counted<R>(R, u64);

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.0).poll_read(context, buffer);
        self.1 += (buffer.filled().len() - before) as u64;
        polled
    }
}

struct Hub {
    peers: Peers,
    raft: RaftNode,
    machine: Arc<History>,
    service: Arc<ToRaft>,
}

struct Group {
    world: World,
    folders: BTreeMap<NodeId, TempDir>,
    listen: BTreeMap<NodeId, SocketAddr>,
    hubs: BTreeMap<NodeId, Hub>,
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
        this.hubs[&1].raft.bootstrap(members.collect()).await.unwrap();
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
        let config = RaftConfig {
            compact_entries: 1_000_000,
            compact_bytes: 64 << 10,
            answer_timeout: PATIENCE,
            ..RaftConfig::new(folder.join("snapshots"))
        };
        let machine = Arc::new(History::default());
        let starting = RaftNode::start(config, store, Arc::clone(&machine) as Arc<dyn Machine>, peers.network());
        let raft = peers.runtime().spawn(starting).await.unwrap().unwrap();
        let service = Arc::new(ToRaft { raft: raft.clone(), break_after: Mutex::default(), streams: Mutex::default() });
        peers.serve(Arc::clone(&service) as Arc<dyn PeerService>);
        self.hubs.insert(node, Hub { peers, raft, machine, service });
    }

    async fn stop_hub(&mut self, node: NodeId) {
        let hub = self.hubs.remove(&node).unwrap();
        soon(hub.raft.shutdown()).await;
        soon(hub.peers.shutdown()).await;
    }

    /// The one that a quorum confirms.
    async fn leader(&self) -> NodeId {
        let search = async {
            loop {
                for (node, hub) in &self.hubs {
                    if hub.raft.read_index().await.is_ok() {
                        return *node;
                    }
                }
                tokio::task::yield_now().await;
            }
        };
        soon(search).await
    }

    /// Writes through whoever leads.
    async fn write(&self, numbers: std::ops::Range<usize>) {
        for number in numbers {
            let leader = self.leader().await;
            self.hubs[&leader].raft.propose(command(number)).await.unwrap();
        }
    }

    async fn holds(&self, node: NodeId, count: usize) {
        let expected: Vec<u8> = (0..count).flat_map(command).collect();
        let hub = &self.hubs[&node];
        until(&hub.raft, |_| hub.machine.0.lock().unwrap().len() >= expected.len()).await;
        assert!(*hub.machine.0.lock().unwrap() == expected, "node {node}");
    }

    async fn stop(mut self) {
        for node in self.hubs.keys().copied().collect::<Vec<_>>() {
            self.stop_hub(node).await;
        }
    }
}

async fn until(raft: &RaftNode, condition: impl FnMut(&Status) -> bool) -> Status {
    let mut status = raft.status();
    let waited = tokio::time::timeout(PATIENCE, status.wait_for(condition)).await;
    waited.unwrap_or_else(|_| panic!("{:?}", raft.status().borrow())).unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hubs_elect_replicate_and_survive_the_leader() {
    let mut group = Group::start().await;
    group.write(0..10).await;
    for node in 1..=3 {
        group.holds(node, 10).await;
    }
    let leader = group.leader().await;
    group.stop_hub(leader).await;
    group.write(10..20).await;
    group.start_hub(leader).await;
    for node in 1..=3 {
        group.holds(node, 20).await;
    }
    // The largest command there may be, through frames, stream windows and deadlines.
    let leader = group.leader().await;
    group.hubs[&leader].raft.propose(vec![b'z'; 1 << 20]).await.unwrap();
    for hub in group.hubs.values() {
        until(&hub.raft, |_| hub.machine.0.lock().unwrap().len() == 20 * COMMAND + (1 << 20)).await;
    }
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_snapshot_stream_is_resumed() {
    let mut group = Group::start().await;
    group.write(0..1).await;
    let leader = group.leader().await;
    let follower = (1..=3).find(|node| *node != leader).unwrap();
    group.stop_hub(follower).await;
    let mut written = 1;
    while group.hubs[&leader].raft.status().borrow().purged.is_none() {
        assert!(written < 2_000, "compaction by bytes never happened");
        group.write(written..written + 20).await;
        written += 20;
    }
    group.start_hub(follower).await;
    *group.hubs[&follower].service.break_after.lock().unwrap() = Some(10_000);
    group.write(written..written + 5).await;
    group.holds(follower, written + 5).await;
    let hub = &group.hubs[&follower];
    until(&hub.raft, |status| status.snapshot.is_some() && status.role == Role::Follower).await;
    let streams = hub.service.streams.lock().unwrap().clone();
    assert_eq!(streams.first(), Some(&10_000));
    assert!(streams.len() >= 2, "{streams:?}");
    group.stop().await;
}
