//! Couples a reconciler with a simulated cluster: performs actions at once, lets virtual time jump to the next event, and checks on
//! the way what must always hold.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use windlass_engine::{
    Environment, LiveChange, Outcome, Reconciler, ResumePoint, StatusView, Work, hook::RUN_ANNOTATION, pair,
    sim::SimulatedCluster,
};
use windlass_protocol::{
    ids::{Digest, NamespacedName, OperationId, Release},
    manifest::{self, ResourceKey, TRACKING_ANNOTATION},
    message::{Assignment, AssignmentPolicy, Automated, BundleRef, KindPattern, Operation, Permitted, RetryPolicy},
    status::{HealthStatus, SyncStatus},
    time::Millis,
};

/// One application on one cluster.
pub(crate) struct Driver {
    pub(crate) cluster: SimulatedCluster,
    pub(crate) reconciler: Reconciler,
    pub(crate) assignment: Assignment,
    pub(crate) now: Millis,
    /// What the shell wrote to its disk.
    pub(crate) disk: Option<ResumePoint>,
    pub(crate) bundles: BTreeMap<Digest, Vec<Value>>,
    /// Writes as they reached the API server: `apply apps/Deployment shop/web`.
    pub(crate) log: Vec<String>,
    /// Actions performed so far.
    pub(crate) actions: usize,
    /// Die before the outcome of this action; `true`: after it was performed.
    pub(crate) crash_at: Option<(usize, bool)>,
    started: bool,
}

/// Manual by default.
pub(crate) fn assignment() -> Assignment {
    let all = KindPattern { group: "*".to_owned(), kind: "*".to_owned() };
    let permitted = Permitted {
        project: "default".to_owned(),
        cluster_allow: vec![all],
        namespaces: vec!["*".to_owned()],
        ..Permitted::default()
    };
    Assignment {
        application: NamespacedName::new("argocd", "shop"),
        uid: "app-uid".to_owned(),
        tracking_name: "shop".to_owned(),
        namespace: "default".to_owned(),
        target: None,
        released: None,
        last_good: None,
        release: Release(0),
        policy: AssignmentPolicy {
            permitted,
            retry: RetryPolicy { limit: 0, ..RetryPolicy::default() },
            ..AssignmentPolicy::default()
        },
        operation: None,
    }
}

pub(crate) const ALL: Automated = Automated { prune: true, self_heal: true, allow_empty: false };

impl Driver {
    pub(crate) fn new(automated: Option<Automated>) -> Self {
        let mut assignment = assignment();
        assignment.policy.automated = automated;
        let environment = Arc::new(Environment::default());
        Self {
            cluster: SimulatedCluster::new(7, Millis(1_000)),
            reconciler: Reconciler::new(assignment.clone(), None, environment, Millis(1_000)),
            assignment,
            now: Millis(1_000),
            disk: None,
            bundles: BTreeMap::new(),
            log: Vec::new(),
            actions: 0,
            crash_at: None,
            started: false,
        }
    }

    /// Releases a bundle.
    pub(crate) fn release(&mut self, manifests: &[Value]) -> Digest {
        let digest = Digest::of(Value::from(manifests.to_vec()).to_string().as_bytes());
        self.bundles.insert(digest, manifests.to_vec());
        let bundle = BundleRef { digest, revision: digest.short() };
        self.assignment.target = Some(bundle.clone());
        self.assignment.released = Some(bundle);
        self.assignment.release = self.assignment.release.next();
        self.assign();
        digest
    }

    pub(crate) fn assign(&mut self) {
        self.reconciler.handle_assignment(self.assignment.clone(), self.now);
    }

    /// Asks for an operation.
    pub(crate) fn sync(&mut self, change: impl FnOnce(&mut Operation)) {
        let id = self.assignment.operation.as_ref().map_or(OperationId(1), |operation| operation.id.next());
        let mut operation = Operation {
            id,
            bundle: None,
            prune: false,
            dry_run: false,
            force: false,
            resources: Vec::new(),
            sync_options: Vec::new(),
            terminate: false,
            initiated_by: "test".to_owned(),
        };
        change(&mut operation);
        self.assignment.operation = Some(operation);
        self.assign();
    }

    /// The process dies and starts again from its disk.
    pub(crate) fn restart(&mut self) {
        let environment = Arc::new(Environment::default());
        self.reconciler = Reconciler::new(self.assignment.clone(), self.disk.clone(), environment, self.now);
        self.started = false;
    }

    /// Runs for a while of virtual time.
    pub(crate) fn run(&mut self, duration: Millis) {
        let until = self.now.plus(duration);
        for _ in 0..100_000 {
            self.turn();
            let next = [self.reconciler.poll_timeout(), self.cluster.next_event_at()].into_iter().flatten().min();
            match next.filter(|next| *next <= until) {
                Some(next) if next > self.now => self.now = next,
                // A timeout that is due makes progress in the next turn.
                Some(_) => self.now = self.now.plus(Millis(1)),
                None => {
                    self.now = until;
                    self.turn();
                    return;
                }
            }
            if self.now >= until {
                return;
            }
        }
        panic!(
            "no end in sight at {:?}, woken for {:?}: {:#?}",
            self.now,
            self.reconciler.poll_timeout(),
            self.status()
        );
    }

    /// Everything that happens at this moment.
    fn turn(&mut self) {
        for _ in 0..10_000 {
            self.cluster.advance(self.now);
            let mut busy = false;
            if !self.started {
                self.started = true;
                self.reconciler.handle_kinds(self.cluster.kinds(), self.now);
                busy = true;
            }
            while let Some(change) = self.cluster.poll_change() {
                // A shell routes by `wants`; what is not wanted must make no difference.
                let unwanted = match &change {
                    LiveChange::Present(object) => {
                        let tracking = manifest::annotation(object, TRACKING_ANNOTATION);
                        !self.reconciler.wants(&ResourceKey::of(object), tracking)
                    }
                    LiveChange::Gone { .. } => false,
                };
                if unwanted {
                    continue;
                }
                self.reconciler.handle_live(change, self.now);
                busy = true;
            }
            for digest in self.reconciler.missing_bundles() {
                if let Some(manifests) = self.bundles.get(&digest) {
                    self.reconciler.handle_desired(digest, Ok(manifests.clone()), self.now);
                    busy = true;
                }
            }
            while let Some(action) = self.reconciler.poll_action(self.now) {
                busy = true;
                if !self.perform(action) {
                    break;
                }
            }
            if !busy {
                return;
            }
        }
        panic!("the engine does not come to rest: {:?}", self.log.iter().rev().take(20).collect::<Vec<_>>());
    }

    /// Performs one action; `false` when the process died.
    fn perform(&mut self, action: windlass_engine::Action) -> bool {
        self.actions += 1;
        let crash = self.crash_at.filter(|(at, _)| *at == self.actions);
        if crash.is_some_and(|(_, after)| !after) {
            self.restart();
            return false;
        }
        self.check(&action.work);
        if let Work::Persist(point) = &action.work {
            // Through JSON, as a shell stores it.
            let text = serde_json::to_string(point).unwrap();
            self.disk = Some(serde_json::from_str(&text).unwrap());
        }
        let outcome = self.cluster.perform(&action.work);
        self.note(&action.work, &outcome);
        if crash.is_some() {
            self.restart();
            return false;
        }
        if matches!(action.work, Work::RefreshKinds) {
            self.reconciler.handle_kinds(self.cluster.kinds(), self.now);
        }
        self.reconciler.handle_outcome(action.id, outcome, self.now);
        true
    }

    /// What must always hold.
    fn check(&self, work: &Work) {
        let point = self.disk.clone().unwrap_or_default();
        match work {
            Work::Delete { key, uid, .. } => {
                let inventory = self.reconciler.resume_point().inventory;
                let item = inventory.iter().find(|item| item.key == *key);
                assert!(
                    item.is_some_and(|item| Some(&item.uid) == uid.as_ref()),
                    "deletes {key}, which is not in the inventory"
                );
                let live = self.cluster.get(key);
                let tracked = live.is_none_or(|live| pair::tracked_by(live).is_none_or(|name| name == "shop"));
                assert!(tracked, "deletes {key} of another application");
            }
            Work::Apply(apply) if apply.key.kind != "Namespace" && apply.dry_run == windlass_engine::DryRun::No => {
                assert!(point.running.is_some(), "applies {} without an operation on the disk", apply.key);
                let known = point.inventory.iter().any(|item| item.key == apply.key);
                assert!(known, "creates {} before it is in the inventory on the disk", apply.key);
            }
            _ => {}
        }
    }

    fn note(&mut self, work: &Work, outcome: &Outcome) {
        let (verb, key) = match work {
            Work::Apply(apply) => ("apply", &apply.key),
            Work::Delete { key, .. } => ("delete", key),
            Work::Untrack { key, .. } => ("untrack", key),
            Work::Observe { .. } | Work::RefreshKinds | Work::Persist(_) => return,
        };
        let failed = if matches!(outcome, Outcome::Failed(_)) { " failed" } else { "" };
        self.log.push(format!("{verb} {key}{failed}"));
    }

    pub(crate) fn status(&self) -> StatusView {
        self.reconciler.status()
    }

    pub(crate) fn assert_state(&self, sync: SyncStatus, health: HealthStatus) {
        let status = self.status();
        assert_eq!((status.sync, status.health), (sync, health), "{status:#?}");
    }

    pub(crate) fn live(&self, kind: &str, name: &str) -> Option<&Arc<Value>> {
        self.cluster.iter().find(|(key, _)| key.kind == kind && key.name == name).map(|(_, object)| object)
    }

    /// Objects that carry our tracking, as text, without what differs from run to run.
    pub(crate) fn managed(&self) -> Vec<String> {
        let ours = self.cluster.iter().filter(|(_, object)| pair::tracked_by(object) == Some("shop"));
        ours.map(|(key, object)| {
            let mut object = (**object).clone();
            let metadata = object["metadata"].as_object_mut().unwrap();
            for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
                metadata.remove(field);
            }
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.remove(RUN_ANNOTATION);
            }
            if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
                status.remove("completionTime");
            }
            format!("{key} {object}")
        })
        .collect()
    }

    pub(crate) fn writes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }
}

pub(crate) fn config(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}})
}

pub(crate) fn deployment(name: &str, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {"replicas": 2,
        "progressDeadlineSeconds": 30, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": image}]}}}})
}

pub(crate) fn hook(name: &str, phase: &str, image: &str) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "annotations": {"argocd.argoproj.io/hook": phase}},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": image}]}}}})
}

pub(crate) fn annotated(mut manifest: Value, key: &str, value: &str) -> Value {
    manifest["metadata"]["annotations"][key] = json!(value);
    manifest
}

pub(crate) fn wave(manifest: Value, wave: i64) -> Value {
    annotated(manifest, "argocd.argoproj.io/sync-wave", &wave.to_string())
}
