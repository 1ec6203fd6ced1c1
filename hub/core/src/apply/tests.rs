//! The state driven through its only door, with properties that hold for every history.

mod hubs;

use proptest::prelude::*;
use serde_json::{Value, json};
use windlass_protocol::{
    ids::{Digest, Generation, Incarnation, NamespacedName, ReceiptSeq, Release, RequestId},
    message::{Assignment, AssignmentPolicy, AssignmentReceipt, Automated, BundleRef, Cascade, Operation, Receipt},
    resource::{Kind, RESOURCES_FINALIZER, RolloutCause, RolloutPhase},
    status::{HealthStatus, SyncStatus},
    time::Millis,
};

use crate::{
    Command, Effect, Envelope, ObjectKey, Precondition, Rejection, Reply, State,
    command::{Part, SessionChange, TargetChange, Write},
    desired, snapshot,
};

const CLUSTER: &str = "cluster-uid";

/// A state with its proposer.
struct Hub {
    state: State,
    requests: u64,
    effects: Vec<Effect>,
}

impl Hub {
    fn new() -> Self {
        let mut hub = Self { state: State::default(), requests: 0, effects: Vec::new() };
        let uids = ["1", "2", "3"].map(str::to_owned).to_vec();
        let bootstrap = Command::Bootstrap { cluster_id: "c".to_owned(), trust_domain: "t".to_owned(), uids };
        hub.apply(bootstrap).unwrap();
        let cluster = json!({"apiVersion": "windlass.io/v1alpha1", "kind": "Cluster", "metadata": {"name": "east"}});
        hub.create(Kind::Cluster, "", "east", CLUSTER, cluster).unwrap();
        let (hash, serial) = (Digest::of(b"first"), [9; 16]);
        let expires_at = Millis::from_secs(2_000);
        hub.apply(Command::AddToken { hash, cluster: "east".to_owned(), expires_at }).unwrap();
        hub.apply(Command::RedeemToken { hash, key: Digest([9; 32]), serial }).unwrap();
        let (cluster, incarnation) = (CLUSTER.to_owned(), Incarnation(1));
        let changes = vec![
            SessionChange::Connected { cluster: cluster.clone(), incarnation, serial },
            SessionChange::Disconnected { cluster, incarnation },
        ];
        hub.apply(Command::Sessions { hub: 1, changes }).unwrap();
        hub
    }

    fn envelope(&mut self, command: Command, preconditions: Vec<Precondition>) -> Envelope {
        self.requests += 1;
        let mut request = [0; 16];
        request[..8].copy_from_slice(&self.requests.to_le_bytes());
        Envelope {
            request: RequestId(request),
            subject: "user:test".to_owned(),
            source: "test".to_owned(),
            proposed_at: Millis::from_secs(1_000),
            preconditions,
            command,
        }
    }

    fn apply(&mut self, command: Command) -> Result<Reply, Rejection> {
        let envelope = self.envelope(command, Vec::new());
        let applied = self.state.apply(&envelope);
        self.effects = applied.effects;
        applied.result
    }

    fn create(&mut self, kind: Kind, namespace: &str, name: &str, uid: &str, body: Value) -> Result<Reply, Rejection> {
        let key = ObjectKey::new(kind, namespace, name);
        let write = Write::Create { key, uid: uid.to_owned(), body: body.to_string(), sealed: None };
        self.apply(Command::Write { writes: vec![write] })
    }

    fn application(&mut self, name: &str, uid: &str, finalizers: &[&str]) {
        let body = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
            "metadata": {"name": name, "finalizers": finalizers},
            "spec": {"destination": {"name": "east"}},
        });
        self.create(Kind::Application, "argocd", name, uid, body).unwrap();
    }

    fn delete(&mut self, name: &str) {
        let key = ObjectKey::new(Kind::Application, "argocd", name);
        self.apply(Command::Write { writes: vec![Write::Delete { key }] }).unwrap();
    }

    fn target(&mut self, name: &str, uid: &str, content: &str, automated: bool) -> Result<Reply, Rejection> {
        let change = change(name, uid, content, automated);
        let count = self.requests;
        let rollout = NamespacedName::new("argocd", format!("r{count}"));
        let owner = ObjectKey::new(Kind::Application, "argocd", name);
        let rollout_uid = format!("ru{count}");
        self.apply(Command::Targets { rollout, rollout_uid, owner, cause: RolloutCause::Commit, changes: vec![change] })
    }

    fn receipt(&mut self, seq: u64, name: &str, content: &str, health: HealthStatus) -> Result<Reply, Rejection> {
        let application = NamespacedName::new("argocd", name);
        let record = self.state.assignment(&application).cloned();
        let digest = Some(Digest::of(content.as_bytes()));
        let receipt = AssignmentReceipt {
            application,
            uid: record.as_ref().map(|record| record.uid.clone()).unwrap_or_default(),
            release: record.map(|record| record.release).unwrap_or_default(),
            target: digest,
            applied: digest,
            sync: SyncStatus::Synced,
            health,
            worst_health: health,
            message: String::new(),
            operation: None,
            detail: None,
            observed_at: Millis(0),
        };
        self.receipts(seq, Receipt::V1(receipt))
    }

    fn receipts(&mut self, seq: u64, receipt: Receipt) -> Result<Reply, Rejection> {
        let (incarnation, up_to) = (Incarnation(1), ReceiptSeq(seq));
        self.apply(Command::Receipts { cluster: CLUSTER.to_owned(), incarnation, up_to, receipts: vec![receipt] })
    }

    fn object(&self, name: &str) -> Option<Value> {
        let record = self.state.object(&ObjectKey::new(Kind::Application, "argocd", name))?;
        Some(record.value())
    }

    fn generation(&self) -> Generation {
        self.state.cluster(CLUSTER).unwrap().generation
    }
}

fn bundle(content: &str) -> BundleRef {
    BundleRef { digest: Digest::of(content.as_bytes()), revision: format!("commit-of-{content}") }
}

fn change(name: &str, uid: &str, content: &str, automated: bool) -> TargetChange {
    let automated = automated.then_some(Automated { prune: true, self_heal: true, allow_empty: false });
    TargetChange {
        application: NamespacedName::new("argocd", name),
        uid: uid.to_owned(),
        cluster: Some(CLUSTER.to_owned()),
        tracking_name: name.to_owned(),
        namespace: "shop".to_owned(),
        target: Some(bundle(content)),
        policy: AssignmentPolicy { automated, ..AssignmentPolicy::default() },
        conditions: Vec::new(),
        source_type: "Directory".to_owned(),
        images: Vec::new(),
    }
}

fn at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn a_change_is_released_and_proven_by_a_receipt() {
    let mut hub = Hub::new();
    hub.application("web", "u1", &[]);
    hub.target("web", "u1", "v1", true).unwrap();
    let application = NamespacedName::new("argocd", "web");
    let record = hub.state.assignment(&application).unwrap();
    assert_eq!((record.release, record.released.clone()), (Release(1), Some(bundle("v1"))));
    assert_eq!(record.last_good, None);
    let value = hub.object("web").unwrap();
    assert_eq!((at(&value, "/status/sync/status"), at(&value, "/status/health/status")), ("OutOfSync", "Missing"));

    hub.receipt(1, "web", "v1", HealthStatus::Progressing).unwrap();
    let rollout = hub.state.assignment(&application).unwrap().rollout.clone().unwrap();
    assert_eq!(hub.state.rollout(&rollout).unwrap().phase, RolloutPhase::Progressing);
    hub.receipt(2, "web", "v1", HealthStatus::Healthy).unwrap();
    let value = hub.object("web").unwrap();
    assert_eq!((at(&value, "/status/sync/status"), at(&value, "/status/health/status")), ("Synced", "Healthy"));
    assert_eq!(at(&value, "/status/sync/revision"), "commit-of-v1");
    assert_eq!(hub.state.rollout(&rollout).unwrap().phase, RolloutPhase::Succeeded);
    assert_eq!(hub.state.assignment(&application).unwrap().last_good, Some(bundle("v1")));

    // The next change supersedes nothing that is proven, and its failure leaves last-good alone.
    hub.target("web", "u1", "v2", true).unwrap();
    hub.receipt(3, "web", "v2", HealthStatus::Degraded).unwrap();
    let record = hub.state.assignment(&application).unwrap();
    assert_eq!(record.last_good, Some(bundle("v1")));
    assert_eq!(hub.state.rollout(record.rollout.as_ref().unwrap()).unwrap().phase, RolloutPhase::Degraded);
}

#[test]
fn an_unchanged_target_changes_nothing_for_the_agent() {
    let mut hub = Hub::new();
    hub.application("web", "u1", &[]);
    hub.target("web", "u1", "v1", true).unwrap();
    let generation = hub.generation();
    hub.target("web", "u1", "v1", true).unwrap();
    assert_eq!(hub.generation(), generation);
    assert_eq!(hub.state.rollouts().count(), 1);
}

#[test]
fn a_planner_that_is_behind_is_void() {
    let mut hub = Hub::new();
    hub.application("web", "u1", &[]);
    hub.target("web", "another-uid", "v1", true).unwrap();
    assert!(hub.state.assignment(&NamespacedName::new("argocd", "web")).is_none());
    let key = ObjectKey::new(Kind::Application, "argocd", "web");
    let stale = Precondition::Object { key: key.clone(), uid: "u0".to_owned(), revision: None };
    let envelope = hub.envelope(Command::Write { writes: vec![Write::Delete { key }] }, vec![stale]);
    assert!(matches!(hub.state.apply(&envelope).result, Err(Rejection::Conflict { .. })));
    assert!(hub.object("web").is_some());
}

#[test]
fn a_repeated_request_gets_the_first_answer() {
    let mut hub = Hub::new();
    let key = ObjectKey::new(Kind::ConfigMap, "default", "a");
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}).to_string();
    let write = Write::Create { key, uid: "u".to_owned(), body, sealed: None };
    let envelope = hub.envelope(Command::Write { writes: vec![write] }, Vec::new());
    let first = hub.state.apply(&envelope);
    let hash = snapshot::hash(&hub.state);
    let second = hub.state.apply(&envelope);
    assert_eq!(first.result, second.result);
    assert!(second.effects.is_empty());
    assert_eq!(snapshot::hash(&hub.state), hash);
}

#[test]
fn deletion_waits_for_the_agent() {
    let mut hub = Hub::new();
    hub.application("web", "u1", &[RESOURCES_FINALIZER, "example.com/other"]);
    hub.target("web", "u1", "v1", true).unwrap();
    hub.delete("web");
    let value = hub.object("web").expect("it waits");
    assert!(at(&value, "/status/conditions/0/message").starts_with("AgentUnreachable"), "{value}");
    let delta = desired::delta(&hub.state, CLUSTER, hub.state.meta().epoch, Generation(1));
    assert_eq!(delta[0].tombstones.len(), 1);
    assert_eq!(delta[0].tombstones[0].cascade, Cascade::Background);

    let ended = Receipt::Ended { application: NamespacedName::new("argocd", "web"), uid: "u1".to_owned() };
    hub.receipts(1, ended).unwrap();
    let value = hub.object("web").expect("another finalizer holds it");
    assert_eq!(value["metadata"]["finalizers"], json!(["example.com/other"]));
    assert!(hub.state.cluster(CLUSTER).unwrap().tombstones.is_empty());
}

#[test]
fn without_finalizer_what_runs_is_left_alone() {
    let mut hub = Hub::new();
    hub.application("web", "u1", &[]);
    hub.target("web", "u1", "v1", true).unwrap();
    hub.delete("web");
    assert!(hub.object("web").is_none());
    let tombstones = &hub.state.cluster(CLUSTER).unwrap().tombstones;
    assert_eq!(tombstones.values().map(|tombstone| tombstone.cascade).collect::<Vec<_>>(), [Cascade::Orphan]);
}

#[test]
fn a_removed_cluster_frees_what_waits_for_it() {
    let mut hub = Hub::new();
    hub.application("web", "u1", &[RESOURCES_FINALIZER]);
    hub.target("web", "u1", "v1", true).unwrap();
    hub.delete("web");
    assert!(hub.object("web").is_some());
    let key = ObjectKey::new(Kind::Cluster, "", "east");
    hub.apply(Command::Write { writes: vec![Write::Delete { key }] }).unwrap();
    assert!(hub.object("web").is_none());
    assert!(hub.effects.iter().any(|effect| matches!(effect, Effect::Disconnect { keep_serial: None, .. })));
}

#[test]
fn an_operation_is_numbered_and_leaves_the_object() {
    let mut hub = Hub::new();
    hub.application("web", "u1", &[]);
    hub.target("web", "u1", "v1", false).unwrap();
    let rollout = hub.state.rollouts().next().unwrap().1.clone();
    assert_eq!(rollout.phase, RolloutPhase::Succeeded, "a person decides when a manual application syncs");
    let mut value = hub.object("web").unwrap();
    value["operation"] = json!({"sync": {}});
    let key = ObjectKey::new(Kind::Application, "argocd", "web");
    let body = value.to_string();
    let write = Write::Replace { key, part: Part::Main, body, sealed: None };
    hub.apply(Command::Write { writes: vec![write] }).unwrap();
    let operation = Operation {
        id: windlass_protocol::ids::OperationId(99),
        bundle: None,
        prune: false,
        dry_run: false,
        force: false,
        resources: Vec::new(),
        sync_options: Vec::new(),
        terminate: false,
        initiated_by: String::new(),
    };
    let application = NamespacedName::new("argocd", "web");
    hub.apply(Command::Operate { application: application.clone(), uid: "u1".to_owned(), operation }).unwrap();
    assert_eq!(hub.object("web").unwrap().get("operation"), None);
    let operation = hub.state.assignment(&application).unwrap().operation.clone().unwrap();
    assert_eq!((operation.id.0, operation.initiated_by.as_str()), (1, "user:test"));
}

#[test]
fn tokens_admit_one_key_until_they_expire() {
    let mut hub = Hub::new();
    let hash = Digest::of(b"secret");
    let expires_at = Millis::from_secs(2_000);
    hub.apply(Command::AddToken { hash, cluster: "east".to_owned(), expires_at }).unwrap();
    let redeem = |key: u8, serial: u8| Command::RedeemToken { hash, key: Digest([key; 32]), serial: [serial; 16] };
    let reply = hub.apply(redeem(1, 1)).unwrap();
    assert_eq!(reply.cluster, Some(("east".to_owned(), CLUSTER.to_owned())));
    assert!(hub.apply(redeem(2, 2)).is_err(), "another key");
    hub.apply(redeem(1, 3)).expect("the same key may fetch its certificate again");
    let (first, third) = ([1; 16], [3; 16]);
    hub.state.admit(CLUSTER, &first, Incarnation(1)).expect("until the new certificate is used");
    let connected =
        SessionChange::Connected { cluster: CLUSTER.to_owned(), incarnation: Incarnation(2), serial: third };
    hub.apply(Command::Sessions { hub: 1, changes: vec![connected] }).unwrap();
    assert!(hub.state.admit(CLUSTER, &first, Incarnation(2)).is_err(), "the old certificate");
    assert!(hub.state.admit(CLUSTER, &third, Incarnation(1)).is_err(), "an older process");
    assert!(hub.state.admit("nobody", &third, Incarnation(2)).is_err());

    let mut late = hub.envelope(redeem(1, 4), Vec::new());
    late.proposed_at = Millis::from_secs(3_000);
    assert!(hub.state.apply(&late).result.is_err(), "expired");
}

#[test]
fn two_clusters_cannot_claim_one_url() {
    let mut hub = Hub::new();
    let cluster = |name: &str| {
        json!({
            "apiVersion": "windlass.io/v1alpha1", "kind": "Cluster", "metadata": {"name": name},
            "spec": {"servers": ["https://a"]},
        })
    };
    hub.create(Kind::Cluster, "", "a", "ua", cluster("a")).unwrap();
    let error = hub.create(Kind::Cluster, "", "b", "ub", cluster("b")).unwrap_err();
    assert!(error.to_string().contains("belongs to the cluster \"a\""), "{error}");
}

#[test]
fn a_namespace_is_needed_and_protected() {
    let mut hub = Hub::new();
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let missing = hub.create(Kind::ConfigMap, "nowhere", "a", "u", config.clone()).unwrap_err();
    assert_eq!(missing.to_string(), "namespaces \"nowhere\" not found");
    hub.create(Kind::ConfigMap, "default", "a", "u", config).unwrap();
    let key = ObjectKey::new(Kind::Namespace, "", "argocd");
    assert!(hub.apply(Command::Write { writes: vec![Write::Delete { key }] }).is_err());
}

#[test]
fn late_receipts_prove_nothing() {
    let mut hub = Hub::new();
    hub.application("web", "u1", &[]);
    hub.target("web", "u1", "v1", true).unwrap();
    hub.receipt(5, "web", "v1", HealthStatus::Healthy).unwrap();
    hub.receipt(4, "web", "v1", HealthStatus::Degraded).unwrap();
    assert_eq!(at(&hub.object("web").unwrap(), "/status/health/status"), "Healthy", "a repetition changes nothing");
    hub.receipt(6, "web", "v1", HealthStatus::Degraded).unwrap();
    assert_eq!(at(&hub.object("web").unwrap(), "/status/health/status"), "Degraded");
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Create(u8),
    Target(u8, u8),
    Delete(u8),
    Receipt(u8, u8),
    Ended(u8),
    Tick(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4_u8).prop_map(Step::Create),
        (0..4_u8, 0..3_u8).prop_map(|(app, content)| Step::Target(app, content)),
        (0..4_u8).prop_map(Step::Delete),
        (0..4_u8, 0..3_u8).prop_map(|(app, content)| Step::Receipt(app, content)),
        (0..4_u8).prop_map(Step::Ended),
        any::<u32>().prop_map(Step::Tick),
    ]
}

fn run(hub: &mut Hub, seq: &mut u64, step: &Step) {
    let name = |app: u8| format!("app{app}");
    let key = |app: u8| ObjectKey::new(Kind::Application, "argocd", name(app));
    let uid = |hub: &Hub, app: u8| hub.state.object(&key(app)).map(|record| record.uid.clone()).unwrap_or_default();
    // Refusals are part of the history; only what is true afterwards counts.
    match step {
        Step::Create(app) if hub.state.object(&key(*app)).is_none() => {
            let uid = format!("u{}", hub.requests);
            hub.application(&name(*app), &uid, &[RESOURCES_FINALIZER]);
        }
        Step::Create(_) => {}
        Step::Target(app, content) => {
            let uid = uid(hub, *app);
            let _ = hub.target(&name(*app), &uid, &content.to_string(), true);
        }
        Step::Delete(app) => {
            let _ = hub.apply(Command::Write { writes: vec![Write::Delete { key: key(*app) }] });
        }
        Step::Receipt(app, content) => {
            *seq += 1;
            let _ = hub.receipt(*seq, &name(*app), &content.to_string(), HealthStatus::Healthy);
        }
        Step::Ended(app) => {
            *seq += 1;
            let ended = Receipt::Ended { application: key(*app).name, uid: uid(hub, *app) };
            let _ = hub.receipts(*seq, ended);
        }
        Step::Tick(elapsed) => {
            let _ = hub.apply(Command::Tick { elapsed: Millis(u64::from(*elapsed)) });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Counters never go back, snapshots restore to the same state, and every delta leads to what a whole one says.
    #[test]
    fn histories_keep_the_invariants(steps in proptest::collection::vec(step(), 1..60)) {
        let mut hub = Hub::new();
        let mut seq = 0;
        for step in &steps {
            let before = hub.state.clone();
            run(&mut hub, &mut seq, step);
            let (old, new) = (before.meta(), hub.state.meta());
            prop_assert!(old.revision <= new.revision && old.now <= new.now && old.wall <= new.wall);
            prop_assert!(new.now.since(old.now) <= crate::apply::TICK_MAX);
            prop_assert!(before.cluster(CLUSTER).unwrap().generation <= hub.generation());
            for (name, record) in before.assignments() {
                match hub.state.assignment(name) {
                    Some(now) => prop_assert!(now.uid != record.uid || now.release >= record.release),
                    // What is gone was ended by a tombstone, never by absence.
                    None => {
                        let tombstones = &hub.state.cluster(CLUSTER).unwrap().tombstones;
                        prop_assert!(tombstones.values().any(|tombstone| tombstone.uid == record.uid));
                    }
                }
            }
            let from = before.cluster(CLUSTER).unwrap().generation;
            let parts = desired::delta(&hub.state, CLUSTER, new.epoch, from);
            let told: Vec<_> = parts.iter().flat_map(|part| &part.assignments).map(|one| &one.application).collect();
            // `last_good` alone is no news for an agent: it travels with the next change.
            let seen = |state: &State, name: &NamespacedName| {
                state.assignment(name).map(|record| Assignment { last_good: None, ..record.assignment(name) })
            };
            for (name, _) in hub.state.assignments() {
                let changed = seen(&before, name) != seen(&hub.state, name);
                prop_assert!(!changed || told.contains(&name), "{name} changed and its agent is not told");
            }
        }
        let mut records = Vec::new();
        snapshot::write::<snapshot::SnapshotError>(&hub.state, |record| {
            records.push(record);
            Ok(())
        }).unwrap();
        let restored = snapshot::read(records.iter().map(Vec::as_slice)).unwrap();
        prop_assert_eq!(snapshot::hash(&restored), snapshot::hash(&hub.state));
        prop_assert!(snapshot::read(records.iter().take(records.len() - 1).map(Vec::as_slice)).is_err());
    }
}
