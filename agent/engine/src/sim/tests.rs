//! The simulated cluster behaves as the parts of Kubernetes that the engine relies on.

use serde_json::json;

use super::*;

fn cluster() -> SimulatedCluster {
    SimulatedCluster::new(1, Millis(0))
}

fn deployment(image: &str, replicas: u64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": image}]}}}})
}

fn config(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "default"}, "data": data})
}

#[test]
fn deployments_become_available_and_roll() {
    let mut cluster = cluster();
    let key = ResourceKey::of(&deployment("web:1", 2));
    cluster.apply(&deployment("web:1", 2), "me", DryRun::No).unwrap();
    assert_eq!(cluster.get(&key).unwrap()["status"]["availableReplicas"], 0);
    let due = cluster.next_event_at().unwrap();
    cluster.advance(due);
    assert_eq!(cluster.get(&key).unwrap()["status"]["availableReplicas"], 2);
    cluster.apply(&deployment("web:2", 2), "me", DryRun::No).unwrap();
    assert_eq!(cluster.list(&GroupKind::new("", "Pod")).len(), 4);
    cluster.advance(Millis(2_000));
    assert_eq!(cluster.list(&GroupKind::new("", "Pod")).len(), 2);
    assert_eq!(cluster.get(&key).unwrap()["metadata"]["generation"], 2);
}

#[test]
fn bad_images_exceed_the_progress_deadline() {
    let mut cluster = cluster();
    let mut manifest = deployment("bad:1", 1);
    manifest["spec"]["progressDeadlineSeconds"] = json!(5);
    cluster.apply(&manifest, "me", DryRun::No).unwrap();
    cluster.advance(Millis(4_000));
    let reason = |cluster: &SimulatedCluster| {
        cluster.get(&ResourceKey::of(&deployment("", 0))).unwrap()["status"]["conditions"][1]["reason"].clone()
    };
    assert_eq!(reason(&cluster), "ReplicaSetUpdated");
    cluster.advance(Millis(5_000));
    assert_eq!(reason(&cluster), "ProgressDeadlineExceeded");
}

#[test]
fn applies_own_fields_and_remove_what_they_drop() {
    let mut cluster = cluster();
    let key = ResourceKey::of(&config(json!({})));
    let first = cluster.apply(&config(json!({"a": "1", "b": "2"})), "me", DryRun::No).unwrap();
    let same = cluster.apply(&config(json!({"a": "1", "b": "2"})), "me", DryRun::No).unwrap();
    assert_eq!(first, same, "nothing changes, nothing is written");
    cluster.patch(&key, &json!({"data": {"c": "3", "b": "9"}}), "edit").unwrap();
    let applied = cluster.apply(&config(json!({"a": "1"})), "me", DryRun::No).unwrap();
    assert_eq!(applied["data"], json!({"a": "1", "b": "9", "c": "3"}), "b was taken over by the other manager");
    let applied = cluster.apply(&config(json!({"a": "2", "b": "1"})), "me", DryRun::No).unwrap();
    assert_eq!(applied["data"], json!({"a": "2", "b": "1", "c": "3"}));
    let applied = cluster.apply(&config(json!({"b": "1"})), "me", DryRun::No).unwrap();
    assert_eq!(applied["data"], json!({"b": "1", "c": "3"}));
}

#[test]
fn lists_are_merged_by_key() {
    let mut cluster = cluster();
    let mut manifest = deployment("web:1", 1);
    manifest["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]);
    cluster.apply(&manifest, "me", DryRun::No).unwrap();
    manifest["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "B", "value": "3"}]);
    let applied = cluster.apply(&manifest, "me", DryRun::No).unwrap();
    assert_eq!(applied["spec"]["template"]["spec"]["containers"][0]["env"], json!([{"name": "B", "value": "3"}]));
}

#[test]
fn deletions_cascade_and_namespaces_empty_themselves() {
    let mut cluster = cluster();
    cluster.apply(&deployment("web:1", 3), "me", DryRun::No).unwrap();
    cluster.advance(Millis(1_000));
    let key = ResourceKey::of(&deployment("", 0));
    assert_eq!(cluster.delete(&key, Some("other"), Propagation::Background), Ok(Outcome::Gone));
    assert_eq!(cluster.delete(&key, None, Propagation::Foreground), Ok(Outcome::Deleting));
    cluster.advance(Millis(1_001));
    assert!(cluster.get(&key).is_none() && cluster.list(&GroupKind::new("", "Pod")).is_empty());
    cluster.apply(&config(json!({})), "me", DryRun::No).unwrap();
    let namespace = ResourceKey { kind: "Namespace".to_owned(), name: "default".to_owned(), ..ResourceKey::default() };
    cluster.delete(&namespace, None, Propagation::Background).unwrap();
    cluster.advance(Millis(1_002));
    assert!(cluster.get(&namespace).is_none() && cluster.get(&ResourceKey::of(&config(json!({})))).is_none());
    let error = cluster.apply(&config(json!({})), "me", DryRun::No).unwrap_err();
    assert_eq!((error.reason, &*error.message), (FailureReason::NotFound, "namespaces \"default\" not found"));
}

#[test]
fn definitions_bring_kinds_and_take_them_away() {
    let mut cluster = cluster();
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"kind": "Widget"}, "versions": [{"name": "v1"}]}});
    let widget =
        json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "default"}});
    let refused = cluster.apply(&widget, "me", DryRun::No).unwrap_err();
    assert_eq!(refused.reason, FailureReason::NoMatch);
    cluster.apply(&definition, "me", DryRun::No).unwrap();
    cluster.advance(Millis(500));
    cluster.apply(&widget, "me", DryRun::No).unwrap();
    cluster.delete(&ResourceKey::of(&definition), None, Propagation::Background).unwrap();
    cluster.advance(Millis(600));
    assert!(cluster.get(&ResourceKey::of(&widget)).is_none());
    assert!(cluster.kinds().is_absent(&GroupKind::new("example.com", "Widget")));
}

#[test]
fn the_same_calls_give_the_same_cluster() {
    let run = || {
        let mut cluster = cluster();
        cluster.apply(&deployment("web:1", 2), "me", DryRun::No).unwrap();
        cluster.advance(Millis(5_000));
        cluster.iter().map(|(key, object)| format!("{key} {object}")).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}
