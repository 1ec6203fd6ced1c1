//! Deletion: finalizers, preconditions, orphans, collections.

use serde_json::{Value, json};

use super::fixture::*;

const FINALIZER: &str = "resources-finalizer.argocd.argoproj.io";

fn orphan() -> Value {
    json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1", "propagationPolicy": "Orphan"})
}

#[tokio::test(flavor = "multi_thread")]
async fn finalizers_hold_and_preconditions_count() {
    let hub = Hub::start().await;
    let mut body = config_map("a");
    body["metadata"]["finalizers"] = json!(["example.io/hold"]);
    let made = hub.make(CONFIG_MAPS, &body).await;
    let path = format!("{CONFIG_MAPS}/a");
    for wrong in [json!({"uid": "other"}), json!({"resourceVersion": "1"})] {
        let refused = hub.delete(&path, &json!({"preconditions": wrong})).await;
        assert!(refused.failure().contains("Precondition failed: "), "{}", refused.body);
        assert_eq!(refused.code, 409);
    }
    let held = hub.delete(&path, &json!({"preconditions": {"uid": made["metadata"]["uid"]}})).await;
    assert_eq!((held.code, &held.body["kind"]), (200, &json!("ConfigMap")));
    assert!(held.body["metadata"]["deletionTimestamp"].is_string());
    let released = hub.merge(&path, &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(released.code, 200, "{}", released.body);
    assert_eq!(hub.get(&path).await.code, 404);

    hub.make(CONFIG_MAPS, &config_map("b")).await;
    let gone = hub.delete(&format!("{CONFIG_MAPS}/b"), &Value::Null).await.body;
    assert_eq!((&gone["status"], &gone["details"]["name"]), (&json!("Success"), &json!("b")));
    assert_eq!(hub.delete(&format!("{CONFIG_MAPS}/b"), &Value::Null).await.code, 404);
    assert_eq!(hub.delete("/api/v1/namespaces/argocd", &Value::Null).await.code, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_let_go() {
    let hub = Hub::start().await;
    let mut body = application("web");
    body["metadata"]["finalizers"] = json!([FINALIZER]);
    hub.make(APPLICATIONS, &body).await;
    assert_eq!(hub.delete(&format!("{APPLICATIONS}/web"), &orphan()).await.code, 200);
    assert_eq!(hub.get(&format!("{APPLICATIONS}/web")).await.code, 404);

    let set =
        json!({"metadata": {"name": "set"}, "spec": {"generators": [], "template": {"metadata": {}, "spec": {}}}});
    let set = hub.make(SETS, &set).await;
    let owner = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "ApplicationSet", "name": "set",
        "uid": set["metadata"]["uid"], "controller": true});
    for index in 0..3 {
        let mut child = application(&format!("child-{index}"));
        child["metadata"]["ownerReferences"] = json!([owner]);
        child["metadata"]["finalizers"] = json!([FINALIZER]);
        hub.make(APPLICATIONS, &child).await;
    }
    let deleted = hub.delete(&format!("{SETS}/set"), &orphan()).await;
    assert_eq!((deleted.code, &deleted.body["status"]), (200, &json!("Success")), "{}", deleted.body);
    assert_eq!(hub.get(&format!("{SETS}/set")).await.code, 404);
    let left = hub.get(APPLICATIONS).await.body;
    let left = left["items"].as_array().unwrap();
    assert_eq!(left.len(), 3);
    for child in left {
        assert_eq!(child["metadata"].get("ownerReferences"), None);
        assert_eq!(child["metadata"].get("deletionTimestamp"), None);
        assert_eq!(child["metadata"]["finalizers"], json!([FINALIZER]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_go_by_selector_and_past_what_stands_in_the_way() {
    let hub = Hub::start().await;
    for index in 0..5 {
        let mut body = config_map(&format!("m{index}"));
        body["metadata"]["labels"] = json!({"odd": (index % 2).to_string()});
        hub.make(CONFIG_MAPS, &body).await;
    }
    let deleted = hub.delete(&format!("{CONFIG_MAPS}?labelSelector=odd=1"), &Value::Null).await;
    assert_eq!((deleted.code, &deleted.body["status"]), (200, &json!("Success")));
    assert_eq!(hub.get(CONFIG_MAPS).await.body["items"].as_array().unwrap().len(), 3);
    let projects = "/apis/argoproj.io/v1alpha1/namespaces/argocd/appprojects";
    let project = json!({"metadata": {"name": "a"}, "spec": {"sourceRepos": [], "destinations": []}});
    hub.make(projects, &project).await;
    assert_eq!(hub.delete(projects, &Value::Null).await.code, 403);
    assert_eq!(hub.get(projects).await.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(hub.delete("/api/v1/configmaps", &Value::Null).await.code, 405);
}
