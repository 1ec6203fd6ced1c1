//! What durable writes and snapshots cost, beside what this disk allows:
//!
//! ```text
//! cargo bench -p windlass-hub --bench store
//! cargo bench -p windlass-hub --bench store -- 1000 10000     clusters, Applications
//! ```
//!
//! Writes: the clock starts before the first proposal and ends with the last answer; each answer means applied and
//! synced on the one node. Beside it, 4 KiB appended and synced, one at a time, on the same disk in the same run.
//! Snapshots: 10,000 Clusters and 100,000 Applications, written, verified and restored through the same code as in a
//! hub; memory is the resident set of this process.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark prints, and stops where it fails"
)]

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, BufWriter, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use windlass_hub::{
    machine::StateMachine,
    raft::{Machine, NoPeers, Peer, RaftConfig, RaftNode, RestoreError, SnapshotSource},
    store::{Identity, Store, StoreId, StoreOptions},
};
use windlass_hub_core::{
    Command, Envelope, ObjectKey,
    command::{ENVELOPE_BYTES_MAX, Write as ObjectWrite},
};
use windlass_protocol::{codec, ids::RequestId, resource::Kind, time::Millis};

const LENGTH: Duration = Duration::from_secs(3);

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let clusters = numbers.first().copied().unwrap_or(10_000);
    let applications = numbers.get(1).copied().unwrap_or(100_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(writes());
    snapshots(clusters, applications);
}

/// Applies nothing: the log is what is measured.
#[derive(Default)]
struct Count(AtomicU64);

impl Machine for Count {
    fn apply(&self, _: u64, _: u64, _: &[u8]) -> Vec<u8> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Vec::new()
    }

    fn snapshot(&self) -> Box<dyn SnapshotSource> {
        Box::new(Nothing)
    }

    fn restore(&self, _: &mut dyn Read) -> Result<(), RestoreError> {
        Ok(())
    }
}

struct Nothing;

impl SnapshotSource for Nothing {
    fn write(self: Box<Self>, _: &mut dyn Write) -> std::io::Result<()> {
        Ok(())
    }
}

async fn writes() {
    for clients in [1, 16, 128] {
        let raw = raw_appends();
        let directory = tempfile::tempdir_in(".").unwrap();
        let id = StoreId::from_bytes([1; 16]);
        let identity = Identity { cluster: id, node: 1, store: id };
        let store = Store::create(&directory.path().join("store"), identity, &StoreOptions::default()).unwrap();
        let config = RaftConfig::new(directory.path().join("snapshots"));
        let node = RaftNode::start(config, store, Arc::new(Count::default()), Arc::new(NoPeers)).await.unwrap();
        node.bootstrap(BTreeMap::from([(1, Peer::default())])).await.unwrap();
        while node.read_index().await.is_err() {
            tokio::task::yield_now().await;
        }
        let start = Instant::now();
        let writers = (0..clients).map(|_| {
            let node = node.clone();
            tokio::spawn(async move {
                let mut count = 0_u32;
                while start.elapsed() < LENGTH {
                    node.propose(vec![7; 512]).await.unwrap();
                    count += 1;
                }
                count
            })
        });
        let counts = futures::future::join_all(writers.collect::<Vec<_>>()).await;
        let total: u32 = counts.into_iter().map(Result::unwrap).sum();
        let rate = f64::from(total) / start.elapsed().as_secs_f64();
        println!(
            "{clients:>3} clients: {rate:.0} durable writes/s; raw 4 KiB append + fdatasync {raw:.0}/s; ratio {:.2}",
            rate / raw
        );
        node.shutdown().await;
    }
}

fn raw_appends() -> f64 {
    let mut file = tempfile::tempfile_in(".").unwrap();
    let start = Instant::now();
    let mut count = 0_u32;
    while start.elapsed() < LENGTH / 3 {
        file.write_all(&[7; 4_096]).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

fn snapshots(clusters: usize, applications: usize) {
    let machine = StateMachine::default();
    let before = memory_mib().0;
    let start = Instant::now();
    fill(&machine, clusters, applications);
    println!("{clusters} Clusters and {applications} Applications applied in {:.1?}", start.elapsed());
    println!("state: {} MiB resident", memory_mib().0.saturating_sub(before));
    let start = Instant::now();
    let picture = machine.snapshot();
    println!("apply is blocked by a snapshot for {:.1?}", start.elapsed());
    let directory = tempfile::tempdir_in(".").unwrap();
    let path = directory.path().join("snapshot");
    let start = Instant::now();
    let mut out = BufWriter::new(File::create(&path).unwrap());
    picture.write(&mut out).unwrap();
    let file = out.into_inner().unwrap();
    file.sync_all().unwrap();
    let bytes = file.metadata().unwrap().len();
    println!("written and synced in {:.1?}: {} MiB; peak {} MiB", start.elapsed(), bytes >> 20, memory_mib().1);
    let start = Instant::now();
    let other = StateMachine::default();
    other.restore(&mut BufReader::new(File::open(&path).unwrap())).unwrap();
    println!("restored in {:.1?}; peak with both states {} MiB", start.elapsed(), memory_mib().1);
}

fn fill(machine: &StateMachine, clusters: usize, applications: usize) {
    let uids = ["a", "b", "c"].map(str::to_owned).to_vec();
    apply(machine, 0, Command::Bootstrap { cluster_id: "c".into(), trust_domain: "t".into(), uids });
    let names: Vec<(Kind, usize)> = (0..clusters)
        .map(|number| (Kind::Cluster, number))
        .chain((0..applications).map(|number| (Kind::Application, number)))
        .collect();
    for (batch, some) in (1_u64..).zip(names.chunks(200)) {
        let writes = some.iter().map(|(kind, number)| object(*kind, *number, clusters)).collect();
        apply(machine, batch, Command::Write { writes });
    }
}

fn object(kind: Kind, number: usize, clusters: usize) -> ObjectWrite {
    let (name, body) = match kind {
        Kind::Cluster => {
            let name = format!("store-{number:05}");
            let body = json!({
                "apiVersion": "windlass.io/v1alpha1", "kind": "Cluster",
                "metadata": {"name": name, "labels": {"env": "prod", "region": format!("r{}", number % 20)}},
                "spec": {"servers": [format!("https://{name}.example.com:6443")]},
            });
            (name, body)
        }
        _ => {
            let name = format!("app-{number:06}");
            let body = json!({
                "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
                "metadata": {"name": name, "namespace": "argocd", "labels": {"team": format!("team-{}", number % 50)}},
                "spec": {
                    "project": "default",
                    "source": {
                        "repoURL": "https://git.example.com/fleet/platform.git",
                        "path": format!("apps/{}/overlays/store-{:05}", number % 10, number % clusters.max(1)),
                        "targetRevision": "main",
                    },
                    "destination": {"name": format!("store-{:05}", number % clusters.max(1)), "namespace": name},
                    "syncPolicy": {"automated": {"prune": true, "selfHeal": true}},
                },
            });
            (name, body)
        }
    };
    let namespace = if kind == Kind::Cluster { "" } else { "argocd" };
    let key = ObjectKey::new(kind, namespace, &name);
    ObjectWrite::Create { key, uid: format!("uid-{name}"), body: body.to_string(), sealed: None }
}

fn apply(machine: &StateMachine, number: u64, command: Command) {
    let mut request = [0; 16];
    request[..8].copy_from_slice(&number.to_be_bytes());
    let envelope = Envelope {
        request: RequestId(request),
        subject: "bench".into(),
        source: "bench".into(),
        proposed_at: Millis::from_secs(1),
        preconditions: Vec::new(),
        command,
    };
    let bytes = codec::to_bytes(&envelope, ENVELOPE_BYTES_MAX).unwrap();
    drop(machine.apply(number, 1, &bytes));
    assert!(machine.state().meta().revision.0 > number, "batch {number} was refused");
}

/// Resident now and at most, in MiB.
fn memory_mib() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    (field("VmRSS:").unwrap_or(0) >> 10, field("VmHWM:").unwrap_or(0) >> 10)
}
