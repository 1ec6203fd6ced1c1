//! Random sequences of changes: the engine converges, never deletes what is not ours, never panics. What must always hold is checked
//! by the driver at every action.

use proptest::prelude::*;
use serde_json::{Value, json};
use windlass_engine::{DryRun, Propagation, pair};
use windlass_protocol::{manifest::ResourceKey, message::RetryPolicy, status::SyncStatus, time::Millis};

use crate::driver::*;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Event {
    Release(Vec<(u8, u8)>),
    Edit(u8),
    DeleteLive(u8),
    Foreign(u8),
    Crash(u8),
    Reject(u8),
    Accept(u8),
    Down,
    Up,
    Sync,
    Wait(u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => prop::collection::vec((0..6_u8, 0..3_u8), 0..6).prop_map(Event::Release),
        2 => (0..6_u8).prop_map(Event::Edit),
        2 => (0..6_u8).prop_map(Event::DeleteLive),
        1 => (0..6_u8).prop_map(Event::Foreign),
        2 => (1..20_u8).prop_map(Event::Crash),
        1 => (0..6_u8).prop_map(Event::Reject),
        1 => (0..6_u8).prop_map(Event::Accept),
        1 => Just(Event::Down),
        1 => Just(Event::Up),
        1 => Just(Event::Sync),
        4 => (1..5_000_u16).prop_map(Event::Wait),
    ]
}

fn name(index: u8) -> String {
    format!("object-{index}")
}

fn manifest(index: u8, value: u8) -> Value {
    match index % 3 {
        0 => config(&name(index), &value.to_string()),
        1 => wave(config(&name(index), &value.to_string()), i64::from(index) - 2),
        _ => deployment(&name(index), &format!("web:{value}")),
    }
}

fn live_key(driver: &Driver, index: u8) -> Option<ResourceKey> {
    let kinds = ["ConfigMap", "Deployment"];
    let found = driver.cluster.iter().find(|(key, _)| key.name == name(index) && kinds.contains(&&*key.kind));
    found.map(|(key, _)| key.clone())
}

fn happen(driver: &mut Driver, event: &Event) {
    match event {
        Event::Release(objects) => {
            let manifests: Vec<Value> = objects.iter().map(|(index, value)| manifest(*index, *value)).collect();
            driver.release(&manifests);
        }
        Event::Edit(index) => {
            if let Some(key) = live_key(driver, *index) {
                let patch = json!({"data": {"value": "edited", "more": "x"}, "spec": {"replicas": 1}});
                driver.cluster.patch(&key, &patch, "kubectl-edit").unwrap();
            }
        }
        Event::DeleteLive(index) => {
            if let Some(key) = live_key(driver, *index) {
                driver.cluster.faults.rejections.clear();
                driver.cluster.delete(&key, None, Propagation::Background).unwrap();
            }
        }
        Event::Foreign(index) => {
            let mut object = config(&format!("foreign-{index}"), "1");
            object["metadata"]["namespace"] = json!("default");
            driver.cluster.apply(&object, "someone", DryRun::No).unwrap();
        }
        Event::Crash(after) => driver.crash_at = Some((driver.actions + usize::from(*after), after % 2 == 0)),
        Event::Reject(index) => {
            driver.cluster.faults.reject("ConfigMap", &name(*index), "denied");
        }
        Event::Accept(index) => driver.cluster.faults.accept("ConfigMap", &name(*index)),
        Event::Down => driver.cluster.faults.down = Some("connection refused".to_owned()),
        Event::Up => driver.cluster.faults.down = None,
        Event::Sync => driver.sync(|operation| operation.prune = true),
        Event::Wait(millis) => driver.run(Millis(u64::from(*millis))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_time: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_cluster_converges_to_the_release(events in prop::collection::vec(event(), 1..40)) {
        let mut driver = Driver::new(Some(windlass_protocol::message::Automated { allow_empty: true, ..ALL }));
        driver.assignment.policy.retry = RetryPolicy { limit: 3, ..RetryPolicy::default() };
        for event in &events {
            happen(&mut driver, event);
        }
        let foreign = driver.cluster.iter().filter(|(key, _)| key.name.starts_with("foreign-")).count();
        // Everything works again, and a last release is due.
        driver.cluster.faults.down = None;
        driver.cluster.faults.rejections.clear();
        driver.crash_at = None;
        driver.run(Millis(600_000));
        driver.release(&[config("final", "1"), deployment("object-2", "web:9")]);
        driver.run(Millis(900_000));
        let status = driver.status();
        prop_assert_eq!(status.sync, SyncStatus::Synced, "{:#?}", status);
        let managed: Vec<&str> = driver
            .cluster
            .iter()
            .filter(|(_, object)| pair::tracked_by(object) == Some("shop"))
            .map(|(key, _)| key.name.as_str())
            .collect();
        prop_assert_eq!(managed, vec!["final", "object-2"]);
        let left = driver.cluster.iter().filter(|(key, _)| key.name.starts_with("foreign-")).count();
        prop_assert_eq!(left, foreign);
    }
}
