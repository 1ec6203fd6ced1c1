//! The process may die at any action: it continues, and nothing runs twice that must not.

use std::collections::BTreeSet;

use windlass_protocol::{
    message::Cascade,
    status::{HealthStatus, OperationPhase, SyncStatus},
    time::Millis,
};

use crate::driver::*;

fn scenario(driver: &mut Driver) {
    driver.release(&[
        hook("before", "PreSync", "ok"),
        annotated(hook("after", "PostSync", "ok"), "argocd.argoproj.io/hook-delete-policy", "HookSucceeded"),
        config("a", "1"),
        wave(deployment("web", "web:1"), 1),
        config("old", "1"),
    ]);
    driver.run(Millis(20_000));
    driver.release(&[
        hook("before", "PreSync", "ok"),
        annotated(hook("after", "PostSync", "ok"), "argocd.argoproj.io/hook-delete-policy", "HookSucceeded"),
        config("a", "2"),
        wave(deployment("web", "web:2"), 1),
    ]);
    driver.run(Millis(20_000));
}

#[test]
fn a_crash_at_any_action_changes_nothing() {
    let mut smooth = Driver::new(Some(ALL));
    scenario(&mut smooth);
    let (expected, actions) = (smooth.managed(), smooth.actions);
    assert_eq!(smooth.status().operation.unwrap().phase, OperationPhase::Succeeded);
    assert!(actions > 20, "{actions}");
    for at in 1..=actions {
        for after in [false, true] {
            let mut driver = Driver::new(Some(ALL));
            driver.crash_at = Some((at, after));
            scenario(&mut driver);
            assert_eq!(driver.managed(), expected, "crash at action {at}, performed: {after}");
            driver.assert_state(SyncStatus::Synced, HealthStatus::Healthy);
            let point = driver.disk.clone().unwrap();
            assert_eq!(point.sequence, 2, "two operations, crash at {at}, performed: {after}");
            assert_eq!(point.running, None);
        }
    }
}

#[test]
fn each_hook_object_is_made_once_per_operation() {
    let mut smooth = Driver::new(Some(ALL));
    scenario(&mut smooth);
    for at in 1..=smooth.actions {
        for after in [false, true] {
            let mut driver = Driver::new(Some(ALL));
            driver.crash_at = Some((at, after));
            scenario(&mut driver);
            // A create that was performed before the crash is adopted afterwards, so each hook is written once per operation.
            for name in ["before", "after"] {
                let created =
                    driver.log.iter().filter(|line| **line == format!("apply batch/Job default/{name}")).count();
                assert_eq!(created, 2, "{name}: crash at action {at}, performed: {after}: {:?}", driver.log);
            }
        }
    }
}

#[test]
fn an_asked_operation_runs_once_whatever_dies() {
    let script = |driver: &mut Driver| {
        driver.release(&[hook("before", "PreSync", "ok"), config("a", "1")]);
        driver.sync(|_| {});
        driver.run(Millis(20_000));
        driver.restart();
        driver.run(Millis(20_000));
    };
    let mut smooth = Driver::new(None);
    script(&mut smooth);
    for at in 1..=smooth.actions {
        let mut driver = Driver::new(None);
        driver.crash_at = Some((at, true));
        script(&mut driver);
        let hooks = driver.log.iter().filter(|line| line.contains("batch/Job")).count();
        assert_eq!(hooks, 1, "crash at {at}: {:?}", driver.log);
        assert_eq!(driver.status().operation.unwrap().phase, OperationPhase::Succeeded);
        driver.assert_state(SyncStatus::Synced, HealthStatus::Healthy);
    }
}

#[test]
fn the_end_continues_after_a_crash() {
    let script = |driver: &mut Driver| {
        driver.release(&[config("a", "1"), wave(deployment("web", "web:1"), 1)]);
        driver.run(Millis(20_000));
        driver.reconciler.end(Cascade::Foreground, driver.now);
        driver.run(Millis(20_000));
    };
    let mut smooth = Driver::new(Some(ALL));
    script(&mut smooth);
    for at in 1..=smooth.actions {
        let mut driver = Driver::new(Some(ALL));
        driver.crash_at = Some((at, true));
        script(&mut driver);
        // The shell gives the tombstone again after a restart.
        driver.reconciler.end(Cascade::Foreground, driver.now);
        driver.run(Millis(20_000));
        assert!(driver.managed().is_empty(), "crash at {at}");
        assert_eq!(driver.status().end, Some(windlass_engine::End::Done), "crash at {at}");
    }
}

#[test]
fn without_its_disk_an_agent_finds_its_objects_again() {
    let mut driver = Driver::new(Some(ALL));
    driver.release(&[config("a", "1"), config("b", "1")]);
    driver.run(Millis(5_000));
    driver.disk = None;
    driver.restart();
    driver.writes();
    driver.run(Millis(5_000));
    assert!(driver.writes().is_empty(), "everything is as desired");
    let names: BTreeSet<String> =
        driver.reconciler.resume_point().inventory.into_iter().map(|item| item.key.name).collect();
    assert_eq!(names, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    driver.release(&[config("a", "1")]);
    driver.run(Millis(5_000));
    assert!(driver.live("ConfigMap", "b").is_none());
}
