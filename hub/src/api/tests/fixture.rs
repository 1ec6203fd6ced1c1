//! A hub's API in this process, and a small client.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tempfile::TempDir;
use windlass_hub_core::{Command, ObjectKey, command::Write};
use windlass_protocol::{
    ids::{Digest, NamespacedName},
    resource::{CONTROL_NAMESPACE, Kind},
};
use windlass_transport::identity::RootPin;

use crate::{
    api::*,
    machine::StateMachine,
    raft::{NoPeers, Peer, RaftConfig, RaftNode, Role},
    replica::{Replica, wall_clock},
    sealing::Sealer,
    store::{Identity, Store, StoreId, StoreOptions},
};

pub(super) const APPLICATIONS: &str = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications";
pub(super) const SETS: &str = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applicationsets";
pub(super) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(super) const SECRETS: &str = "/api/v1/namespaces/default/secrets";
pub(super) const CLUSTERS: &str = "/apis/windlass.io/v1alpha1/clusters";

/// A bound on what would otherwise hang when it fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Hub {
    pub(super) router: Router,
    pub(super) replica: Replica,
    pub(super) machine: Arc<StateMachine>,
    _directory: TempDir,
}

/// A response, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl Answer {
    /// `reason: message` of a Status.
    pub(super) fn failure(&self) -> String {
        format!("{}: {}", self.body["reason"].as_str().unwrap_or("-"), self.body["message"].as_str().unwrap_or("-"))
    }
}

impl Hub {
    pub(super) async fn start() -> Self {
        Self::with_limits(ApiLimits::default()).await
    }

    pub(super) async fn with_limits(limits: ApiLimits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let id = StoreId::from_bytes([7; 16]);
        let identity = Identity { cluster: id, node: 1, store: id };
        let store = Store::create(&directory.path().join("store"), identity, &StoreOptions::default()).unwrap();
        let machine = Arc::new(StateMachine::default());
        let config = RaftConfig::new(directory.path().join("snapshots"));
        let raft = RaftNode::start(config, store, machine.clone(), Arc::new(NoPeers)).await.unwrap();
        let peer = Peer { name: "hub-1".to_owned(), address: "hub-1:7444".to_owned() };
        raft.bootstrap(BTreeMap::from([(1, peer)])).await.unwrap();
        let mut status = raft.status();
        tokio::time::timeout(PATIENCE, status.wait_for(|status| status.role == Role::Leader)).await.unwrap().unwrap();
        let replica = Replica::new(Arc::clone(&machine), raft);
        let sealer = Arc::new(Sealer::new(&[9; 32]).unwrap());
        found(&replica, &sealer).await;
        let stub = Arc::new(Stub);
        let context = ApiContext {
            replica: replica.clone(),
            sealer,
            details: stub.clone(),
            admission: stub.clone(),
            manifests: stub.clone(),
            generators: stub.clone(),
            webhook: stub.clone(),
            presence: stub.clone(),
            backups: stub,
            limits,
        };
        Self { router: ApiServer::new(context).router(), replica, machine, _directory: directory }
    }

    /// Sends a request as it is.
    pub(super) async fn send(&self, request: Request<Body>) -> http::Response<Body> {
        TowerToHyperService::new(self.router.clone()).call(request).await.unwrap()
    }

    /// A request of the admin; `content` is the media type of the body.
    pub(super) async fn ask(&self, method: &str, path: &str, content: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, "Bearer admin-token")
            .header(header::CONTENT_TYPE, content)
            .body(Body::from(body.into()))
            .unwrap();
        read(self.send(request).await).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "").await
    }

    pub(super) async fn get_as(&self, path: &str, accept: &str) -> Answer {
        let request = Request::get(path)
            .header(header::AUTHORIZATION, "Bearer admin-token")
            .header(header::ACCEPT, accept)
            .body(Body::empty())
            .unwrap();
        read(self.send(request).await).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, "application/json", body.to_string()).await
    }

    pub(super) async fn merge(&self, path: &str, patch: &Value) -> Answer {
        self.ask("PATCH", path, "application/merge-patch+json", patch.to_string()).await
    }

    pub(super) async fn delete(&self, path: &str, options: &Value) -> Answer {
        let body = if options.is_null() { String::new() } else { options.to_string() };
        self.ask("DELETE", path, "application/json", body).await
    }

    /// Makes an object that must be accepted.
    pub(super) async fn make(&self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, body).await;
        assert_eq!(answer.code, 201, "{}", answer.body);
        answer.body
    }
}

pub(super) async fn read(response: http::Response<Body>) -> Answer {
    let (parts, body) = response.into_parts();
    let bytes = tokio::time::timeout(PATIENCE, body.collect()).await.unwrap().unwrap().to_bytes();
    let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| text());
    Answer { code: parts.status.as_u16(), headers: parts.headers, body }
}

/// What `windlass-hub init` does: bootstrap, and the accounts `admin` and `guest`.
async fn found(replica: &Replica, sealer: &Sealer) {
    let uids = (0..3).map(|_| replica.new_uid().unwrap()).collect();
    let (cluster_id, trust_domain) = ("c".to_owned(), "fleet.example".to_owned());
    let bootstrap = Command::Bootstrap { cluster_id, trust_domain, uids };
    replica.propose("init", "", Vec::new(), bootstrap).await.unwrap();
    let hash = |token: &str| STANDARD.encode(token_hash(token));
    let mut secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": ACCOUNTS_SECRET, "namespace": CONTROL_NAMESPACE},
        "data": {ADMIN_ACCOUNT: hash("admin-token"), "guest": hash("guest-token")},
    });
    let sealed = Some(sealer.split_secret(&mut secret).unwrap());
    let key = ObjectKey::new(Kind::Secret, CONTROL_NAMESPACE, ACCOUNTS_SECRET);
    let write = Write::Create { key, uid: replica.new_uid().unwrap(), body: secret.to_string(), sealed };
    replica.propose("init", "", Vec::new(), Command::Write { writes: vec![write] }).await.unwrap();
}

/// Providers with known answers.
struct Stub;

impl Details for Stub {
    fn detail(&self, _: &Digest) -> Option<Value> {
        None
    }
}

impl Admission for Stub {
    fn join_token<'a>(
        &'a self,
        subject: &'a str,
        cluster: &'a str,
        expires_in: Duration,
    ) -> BoxFuture<'a, Result<JoinToken, ProviderError>> {
        let token = format!("{cluster} for {subject} in {} s", expires_in.as_secs());
        let (root_pin, hubs) = ("sha256:00".to_owned(), vec!["hub:7443".to_owned()]);
        Box::pin(async { Ok(JoinToken { token, expires_at: wall_clock(), root_pin, hubs }) })
    }
}

impl Manifests for Stub {
    fn manifests<'a>(&'a self, _: &'a NamespacedName) -> BoxFuture<'a, Result<Vec<Value>, ProviderError>> {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "eA=="}});
        Box::pin(async { Ok(vec![secret]) })
    }
}

impl Generators for Stub {
    fn generate<'a>(&'a self, _: &'a str, set: Value) -> BoxFuture<'a, Result<Vec<Value>, ProviderError>> {
        Box::pin(async { Ok(vec![set]) })
    }
}

impl Webhook for Stub {
    fn deliver(&self, headers: HeaderMap, body: Bytes) -> BoxFuture<'_, Result<String, ProviderError>> {
        let event = headers.get("X-GitHub-Event").map(|value| value.to_str().unwrap().to_owned());
        Box::pin(async move {
            let event = event.ok_or_else(|| ProviderError::Unauthorized("no event".to_owned()))?;
            Ok(format!("{event} with {} bytes", body.len()))
        })
    }
}

impl BackupStreams for Stub {
    fn backup(&self) -> BoxFuture<'_, Result<BackupStream, ProviderError>> {
        let pieces = futures::stream::iter([Ok(Bytes::from_static(b"first ")), Ok(Bytes::from_static(b"second"))]);
        Box::pin(async move {
            Ok(BackupStream { name: "20260102-030405.windlass-backup".to_owned(), pieces: Box::pin(pieces) })
        })
    }
}

impl Presence for Stub {
    fn sessions(&self) -> usize {
        3
    }

    fn pin(&self) -> RootPin {
        format!("sha256:{}", "0".repeat(64)).parse().unwrap()
    }
}

pub(super) fn application(name: &str) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": name},
        "spec": {
            "project": "default", "source": {"repoURL": "https://git.example/r", "path": "a"},
            "destination": {"name": "c", "namespace": "n"},
        },
    })
}

pub(super) fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

pub(super) const CREATED: u16 = StatusCode::CREATED.as_u16();
