//! The bytes of every message between agent and hub, as they were when they were first sent. A difference means that agents and
//! hubs of two releases no longer understand each other: append a variant instead.
//!
//! `protocol/tests/golden/messages.txt` holds one message a line, name and hexadecimal bytes. A new variant gets a new line
//! (the failing test prints it); a line is never changed.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use windlass_protocol::{
    codec,
    ids::{Digest, Epoch, Generation, Incarnation, NamespacedName, OperationId, ReceiptSeq, Release},
    json::Json,
    manifest::ResourceKey,
    message::{
        AgentControl, Assignment, AssignmentPolicy, AssignmentReceipt, Automated, BlobReply, BlobRequest, BundleIndex,
        BundleRef, Cascade, Delta, EnrolReply, EnrolRequest, Enrolled, GoAway, Hello, HubControl, KindPattern,
        Operation, OperationReport, Permitted, Receipt, ReceiptReply, ReceiptUpload, ResourceRef, Retry, StreamOpen,
        Tombstone,
    },
    status::{HealthStatus, OperationPhase, SyncStatus},
    time::Millis,
};

const LIMIT: usize = 1 << 20;

/// Collects lines, and checks on the way that each message comes back as itself.
struct Lines(Vec<String>);

impl Lines {
    fn add<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(&mut self, name: &str, message: &T) {
        let bytes = codec::to_bytes(message, LIMIT).unwrap();
        assert_eq!(&codec::from_bytes::<T>(&bytes, LIMIT).unwrap(), message, "{name}");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.0.push(format!("{name} {hex}"));
    }
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn application() -> NamespacedName {
    NamespacedName::new("argocd", "shop")
}

fn bundle(byte: u8) -> BundleRef {
    BundleRef { digest: Digest([byte; 32]), revision: text("abc") }
}

fn key() -> ResourceKey {
    ResourceKey { group: text("apps"), kind: text("Deployment"), namespace: text("shop"), name: text("web") }
}

fn assignment() -> Assignment {
    let pattern = KindPattern { group: text("*"), kind: text("Secret") };
    Assignment {
        application: application(),
        uid: text("u1"),
        tracking_name: text("shop"),
        namespace: text("shop"),
        target: Some(bundle(2)),
        released: Some(bundle(1)),
        last_good: None,
        release: Release(7),
        policy: AssignmentPolicy {
            automated: Some(Automated { prune: true, self_heal: true, allow_empty: false }),
            sync_options: vec![text("CreateNamespace=true")],
            ignore_differences: vec![Json(json!({"kind": "Deployment"}))],
            namespace_labels: vec![(text("team"), text("a"))],
            permitted: Permitted {
                project: text("default"),
                namespace_allow: Some(vec![pattern.clone()]),
                cluster_deny: vec![pattern],
                namespaces: vec![text("shop-*")],
                ..Permitted::default()
            },
            held: Some(text("window")),
            parameters: 9,
            ..AssignmentPolicy::default()
        },
        operation: Some(Operation {
            id: OperationId(3),
            bundle: Some(bundle(2)),
            prune: true,
            dry_run: false,
            force: false,
            resources: vec![key()],
            sync_options: Vec::new(),
            terminate: false,
            initiated_by: text("user:admin"),
        }),
    }
}

fn receipt() -> Receipt {
    Receipt::V1(AssignmentReceipt {
        application: application(),
        uid: text("u1"),
        release: Release(7),
        target: Some(Digest([2; 32])),
        applied: Some(Digest([1; 32])),
        sync: SyncStatus::OutOfSync,
        health: HealthStatus::Progressing,
        worst_health: HealthStatus::Degraded,
        message: text("waiting"),
        operation: Some(OperationReport {
            id: Some(OperationId(3)),
            bundle: Digest([2; 32]),
            phase: OperationPhase::Running,
            message: String::new(),
            started_at: Millis(1_000),
            finished_at: None,
            retries: 1,
        }),
        detail: Some(Digest([4; 32])),
        observed_at: Millis(2_000),
    })
}

fn from_agent(lines: &mut Lines) {
    let hello =
        Hello { version_min: 1, version_max: 1, capabilities: vec![text("a")], software: text("windlass-agent/0.1.0") };
    for (name, open) in [
        ("stream.enrol", StreamOpen::Enrol),
        ("stream.control", StreamOpen::Control),
        ("stream.blobs", StreamOpen::Blobs),
        ("stream.receipts", StreamOpen::Receipts),
    ] {
        lines.add(name, &open);
    }
    lines.add("agent.hello", &AgentControl::Hello { hello, incarnation: Incarnation(5) });
    lines.add("agent.have", &AgentControl::Have { epoch: Epoch(2), generation: Generation(300) });
    lines.add("agent.facts", &AgentControl::Facts { facts: Json(json!({"version": "v1.36"})) });
    lines.add("agent.renew", &AgentControl::Renew { signing_request: vec![1, 2, 3] });
    lines.add("blobs.want", &BlobRequest::Want { digests: vec![Digest([1; 32])] });
    let (ended, uid) = (application(), text("u1"));
    let receipts = vec![
        (ReceiptSeq(1), receipt()),
        (ReceiptSeq(2), Receipt::Ended { application: ended.clone(), uid: uid.clone() }),
        (ReceiptSeq(3), Receipt::Orphaned { application: ended.clone(), uid: uid.clone() }),
        (ReceiptSeq(4), Receipt::EndFailed { application: ended, uid, message: text("forbidden") }),
    ];
    lines.add("receipts.receipts", &ReceiptUpload::Receipts { receipts });
    let detail = ReceiptUpload::Detail { digest: Digest([4; 32]), offset: 0, total: 2, content: vec![7, 8] };
    lines.add("receipts.detail", &detail);
    let (signing_request, software) = (vec![1, 2, 3], text("windlass-agent/0.1.0"));
    let first =
        EnrolRequest::V1 { token: text("wlj_x"), signing_request: signing_request.clone(), software: software.clone() };
    lines.add("enrol.v1", &first);
    lines.add("enrol.renew", &EnrolRequest::Renew { cluster_uid: text("c1"), signing_request, software });
}

fn from_hub(lines: &mut Lines) {
    let hello =
        Hello { version_min: 1, version_max: 2, capabilities: Vec::new(), software: text("windlass-hub/0.1.0") };
    lines.add("hub.hello", &HubControl::Hello { hello, hub: 3, epoch: Epoch(2) });
    lines.add("hub.refused", &HubControl::Refused { reason: text("revoked"), retry: Retry::Never });
    let tombstone = Tombstone { application: application(), uid: text("u0"), cascade: Cascade::Background };
    let delta = Delta {
        epoch: Epoch(2),
        from: Generation(1),
        to: Generation(300),
        assignments: vec![assignment()],
        tombstones: vec![tombstone],
        known: Some(vec![application()]),
        complete: true,
    };
    lines.add("hub.desired", &HubControl::Desired(delta));
    for (name, reason) in [
        ("hub.go-away.no-quorum", GoAway::NoQuorum),
        ("hub.go-away.drain", GoAway::Drain),
        ("hub.go-away.rebalance", GoAway::Rebalance),
    ] {
        lines.add(name, &HubControl::GoAway { reason });
    }
    lines.add("hub.certificate", &HubControl::Certificate { chain: text("PEM") });
    lines.add("hub.trust", &HubControl::Trust { roots: text("PEM"), hubs: vec![text("hub:7443")] });
    lines.add("hub.refresh", &HubControl::Refresh { application: application(), hard: true });
    lines.add("blobs.chunk", &BlobReply::Chunk { digest: Digest([1; 32]), offset: 1, total: 3, content: vec![9, 9] });
    lines.add("blobs.unavailable", &BlobReply::Unavailable { digest: Digest([1; 32]) });
    lines.add("receipts.committed", &ReceiptReply::Committed { up_to: ReceiptSeq(4) });
    lines.add("receipts.busy", &ReceiptReply::Busy);
    let enrolled = Enrolled {
        cluster: text("east"),
        cluster_uid: text("c1"),
        chain: text("PEM"),
        roots: text("PEM"),
        hubs: vec![text("hub:7443")],
    };
    lines.add("enrol.accepted", &EnrolReply::Accepted(enrolled));
    lines.add("enrol.refused", &EnrolReply::Refused { reason: text("unknown"), retry: Retry::Later });
    let resource = ResourceRef { key: key(), digest: Digest([1; 32]), size: 120, sealed: true };
    lines.add("bundle.index", &BundleIndex::V1 { resources: vec![resource] });
}

#[test]
fn no_message_has_changed_its_bytes() {
    let mut lines = Lines(Vec::new());
    from_agent(&mut lines);
    from_hub(&mut lines);
    let golden: Vec<&str> = include_str!("golden/messages.txt").lines().collect();
    for (number, line) in lines.0.iter().enumerate() {
        assert_eq!(Some(&line.as_str()), golden.get(number), "line {}:\n{line}", number + 1);
    }
    assert_eq!(golden.len(), lines.0.len(), "a message that was once sent is gone");
}
