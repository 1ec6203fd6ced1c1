//! Backup and restore of a large group: time, size and peak memory.
//!
//! `cargo bench -p windlass-hub --bench backup` makes 10,000 Applications on 1,000 clusters, each with a bundle of its own (a
//! Deployment of 2 KiB, a ConfigMap of 4 KiB, a Secret), as State and blobs; no network, no Git. The clock of a backup starts
//! before the picture is taken and stops when the file is synced; that of a verification and of a restore covers the whole
//! file. The restore runs in a process of its own, so that its peak memory is its own. `WINDLASS_BENCH_APPLICATIONS=100000`
//! makes ten times as many.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that fails has nothing to say")]

use std::{
    fs::{self, File, Permissions},
    io::{BufReader, BufWriter},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command as Process,
    sync::Arc,
    time::Instant,
};

use serde_json::{Value, json};
use windlass_hub::{
    backup::{AdminAccess, Backup, TrustMaterial, restore, verify},
    blobs::{BundleLimits, Bundles},
    config::{Config, Flags},
    store::blobs::{BlobOptions, BlobStore},
    trust::operator_key,
};
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

const NOW: Millis = Millis::from_secs(1_767_323_045);
/// Applications proposed at a time, as the planner does.
const BATCH: usize = 250;
/// Set in the process that restores: the folder of the run.
const RESTORE: &str = "WINDLASS_BENCH_RESTORE";

fn main() {
    if let Some(folder) = std::env::var_os(RESTORE) {
        return restore_it(Path::new(&folder));
    }
    let count = std::env::var("WINDLASS_BENCH_APPLICATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("operator.key"), "07".repeat(32)).unwrap();
    fs::set_permissions(folder.join("operator.key"), Permissions::from_mode(0o600)).unwrap();
    let sealer = operator_key(&config(folder), None).unwrap();
    let blobs = BlobStore::open(&folder.join("blobs"), BlobOptions::default()).unwrap();
    let limits = BundleLimits { resources: 100, manifest_bytes: 1 << 20, bundle_bytes: 4 << 20 };
    let bundles = Bundles::new(blobs, Arc::clone(&sealer), limits);
    let state = Arc::new(fill(&bundles, count));
    println!("{count} Applications: {} blobs, {} MiB of them", bundles_of(&bundles), blob_mib(&bundles));

    let resident = memory_mib("VmRSS");
    let began = Instant::now();
    let backup = Backup::of(Arc::clone(&state), &bundles, &sealer, root(), NOW).unwrap();
    let file = File::create(folder.join("backup")).unwrap();
    let (out, summary) = backup.write(BufWriter::new(file)).unwrap();
    out.into_inner().unwrap().sync_all().unwrap();
    let (took, peak) = (began.elapsed(), memory_mib("VmHWM"));
    let mib = summary.bytes >> 20;
    println!("backup:  {:6.2} s, {mib} MiB, {} records, {} blobs", took.as_secs_f64(), summary.records, summary.blobs);
    println!("         {resident} MiB resident before it, {peak} MiB at most until its end");

    let began = Instant::now();
    let verified = verify(BufReader::new(File::open(folder.join("backup")).unwrap()), &sealer).unwrap();
    assert_eq!(verified, summary);
    println!("verify:  {:6.2} s, {} MiB at most until its end", began.elapsed().as_secs_f64(), memory_mib("VmHWM"));

    let program = std::env::current_exe().unwrap();
    let status = Process::new(program).env(RESTORE, folder).status().unwrap();
    assert!(status.success(), "the restore failed");
}

fn restore_it(folder: &Path) {
    let config = config(folder);
    let sealer = operator_key(&config, None).unwrap();
    let began = Instant::now();
    let input = BufReader::new(File::open(folder.join("backup")).unwrap());
    let made = restore(&config, &sealer, input, AdminAccess::Keep, NOW).unwrap();
    let (took, peak) = (began.elapsed(), memory_mib("VmHWM"));
    println!("restore: {:6.2} s, {} blobs, {peak} MiB at most", took.as_secs_f64(), made.blobs);
}

fn config(folder: &Path) -> Config {
    let flags = Flags {
        data: Some(folder.join("restored")),
        operator_key_file: Some(folder.join("operator.key")),
        ..Flags::default()
    };
    Config::load(&flags).unwrap()
}

fn fill(bundles: &Bundles, count: usize) -> State {
    let mut state = State::default();
    let mut requests = 0_u128;
    let mut apply = |command: Command| {
        requests += 1;
        let envelope = Envelope {
            request: RequestId(requests.to_be_bytes()),
            subject: "user:bench".to_owned(),
            source: "bench".to_owned(),
            proposed_at: NOW,
            preconditions: Vec::new(),
            command,
        };
        state.apply(&envelope).result.unwrap();
    };
    let uids = ["1", "2", "3"].map(str::to_owned).to_vec();
    apply(Command::Bootstrap { cluster_id: "old".to_owned(), trust_domain: "fleet.example".to_owned(), uids });
    let create = |kind: Kind, namespace: &str, name: &str, body: &Value| Write::Create {
        key: ObjectKey::new(kind, namespace, name),
        uid: name.to_owned(),
        body: body.to_string(),
        sealed: None,
    };
    let clusters = count.div_ceil(10);
    for number in 0..clusters {
        let name = format!("cluster-{number}");
        let body = json!({"apiVersion": "windlass.io/v1alpha1", "kind": "Cluster", "metadata": {"name": name}});
        apply(Command::Write { writes: vec![create(Kind::Cluster, "", &name, &body)] });
    }
    let numbers: Vec<usize> = (0..count).collect();
    for batch in numbers.chunks(BATCH) {
        let (mut writes, mut changes) = (Vec::new(), Vec::new());
        for number in batch {
            let (name, cluster) = (format!("app-{number}"), format!("cluster-{}", number % clusters));
            writes.push(create(Kind::Application, "argocd", &name, &application(&name, &cluster)));
            let (digest, lease) = bundles.put(&manifests(&name)).unwrap();
            drop(lease);
            changes.push(change(&name, &cluster, BundleRef { digest, revision: "0".repeat(40) }));
        }
        apply(Command::Write { writes });
        let first = batch.first().copied().unwrap_or_default();
        apply(Command::Targets {
            rollout: NamespacedName::new("argocd", format!("rollout-{first}")),
            rollout_uid: format!("rollout-{first}"),
            owner: ObjectKey::new(Kind::Application, "argocd", format!("app-{first}")),
            cause: RolloutCause::Commit,
            changes,
        });
    }
    state
}

fn application(name: &str, cluster: &str) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": name},
        "spec": {
            "project": "default", "destination": {"name": cluster, "namespace": name},
            "source": {"repoURL": "https://git.example/fleet", "path": name, "targetRevision": "main"},
            "syncPolicy": {"automated": {"prune": true, "selfHeal": true}},
        },
    })
}

fn change(name: &str, cluster: &str, target: BundleRef) -> TargetChange {
    let automated = Some(Automated { prune: true, self_heal: true, allow_empty: false });
    TargetChange {
        application: NamespacedName::new("argocd", name),
        uid: name.to_owned(),
        cluster: Some(cluster.to_owned()),
        tracking_name: name.to_owned(),
        namespace: name.to_owned(),
        target: Some(target),
        policy: AssignmentPolicy { automated, ..AssignmentPolicy::default() },
        conditions: Vec::new(),
        source_type: "Kustomize".to_owned(),
        images: vec![format!("registry.example/{name}:1")],
    }
}

/// Three manifests that no other Application shares; the text is as hard to compress as hexadecimal digits are.
fn manifests(name: &str) -> [Value; 3] {
    let noise = |count: usize| -> String {
        let mut text = String::new();
        let mut state = blake3::hash(name.as_bytes());
        while text.len() < count {
            text.push_str(state.to_hex().as_str());
            state = blake3::hash(state.as_bytes());
        }
        text
    };
    let environment: Vec<Value> = (0..20)
        .map(|number| json!({"name": format!("SETTING_{number}"), "value": format!("value {number} of {name}")}))
        .collect();
    [
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": name}}, "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{
                    "name": "web", "image": format!("registry.example/{name}:1"), "env": environment,
                }]},
            }},
        }),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"noise": noise(4_000)}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"key": noise(64)}}),
    ]
}

fn root() -> TrustMaterial {
    let name = TrustDomainName::new("fleet.example").unwrap();
    let validity = Validity::new(NOW.as_secs(), NOW.as_secs() + 1_000_000).unwrap();
    let root = TrustDomain::create(&name, KeyMaterial::generate().unwrap(), 1, validity).unwrap();
    TrustMaterial { roots: root.certificate_pem().to_owned(), root_key: root.key().expose_pem() }
}

fn bundles_of(bundles: &Bundles) -> usize {
    bundles.blobs().usage().blobs
}

fn blob_mib(bundles: &Bundles) -> u64 {
    bundles.blobs().usage().bytes >> 20
}

/// A line of this process' status, in MiB.
fn memory_mib(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() >> 10
}
