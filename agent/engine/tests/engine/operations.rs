//! Waves, hooks, failures, retries, and what an operation may be told.

use serde_json::{Value, json};
use windlass_protocol::{
    manifest::ResourceKey,
    message::RetryPolicy,
    status::{HealthStatus, OperationPhase, SyncStatus},
    time::Millis,
};

use crate::driver::*;

const SECOND: Millis = Millis(1_000);
const MINUTE: Millis = Millis(60_000);

fn phase(driver: &Driver) -> (OperationPhase, String) {
    let operation = driver.status().operation.unwrap();
    (operation.phase, operation.message)
}

#[test]
fn a_broken_manifest_is_reported_and_the_rest_is_applied() {
    let mut driver = Driver::new(Some(ALL));
    driver.assignment.policy.retry = RetryPolicy { limit: 2, ..RetryPolicy::default() };
    let mut broken = deployment("broken", "x");
    broken["spec"]["replicas"] = json!("many");
    driver.release(&[config("a", "1"), broken, deployment("web", "web:1"), wave(config("late", "1"), 1)]);
    driver.run(SECOND);
    let (running, message) = phase(&driver);
    assert_eq!(running, OperationPhase::Running);
    assert!(message.ends_with("Retrying attempt #1 in 5s."), "{message}");
    driver.run(MINUTE);
    assert!(driver.live("Deployment", "web").is_some() && driver.live("ConfigMap", "a").is_some());
    assert!(driver.live("ConfigMap", "late").is_none(), "later waves wait");
    let (failed, message) = phase(&driver);
    assert_eq!(failed, OperationPhase::Failed);
    let error = "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32";
    assert_eq!(message, format!("one or more objects failed to apply, reason: {error} (retried 2 times)."));
    let status = driver.status();
    let line = status.resources.iter().find(|line| line.name == "broken").unwrap();
    assert_eq!(line.message, error);
    assert!(status.message.contains(error));
    assert!(status.conditions.iter().any(|it| it.kind == "SyncError" && it.message.contains(error)));
    assert_eq!(status.applied, None);
    driver.writes();
    driver.run(Millis(600_000));
    assert!(driver.writes().is_empty(), "no second attempt at a failed revision");
    // What was in sync is still healed, and a new revision is tried.
    let key = ResourceKey::of(driver.live("ConfigMap", "a").unwrap());
    driver.cluster.patch(&key, &json!({"data": {"value": "edited"}}), "x").unwrap();
    driver.run(Millis(1));
    assert_eq!(driver.writes(), ["apply ConfigMap default/a"]);
    driver.release(&[config("a", "2")]);
    driver.run(SECOND);
    driver.assert_state(SyncStatus::Synced, HealthStatus::Healthy);
}

#[test]
fn waves_wait_for_health_and_kinds_keep_their_order() {
    let mut driver = Driver::new(Some(ALL));
    driver.release(&[
        wave(deployment("second", "web:1"), 1),
        deployment("first", "web:1"),
        config("a", "1"),
        wave(config("early", "1"), -1),
    ]);
    driver.run(Millis(2_100));
    let expected =
        ["apply ConfigMap default/early", "apply ConfigMap default/a", "apply apps/Deployment default/first"];
    assert_eq!(driver.log, expected);
    let (running, message) = phase(&driver);
    assert_eq!(running, OperationPhase::Running);
    assert_eq!(message, "waiting for healthy state of apps/Deployment/first");
    driver.run(Millis(5_000));
    assert_eq!(driver.log[3..], ["apply apps/Deployment default/second"]);
    driver.assert_state(SyncStatus::Synced, HealthStatus::Healthy);
}

#[test]
fn a_degraded_wave_fails_the_operation() {
    let mut driver = Driver::new(Some(ALL));
    driver.release(&[deployment("web", "bad:1"), wave(config("late", "1"), 1)]);
    driver.run(Millis(29_000));
    assert_eq!(phase(&driver).0, OperationPhase::Running);
    driver.run(Millis(5_000));
    let (failed, message) = phase(&driver);
    assert_eq!(failed, OperationPhase::Failed);
    assert!(
        message.starts_with(
            "one or more synchronization tasks completed unsuccessfully, reason: Deployment \"web\" exceeded"
        ),
        "{message}"
    );
    assert!(driver.live("ConfigMap", "late").is_none());
    driver.assert_state(SyncStatus::OutOfSync, HealthStatus::Degraded);
}

#[test]
fn a_new_release_does_not_wait_for_a_stuck_one() {
    let mut driver = Driver::new(Some(ALL));
    driver.release(&[deployment("web", "bad:1"), wave(config("late", "1"), 1)]);
    driver.run(SECOND);
    driver.release(&[deployment("web", "web:2"), wave(config("late", "1"), 1)]);
    driver.run(Millis(10_000));
    driver.assert_state(SyncStatus::Synced, HealthStatus::Healthy);
}

#[test]
fn the_last_wave_does_not_wait() {
    let mut driver = Driver::new(Some(ALL));
    driver.release(&[deployment("web", "bad:1")]);
    driver.run(SECOND);
    assert_eq!(phase(&driver).0, OperationPhase::Succeeded);
    driver.run(MINUTE);
    driver.assert_state(SyncStatus::Synced, HealthStatus::Degraded);
}

#[test]
fn hooks_run_in_their_phases() {
    let mut driver = Driver::new(Some(ALL));
    let after = annotated(hook("after", "PostSync", "ok"), "argocd.argoproj.io/hook-delete-policy", "HookSucceeded");
    let skipped = annotated(config("skipped", "1"), "argocd.argoproj.io/hook", "Skip");
    driver.release(&[
        after,
        deployment("web", "web:1"),
        hook("before", "PreSync", "ok"),
        hook("oops", "SyncFail", "ok"),
        skipped,
    ]);
    driver.run(Millis(100));
    assert_eq!(driver.log, ["apply batch/Job default/before"]);
    assert_eq!(phase(&driver).1, "waiting for completion of hook batch/Job/before");
    driver.run(Millis(2_800));
    assert_eq!(driver.log[1..], ["apply apps/Deployment default/web"]);
    driver.run(Millis(6_000));
    assert_eq!(driver.log[2..], ["apply batch/Job default/after", "delete batch/Job default/after"]);
    assert_eq!(phase(&driver).0, OperationPhase::Succeeded);
    driver.assert_state(SyncStatus::Synced, HealthStatus::Healthy);
    assert!(driver.live("Job", "before").is_some() && driver.live("Job", "after").is_none());
    assert!(driver.live("ConfigMap", "skipped").is_none());
    let status = driver.status();
    assert!(status.resources.iter().any(|line| line.name == "before" && line.hook));
    // The next operation replaces the hook.
    let uid = driver.live("Job", "before").unwrap()["metadata"]["uid"].clone();
    driver.sync(|_| {});
    driver.run(Millis(10_000));
    assert_ne!(driver.live("Job", "before").unwrap()["metadata"]["uid"], uid);
    assert_eq!(phase(&driver).0, OperationPhase::Succeeded);
}

#[test]
fn a_failed_hook_fails_the_operation_and_runs_the_fail_hooks() {
    let mut driver = Driver::new(Some(ALL));
    driver.release(&[config("a", "1"), hook("before", "PreSync", "bad"), hook("oops", "SyncFail", "ok")]);
    driver.run(MINUTE);
    assert_eq!(driver.log, ["apply batch/Job default/before", "apply batch/Job default/oops"]);
    let (failed, message) = phase(&driver);
    assert_eq!(failed, OperationPhase::Failed);
    assert!(message.contains("Job has reached the specified backoff limit"), "{message}");
    assert!(driver.live("ConfigMap", "a").is_none());
}

#[test]
fn retries_go_on_when_the_cause_is_gone() {
    let mut driver = Driver::new(Some(ALL));
    driver.assignment.policy.retry = RetryPolicy { limit: 5, ..RetryPolicy::default() };
    driver.cluster.faults.reject("ConfigMap", "a", "admission webhook \"x\" denied the request");
    driver.release(&[config("a", "1"), config("b", "1")]);
    driver.run(Millis(20_000));
    assert_eq!(phase(&driver).0, OperationPhase::Running);
    driver.cluster.faults.accept("ConfigMap", "a");
    driver.run(MINUTE);
    let operation = driver.status().operation.unwrap();
    assert_eq!((operation.phase, operation.retries), (OperationPhase::Succeeded, 3));
    driver.assert_state(SyncStatus::Synced, HealthStatus::Healthy);
    assert_eq!(
        driver.log.iter().filter(|line| line.contains("default/b")).count(),
        1,
        "what is in sync is not written again"
    );
}

#[test]
fn an_api_server_that_is_down_is_waited_for() {
    let mut driver = Driver::new(Some(ALL));
    driver.cluster.faults.down = Some("connection refused".to_owned());
    driver.release(&[config("a", "1")]);
    driver.run(Millis(600_000));
    assert!(driver.actions < 60, "{} actions in ten minutes", driver.actions);
    driver.cluster.faults.down = None;
    driver.run(MINUTE);
    driver.assert_state(SyncStatus::Synced, HealthStatus::Healthy);
    driver.release(&[config("a", "2")]);
    driver.cluster.faults.down = Some("connection refused".to_owned());
    driver.run(Millis(600_000));
    assert_eq!(phase(&driver), (OperationPhase::Running, "waiting for the API server: connection refused".to_owned()));
    driver.cluster.faults.down = None;
    driver.run(MINUTE);
    driver.assert_state(SyncStatus::Synced, HealthStatus::Healthy);
}

#[test]
fn namespaces_are_created_with_their_metadata() {
    let mut driver = Driver::new(Some(ALL));
    driver.assignment.namespace = "fresh".to_owned();
    driver.release(&[config("a", "1")]);
    driver.run(SECOND);
    assert_eq!(phase(&driver).0, OperationPhase::Failed);
    assert!(phase(&driver).1.contains("namespaces \"fresh\" not found"));
    driver.assignment.policy.sync_options = vec!["CreateNamespace=true".to_owned()];
    driver.assignment.policy.namespace_labels = vec![("team".to_owned(), "a".to_owned())];
    driver.assignment.policy.parameters = 1;
    driver.assign();
    driver.run(SECOND);
    driver.assert_state(SyncStatus::Synced, HealthStatus::Healthy);
    assert_eq!(driver.live("Namespace", "fresh").unwrap()["metadata"]["labels"]["team"], "a");
}

#[test]
fn custom_resources_wait_for_their_definition() {
    let mut driver = Driver::new(Some(ALL));
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"kind": "Widget"}, "versions": [{"name": "v1"}]}});
    let widget = |name: &str| json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"a": 1}});
    driver.release(&[widget("one"), definition, widget("two")]);
    driver.run(Millis(5_000));
    assert_eq!(phase(&driver).0, OperationPhase::Succeeded);
    driver.assert_state(SyncStatus::Synced, HealthStatus::Healthy);
    // Without a definition the error is Argo CD's.
    let mut driver = Driver::new(Some(ALL));
    driver.release(&[widget("one"), config("a", "1")]);
    driver.run(Millis(10_000));
    let (failed, message) = phase(&driver);
    assert_eq!(failed, OperationPhase::Failed);
    assert!(
        message.contains("The Kubernetes API could not find example.com/Widget for requested resource default/one"),
        "{message}"
    );
    assert!(driver.live("ConfigMap", "a").is_some());
}

#[test]
fn denied_objects_fail_and_others_are_applied() {
    let mut driver = Driver::new(Some(ALL));
    driver.assignment.policy.permitted.namespaces = vec!["default".to_owned()];
    let mut elsewhere = config("x", "1");
    elsewhere["metadata"]["namespace"] = json!("kube-system");
    driver.release(&[elsewhere, config("a", "1")]);
    driver.run(SECOND);
    assert!(phase(&driver).1.contains("namespace kube-system is not permitted in project default"));
    assert!(driver.live("ConfigMap", "a").is_some() && driver.live("ConfigMap", "x").is_none());
}

#[test]
fn dry_runs_and_partial_syncs_do_what_they_say() {
    let mut driver = Driver::new(None);
    driver.release(&[config("a", "1"), config("b", "1"), hook("h", "PreSync", "ok")]);
    driver.sync(|operation| operation.dry_run = true);
    driver.run(SECOND);
    assert!(driver.managed().is_empty());
    assert_eq!(phase(&driver).0, OperationPhase::Succeeded);
    assert_eq!(driver.status().applied, None);
    driver.writes();
    let only = ResourceKey { kind: "ConfigMap".to_owned(), name: "b".to_owned(), ..ResourceKey::default() };
    driver.sync(|operation| operation.resources = vec![only]);
    driver.run(SECOND);
    assert_eq!(driver.writes(), ["apply ConfigMap default/b"]);
    assert_eq!(driver.status().sync, SyncStatus::OutOfSync);
    assert_eq!(driver.status().applied, None);
}

#[test]
fn operations_can_be_terminated() {
    let mut driver = Driver::new(None);
    driver.release(&[deployment("web", "bad:1"), wave(config("late", "1"), 1)]);
    driver.sync(|_| {});
    driver.run(Millis(5_000));
    assert_eq!(phase(&driver).0, OperationPhase::Running);
    driver.sync(|operation| operation.terminate = true);
    driver.run(SECOND);
    assert_eq!(phase(&driver), (OperationPhase::Failed, "Operation terminated".to_owned()));
}

#[test]
fn immutable_fields_are_replaced_only_with_force() {
    let mut driver = Driver::new(None);
    driver.release(&[deployment("web", "web:1")]);
    driver.sync(|_| {});
    driver.run(SECOND);
    let mut changed = deployment("web", "web:1");
    changed["spec"]["selector"]["matchLabels"] = json!({"app": "web", "tier": "x"});
    driver.release(&[changed]);
    driver.sync(|_| {});
    driver.run(SECOND);
    assert!(phase(&driver).1.contains("field is immutable"));
    driver.sync(|operation| operation.force = true);
    driver.run(SECOND);
    assert_eq!(phase(&driver).0, OperationPhase::Succeeded, "{:?}", phase(&driver));
}

#[test]
fn a_bundle_that_cannot_be_loaded_touches_nothing() {
    let mut driver = Driver::new(Some(ALL));
    driver.release(&[config("a", "1")]);
    driver.run(SECOND);
    driver.writes();
    let digest = driver.release(&[config("b", "1")]);
    driver.bundles.clear();
    driver.reconciler.handle_desired(digest, Err("blob is not valid JSON".to_owned()), driver.now);
    driver.run(MINUTE);
    let status = driver.status();
    assert_eq!((status.sync, status.target), (SyncStatus::Unknown, None));
    assert_eq!(status.conditions[0].message, "blob is not valid JSON");
    assert!(driver.writes().is_empty());
}

#[test]
fn ignored_differences_are_no_drift() {
    let mut driver = Driver::new(Some(ALL));
    driver.assignment.policy.ignore_differences =
        vec![json!({"group": "apps", "kind": "Deployment", "jsonPointers": ["/spec/replicas"]}).into()];
    driver.assignment.policy.sync_options = vec!["RespectIgnoreDifferences=true".to_owned()];
    driver.release(&[deployment("web", "web:1")]);
    driver.run(SECOND);
    let key = ResourceKey::of(driver.live("Deployment", "web").unwrap());
    driver.cluster.patch(&key, &json!({"spec": {"replicas": 9}}), "hpa").unwrap();
    driver.run(SECOND);
    driver.assert_state(SyncStatus::Synced, HealthStatus::Healthy);
    for image in ["web:2", "web:3", "web:4"] {
        driver.release(&[deployment("web", image)]);
        driver.run(SECOND);
        let live: &Value = driver.live("Deployment", "web").unwrap();
        assert_eq!(live["spec"]["replicas"], 9);
    }
}
