//! Watches: what comes into view and leaves it, bookmarks, the end of the ring.

use std::time::Duration;

use axum::body::Body;
use http::{Request, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::fixture::*;
use crate::{api::ApiLimits, raft::Machine};

/// The lines of a running watch.
struct Lines {
    body: Body,
    rest: Vec<u8>,
}

impl Lines {
    async fn open(hub: &Hub, path: &str) -> Self {
        let request = Request::get(path).header(header::AUTHORIZATION, "Bearer admin-token");
        let response = hub.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), 200, "{path}");
        Self { body: response.into_body(), rest: Vec::new() }
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("an event in time")?;
            self.rest.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
    }

    /// Type, name and label `a` of the next event.
    async fn seen(&mut self) -> (String, String, String) {
        let event = self.next().await.expect("an event");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &event["object"]["metadata"];
        (text(&event["type"]), text(&metadata["name"]), text(&metadata["labels"]["a"]))
    }

    async fn expect(&mut self, kind: &str, name: &str, label: &str) {
        assert_eq!(self.seen().await, (kind.to_owned(), name.to_owned(), label.to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_come_into_view_and_leave_it() {
    let hub = Hub::start().await;
    hub.make(CONFIG_MAPS, &config_map("old")).await;
    let label = async |name: &str, label: Value| {
        hub.merge(&format!("{CONFIG_MAPS}/{name}"), &json!({"metadata": {"labels": {"a": label}}})).await;
    };
    let mut all = Lines::open(&hub, &format!("{CONFIG_MAPS}?watch=true")).await;
    let mut labelled = Lines::open(&hub, &format!("{CONFIG_MAPS}?watch=1&labelSelector=a=1")).await;
    let mut named = Lines::open(&hub, &format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name=new")).await;
    let mut elsewhere = Lines::open(&hub, "/api/v1/namespaces/argocd/configmaps?watch=1").await;
    all.expect("ADDED", "old", "").await;
    label("old", json!("1")).await;
    label("old", json!("2")).await;
    hub.make(CONFIG_MAPS, &config_map("new")).await;
    label("old", json!("1")).await;
    hub.delete(&format!("{CONFIG_MAPS}/old"), &Value::Null).await;
    hub.make("/api/v1/namespaces/argocd/configmaps", &config_map("there")).await;
    for (kind, name, value) in [
        ("MODIFIED", "old", "1"),
        ("MODIFIED", "old", "2"),
        ("ADDED", "new", ""),
        ("MODIFIED", "old", "1"),
        ("DELETED", "old", "1"),
    ] {
        all.expect(kind, name, value).await;
    }
    for (kind, value) in [("ADDED", "1"), ("DELETED", "2"), ("ADDED", "1"), ("DELETED", "1")] {
        labelled.expect(kind, "old", value).await;
    }
    named.expect("ADDED", "new", "").await;
    elsewhere.expect("ADDED", "there", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_where_a_list_ended() {
    let hub = Hub::start().await;
    hub.make(CONFIG_MAPS, &config_map("old")).await;
    let list = hub.get(CONFIG_MAPS).await.body;
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    hub.make(CONFIG_MAPS, &config_map("new")).await;
    let mut watch = Lines::open(&hub, &format!("{CONFIG_MAPS}?watch=1&resourceVersion={revision}")).await;
    watch.expect("ADDED", "new", "").await;

    let streaming = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut watch = Lines::open(&hub, &format!("{CONFIG_MAPS}?{streaming}")).await;
    watch.expect("ADDED", "new", "").await;
    watch.expect("ADDED", "old", "").await;
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["metadata"]["annotations"], json!({"k8s.io/initial-events-end": "true"}));
    hub.make(CONFIG_MAPS, &config_map("newer")).await;
    watch.expect("ADDED", "newer", "").await;
    assert_eq!(hub.get(&format!("{CONFIG_MAPS}?watch=1&sendInitialEvents=true")).await.code, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_left_the_ring_is_gone() {
    let hub = Hub::start().await;
    hub.make(CONFIG_MAPS, &config_map("old")).await;
    // A node that takes over a snapshot knows nothing of what came before it.
    let mut snapshot = Vec::new();
    hub.machine.snapshot().write(&mut snapshot).unwrap();
    hub.machine.restore(&mut snapshot.as_slice()).unwrap();
    let mut watch = Lines::open(&hub, &format!("{CONFIG_MAPS}?watch=1&resourceVersion=1")).await;
    let event = watch.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["code"], &event["object"]["reason"]),
        (&json!("ERROR"), &json!(410), &json!("Expired"),)
    );
    assert_eq!(watch.next().await, None);
    let now = hub.replica.state().meta().revision;
    let mut watch = Lines::open(&hub, &format!("{CONFIG_MAPS}?watch=1&resourceVersion={now}")).await;
    hub.make(CONFIG_MAPS, &config_map("new")).await;
    watch.expect("ADDED", "new", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_are_counted_and_end_in_time() {
    let limits = ApiLimits { watches: 1, bookmark_every: Duration::from_millis(10), ..ApiLimits::default() };
    let hub = Hub::with_limits(limits).await;
    let path = format!("{CONFIG_MAPS}?watch=1&allowWatchBookmarks=true&timeoutSeconds=1");
    let mut watch = Lines::open(&hub, &path).await;
    let refused = hub.get(&path).await;
    assert_eq!((refused.code, &refused.body["reason"]), (429, &json!("TooManyRequests")));
    assert_eq!(refused.headers[header::RETRY_AFTER], "1");
    let mut bookmarks = 0;
    while let Some(event) = watch.next().await {
        assert_eq!(event["type"], "BOOKMARK");
        bookmarks += 1;
    }
    assert!(bookmarks > 1);
    drop(watch);
    Lines::open(&hub, &path).await.next().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_a_table_says_its_columns_once() {
    let hub = Hub::start().await;
    hub.make(CONFIG_MAPS, &config_map("a")).await;
    let request = Request::get(format!("{CONFIG_MAPS}?watch=1"))
        .header(header::AUTHORIZATION, "Bearer admin-token")
        .header(header::ACCEPT, "application/json;as=Table;v=v1;g=meta.k8s.io");
    let body = hub.send(request.body(Body::empty()).unwrap()).await.into_body();
    let mut watch = Lines { body, rest: Vec::new() };
    let first = watch.next().await.unwrap();
    assert_eq!(first["object"]["columnDefinitions"].as_array().unwrap().len(), 3);
    assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
    hub.make(CONFIG_MAPS, &config_map("b")).await;
    let second = watch.next().await.unwrap();
    assert_eq!(second["object"]["columnDefinitions"], json!([]));
    assert_eq!(second["object"]["rows"][0]["cells"][0], "b");
}
