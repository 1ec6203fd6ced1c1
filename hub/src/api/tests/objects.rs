//! Reads and writes of objects, and their errors.

use std::collections::BTreeSet;

use http::{Request, header};
use serde_json::{Value, json};
use windlass_hub_core::ObjectKey;
use windlass_protocol::resource::{KINDS, Kind};

use super::fixture::*;
use crate::api::ApiLimits;

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_made_read_changed_and_listed() {
    let hub = Hub::start().await;
    let made = hub.make(APPLICATIONS, &application("web")).await;
    assert_eq!(made["metadata"]["namespace"], "argocd");
    assert_eq!(made["metadata"]["generation"], 1);
    let path = format!("{APPLICATIONS}/web");
    assert_eq!(hub.get(&path).await.body, made);

    let patched = hub.merge(&path, &json!({"spec": {"source": {"path": "b"}}})).await;
    assert_eq!((patched.code, &patched.body["metadata"]["generation"]), (200, &json!(2)));
    let operations = json!([{"op": "test", "path": "/spec/source/path", "value": "b"},
        {"op": "replace", "path": "/spec/source/path", "value": "c"}]);
    let patched = hub.ask("PATCH", &path, "application/json-patch+json", operations.to_string()).await;
    assert_eq!((patched.code, &patched.body["spec"]["source"]["path"]), (200, &json!("c")));
    let same = hub.merge(&path, &json!({"spec": {"source": {"path": "c"}}})).await;
    assert_eq!(same.body["metadata"]["resourceVersion"], patched.body["metadata"]["resourceVersion"]);

    let status = hub.merge(&format!("{path}/status"), &json!({"spec": {"project": "x"}, "status": {"a": 1}})).await;
    assert_eq!((&status.body["spec"]["project"], &status.body["status"]["a"]), (&json!("default"), &json!(1)));
    let mut put = status.body.clone();
    put["spec"]["source"]["path"] = json!("d");
    put["status"] = json!({"b": 1});
    let put = hub.ask("PUT", &path, "application/json", put.to_string()).await;
    assert_eq!((&put.body["spec"]["source"]["path"], &put.body["status"]), (&json!("d"), &json!({"a": 1})));

    hub.make(APPLICATIONS, &application("other")).await;
    let list = hub.get("/apis/argoproj.io/v1alpha1/applications").await.body;
    assert_eq!(list["kind"], "ApplicationList");
    assert_eq!(list["metadata"]["resourceVersion"], hub.replica.state().meta().revision.to_string());
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap();
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&list), ["other", "web"]);
    hub.merge(&path, &json!({"metadata": {"labels": {"ring": "1"}}})).await;
    for (query, expect) in [
        ("labelSelector=ring", vec!["web"]),
        ("labelSelector=ring%20notin%20(1)", vec!["other"]),
        ("fieldSelector=metadata.name=other", vec!["other"]),
        ("limit=1&resourceVersion=0", vec!["other", "web"]),
    ] {
        assert_eq!(names(&hub.get(&format!("{APPLICATIONS}?{query}")).await.body), expect, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_worded_as_kubernetes_words_them() {
    let hub = Hub::start().await;
    let made = hub.make(APPLICATIONS, &application("web")).await;
    let path = format!("{APPLICATIONS}/web");
    let mut stale = made.clone();
    stale["metadata"]["resourceVersion"] = json!("1");
    let mut wrong = application("bad");
    wrong["spec"]["source"]["repoURL"] = json!(5);
    let mut elsewhere = application("bad");
    elsewhere["metadata"]["namespace"] = json!("default");
    let all = || APPLICATIONS.to_owned();
    let json = "application/json";
    let merge = "application/merge-patch+json";
    let modified = "Conflict: Operation cannot be fulfilled on applications.argoproj.io \"web\": the object has been \
                    modified; please apply your changes to the latest version and try again";
    for (method, path, content, body, code, failure) in [
        ("GET", format!("{path}2"), json, Value::Null, 404, "NotFound: applications.argoproj.io \"web2\" not found"),
        ("GET", "/nowhere".to_owned(), json, Value::Null, 404, "NotFound: the server could not find"),
        ("POST", all(), json, made, 409, "AlreadyExists: applications.argoproj.io \"web\" already exists"),
        ("PUT", path.clone(), json, stale.clone(), 409, modified),
        ("PATCH", path.clone(), merge, json!({"metadata": {"resourceVersion": "1"}}), 409, modified),
        ("POST", all(), json, wrong, 422, "Invalid: Application.argoproj.io \"bad\" is invalid: spec.source.repoURL: "),
        ("POST", all(), json, elsewhere, 400, "BadRequest: the namespace of the provided object"),
        ("POST", all().replace("argocd", "none"), json, application("x"), 404, "NotFound: namespaces \"none\" not"),
        ("POST", all(), "text/plain", json!({}), 415, "UnsupportedMediaType: "),
        ("PATCH", path.clone(), "application/apply-patch+yaml", json!({}), 415, "UnsupportedMediaType: server-side"),
        ("PATCH", path.clone(), merge, json!({"metadata": {"name": "z"}}), 422, "Invalid: Application.argoproj.io"),
        ("PATCH", path.clone(), merge, json!([]), 400, "BadRequest: "),
        ("POST", path.clone(), json, json!({}), 405, "MethodNotAllowed: "),
        ("GET", format!("{APPLICATIONS}?labelSelector=a%20b"), json, Value::Null, 400, "BadRequest: unable to parse"),
        ("GET", format!("{APPLICATIONS}?continue=x"), json, Value::Null, 410, "Expired: "),
        ("PUT", format!("{APPLICATIONS}/no"), json, application("no"), 404, "NotFound: "),
    ] {
        let answer = hub.ask(method, &path, content, body.to_string()).await;
        assert_eq!(answer.code, code, "{method} {path}: {}", answer.body);
        assert!(answer.failure().starts_with(failure), "{method} {path}: {}", answer.failure());
        assert_eq!((&answer.body["kind"], &answer.body["code"]), (&json!("Status"), &json!(code)));
    }
    let missing = hub.get(&format!("{path}2")).await.body;
    assert_eq!(missing["details"], json!({"name": "web2", "group": "argoproj.io", "kind": "applications"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_and_doubled_fields_are_refused_or_told() {
    let hub = Hub::start().await;
    let mut body = application("web");
    body["spec"]["sorce"] = json!(1);
    let strict = hub.post(&format!("{APPLICATIONS}?fieldValidation=Strict"), &body).await;
    assert_eq!(strict.code, 400);
    assert!(strict.failure().ends_with("strict decoding error: unknown field \"spec.sorce\""), "{}", strict.failure());
    let warned = hub.post(APPLICATIONS, &body).await;
    assert_eq!(warned.code, CREATED);
    assert_eq!(warned.headers[header::WARNING], "299 - \"unknown field \\\"spec.sorce\\\"\"");
    // What was accepted before is not held against a later patch.
    let path = format!("{APPLICATIONS}/web?fieldValidation=Strict");
    assert_eq!(hub.merge(&path, &json!({"metadata": {"labels": {"a": "b"}}})).await.code, 200);
    let strict = hub.merge(&path, &json!({"spec": {"more": 1}})).await;
    assert_eq!(strict.code, 422);
    assert!(strict.failure().ends_with("unknown field \"spec.more\""), "{}", strict.failure());
    let ignored = hub.merge(&format!("{APPLICATIONS}/web?fieldValidation=Ignore"), &json!({"spec": {"more": 1}})).await;
    assert_eq!((ignored.code, ignored.headers.get(header::WARNING)), (200, None));

    let doubled = r#"{"metadata": {"name": "a"}, "data": {"a": "1"}, "data": {"a": "2"}}"#;
    let strict = hub.ask("POST", &format!("{CONFIG_MAPS}?fieldValidation=Strict"), "application/json", doubled).await;
    assert!(strict.failure().ends_with("duplicate field \"data\""), "{}", strict.failure());
    let yaml = hub.ask("POST", CONFIG_MAPS, "application/yaml", "metadata: {name: z}\ndata: {a: on}\n").await;
    assert!(yaml.failure().contains("data.a: must be a text"), "{}", yaml.failure());
    let yaml = hub.ask("POST", CONFIG_MAPS, "application/yaml", "metadata: {name: z}\ndata: {a: 'on'}\n").await;
    assert_eq!((yaml.code, &yaml.body["data"]["a"]), (CREATED, &json!("on")));
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_sealed_in_the_state_and_open_to_clients() {
    let hub = Hub::start().await;
    let secret = json!({"metadata": {"name": "s"}, "data": {"a": "eA=="}, "stringData": {"b": "y"}});
    let made = hub.make(SECRETS, &secret).await;
    assert_eq!((&made["data"], &made["type"]), (&json!({"a": "eA==", "b": "eQ=="}), &json!("Opaque")));
    let key = ObjectKey::new(Kind::Secret, "default", "s");
    let stored = || hub.replica.state().object(&key).cloned().unwrap();
    assert!(!stored().body.contains("eA==") && stored().sealed.is_some());
    let path = format!("{SECRETS}/s");
    assert_eq!(hub.get(&path).await.body, made);
    assert_eq!(hub.get(SECRETS).await.body["items"][0], made);

    let strategic = "application/strategic-merge-patch+json";
    let before = stored().sealed.clone();
    let labelled = hub.ask("PATCH", &path, strategic, r#"{"metadata": {"labels": {"a": "b"}}}"#).await;
    assert_eq!(labelled.body["data"], made["data"]);
    assert_eq!(stored().sealed, before, "unchanged data is not sealed again");
    let changed = hub.ask("PATCH", &path, strategic, r#"{"data": {"a": null, "c": "eg=="}}"#).await;
    assert_eq!(changed.body["data"], json!({"b": "eQ==", "c": "eg=="}));
    assert_eq!(hub.get(&path).await.body, changed.body);
    let bad = hub.ask("PATCH", &path, strategic, r#"{"data": {"a": "§"}}"#).await;
    assert_eq!(bad.code, 422, "{}", bad.body);
    let retyped = hub.merge(&path, &json!({"type": "other"})).await;
    assert!(retyped.failure().contains("type: Invalid value: field is immutable"), "{}", retyped.failure());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_answers_and_changes_nothing() {
    let hub = Hub::start().await;
    let before = hub.replica.state().meta().revision;
    let made = hub.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a")).await;
    assert_eq!((made.code, made.body["metadata"].get("resourceVersion")), (CREATED, None));
    assert_eq!(hub.get(&format!("{CONFIG_MAPS}/a")).await.code, 404);
    assert_eq!(hub.replica.state().meta().revision, before);
    let real = hub.make(CONFIG_MAPS, &config_map("a")).await;
    let tried = hub.merge(&format!("{CONFIG_MAPS}/a?dryRun=All"), &json!({"data": {"a": "2"}})).await.body;
    assert_eq!(tried["data"]["a"], "2");
    assert_eq!(tried["metadata"]["resourceVersion"], real["metadata"]["resourceVersion"]);
    assert_eq!(hub.delete(&format!("{CONFIG_MAPS}/a?dryRun=All"), &Value::Null).await.code, 200);
    assert_eq!(hub.get(&format!("{CONFIG_MAPS}/a")).await.body, real);
    assert_eq!(hub.post(&format!("{CONFIG_MAPS}?dryRun=Some"), &config_map("b")).await.code, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_generated_and_lost_races_are_run_again() {
    let hub = Hub::start().await;
    let mut body = config_map("");
    body["metadata"] = json!({"generateName": "x-"});
    let mut names = BTreeSet::new();
    for _ in 0..3 {
        names.insert(hub.make(CONFIG_MAPS, &body).await["metadata"]["name"].as_str().unwrap().to_owned());
    }
    assert!(names.len() == 3 && names.iter().all(|name| name.len() == 7 && name.starts_with("x-")), "{names:?}");

    hub.make(CONFIG_MAPS, &config_map("shared")).await;
    let path = format!("{CONFIG_MAPS}/shared");
    let patches = (0..4).map(|index| {
        let (hub, path) = (&hub, &path);
        async move { hub.merge(path, &json!({"data": {format!("k{index}"): "v"}})).await.code }
    });
    assert_eq!(futures::future::join_all(patches).await, [200; 4]);
    assert_eq!(hub.get(&path).await.body["data"].as_object().unwrap().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_metadata_are_for_the_asking() {
    let hub = Hub::start().await;
    hub.make(APPLICATIONS, &application("web")).await;
    let table = hub.get_as(APPLICATIONS, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await.body;
    let columns: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "Sync Status", "Health Status", "Revision", "Project"]);
    assert_eq!(table["rows"][0]["cells"], json!(["web", "", "", "", "default"]));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let one = hub.get_as(&format!("{APPLICATIONS}/web"), partial).await.body;
    assert_eq!((&one["metadata"]["name"], one.get("spec")), (&json!("web"), None));
    assert_eq!(hub.get_as(APPLICATIONS, "text/html").await.code, 406);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_accounts_get_in_and_only_the_admin_does_anything() {
    let hub = Hub::with_limits(ApiLimits { body_bytes: 2_000, ..ApiLimits::default() }).await;
    let ask = async |path: &str, token: &str| {
        let request = Request::get(path).header(header::AUTHORIZATION, token);
        read(hub.send(request.body(axum::body::Body::empty()).unwrap()).await).await
    };
    for token in ["", "Bearer", "Bearer x", "Basic admin-token", "Bearer admin-token2"] {
        let refused = ask(APPLICATIONS, token).await;
        assert_eq!((refused.code, refused.failure()), (401, "Unauthorized: Unauthorized".to_owned()), "{token}");
    }
    assert_eq!(ask("/nowhere", "").await.code, 401);
    for open in ["/version", "/healthz", "/livez", "/readyz"] {
        assert_eq!(ask(open, "").await.code, 200, "{open}");
    }
    let forbidden = ask(APPLICATIONS, "Bearer guest-token").await;
    assert!(forbidden.failure().contains("User \"guest\" cannot list resource \"applications\""), "{forbidden:?}");
    let large = hub.post(CONFIG_MAPS, &json!({"metadata": {"name": "a"}, "data": {"a": "x".repeat(3_000)}})).await;
    assert_eq!((large.code, &large.body["reason"]), (413, &json!("RequestEntityTooLarge")));
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_too_large_for_an_entry_are_refused_by_size() {
    let hub = Hub::start().await;
    let nearly = json!({"metadata": {"name": "a"}, "data": {"a": "x".repeat((1 << 20) - 150)}});
    let large = hub.post(CONFIG_MAPS, &nearly).await;
    assert_eq!(large.code, 413, "{}", large.body);
    let fits = json!({"metadata": {"name": "a"}, "data": {"a": "x".repeat((1 << 20) - 5_000)}});
    assert_eq!(hub.post(CONFIG_MAPS, &fits).await.code, CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_and_openapi_name_every_kind() {
    let hub = Hub::start().await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    for (path, group) in [("/api", ""), ("/apis", "argoproj.io")] {
        let all = hub.get_as(path, aggregated).await.body;
        assert_eq!(all["kind"], "APIGroupDiscoveryList");
        let items = all["items"].as_array().unwrap();
        let found = items.iter().find(|item| item["metadata"]["name"].as_str().unwrap_or_default() == group).unwrap();
        let kinds = KINDS.iter().filter(|info| info.group == group).count();
        assert_eq!(found["versions"][0]["resources"].as_array().unwrap().len(), kinds);
    }
    assert_eq!(hub.get("/apis").await.body["kind"], "APIGroupList");
    for info in KINDS {
        let root = if info.group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{}", info.api_version()) };
        let resources = hub.get(&root).await.body["resources"].as_array().unwrap().clone();
        assert!(resources.iter().any(|one| one["name"] == info.plural && one["kind"] == info.name));
        let document = hub.get(&format!("/openapi/v3{root}")).await.body;
        let paths = document["paths"].as_object().unwrap();
        let object = paths.iter().find(|(path, _)| path.ends_with(&format!("/{}/{{name}}", info.plural))).unwrap().1;
        let parameters = object["patch"]["parameters"].as_array().unwrap();
        assert!(parameters.iter().any(|parameter| parameter["name"] == "fieldValidation"));
    }
}
