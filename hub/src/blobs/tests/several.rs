//! Several nodes: majorities, repairs, replaced disks, damage, and what a collection may take.

use std::time::Instant;

use futures::future::BoxFuture;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::{
    blobs::wire::{Answer, Piece, Request},
    raft::LinkError,
};

/// Nodes that call each other's [`Bundles::serve_peer`].
#[derive(Default)]
struct Net {
    nodes: Mutex<BTreeMap<NodeId, Bundles>>,
    down: Mutex<BTreeSet<NodeId>>,
    quorums: Mutex<Vec<BTreeSet<NodeId>>>,
    referenced: Mutex<Referenced>,
    /// Requests, by what they are.
    asked: Mutex<BTreeMap<&'static str, usize>>,
}

struct Member {
    net: Arc<Net>,
    this: NodeId,
}

impl BlobGroup for Member {
    fn this(&self) -> NodeId {
        self.this
    }

    fn quorums(&self) -> Vec<BTreeSet<NodeId>> {
        self.net.quorums.lock().unwrap().clone()
    }

    fn members(&self) -> BTreeSet<NodeId> {
        self.quorums().into_iter().flatten().collect()
    }

    fn referenced(&self) -> Referenced {
        self.net.referenced.lock().unwrap().clone()
    }

    fn ask(&self, node: NodeId, request: Bytes, limit: Duration) -> BoxFuture<'_, Result<Bytes, LinkError>> {
        Box::pin(async move {
            let kind = match request.first() {
                Some(0) => "hold",
                Some(1) => "get",
                _ => "complete",
            };
            *self.net.asked.lock().unwrap().entry(kind).or_default() += 1;
            let down = self.net.down.lock().unwrap().clone();
            let other = self.net.nodes.lock().unwrap().get(&node).cloned();
            match other {
                Some(other) if !down.contains(&node) && !down.contains(&self.this) => {
                    let answer = tokio::time::timeout(limit, other.serve_peer(self.this, request)).await;
                    answer.unwrap_or_else(|_| Err("time".into())).map_err(LinkError::Refused)
                }
                _ => Err(LinkError::Unreachable("it is down".into())),
            }
        })
    }
}

struct Fleet {
    net: Arc<Net>,
    folders: Vec<TempDir>,
    timing: Timing,
}

impl Fleet {
    fn new(voters: &[NodeId]) -> Self {
        Self::timed(voters, Timing::default())
    }

    fn timed(voters: &[NodeId], timing: Timing) -> Self {
        let mut this = Self { net: Arc::default(), folders: Vec::new(), timing };
        for node in voters {
            this.add(*node);
        }
        this.vote(&[voters]);
        this
    }

    /// A node with an empty disk.
    fn add(&mut self, node: NodeId) {
        let folder = tempfile::tempdir().unwrap();
        let blobs = BlobStore::open(folder.path(), BlobOptions::default()).unwrap();
        let limits = BundleLimits { resources: 10_000, manifest_bytes: 10 << 20, bundle_bytes: 60 << 20 };
        let bundles = Bundles::timed(blobs, Arc::new(Sealer::new(&[1; 32]).unwrap()), limits, self.timing);
        bundles.join(Arc::new(Member { net: Arc::clone(&self.net), this: node }));
        self.folders.push(folder);
        self.net.nodes.lock().unwrap().insert(node, bundles);
    }

    fn vote(&self, sets: &[&[NodeId]]) {
        *self.net.quorums.lock().unwrap() = sets.iter().map(|set| set.iter().copied().collect()).collect();
    }

    fn down(&self, nodes: &[NodeId]) {
        *self.net.down.lock().unwrap() = nodes.iter().copied().collect();
    }

    fn at(&self, node: NodeId) -> Bundles {
        self.net.nodes.lock().unwrap()[&node].clone()
    }

    fn reference(&self, bundle: Digest) {
        let mut referenced = self.net.referenced.lock().unwrap();
        referenced.revision += 1;
        referenced.bundles.insert(bundle);
    }

    /// Whether a node can read a bundle without asking anybody.
    fn has(&self, node: NodeId, bundle: &Digest) -> bool {
        self.at(node).manifests_here(bundle).unwrap().is_ok()
    }

    fn asked(&self, kind: &str) -> usize {
        self.net.asked.lock().unwrap().get(kind).copied().unwrap_or_default()
    }
}

fn secret() -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "aHVudGVyMg=="}})
}

fn config(name: &str, bytes: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"x": "y".repeat(bytes)}})
}

#[tokio::test]
async fn a_majority_has_it_before_it_may_be_proposed() {
    let fleet = Fleet::new(&[1, 2, 3]);
    fleet.down(&[3]);
    // Secrets, many small ones, and one of several pieces.
    let mut manifests = vec![secret(), config("large", 5 << 19)];
    manifests.extend((0..2_000).map(|number| config(&format!("c{number}"), 10)));
    let (digest, lease) = fleet.at(1).put(&manifests).unwrap();
    fleet.at(1).secure([&lease]).await.unwrap();
    assert!(fleet.has(2, &digest) && !fleet.has(3, &digest));
    assert_eq!(fleet.at(2).manifests(&digest).await.unwrap(), manifests);

    // The third gets it by repair, once it is back.
    fleet.reference(digest);
    let told = fleet.at(3).repair().await.unwrap();
    assert_eq!((told.missing.len(), told.silent.len()), (1, 2), "the index, and nobody to ask");
    fleet.down(&[]);
    assert_eq!(fleet.at(1).completeness_of(3).await.unwrap(), Completeness { revision: 1, missing: 1, lost: 0 });
    assert_eq!(fleet.at(3).repair().await.unwrap(), Repaired::default());
    assert!(fleet.has(3, &digest));
    assert_eq!(fleet.at(1).completeness_of(3).await.unwrap(), Completeness { revision: 1, missing: 0, lost: 0 });
}

#[tokio::test]
async fn without_a_majority_the_missing_nodes_are_named() {
    let round = Duration::from_secs(1);
    let fleet = Fleet::timed(&[1, 2, 3], Timing { round, ..Timing::default() });
    fleet.down(&[2, 3]);
    let (_, lease) = fleet.at(1).put(&[config("c", 10)]).unwrap();
    let began = Instant::now();
    let error = fleet.at(1).secure([&lease]).await.unwrap_err();
    let BundleError::NoQuorum(NoQuorum { held, failed }) = &error else { panic!("{error}") };
    assert_eq!(held, &BTreeSet::from([1]));
    assert_eq!(failed.keys().copied().collect::<Vec<_>>(), [2, 3]);
    let text = error.to_string();
    assert!(text.contains("node 1 has them; node 2: unreachable: it is down; node 3:"), "{text}");
    assert!(began.elapsed() >= round / 2, "it was tried for a while");
    // A node that comes back within the round counts.
    let first = fleet.at(1);
    let asked = fleet.asked("hold");
    let (secured, ()) = tokio::join!(first.secure([&lease]), async {
        while fleet.asked("hold") < asked + 2 {
            tokio::task::yield_now().await;
        }
        fleet.down(&[3]);
    });
    secured.unwrap();
    // While the membership changes, both sets need their majority.
    fleet.vote(&[&[1, 2, 3], &[1, 4, 5]]);
    assert!(matches!(fleet.at(1).secure([&lease]).await, Err(BundleError::NoQuorum(_))));
}

#[tokio::test]
async fn one_node_asks_nobody() {
    let fleet = Fleet::new(&[1]);
    let (_, lease) = fleet.at(1).put(&[config("c", 10)]).unwrap();
    fleet.at(1).secure([&lease]).await.unwrap();
    assert_eq!(*fleet.net.asked.lock().unwrap(), BTreeMap::new());
    let folder = tempfile::tempdir().unwrap();
    let alone = bundles(folder.path());
    let (_, lease) = alone.put(&[json!({})]).unwrap();
    alone.secure([&lease]).await.unwrap();
    assert!(alone.serve_peer(2, Bytes::new()).await.is_err());
}

#[tokio::test]
async fn many_at_a_time_share_rounds() {
    let fleet = Fleet::new(&[1, 2, 3]);
    let one = fleet.at(1);
    let leases: Vec<BlobLease> =
        (0..200).map(|number| one.put(&[config(&number.to_string(), 10)]).unwrap().1).collect();
    let secured = futures::future::join_all(leases.iter().map(|lease| one.secure([lease]))).await;
    assert!(secured.iter().all(Result::is_ok));
    let holds = fleet.asked("hold");
    assert!(holds < 100, "200 callers and two nodes took {holds} requests");
}

#[tokio::test]
async fn a_replaced_disk_is_filled_and_then_another_is_lost() {
    let mut fleet = Fleet::new(&[1, 2, 3]);
    let mut bundles = Vec::new();
    for number in 0..100 {
        let manifests = [secret(), config(&format!("c{number}"), 1_000), config("shared", 10)];
        let (digest, lease) = fleet.at(1).put(&manifests).unwrap();
        fleet.at(1).secure([&lease]).await.unwrap();
        fleet.reference(digest);
        bundles.push(digest);
    }
    for node in 1..=3 {
        fleet.at(node).repair().await.unwrap();
    }
    // Node 3 is replaced by 4, then node 1 is lost, then node 2.
    fleet.add(4);
    fleet.vote(&[&[1, 2, 4]]);
    fleet.down(&[3]);
    assert!(fleet.at(2).completeness_of(4).await.unwrap().missing > 0);
    assert_eq!(fleet.at(4).repair().await.unwrap(), Repaired::default());
    assert_eq!(fleet.at(2).completeness_of(4).await.unwrap().missing, 0);
    fleet.down(&[1, 3]);
    fleet.add(5);
    fleet.vote(&[&[2, 4, 5]]);
    assert_eq!(fleet.at(5).repair().await.unwrap(), Repaired::default());
    fleet.down(&[1, 2, 3]);
    for digest in &bundles {
        for node in [4, 5] {
            assert!(fleet.has(node, digest), "{digest} on node {node}");
        }
    }
}

#[tokio::test]
async fn a_damaged_blob_is_read_from_another_hub_and_repaired() {
    let fleet = Fleet::new(&[1, 2, 3]);
    let manifests = [config("a", 5_000), config("b", 5_000)];
    let (digest, lease) = fleet.at(1).put(&manifests).unwrap();
    fleet.at(1).secure([&lease]).await.unwrap();
    fleet.reference(digest);
    fleet.at(1).repair().await.unwrap();
    for file in std::fs::read_dir(fleet.folders[0].path()).unwrap() {
        let path = file.unwrap().path();
        let mut content = std::fs::read(&path).unwrap();
        content[3_000] ^= 1;
        std::fs::write(&path, content).unwrap();
    }
    assert!(fleet.at(1).manifests_here(&digest).unwrap().is_err(), "one of them is damaged");
    assert_eq!(fleet.at(1).manifests(&digest).await.unwrap(), manifests);
    assert!(fleet.has(1, &digest));
    tokio::time::timeout(Duration::from_secs(30), fleet.at(1).wanted()).await.expect("a repair was asked for");
}

#[tokio::test]
async fn what_no_member_has_is_lost_and_holds_up_nothing() {
    let fleet = Fleet::new(&[1, 2, 3]);
    let nowhere = Digest([9; 32]);
    fleet.reference(nowhere);
    fleet.down(&[3]);
    let repaired = fleet.at(1).repair().await.unwrap();
    assert_eq!(repaired.missing, BTreeSet::from([nowhere]), "node 3 may have it");
    fleet.down(&[]);
    let repaired = fleet.at(1).repair().await.unwrap();
    assert_eq!((repaired.missing, repaired.lost), (BTreeSet::new(), BTreeSet::from([nowhere])));
    let told = fleet.at(2).completeness_of(1).await.unwrap();
    assert_eq!((told.missing, told.lost), (0, 1));
    let error = fleet.at(1).manifests(&nowhere).await.unwrap_err().to_string();
    assert!(error.contains("no hub that answers has it"), "{error}");
}

#[tokio::test]
async fn a_collection_takes_nothing_that_is_held_for_a_proposal() {
    // Nothing references it yet, on any node: what counts is for how long it is held.
    for (kept, stays) in [(Timing::default().kept, true), (Duration::ZERO, false)] {
        let fleet = Fleet::timed(&[1, 2, 3], Timing { kept, ..Timing::default() });
        // Else the majority may be one without node 2.
        fleet.down(&[3]);
        let (digest, lease) = fleet.at(1).put(&[config("a", 10)]).unwrap();
        // Twice: what is there already is held as well.
        fleet.at(1).secure([&lease]).await.unwrap();
        fleet.at(1).secure([&lease]).await.unwrap();
        for node in [1, 2] {
            fleet.at(node).collect(&State::default()).unwrap();
            assert_eq!(fleet.has(node, &digest), stays || node == 1, "node {node}");
        }
        drop(lease);
        fleet.at(1).collect(&State::default()).unwrap();
        assert_eq!(fleet.has(1, &digest), stays);
        assert_eq!(fleet.at(1).lease(&digest).unwrap().is_some(), stays);
    }
}

#[tokio::test]
async fn wrong_content_is_not_stored() {
    let fleet = Fleet::new(&[1, 2, 3]);
    let wrong = Digest([1; 32]);
    let _lease = fleet.at(2).blobs.put_batch(vec![(BlobDigest(wrong.0), Bytes::from_static(b"not that"))]).unwrap();
    fleet.reference(wrong);
    fleet.down(&[3]);
    fleet.at(1).repair().await.unwrap();
    assert!(!fleet.at(1).blobs.has(&BlobDigest(wrong.0)));
}

#[tokio::test]
async fn bad_requests_are_refused() {
    let fleet = Fleet::new(&[1, 2]);
    let one = fleet.at(1);
    assert!(one.serve_peer(2, Bytes::from_static(b"\xff\xff")).await.unwrap_err().contains("upgrade"));
    let encode = |request: &Request| Bytes::from(codec::to_bytes(request, 2 << 20).unwrap());
    let many = Request::Hold { digests: vec![Digest([0; 32]); 5_000] };
    assert!(one.serve_peer(2, encode(&many)).await.unwrap_err().contains("the limit is 4096"));
    let nothing = Request::Get { digests: vec![Digest([0; 32])], offset: u64::MAX };
    let answer = one.serve_peer(2, encode(&nothing)).await.unwrap();
    assert_eq!(codec::from_bytes::<Answer>(&answer, 100).unwrap(), Answer::Pieces(vec![Piece::Absent]));
}
