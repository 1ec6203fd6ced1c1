//! Cases of the comparison: each no-drift case beside a drift case.

use serde_json::json;

use super::*;
use crate::extension::NoExtension;

fn differences(desired: Value, live: Value) -> Vec<String> {
    compare(&normalize::desired(&desired), &live, None, 10).fields.into_keys().collect()
}

fn check(desired: Value, live: Value, expected: &[&str]) {
    assert_eq!(differences(desired, live), expected);
}

fn container(extra: Value) -> Value {
    let mut container = json!({"name": "web", "image": "web:1"});
    for (key, value) in extra.as_object().unwrap() {
        container[key] = value.clone();
    }
    json!({"kind": "Deployment", "spec": {"template": {"spec": {"containers": [container]}}}})
}

#[test]
fn defaults_and_foreign_fields_are_no_drift() {
    let mut live =
        container(json!({"imagePullPolicy": "IfNotPresent", "terminationMessagePath": "/dev/termination-log"}));
    live["spec"]["strategy"] = json!({"type": "RollingUpdate"});
    live["status"] = json!({"replicas": 1});
    check(container(json!({})), live.clone(), &[]);
    live["spec"]["template"]["spec"]["containers"][0]["image"] = json!("web:2");
    check(container(json!({})), live, &["/spec/template/spec/containers/0/image"]);
}

#[test]
fn quantities_are_compared_by_value() {
    let desired =
        container(json!({"resources": {"limits": {"cpu": "1000m", "memory": "1Gi"}, "requests": {"cpu": 0.5}}}));
    let live = |cpu: &str| {
        container(json!({"resources": {"limits": {"cpu": cpu, "memory": "1024Mi"}, "requests": {"cpu": "500m"}}}))
    };
    check(desired.clone(), live("1"), &[]);
    check(desired, live("2"), &["/spec/template/spec/containers/0/resources/limits/cpu"]);
    check(
        json!({"metadata": {"annotations": {"limits": "1000m"}}}),
        json!({"metadata": {"annotations": {"limits": "1"}}}),
        &["/metadata/annotations/limits"],
    );
}

#[test]
fn empty_null_and_absent_are_the_same() {
    let desired = json!({"spec": {"a": {}, "b": [], "c": null, "hostNetwork": false, "d": {"e": {}}}});
    check(desired, json!({"spec": {}}), &[]);
    check(json!({"spec": {"suspend": false}}), json!({"spec": {"suspend": true}}), &["/spec/suspend"]);
    check(json!({"spec": {"replicas": 0}}), json!({"spec": {"replicas": 3}}), &["/spec/replicas"]);
    check(json!({"spec": {"selector": {"app": "x"}}}), json!({"spec": {}}), &["/spec/selector"]);
    check(json!({"spec": {"emptyDir": {}}}), json!({"spec": {"emptyDir": {"medium": "Memory"}}}), &[]);
}

#[test]
fn keyed_lists_are_matched_by_key_not_by_place() {
    let ports = |list: Value| container(json!({"ports": list}));
    let tcp_udp = json!([{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "TCP"}]);
    check(ports(json!([{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}])), ports(tcp_udp.clone()), &[]);
    check(ports(json!([{"containerPort": 54}])), ports(tcp_udp), &["/spec/template/spec/containers/0/ports/0"]);
    let env = |list: Value| container(json!({"env": list}));
    let injected = json!([{"name": "INJECTED", "value": "1"}, {"name": "A", "value": "1"}]);
    check(env(json!([{"name": "A", "value": "1"}])), env(injected.clone()), &[]);
    check(env(json!([{"name": "A", "value": "2"}])), env(injected), &["/spec/template/spec/containers/0/env/0/value"]);
}

#[test]
fn atomic_lists_are_one_value_whose_elements_may_be_defaulted() {
    let service = |ports: Value| json!({"kind": "Service", "spec": {"ports": ports}});
    let live = json!([{"port": 80, "protocol": "TCP", "targetPort": 80}]);
    check(service(json!([{"port": 80}])), service(live.clone()), &[]);
    check(service(json!([{"port": 80}, {"port": 81}])), service(live.clone()), &["/spec/ports"]);
    check(service(json!([{"port": 81}])), service(live), &["/spec/ports/0/port"]);
    check(json!({"args": ["a", "b"]}), json!({"args": ["b", "a"]}), &["/args/0", "/args/1"]);
}

#[test]
fn secrets_are_compared_as_bytes() {
    let secret = |data: Value| json!({"apiVersion": "v1", "kind": "Secret", "data": data});
    let mut desired = secret(json!({"a": "aGVs\nbG8="}));
    desired["stringData"] = json!({"b": "x"});
    check(desired.clone(), secret(json!({"a": "aGVsbG8=", "b": "eA==", "other": "eA=="})), &[]);
    check(desired, secret(json!({"a": "aGVsbG8=", "b": "eQ=="})), &["/data/b"]);
}

fn with_owned(mut live: Value, fields: Value) -> Value {
    live["metadata"]["managedFields"] =
        json!([{"manager": "windlass", "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": fields}]);
    live
}

#[test]
fn what_we_own_but_no_longer_set_is_drift() {
    let live = json!({"kind": "ConfigMap", "data": {"a": "1", "b": "2", "c": "3"}, "metadata": {"labels": {"x": "y"}}});
    let owned = json!({"f:data": {"f:a": {}, "f:b": {}}, "f:metadata": {"f:labels": {"f:x": {}}}});
    let live = with_owned(live, owned);
    check(json!({"data": {"a": "1"}, "metadata": {"labels": {"x": "y"}}}), live.clone(), &["/data/b"]);
    check(json!({"data": {"a": "1", "b": "2"}}), live.clone(), &["/metadata/labels/x"]);
    check(json!({"data": {"a": "1", "b": "2"}, "metadata": {"labels": {"x": "y"}}}), live, &[]);
}

#[test]
fn lost_elements_of_owned_lists_are_drift() {
    let env = json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "INJECTED"}]);
    let key = |name: &str| format!("k:{}", json!({"name": name}));
    let element = json!({".": {}, "f:name": {}, "f:value": {}});
    let owned = json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {
        key("web"): {".": {}, "f:name": {}, "f:image": {}, "f:env": {key("A"): element, key("B"): element}}}}}}});
    let live = with_owned(container(json!({"env": env})), owned);
    let with = |env: Value| container(json!({"env": env}));
    let (a, b) = (json!({"name": "A", "value": "1"}), json!({"name": "B", "value": "2"}));
    check(with(json!([a, b])), live.clone(), &[]);
    check(with(json!([a])), live.clone(), &["/spec/template/spec/containers/0/env/1"]);
    check(container(json!({})), live, &["/spec/template/spec/containers/0/env"]);
}

#[test]
fn tracking_is_not_compared() {
    let live = json!({"kind": "ConfigMap", "metadata": {"annotations": {manifest::TRACKING_ANNOTATION: "x"},
        "labels": {manifest::OWNER_LABEL: "x"}}});
    let owned = json!({"f:metadata": {"f:annotations": {"f:argocd.argoproj.io/tracking-id": {}},
        "f:labels": {"f:windlass.io/owner": {}}}});
    check(json!({"metadata": {"name": "a"}}), with_owned(json!({"metadata": {"name": "a"}}), json!({})), &[]);
    check(json!({"kind": "ConfigMap"}), with_owned(live, owned), &[]);
}

#[test]
fn aggregated_roles_have_no_rules_of_their_own() {
    let role =
        |rules: Value| json!({"kind": "ClusterRole", "aggregationRule": {"clusterRoleSelectors": []}, "rules": rules});
    check(role(json!([])), role(json!([{"verbs": ["get"]}])), &[]);
}

#[test]
fn predictions_are_compared_exactly() {
    let live = json!({"metadata": {"name": "a", "resourceVersion": "5", "generation": 2}, "spec": {"a": 1, "b": [1]}});
    let mut predicted = live.clone();
    predicted["metadata"]["resourceVersion"] = json!("6");
    assert!(compare(&json!({}), &live, Some(&predicted), 10).is_empty());
    predicted["spec"]["b"][0] = json!(2);
    let found = compare(&json!({}), &live, Some(&predicted), 10);
    assert_eq!(found.fields.into_keys().collect::<Vec<_>>(), ["/spec/b/0"]);
}

#[test]
fn known_changes_of_the_api_server_are_no_drift() {
    let (desired, live) = (json!({"spec": {"url": "HTTP://X"}}), json!({"spec": {"url": "http://x"}}));
    let first = compare(&desired, &live, None, 10);
    assert!(!first.is_empty());
    let known = first.fields.clone();
    assert!(first.without(&known).is_empty());
    let changed = compare(&desired, &json!({"spec": {"url": "http://evil"}}), None, 10);
    assert!(!changed.without(&known).is_empty());
}

#[test]
fn differences_are_bounded_and_pointers_escaped() {
    let desired = json!({"a/b": 1, "c~d": 2, "e": 3});
    let found = compare(&desired, &json!({}), None, 2);
    assert!(found.truncated);
    assert_eq!(found.fields.into_keys().collect::<Vec<_>>(), ["/a~1b", "/c~0d"]);
}

#[test]
fn ignored_fields_are_left_out() {
    let rules = [
        json!({"group": "apps", "kind": "*", "jsonPointers": ["/spec/replicas"]}),
        json!({"group": "*", "kind": "Secret", "name": "tls", "jsonPointers": ["/data/a~1b"]}),
        json!({"group": "apps", "kind": "Deployment", "managedFieldsManagers": ["scaler"]}),
    ];
    let rules = IgnoreRules::new(&rules);
    let ignored = rules.of(&key("apps", "Deployment", "web"));
    let mut desired = json!({"spec": {"replicas": 5, "paused": false, "x": 1}});
    let mut live = json!({"spec": {"replicas": 9, "paused": true, "x": 1}, "metadata": {"managedFields": [
        {"manager": "scaler", "operation": "Update", "fieldsV1": {"f:spec": {"f:paused": {}}}}]}});
    ignored.strip(&mut desired, &mut live, &NoExtension).unwrap();
    assert!(compare(&desired, &live, None, 10).is_empty());
    assert!(rules.of(&key("", "Secret", "other")).is_empty());
    let jq = IgnoreRules::new(&[json!({"group": "", "kind": "Secret", "jqPathExpressions": [".data"]})]);
    let ignored = jq.of(&key("", "Secret", "s"));
    assert!(ignored.strip(&mut desired, &mut live, &NoExtension).unwrap_err().contains(".data"));
}

fn key(group: &str, kind: &str, name: &str) -> manifest::ResourceKey {
    manifest::ResourceKey {
        group: group.to_owned(),
        kind: kind.to_owned(),
        namespace: "n".to_owned(),
        name: name.to_owned(),
    }
}

#[test]
fn empty_texts_of_labels_are_values() {
    let with = |labels: Value| json!({"metadata": {"labels": labels}});
    check(with(json!({"role": ""})), with(json!({"role": ""})), &[]);
    check(with(json!({"role": ""})), with(json!({"other": ""})), &["/metadata/labels/role"]);
    check(with(json!({"role": ""})), json!({"metadata": {}}), &["/metadata/labels"]);
}

#[test]
fn respected_fields_never_go_back() {
    let rules = IgnoreRules::new(&[json!({"group": "apps", "kind": "Deployment", "jsonPointers": ["/spec/replicas"]})]);
    let ignored = rules.of(&key("apps", "Deployment", "web"));
    let ours = json!({"manager": "windlass", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}});
    let theirs = json!({"manager": "hpa", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}});
    let live = |managers: Value| json!({"spec": {"replicas": 9}, "metadata": {"managedFields": managers}});
    let mut manifest = json!({"spec": {"replicas": 5}});
    ignored.respect(&mut manifest, &live(json!([ours])));
    assert_eq!(manifest, json!({"spec": {"replicas": 9}}));
    ignored.respect(&mut manifest, &live(json!([ours, theirs])));
    assert_eq!(manifest, json!({"spec": {}}));
}
