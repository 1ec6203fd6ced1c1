//! A real cluster, through kube.
//!
//! Objects are read and written as JSON values: no type of `k8s-openapi` stands between a manifest and the API server.
//! Requests are bounded in number and time; watches have a deadline of their own, because a connection can die
//! without a word.

mod connection;
mod discovery;
mod secret;
mod watch;

use std::{future::Future, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use kube::{
    Client,
    api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy},
    core::{Request, params::ValidationDirective},
};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    sync::{Mutex, Semaphore, mpsc},
    time::timeout,
};
use windlass_engine::Propagation;
use windlass_protocol::{json, manifest::FIELD_MANAGER};

pub use connection::{ConnectError, connect};
pub use secret::SecretStore;

use super::{
    Change, ClusterError, ClusterPort, DeleteOptions, Deletion, Discovery, Freshness, ResourceType, Target, WatchGuard,
    Write, WriteOptions,
};
use crate::limits::Limits;

/// A cluster behind an API server. Cheap to clone.
#[derive(Clone)]
pub struct KubernetesCluster {
    client: Client,
    shared: Arc<Shared>,
}

/// What all clones share.
struct Shared {
    requests: Semaphore,
    discovery: Mutex<Option<Arc<Discovery>>>,
    request_deadline: Duration,
    list_page: u32,
    watch_deadline: Duration,
}

impl std::fmt::Debug for KubernetesCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesCluster").finish_non_exhaustive()
    }
}

impl KubernetesCluster {
    /// Over a connected client.
    #[must_use]
    pub fn new(client: Client, limits: &Limits) -> Self {
        let shared = Shared {
            requests: Semaphore::new(Limits::count(limits.api_requests)),
            discovery: Mutex::new(None),
            request_deadline: Limits::seconds(limits.api_request_seconds),
            list_page: u32::try_from(limits.list_page).unwrap_or(u32::MAX),
            watch_deadline: Limits::seconds(limits.watch_seconds),
        };
        Self { client, shared: Arc::new(shared) }
    }

    /// Runs one request under the limits.
    async fn bounded<T>(&self, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ClusterError> {
        let _permit = self.shared.requests.acquire().await;
        let deadline = self.shared.request_deadline;
        match timeout(deadline, request).await {
            Ok(answer) => answer.map_err(translate),
            Err(_) => Err(ClusterError::Timeout(deadline.as_secs())),
        }
    }

    async fn send(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Value, ClusterError> {
        let request = request.map_err(|error| ClusterError::Unreadable(error.to_string()))?;
        self.bounded(self.client.request::<Value>(request)).await
    }

    async fn get_object(&self, target: &Target) -> Result<Option<Value>, ClusterError> {
        let path = collection(&target.resource, &target.namespace);
        match self.send(Request::new(path).get(&target.name, &GetParams::default())).await {
            Ok(mut object) => {
                trim(&target.resource, &mut object);
                Ok(Some(object))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One page after the other; the resource version is that of the last page.
    async fn list_objects(
        &self,
        resource: &ResourceType,
        namespace: &str,
        selector: &str,
    ) -> Result<(Vec<Value>, String), ClusterError> {
        let mut objects = Vec::new();
        let mut params = ListParams::default().limit(self.shared.list_page);
        if !selector.is_empty() {
            params = params.labels(selector);
        }
        loop {
            let request = Request::new(collection(resource, namespace)).list(&params);
            let request = request.map_err(|error| ClusterError::Unreadable(error.to_string()))?;
            let page = self.bounded(self.client.request::<Page>(request)).await?;
            for mut object in page.items {
                trim(resource, &mut object);
                objects.push(object);
            }
            match page.metadata.next {
                Some(token) if !token.is_empty() => params = params.continue_token(&token),
                _ => return Ok((objects, page.metadata.resource_version)),
            }
        }
    }

    async fn write_object(
        &self,
        target: &Target,
        write: Write<'_>,
        options: WriteOptions,
    ) -> Result<Value, ClusterError> {
        let request = Request::new(collection(&target.resource, &target.namespace));
        let patch_params = PatchParams {
            dry_run: options.dry_run,
            force: matches!(write, Write::Apply(_)),
            field_manager: Some(FIELD_MANAGER.to_owned()),
            field_validation: match (options.strict, write) {
                (true, _) => Some(ValidationDirective::Strict),
                (false, Write::Apply(_)) => Some(ValidationDirective::Ignore),
                (false, _) => None,
            },
        };
        let post_params = PostParams { dry_run: options.dry_run, field_manager: Some(FIELD_MANAGER.to_owned()) };
        let request = match write {
            Write::Apply(manifest) => request.patch(&target.name, &patch_params, &Patch::Apply(manifest)),
            Write::Merge(patch) => request.patch(&target.name, &patch_params, &Patch::Merge(patch)),
            Write::Strategic(patch) => request.patch(&target.name, &patch_params, &Patch::Strategic(patch)),
            Write::Create(manifest) => request.create(&post_params, manifest.to_string().into_bytes()),
            Write::Replace(manifest) => request.replace(&target.name, &post_params, manifest.to_string().into_bytes()),
        };
        let mut object = self.send(request).await?;
        trim(&target.resource, &mut object);
        Ok(object)
    }

    async fn delete_object(&self, target: &Target, options: &DeleteOptions) -> Result<Deletion, ClusterError> {
        let params = DeleteParams {
            propagation_policy: Some(match options.propagation {
                Propagation::Foreground => PropagationPolicy::Foreground,
                Propagation::Background => PropagationPolicy::Background,
                Propagation::Orphan => PropagationPolicy::Orphan,
            }),
            preconditions: options
                .uid
                .as_ref()
                .map(|uid| Preconditions { uid: Some(uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        let path = collection(&target.resource, &target.namespace);
        match self.send(Request::new(path).delete(&target.name, &params)).await {
            Ok(_) => Ok(Deletion::Accepted),
            Err(error) if error.is_not_found() => Ok(Deletion::NotThere),
            // A failed precondition and a concurrent change are both conflicts: the object itself tells them apart.
            Err(error) if error.code() == 409 && options.uid.is_some() => match self.get_object(target).await? {
                Some(live) if options.uid.as_deref() == Some(json::text(&live, &["metadata", "uid"])) => Err(error),
                _ => Ok(Deletion::NotThere),
            },
            Err(error) => Err(error),
        }
    }
}

impl ClusterPort for KubernetesCluster {
    fn discovery(&self, freshness: Freshness) -> BoxFuture<'_, Result<Arc<Discovery>, ClusterError>> {
        Box::pin(self.discover(freshness))
    }

    fn facts(&self) -> BoxFuture<'_, Result<Value, ClusterError>> {
        Box::pin(async {
            let version = self.bounded(self.client.apiserver_version()).await?;
            Ok(serde_json::json!({
                "kubernetesVersion": version.git_version,
                "platform": version.platform,
            }))
        })
    }

    fn get<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Option<Value>, ClusterError>> {
        Box::pin(self.get_object(target))
    }

    fn list<'a>(
        &'a self,
        resource: &'a ResourceType,
        namespace: &'a str,
        selector: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Value>, ClusterError>> {
        Box::pin(async move { Ok(self.list_objects(resource, namespace, selector).await?.0) })
    }

    fn write<'a>(
        &'a self,
        target: &'a Target,
        write: Write<'a>,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<Value, ClusterError>> {
        Box::pin(self.write_object(target, write, options))
    }

    fn delete<'a>(
        &'a self,
        target: &'a Target,
        options: &'a DeleteOptions,
    ) -> BoxFuture<'a, Result<Deletion, ClusterError>> {
        Box::pin(self.delete_object(target, options))
    }

    fn watch(&self, resource: &ResourceType, changes: mpsc::Sender<Change>) -> WatchGuard {
        let task = watch::Watch::new(self.clone(), resource.clone(), changes);
        WatchGuard::new(tokio::spawn(task.run()).abort_handle())
    }
}

/// A page of a list; the items keep whatever they hold.
#[derive(Debug, Deserialize)]
struct Page {
    metadata: PageMetadata,
    #[serde(default)]
    items: Vec<Value>,
}

#[derive(Debug, Deserialize)]
struct PageMetadata {
    #[serde(default, rename = "resourceVersion")]
    resource_version: String,
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

/// Path of a collection.
fn collection(resource: &ResourceType, namespace: &str) -> String {
    let root = if resource.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", resource.group) };
    let version = &resource.version;
    let plural = &resource.plural;
    if resource.namespaced && !namespace.is_empty() {
        format!("{root}/{version}/namespaces/{namespace}/{plural}")
    } else {
        format!("{root}/{version}/{plural}")
    }
}

/// Restores what lists leave out, and drops what nobody here asks for: which fields of the status are whose. The agent
/// holds every managed object in memory, and managedFields are often half of one.
fn trim(resource: &ResourceType, object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    map.entry("apiVersion").or_insert_with(|| Value::from(resource.api_version()));
    map.entry("kind").or_insert_with(|| Value::from(resource.kind.as_str()));
    let fields = map.get_mut("metadata").and_then(|metadata| metadata.get_mut("managedFields"));
    if let Some(Value::Array(entries)) = fields {
        entries.retain(|entry| json::text(entry, &["subresource"]).is_empty());
    }
}

fn translate(error: kube::Error) -> ClusterError {
    match error {
        kube::Error::Api(status) => ClusterError::Refused {
            code: status.code,
            reason: status.reason.clone(),
            message: if status.message.is_empty() { status.reason } else { status.message },
        },
        kube::Error::SerdeError(error) => ClusterError::Unreadable(error.to_string()),
        kube::Error::Auth(error) => ClusterError::Unreachable(format!("authentication: {error}")),
        other => ClusterError::Unreachable(chain(&other)),
    }
}

/// A message with its causes: kube's own text often says only "client error (Connect)".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    for _ in 0..8 {
        let Some(next) = cause else { break };
        let part = next.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_follow_scope_and_group() {
        let deployment = ResourceType {
            group: "apps".into(),
            version: "v1".into(),
            kind: "Deployment".into(),
            plural: "deployments".into(),
            namespaced: true,
            watchable: true,
        };
        assert_eq!(collection(&deployment, "shop"), "/apis/apps/v1/namespaces/shop/deployments");
        assert_eq!(collection(&deployment, ""), "/apis/apps/v1/deployments");
        let node = ResourceType { version: "v1".into(), plural: "nodes".into(), ..ResourceType::default() };
        assert_eq!(collection(&node, "ignored"), "/api/v1/nodes");
    }

    #[test]
    fn owners_of_the_status_are_dropped() {
        let resource = ResourceType { version: "v1".into(), kind: "ConfigMap".into(), ..ResourceType::default() };
        let status = json!({"manager": "kube-controller-manager", "subresource": "status"});
        let mut object = json!({"metadata": {"managedFields": [{"manager": "windlass"}, status]}});
        trim(&resource, &mut object);
        let expected = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"managedFields": [{"manager": "windlass"}]}});
        assert_eq!(object, expected);
    }
}
