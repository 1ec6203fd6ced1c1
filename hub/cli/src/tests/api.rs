//! A hub in memory: objects by path, merge patches, lists, watches, and reactions to operations.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, Response, StatusCode, Uri},
};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use windlass_protocol::json;

pub(super) const TOKEN: &str = "good-token";

/// What the hub does when an Application is patched: gets the object after the patch, changes it as a hub would.
pub(super) type Reaction = fn(&mut Value);

/// A server that plays the hub.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) url: String,
    store: Arc<Store>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Store {
    objects: Mutex<BTreeMap<String, Value>>,
    revision: watch::Sender<u64>,
    requests: Mutex<Vec<String>>,
    reaction: Reaction,
}

impl Hub {
    pub(super) async fn start(reaction: Reaction) -> Self {
        let store = Arc::new(Store {
            objects: Mutex::default(),
            revision: watch::channel(1).0,
            requests: Mutex::default(),
            reaction,
        });
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&store));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, store, task }
    }

    /// Stores an object at a path, as if somebody had written it.
    pub(super) fn put(&self, path: &str, object: Value) {
        self.store.put(path, object);
    }

    pub(super) fn remove(&self, path: &str) {
        self.store.remove(path);
    }

    pub(super) fn object(&self, path: &str) -> Option<Value> {
        self.store.objects.lock().unwrap().get(path).cloned()
    }

    /// Method and path of every request but watches and reads of one object.
    pub(super) fn writes(&self) -> Vec<String> {
        let requests = self.store.requests.lock().unwrap();
        requests.iter().filter(|line| !line.starts_with("GET ")).cloned().collect()
    }

    /// Comes back once a watch has begun.
    pub(super) async fn watched(&self) {
        let mut revision = self.store.revision.subscribe();
        while self.store.revision.receiver_count() < 2 {
            // A watch marks itself by a change, see `watch_objects`; the other receiver is ours.
            revision.changed().await.unwrap();
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Store {
    fn put(&self, path: &str, mut object: Value) -> Value {
        let mut objects = self.objects.lock().unwrap();
        self.revision.send_modify(|revision| {
            *revision += 1;
            json::set(&mut object, &["metadata", "resourceVersion"], json!(revision.to_string()));
            objects.insert(path.to_owned(), object.clone());
        });
        object
    }

    fn remove(&self, path: &str) -> Option<Value> {
        let gone = self.objects.lock().unwrap().remove(path);
        self.revision.send_modify(|revision| *revision += 1);
        gone
    }

    fn below(&self, collection: &str) -> BTreeMap<String, Value> {
        let prefix = format!("{collection}/");
        let objects = self.objects.lock().unwrap();
        objects
            .iter()
            .filter(|(path, _)| path.starts_with(&prefix))
            .map(|(path, value)| (path.clone(), value.clone()))
            .collect()
    }
}

async fn answer(
    State(store): State<Arc<Store>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let path = uri.path().to_owned();
    let query = uri.query().unwrap_or_default();
    store.requests.lock().unwrap().push(format!("{method} {path}{}{query}", if query.is_empty() { "" } else { "?" }));
    let allowed = headers.get("authorization").is_some_and(|value| value == &format!("Bearer {TOKEN}"));
    if !allowed {
        return status(StatusCode::UNAUTHORIZED, "Unauthorized", "the token is unknown");
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if path == "/version" {
        return reply(&json!({"gitVersion": "v9.9.9"}));
    }
    match method {
        Method::GET if query.contains("watch=true") || query.contains("watch=1") => watch_objects(store, path),
        Method::GET if is_collection(&path) => list(&store, &path, query),
        Method::GET => found(store.objects.lock().unwrap().get(&path).cloned(), &path),
        Method::POST if path.ends_with("/token") => reply(&json!({"kind": "JoinToken", "status": {"token": "wj.1",
            "expirationTimestamp": "2030-01-01T00:00:00Z", "rootPin": "sha256:aa", "hubs": ["hub:7443"],
            "asked": body["spec"]["expirationSeconds"]}})),
        Method::POST if path.ends_with("/generate") => {
            reply(&json!({"kind": "List", "items": [{"metadata": {"namespace": "argocd", "name": "generated"}}]}))
        }
        Method::POST => {
            let path = format!("{path}/{}", json::text(&body, &["metadata", "name"]));
            if store.objects.lock().unwrap().contains_key(&path) {
                return status(StatusCode::CONFLICT, "AlreadyExists", "\"it\" already exists");
            }
            reply(&store.put(&path, body))
        }
        Method::PATCH => patch(&store, &path, &body),
        Method::DELETE => found(store.remove(&path), &path),
        _ => status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "not allowed"),
    }
}

fn patch(store: &Store, path: &str, patch: &Value) -> Response<Body> {
    let Some(mut object) = store.objects.lock().unwrap().get(path).cloned() else { return found(None, path) };
    merge(&mut object, patch);
    let answer = store.put(path, object.clone());
    (store.reaction)(&mut object);
    store.put(path, object);
    reply(&answer)
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}

fn list(store: &Store, path: &str, query: &str) -> Response<Body> {
    // Two pages, so that paging is exercised by every list.
    let mut items: Vec<Value> = store.below(path).into_values().collect();
    let revision = store.revision.borrow().to_string();
    let (token, from) = if query.contains("continue=") { ("", 1) } else { ("second page", 0) };
    let token = if items.len() > 1 { token } else { "" };
    if !token.is_empty() {
        items.truncate(1);
    }
    let items: Vec<Value> = items.into_iter().skip(from).collect();
    reply(&json!({"kind": "List", "metadata": {"resourceVersion": revision, "continue": token}, "items": items}))
}

/// Sends every object of the collection again whenever anything changes; level-triggered readers do not mind.
fn watch_objects(store: Arc<Store>, path: String) -> Response<Body> {
    let revision = store.revision.subscribe();
    // Whoever waits for watches looks again.
    store.revision.send_modify(|_| {});
    let known = store.below(&path);
    let events = stream::unfold((store, revision, known), move |(store, mut revision, known)| {
        let path = path.clone();
        async move {
            revision.changed().await.ok()?;
            let now = store.below(&path);
            let mut lines = String::new();
            for object in now.values() {
                lines.push_str(&json!({"type": "MODIFIED", "object": object}).to_string());
                lines.push('\n');
            }
            for (path, object) in &known {
                if !now.contains_key(path) {
                    lines.push_str(&json!({"type": "DELETED", "object": object}).to_string());
                    lines.push('\n');
                }
            }
            Some((Ok::<_, std::io::Error>(Bytes::from(lines)), (store, revision, now)))
        }
    });
    Response::new(Body::from_stream(events.boxed()))
}

fn is_collection(path: &str) -> bool {
    ["applications", "applicationsets", "appprojects", "clusters", "rollouts"].iter().any(|name| path.ends_with(name))
}

fn found(object: Option<Value>, path: &str) -> Response<Body> {
    match object {
        Some(object) => reply(&object),
        None => status(StatusCode::NOT_FOUND, "NotFound", &format!("{path:?} not found")),
    }
}

fn reply(value: &Value) -> Response<Body> {
    Response::new(Body::from(value.to_string()))
}

fn status(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message,
        "code": code.as_u16()});
    let mut response = reply(&body);
    *response.status_mut() = code;
    response
}
