//! Backups of a small group: what comes back, and what every kind of bad input is told.

mod bad_input;
mod scheduled;

use std::{path::Path, sync::Arc};

use serde_json::json;
use tempfile::TempDir;
use windlass_hub_core::{
    Command, Envelope, ObjectKey, State,
    command::{TargetChange, Write},
};
use windlass_protocol::{
    ids::{NamespacedName, RequestId},
    message::{AssignmentPolicy, Automated, BundleRef},
    resource::{Kind, RolloutCause},
    time::Millis,
};
use windlass_transport::identity::{KeyMaterial, TrustDomain, TrustDomainName, Validity};

use super::*;
use crate::{
    blobs::BundleLimits,
    config::{Config, Flags},
    machine::StateMachine,
    raft::{NoPeers, RaftConfig, RaftNode, Role},
    sealing::Sealer,
    store::{
        Store, StoreOptions,
        blobs::{BlobOptions, BlobStore},
    },
};

const KEY: [u8; 32] = [7; 32];
const NOW: Millis = Millis::from_secs(1_767_323_045);
const CLUSTER: &str = "cluster-uid";

/// A state with Applications whose bundles are in a blob store.
struct World {
    state: State,
    bundles: Bundles,
    sealer: Arc<Sealer>,
    trust: TrustMaterial,
    requests: u128,
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sealer = Arc::new(Sealer::new(&KEY).unwrap());
        let mut world = Self {
            state: State::default(),
            bundles: bundles(&folder.path().join("blobs"), &sealer),
            sealer,
            trust: root(),
            requests: 0,
            folder,
        };
        let uids = ["1", "2", "3"].map(str::to_owned).to_vec();
        let trust_domain = "fleet.example".to_owned();
        world.apply(Command::Bootstrap { cluster_id: "old".to_owned(), trust_domain, uids });
        world.create(
            Kind::Cluster,
            "",
            "east",
            CLUSTER,
            &json!({
                "apiVersion": "windlass.io/v1alpha1", "kind": "Cluster", "metadata": {"name": "east"},
            }),
        );
        world
    }

    fn apply(&mut self, command: Command) {
        self.requests += 1;
        let envelope = Envelope {
            request: RequestId(self.requests.to_be_bytes()),
            subject: "user:test".to_owned(),
            source: "test".to_owned(),
            proposed_at: NOW,
            preconditions: Vec::new(),
            command,
        };
        self.state.apply(&envelope).result.unwrap();
    }

    fn create(&mut self, kind: Kind, namespace: &str, name: &str, uid: &str, body: &serde_json::Value) {
        let key = ObjectKey::new(kind, namespace, name);
        let write = Write::Create { key, uid: uid.to_owned(), body: body.to_string(), sealed: None };
        self.apply(Command::Write { writes: vec![write] });
    }

    /// An Application with a released bundle of a ConfigMap and a Secret.
    fn deploy(&mut self, name: &str) {
        let manifests = [
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "x".repeat(2_000)}}),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"k": "aHVudGVyMg=="}}),
        ];
        let (digest, _lease) = self.bundles.put(&manifests).unwrap();
        self.create(
            Kind::Application,
            "argocd",
            name,
            name,
            &json!({
                "apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": name},
                "spec": {"destination": {"name": "east"}},
            }),
        );
        let automated = Some(Automated { prune: true, self_heal: true, allow_empty: false });
        let change = TargetChange {
            application: NamespacedName::new("argocd", name),
            uid: name.to_owned(),
            cluster: Some(CLUSTER.to_owned()),
            tracking_name: name.to_owned(),
            namespace: "shop".to_owned(),
            target: Some(BundleRef { digest, revision: "abc".to_owned() }),
            policy: AssignmentPolicy { automated, ..AssignmentPolicy::default() },
            conditions: Vec::new(),
            source_type: "Directory".to_owned(),
            images: Vec::new(),
        };
        self.apply(Command::Targets {
            rollout: NamespacedName::new("argocd", format!("{name}-1")),
            rollout_uid: format!("{name}-rollout"),
            owner: ObjectKey::new(Kind::Application, "argocd", name),
            cause: RolloutCause::Commit,
            changes: vec![change],
        });
    }

    fn backup(&self) -> Backup {
        let state = Arc::new(self.state.clone());
        Backup::of(state, &self.bundles, &self.sealer, self.trust.clone(), NOW).unwrap()
    }

    fn file(&self) -> (Vec<u8>, Summary) {
        self.backup().write(Vec::new()).unwrap()
    }

    /// A directory that nobody has used, with this world's operator key.
    fn target(&self, name: &str) -> Config {
        target(&self.folder.path().join(name), &KEY)
    }
}

fn target(data: &Path, key: &[u8; 32]) -> Config {
    use std::os::unix::fs::PermissionsExt as _;

    let parent = data.parent().unwrap();
    let file = parent.join(format!("{}.key", data.file_name().unwrap().to_string_lossy()));
    let text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let flags = Flags { data: Some(data.to_owned()), operator_key_file: Some(file), ..Flags::default() };
    Config::load(&flags).unwrap()
}

fn bundles(folder: &Path, sealer: &Arc<Sealer>) -> Bundles {
    let blobs = BlobStore::open(folder, BlobOptions::default()).unwrap();
    let limits = BundleLimits { resources: 100, manifest_bytes: 1 << 20, bundle_bytes: 4 << 20 };
    Bundles::new(blobs, Arc::clone(sealer), limits)
}

fn root() -> TrustMaterial {
    let name = TrustDomainName::new("fleet.example").unwrap();
    let validity = Validity::new(NOW.as_secs(), NOW.as_secs() + 1_000_000).unwrap();
    let root = TrustDomain::create(&name, KeyMaterial::generate().unwrap(), 1, validity).unwrap();
    TrustMaterial { roots: root.certificate_pem().to_owned(), root_key: root.key().expose_pem() }
}

/// What lies below a folder: names and contents.
fn listing(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.push((path.clone(), Vec::new()));
            found.extend(listing(&path));
        } else {
            found.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// Starts Raft on a restored directory; gives the state of the node once it leads.
async fn started(config: &Config) -> (State, RaftNode) {
    let store = Store::open(&config.data.join("store"), &StoreOptions::default()).unwrap();
    let machine = Arc::new(StateMachine::default());
    let raft_config = RaftConfig::new(config.data.join("snapshots"));
    let raft = RaftNode::start(raft_config, store, Arc::clone(&machine) as _, Arc::new(NoPeers)).await.unwrap();
    let mut status = raft.status();
    let leads = status.wait_for(|status| status.role == Role::Leader);
    tokio::time::timeout(std::time::Duration::from_secs(30), leads).await.unwrap().unwrap();
    ((*machine.state()).clone(), raft)
}

#[test]
fn a_backup_is_unreadable_without_its_key_and_whole_with_it() {
    let mut world = World::new();
    for number in 0..50 {
        world.deploy(&format!("app-{number}"));
    }
    let (file, summary) = world.file();
    // Fifty ConfigMaps, fifty Secrets, fifty indexes.
    assert_eq!((summary.blobs, summary.missing, summary.bytes), (150, 0, file.len() as u64));
    assert_eq!(summary.header.revision, world.state.meta().revision);
    assert_eq!(verify(file.as_slice(), &world.sealer).unwrap(), summary);
    assert_eq!(windlass_protocol::backup::check(file.as_slice()).unwrap().header, summary.header);
    for secret in ["app-1", "BEGIN PRIVATE KEY", "aHVudGVyMg=="] {
        let found = file.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!found, "{secret} can be read in the backup");
    }
    let (again, _) = world.file();
    assert_ne!(file, again, "each file has its own key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_group_has_everything_and_a_later_epoch() {
    let mut world = World::new();
    world.deploy("shop");
    world.deploy("web");
    let (file, summary) = world.file();
    let config = world.target("new");
    let made = restore(&config, &world.sealer, file.as_slice(), AdminAccess::NewToken, NOW).unwrap();
    assert_eq!((made.blobs, made.missing), (6, 0));
    assert!(made.epoch > summary.header.epoch && made.revision > summary.header.revision);

    let (state, raft) = started(&config).await;
    let meta = state.meta();
    assert_eq!((meta.epoch, meta.revision), (made.epoch, made.revision));
    assert_eq!((meta.cluster_id.as_str(), meta.trust_domain.as_str()), (made.cluster_id.as_str(), "fleet.example"));
    assert_ne!(made.cluster_id, "old");
    assert_eq!(state.hubs().map(|(node, _)| node).collect::<Vec<_>>(), [1]);
    assert_eq!(state.assignments().count(), 2);
    raft.shutdown().await;

    // Every manifest is there, the Secret too, and readable.
    let restored = bundles(&config.data.join("blobs"), &world.sealer);
    for (_, assignment) in state.assignments() {
        let digest = assignment.target.as_ref().unwrap().digest;
        let manifests = restored.manifests(&digest).await.unwrap();
        assert_eq!(manifests[1]["data"]["k"], "aHVudGVyMg==");
    }
    // Certificates of the old group stay good: the root is the same, the issuing key is new.
    let trust = trust::Trust::load(&config, &world.sealer).unwrap();
    assert_eq!(trust.bundle().pem(), world.trust.roots);
    let (_, kubeconfig) = made.admin.unwrap();
    assert!(std::fs::read_to_string(kubeconfig).unwrap().contains("wla_"));

    // It goes on from there, also after a restart.
    let (again, raft) = started(&config).await;
    assert_eq!(snapshot::hash(&again), snapshot::hash(&state));
    raft.shutdown().await;
}

#[test]
fn a_missing_blob_is_counted_and_keeps_nothing_else_from_being_saved() {
    let mut world = World::new();
    world.deploy("shop");
    world.deploy("web");
    // The index of one bundle is lost.
    let lost = world.state.assignments().next().unwrap().1.target.as_ref().unwrap().digest;
    let others = BlobStore::open(&world.folder.path().join("others"), BlobOptions::default()).unwrap();
    for digest in world.bundles.contents(&world.state).unwrap().needed.iter().filter(|digest| **digest != lost) {
        let content = world.bundles.blobs().get(&BlobDigest(digest.0)).unwrap().unwrap();
        drop(others.put_batch(vec![(BlobDigest(digest.0), content)]).unwrap());
    }
    drop(others);
    world.bundles = bundles(&world.folder.path().join("others"), &world.sealer);
    let (file, summary) = world.file();
    // What the index names is not known without it.
    assert_eq!((summary.missing, summary.blobs), (1, 3));
    assert_eq!(verify(file.as_slice(), &world.sealer).unwrap().missing, 1);
    let made = restore(&world.target("new"), &world.sealer, file.as_slice(), AdminAccess::Keep, NOW).unwrap();
    assert_eq!(made.missing, 1);
}
