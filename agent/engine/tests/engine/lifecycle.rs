//! Install, upgrade, prune, drift, and the end of an application.

use serde_json::json;
use windlass_engine::{End, LiveChange, Propagation};
use windlass_protocol::{
    manifest::{ResourceKey, TRACKING_ANNOTATION},
    message::{Automated, Cascade},
    status::{HealthStatus, OperationPhase, SyncStatus},
    time::Millis,
};

use crate::driver::*;

const SECOND: Millis = Millis(1_000);
const MINUTE: Millis = Millis(60_000);

#[test]
fn installs_and_reports() {
    let mut driver = Driver::new(Some(ALL));
    let digest = driver.release(&[config("a", "1"), deployment("web", "web:1")]);
    driver.run(Millis(1));
    driver.assert_state(SyncStatus::Synced, HealthStatus::Progressing);
    driver.run(SECOND);
    driver.assert_state(SyncStatus::Synced, HealthStatus::Healthy);
    let status = driver.status();
    assert_eq!(status.applied, Some(digest));
    assert_eq!(status.worst_health, HealthStatus::Missing, "it was missing before");
    let operation = status.operation.clone().unwrap();
    assert_eq!((operation.phase, operation.id, operation.retries), (OperationPhase::Succeeded, None, 0));
    assert_eq!(operation.message, "successfully synced (no more tasks)");
    let lines: Vec<_> =
        status.sync_result.iter().map(|it| (it.kind.as_str(), it.status.as_str(), it.message.as_str())).collect();
    assert_eq!(
        lines,
        [("ConfigMap", "Synced", "configmap/a created"), ("Deployment", "Synced", "deployment.apps/web created"),]
    );
    assert_eq!(driver.writes(), ["apply ConfigMap default/a", "apply apps/Deployment default/web"]);
    driver.reconciler.acknowledge_report();
    assert_eq!(driver.status().worst_health, HealthStatus::Healthy);
    let receipt = driver.status().receipt(driver.now, None);
    assert_eq!((receipt.applied, receipt.sync), (Some(digest), SyncStatus::Synced));
}

#[test]
fn upgrades_write_only_what_changed_and_prune() {
    let mut driver = Driver::new(Some(ALL));
    driver.release(&[config("a", "1"), config("b", "1"), config("c", "1")]);
    driver.run(SECOND);
    driver.writes();
    driver.release(&[config("a", "2"), config("b", "1")]);
    driver.run(SECOND);
    assert_eq!(driver.writes(), ["delete ConfigMap default/c", "apply ConfigMap default/a"]);
    assert!(driver.live("ConfigMap", "c").is_none());
    driver.assert_state(SyncStatus::Synced, HealthStatus::Healthy);
    driver.release(&[config("a", "2"), config("b", "1")]);
    driver.run(SECOND);
    assert!(driver.writes().is_empty(), "an unchanged generation writes nothing");
}

#[test]
fn a_field_removed_from_git_goes_away() {
    let mut driver = Driver::new(Some(ALL));
    let mut first = config("a", "1");
    first["data"]["extra"] = json!("x");
    driver.release(&[first]);
    driver.run(SECOND);
    driver.release(&[config("a", "1")]);
    driver.run(SECOND);
    assert_eq!(driver.live("ConfigMap", "a").unwrap()["data"], json!({"value": "1"}));
    driver.assert_state(SyncStatus::Synced, HealthStatus::Healthy);
}

#[test]
fn without_prune_leftovers_are_only_reported() {
    let mut driver = Driver::new(Some(Automated { prune: false, ..ALL }));
    driver.release(&[config("a", "1"), config("b", "1")]);
    driver.run(SECOND);
    let digest = driver.release(&[config("a", "1")]);
    driver.run(MINUTE);
    let status = driver.status();
    assert_eq!(status.sync, SyncStatus::OutOfSync);
    assert!(status.resources.iter().any(|line| line.name == "b" && line.requires_pruning));
    assert_eq!(status.applied, Some(digest), "nothing else is left to do");
    assert!(driver.live("ConfigMap", "b").is_some());
    driver.sync(|operation| operation.prune = true);
    driver.run(SECOND);
    assert!(driver.live("ConfigMap", "b").is_none());
    driver.assert_state(SyncStatus::Synced, HealthStatus::Healthy);
}

#[test]
fn objects_that_ask_to_stay_are_kept() {
    let mut driver = Driver::new(Some(ALL));
    let kept = annotated(config("kept", "1"), "argocd.argoproj.io/sync-options", "Prune=false");
    driver.release(&[config("a", "1"), kept]);
    driver.run(SECOND);
    driver.release(&[config("a", "2")]);
    driver.run(MINUTE);
    assert!(driver.live("ConfigMap", "kept").is_some());
    let result = driver.status().sync_result;
    let line = result.iter().find(|line| line.name == "kept").unwrap();
    assert_eq!((line.status.as_str(), line.message.as_str()), ("PruneSkipped", "ignored (no prune)"));
}

#[test]
fn manual_applications_stay_untouched_until_an_operation() {
    let mut driver = Driver::new(None);
    driver.release(&[config("a", "1")]);
    driver.run(MINUTE);
    driver.assert_state(SyncStatus::OutOfSync, HealthStatus::Missing);
    assert!(driver.writes().is_empty());
    driver.sync(|_| {});
    driver.run(SECOND);
    driver.assert_state(SyncStatus::Synced, HealthStatus::Healthy);
    assert_eq!(driver.status().operation.unwrap().id.map(|id| id.0), Some(1));
    driver.release(&[config("a", "2")]);
    driver.run(MINUTE);
    driver.assert_state(SyncStatus::OutOfSync, HealthStatus::Healthy);
    assert_eq!(driver.writes().len(), 1, "the operation runs once");
}

#[test]
fn drift_is_healed_at_once_and_then_with_backoff() {
    let mut driver = Driver::new(Some(ALL));
    driver.release(&[deployment("web", "web:1"), config("a", "1")]);
    driver.run(MINUTE);
    driver.writes();
    let key = ResourceKey::of(driver.live("Deployment", "web").unwrap());
    let edit = json!({"spec": {"replicas": 5}});
    driver.cluster.patch(&key, &edit, "kubectl-edit").unwrap();
    driver.run(Millis(1));
    assert_eq!(driver.writes(), ["apply apps/Deployment default/web"]);
    assert_eq!(driver.live("Deployment", "web").unwrap()["spec"]["replicas"], 2);
    let mut heals = 0;
    for _ in 0..60 {
        driver.cluster.patch(&key, &edit, "kubectl-edit").unwrap();
        driver.run(SECOND);
        heals += driver.writes().len();
    }
    assert!((4..=7).contains(&heals), "{heals} heals in a minute");
    // A deleted object comes back at once.
    let config = ResourceKey::of(driver.live("ConfigMap", "a").unwrap());
    driver.cluster.delete(&config, None, Propagation::Background).unwrap();
    driver.run(Millis(1));
    assert!(driver.live("ConfigMap", "a").is_some());
}

#[test]
fn without_self_heal_drift_is_only_reported() {
    let mut driver = Driver::new(Some(Automated { self_heal: false, ..ALL }));
    driver.release(&[config("a", "1")]);
    driver.run(SECOND);
    driver.writes();
    let key = ResourceKey::of(driver.live("ConfigMap", "a").unwrap());
    driver.cluster.patch(&key, &json!({"data": {"value": "edited"}}), "kubectl-edit").unwrap();
    driver.run(MINUTE);
    driver.assert_state(SyncStatus::OutOfSync, HealthStatus::Healthy);
    assert_eq!(driver.status().resources[0].message, "differs: /data/value");
    assert!(driver.writes().is_empty());
}

#[test]
fn a_window_holds_automatic_operations() {
    let mut driver = Driver::new(Some(ALL));
    driver.assignment.policy.held = Some("outside of the sync windows".to_owned());
    driver.release(&[config("a", "1")]);
    driver.run(MINUTE);
    assert!(driver.writes().is_empty());
    driver.assignment.policy.held = None;
    driver.assign();
    driver.run(SECOND);
    driver.assert_state(SyncStatus::Synced, HealthStatus::Healthy);
}

#[test]
fn the_last_resource_is_not_removed_by_an_empty_bundle() {
    let mut driver = Driver::new(Some(ALL));
    driver.release(&[config("a", "1")]);
    driver.run(SECOND);
    driver.release(&[]);
    driver.run(MINUTE);
    assert!(driver.live("ConfigMap", "a").is_some());
    assert!(driver.status().conditions[0].message.contains("auto-sync will wipe out all resources"));
    driver.assignment.policy.automated = Some(Automated { allow_empty: true, ..ALL });
    driver.assign();
    driver.run(SECOND);
    assert!(driver.live("ConfigMap", "a").is_none());
}

#[test]
fn the_brake_holds_a_bundle_that_loses_most() {
    let mut driver = Driver::new(Some(ALL));
    let all: Vec<_> = (0..8).map(|index| config(&format!("c{index}"), "1")).collect();
    driver.release(&all);
    driver.run(SECOND);
    let digest = driver.release(&all[..1]);
    driver.run(MINUTE);
    assert_eq!(driver.managed().len(), 8);
    assert_eq!(driver.status().sync, SyncStatus::OutOfSync);
    driver.assignment.policy.prune_approval = Some(digest.to_string());
    driver.assign();
    driver.run(SECOND);
    assert_eq!(driver.managed().len(), 1);
}

#[test]
fn objects_of_other_applications_are_not_pruned_and_warned_about() {
    let mut driver = Driver::new(Some(ALL));
    driver.release(&[config("a", "1"), config("b", "1")]);
    driver.run(SECOND);
    let key = ResourceKey::of(driver.live("ConfigMap", "b").unwrap());
    let taken = json!({"metadata": {"annotations": {TRACKING_ANNOTATION: key.tracking_id("other")}}});
    driver.cluster.patch(&key, &taken, "windlass-other").unwrap();
    driver.run(Millis(1));
    let warning = driver.status().conditions;
    assert_eq!(warning[0].message, "ConfigMap/b is part of applications shop and other");
    driver.release(&[config("a", "1")]);
    driver.run(MINUTE);
    assert!(driver.live("ConfigMap", "b").is_some());
    driver.assert_state(SyncStatus::Synced, HealthStatus::Healthy);
}

#[test]
fn tombstones_delete_what_is_ours_from_high_waves_to_low() {
    for (cascade, kept) in [(Cascade::Background, false), (Cascade::Foreground, false), (Cascade::Orphan, true)] {
        let mut driver = Driver::new(Some(ALL));
        driver.release(&[config("low", "1"), wave(deployment("web", "web:1"), 5)]);
        driver.run(MINUTE);
        let foreign = driver.cluster.apply(
            &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "foreign", "namespace": "default"}}),
            "someone",
            windlass_engine::DryRun::No,
        );
        foreign.unwrap();
        driver.writes();
        driver.reconciler.end(cascade, driver.now);
        assert!(matches!(driver.status().end, Some(End::Pending(_))));
        driver.run(MINUTE);
        assert_eq!(driver.status().end, Some(End::Done), "{cascade:?}");
        assert_eq!(driver.live("ConfigMap", "low").is_some(), kept);
        assert_eq!(driver.live("Deployment", "web").is_some(), kept);
        assert!(driver.live("ConfigMap", "foreign").is_some());
        assert!(driver.managed().is_empty());
        if !kept {
            assert_eq!(driver.writes(), ["delete apps/Deployment default/web", "delete ConfigMap default/low"]);
        }
    }
}

#[test]
fn the_end_waits_for_finalizers_and_says_so() {
    let mut driver = Driver::new(Some(ALL));
    let mut held = config("held", "1");
    held["metadata"]["finalizers"] = json!(["example.com/wait"]);
    driver.release(&[held, config("a", "1")]);
    driver.run(SECOND);
    driver.reconciler.end(Cascade::Background, driver.now);
    driver.run(MINUTE);
    let Some(End::Pending(reason)) = driver.status().end else { panic!("not pending") };
    assert!(reason.contains("held") && reason.contains("example.com/wait"), "{reason}");
    let key = ResourceKey::of(driver.live("ConfigMap", "held").unwrap());
    driver.cluster.patch(&key, &json!({"metadata": {"finalizers": null}}), "x").unwrap();
    driver.run(SECOND);
    assert_eq!(driver.status().end, Some(End::Done));
}

#[test]
fn late_news_do_not_undo_what_is_known() {
    let mut driver = Driver::new(Some(ALL));
    driver.release(&[config("a", "1")]);
    driver.run(SECOND);
    let old = driver.live("ConfigMap", "a").unwrap().clone();
    driver.release(&[config("a", "2")]);
    driver.run(SECOND);
    driver.writes();
    driver.reconciler.handle_live(LiveChange::Present(old.clone()), driver.now);
    let gone = LiveChange::Gone { key: ResourceKey::of(&old), uid: "another".to_owned() };
    driver.reconciler.handle_live(gone, driver.now);
    driver.run(SECOND);
    assert!(driver.writes().is_empty());
    driver.assert_state(SyncStatus::Synced, HealthStatus::Healthy);
}
