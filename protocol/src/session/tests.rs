//! Both machines joined back to back in memory: every frame also passes through the codec.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Serialize, de::DeserializeOwned};

use super::*;
use crate::{
    codec, handshake,
    ids::{Epoch, Generation, Incarnation, NamespacedName, ReceiptSeq, Release},
    manifest::ResourceKey,
    message::*,
    time::Millis,
};

fn over_the_wire<T: Serialize + DeserializeOwned>(value: &T) -> T {
    codec::from_bytes(&codec::to_bytes(value, 1 << 20).unwrap(), 1 << 20).unwrap()
}

/// The hub's store and state, as far as a session sees them.
#[derive(Default)]
struct Hub {
    blobs: BTreeMap<Digest, Vec<u8>>,
    delta: Vec<Delta>,
    acknowledged: Option<(Epoch, Generation)>,
    committed: Vec<(ReceiptSeq, Receipt)>,
    details: BTreeSet<Digest>,
}

/// The agent's disk.
#[derive(Default)]
struct Disk {
    blobs: BTreeMap<Digest, Vec<u8>>,
    checkpoints: Vec<DesiredChange>,
    requests: usize,
    acknowledged: Option<ReceiptSeq>,
}

/// Runs both machines until neither has anything to do.
fn drive(agent: &mut AgentSession, disk: &mut Disk, hub: &mut HubSession, state: &mut Hub) -> Result<(), SessionError> {
    for _ in 0..10_000 {
        let mut idle = true;
        while let Some(action) = agent.poll() {
            idle = false;
            match action {
                AgentAction::Control(message) => hub.handle_control(over_the_wire(&message))?,
                AgentAction::Blobs(request) => {
                    disk.requests += 1;
                    hub.handle_blob_request(over_the_wire(&request))?;
                }
                AgentAction::Load(digest) => agent.handle_loaded(digest, disk.blobs.get(&digest).map(Vec::as_slice))?,
                AgentAction::Lookup(digests) => {
                    agent.handle_missing(
                        digests.into_iter().filter(|digest| !disk.blobs.contains_key(digest)).collect(),
                    );
                }
                AgentAction::Store { digest, content } => {
                    disk.blobs.insert(digest, content);
                }
                AgentAction::Checkpoint(change) => {
                    assert!(
                        change.content.iter().all(|digest| disk.blobs.contains_key(digest)),
                        "content before checkpoint"
                    );
                    disk.checkpoints.push(change);
                    agent.handle_checkpointed();
                }
                AgentAction::Committed(up_to) => disk.acknowledged = Some(up_to),
                _ => {}
            }
        }
        while let Some(action) = hub.poll() {
            idle = false;
            match action {
                HubAction::Control(message) => agent.handle_control(over_the_wire(&message))?,
                HubAction::ReceiptReply(reply) => agent.handle_receipt_reply(&reply),
                HubAction::Admit { .. } => hub.handle_admitted(),
                HubAction::Acknowledged { epoch, generation } => state.acknowledged = Some((epoch, generation)),
                HubAction::Delta { .. } => hub.handle_delta(state.delta.clone()),
                HubAction::Serve(digests) => {
                    for digest in digests {
                        for reply in replies(digest, state.blobs.get(&digest)) {
                            agent.handle_blob(over_the_wire(&reply))?;
                        }
                    }
                }
                HubAction::Commit(receipts) => {
                    let last = receipts.last().map(|(seq, _)| *seq).unwrap_or_default();
                    state.committed.extend(receipts);
                    hub.handle_committed(last);
                }
                HubAction::StoreDetail { digest, .. } => {
                    state.details.insert(digest);
                }
                HubAction::Facts(_) | HubAction::Renew(_) => {}
            }
        }
        if idle {
            return Ok(());
        }
    }
    panic!("the session never comes to rest");
}

fn replies(digest: Digest, content: Option<&Vec<u8>>) -> Vec<BlobReply> {
    let Some(content) = content else { return vec![BlobReply::Unavailable { digest }] };
    let total = content.len() as u64;
    // Small chunks, so that assembly is exercised.
    let chunks = content.chunks(16).enumerate();
    chunks.map(|(n, part)| BlobReply::Chunk { digest, offset: n as u64 * 16, total, content: part.to_vec() }).collect()
}

fn bundle(hub: &mut Hub, manifests: &[&str]) -> BundleRef {
    let mut resources = Vec::new();
    for manifest in manifests {
        let content = manifest.as_bytes().to_vec();
        let digest = Digest::of(&content);
        let key = ResourceKey { name: (*manifest).to_owned(), ..ResourceKey::default() };
        resources.push(ResourceRef { key, digest, size: 1, sealed: false });
        hub.blobs.insert(digest, content);
    }
    let index = codec::to_bytes(&BundleIndex::V1 { resources }, BLOB_BYTES_MAX).unwrap();
    let digest = Digest::of(&index);
    hub.blobs.insert(digest, index);
    BundleRef { digest, revision: "abc".to_owned() }
}

fn assignment(name: &str, target: &BundleRef) -> Assignment {
    Assignment {
        application: NamespacedName::new("argocd", name),
        uid: "u".to_owned(),
        tracking_name: name.to_owned(),
        namespace: String::new(),
        target: Some(target.clone()),
        released: Some(target.clone()),
        last_good: None,
        release: Release(1),
        policy: AssignmentPolicy::default(),
        operation: None,
    }
}

fn pair(generation: u64) -> (AgentSession, HubSession) {
    let agent = AgentSession::new(handshake::hello("agent"), Incarnation(1), Epoch::ZERO, Generation::ZERO);
    (agent, HubSession::new(handshake::hello("hub"), 1, Epoch(1), Generation(generation)))
}

fn full(to: u64, assignments: Vec<Assignment>) -> Delta {
    let known = Some(assignments.iter().map(|assignment| assignment.application.clone()).collect());
    Delta { epoch: Epoch(1), to: Generation(to), assignments, known, complete: true, ..Delta::default() }
}

#[test]
fn a_delta_is_fetched_checkpointed_and_acknowledged() {
    let (mut agent, mut hub) = pair(3);
    let (mut disk, mut state) = (Disk::default(), Hub::default());
    let target = bundle(&mut state, &["a long manifest that needs several chunks", "b"]);
    state.delta = vec![full(3, vec![assignment("web", &target)])];
    drive(&mut agent, &mut disk, &mut hub, &mut state).unwrap();
    assert_eq!(state.acknowledged, Some((Epoch(1), Generation(3))));
    assert_eq!(disk.checkpoints.len(), 1);
    assert_eq!(disk.requests, 2, "the index, then both manifests in one request");

    // A change that shares all content but one manifest costs the new index and that manifest only.
    let before = disk.blobs.len();
    let changed = bundle(&mut state, &["a long manifest that needs several chunks", "c"]);
    let mut delta = full(4, vec![assignment("web", &changed)]);
    (delta.from, delta.known) = (Generation(3), None);
    state.delta = vec![delta];
    hub.handle_changed(Epoch(1), Generation(4));
    drive(&mut agent, &mut disk, &mut hub, &mut state).unwrap();
    assert_eq!(state.acknowledged, Some((Epoch(1), Generation(4))));
    assert_eq!(disk.blobs.len(), before + 2);
}

#[test]
fn parts_become_one_change() {
    let (mut agent, mut hub) = pair(1);
    let (mut disk, mut state) = (Disk::default(), Hub::default());
    let target = bundle(&mut state, &["a"]);
    let mut first = full(1, vec![assignment("one", &target)]);
    first.complete = false;
    state.delta = vec![first, full(1, vec![assignment("two", &target)])];
    drive(&mut agent, &mut disk, &mut hub, &mut state).unwrap();
    assert_eq!(disk.checkpoints.len(), 1);
    let change = &disk.checkpoints[0];
    assert_eq!(change.assignments.len(), 2);
    assert_eq!(change.known.as_ref().map(BTreeSet::len), Some(2));
}

#[test]
fn unavailable_content_waits_and_asks_again() {
    let (mut agent, mut hub) = pair(1);
    let (mut disk, mut state) = (Disk::default(), Hub::default());
    let target = bundle(&mut state, &["a"]);
    let lost = state.blobs.remove(&Digest::of(b"a")).unwrap();
    state.delta = vec![full(1, vec![assignment("web", &target)])];
    drive(&mut agent, &mut disk, &mut hub, &mut state).unwrap();
    assert!(disk.checkpoints.is_empty());
    let at = agent.poll_timeout().expect("asks again later");
    agent.handle_timeout(Millis(at.0 - 1));
    assert_eq!(agent.poll(), None);
    state.blobs.insert(Digest::of(b"a"), lost);
    agent.handle_timeout(at);
    drive(&mut agent, &mut disk, &mut hub, &mut state).unwrap();
    assert_eq!(disk.checkpoints.len(), 1);
}

#[test]
fn late_content_of_a_given_up_delta_is_ignored() {
    let (mut agent, mut hub) = pair(0);
    let (mut disk, mut state) = (Disk::default(), Hub::default());
    drive(&mut agent, &mut disk, &mut hub, &mut state).unwrap();
    let target = bundle(&mut state, &["a", "b"]);
    let whole = |content: &[u8], digest| {
        let total = content.len() as u64;
        BlobReply::Chunk { digest, offset: 0, total, content: content.to_vec() }
    };
    let delta = full(1, vec![assignment("web", &target)]);
    agent.handle_control(HubControl::Desired(delta)).unwrap();
    agent.handle_loaded(target.digest, None).unwrap();
    agent.handle_blob(whole(&state.blobs[&target.digest], target.digest)).unwrap();
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    agent.handle_missing(vec![a, b]);
    agent.handle_blob(BlobReply::Unavailable { digest: a }).unwrap();
    // The agent has asked anew when the rest of the first answer arrives.
    agent.handle_timeout(agent.poll_timeout().unwrap());
    agent.handle_blob(whole(b"b", b)).unwrap();
    assert!(agent.handle_blob(whole(b"b", b)).is_err(), "nothing else was asked for");
}

#[test]
fn wrong_content_ends_the_session() {
    let (mut agent, mut hub) = pair(1);
    let (mut disk, mut state) = (Disk::default(), Hub::default());
    let target = bundle(&mut state, &["a"]);
    state.blobs.insert(Digest::of(b"a"), b"evil".to_vec());
    state.delta = vec![full(1, vec![assignment("web", &target)])];
    let error = drive(&mut agent, &mut disk, &mut hub, &mut state).unwrap_err();
    assert_eq!(error, SessionError::WrongContent(Digest::of(b"a")));
    assert!(disk.checkpoints.is_empty());
}

#[test]
fn receipts_are_acknowledged_after_commit() {
    let (mut agent, mut hub) = pair(0);
    let (mut disk, mut state) = (Disk::default(), Hub::default());
    drive(&mut agent, &mut disk, &mut hub, &mut state).unwrap();
    let receipt = Receipt::Ended { application: NamespacedName::new("argocd", "web"), uid: "u".to_owned() };
    hub.handle_receipts(ReceiptUpload::Receipts { receipts: vec![(ReceiptSeq(7), receipt)] }).unwrap();
    let content = b"{}".to_vec();
    let (digest, total) = (Digest::of(&content), content.len() as u64);
    hub.handle_receipts(ReceiptUpload::Detail { digest, offset: 0, total, content }).unwrap();
    drive(&mut agent, &mut disk, &mut hub, &mut state).unwrap();
    assert_eq!(disk.acknowledged, Some(ReceiptSeq(7)));
    assert_eq!(state.details.len(), 1);
}

#[test]
fn nothing_is_taken_before_admission() {
    let (_, mut hub) = pair(0);
    assert!(hub.handle_receipts(ReceiptUpload::Receipts { receipts: vec![] }).is_err());
    assert!(hub.handle_blob_request(BlobRequest::Want { digests: vec![] }).is_err());
    assert!(hub.handle_control(AgentControl::Have { epoch: Epoch(1), generation: Generation(1) }).is_err());
}

#[test]
fn announced_sizes_are_limited() {
    let mut assembly = assembly::Assembly::new();
    let error = assembly.add(Digest::of(b""), 0, u64::MAX, vec![1]).unwrap_err();
    assert!(error.to_string().contains("exceeds the limit"), "{error}");
    assert!(assembly.add(Digest::of(b""), 5, 10, vec![1]).is_err());
}
