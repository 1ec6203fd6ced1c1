//! The hub's API, as this program speaks to it: ordinary Kubernetes REST with a bearer token.
//!
//! Objects are JSON values; nothing is lost on the way through. Every error says what to do.

mod connect;
mod error;

use std::time::Duration;

use anyhow::Result;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Limited};
use kube::{
    api::{Api, DynamicObject},
    client::Body,
    discovery::ApiResource,
};
use serde_json::{Value, json};
use windlass_protocol::{
    json,
    resource::{CONTROL_NAMESPACE, Kind},
};

pub(crate) use self::{
    connect::{read_pem, server_url},
    error::ApiError,
};
use crate::args::Global;

/// The hub, and the namespace that commands work in.
#[derive(Clone)]
pub(crate) struct Client {
    inner: kube::Client,
    server: String,
    namespace: String,
    user: String,
    timeout: Duration,
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    /// Label selector as kubectl writes it.
    pub(crate) selector: Option<String>,
}

impl Client {
    /// Finds the hub that the options, the environment and the kubeconfig name. Does not connect yet.
    pub(crate) async fn new(global: &Global) -> Result<Self> {
        connect::connect(global).await
    }

    /// The hub of the current context of a kubeconfig.
    pub(crate) async fn from_kubeconfig(config: Value, timeout_seconds: u64) -> Result<Self> {
        connect::of_kubeconfig(config, timeout_seconds).await
    }

    /// URL of the hub.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// The namespace that commands work in.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The kubeconfig's name of the user, for records of who did what. The hub knows better.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// Namespace and name of an object written `NAME` or, as Argo CD prints it, `NAMESPACE/NAME`.
    pub(crate) fn qualified(&self, name: &str) -> (String, String) {
        match name.split_once('/') {
            Some((namespace, name)) => (namespace.to_owned(), name.to_owned()),
            None => (self.namespace.clone(), name.to_owned()),
        }
    }

    /// The object at a path.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.request(Method::GET, path, None).await
    }

    /// The bytes at a path, as they come.
    pub(crate) async fn stream(&self, path: &str) -> Result<Body, ApiError> {
        let request = Request::builder().method(Method::GET).uri(path).body(Body::empty());
        let request =
            request.map_err(|error| ApiError::Request { path: path.to_owned(), reason: error.to_string() })?;
        let sent = self.in_time(self.inner.send(request)).await?;
        let response = sent.map_err(|error| ApiError::connect(&self.server, &error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let body = self.in_time(Limited::new(response.into_body(), RESPONSE_BYTES_MAX).collect()).await?;
        let bytes = body.map(|body| body.to_bytes()).unwrap_or_default();
        Err(ApiError::status(&self.server, path, status.as_u16(), &bytes))
    }

    /// What the hub does within the time of one request.
    pub(crate) async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, ApiError> {
        let late = |_| ApiError::Timeout { server: self.server.clone(), seconds: self.timeout.as_secs() };
        tokio::time::timeout(self.timeout, work).await.map_err(late)
    }

    /// The object at a path, or nothing.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<Value>, ApiError> {
        match self.get(path).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every object of a kind, page by page; `namespace` is `None` for all.
    pub(crate) async fn list(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        query: &Query,
    ) -> Result<Vec<Value>, ApiError> {
        let path = path(kind, namespace, None);
        let info = kind.info();
        let (mut items, mut token) = (Vec::new(), String::new());
        loop {
            let mut address = format!("{path}?limit={PAGE}");
            if let Some(selector) = &query.selector {
                address.push_str(&format!("&labelSelector={}", escape(selector)));
            }
            if !token.is_empty() {
                address.push_str(&format!("&continue={}", escape(&token)));
            }
            let mut page = self.get(&address).await?;
            if let Some(Value::Array(found)) = json::remove(&mut page, &["items"]) {
                items.extend(found.into_iter().map(|item| with_kind(item, &info.api_version(), info.name)));
            }
            token = json::text(&page, &["metadata", "continue"]).to_owned();
            if token.is_empty() {
                return Ok(items);
            }
        }
    }

    /// Creates an object in the collection at a path.
    pub(crate) async fn create(&self, path: &str, object: &Value) -> Result<Value, ApiError> {
        self.request(Method::POST, path, Some((JSON, object))).await
    }

    /// Replaces the object at a path.
    pub(crate) async fn replace(&self, path: &str, object: &Value) -> Result<Value, ApiError> {
        self.request(Method::PUT, path, Some((JSON, object))).await
    }

    /// Changes the object at a path by a JSON merge patch.
    pub(crate) async fn patch(&self, path: &str, patch: &Value) -> Result<Value, ApiError> {
        self.request(Method::PATCH, path, Some((MERGE_PATCH, patch))).await
    }

    /// Deletes the object at a path.
    pub(crate) async fn delete(&self, path: &str, options: &Value) -> Result<Value, ApiError> {
        self.request(Method::DELETE, path, Some((JSON, options))).await
    }

    /// Objects of a kind in a namespace, for watching.
    pub(crate) fn api(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        let info = kind.info();
        let resource = ApiResource {
            group: info.group.to_owned(),
            version: info.version.to_owned(),
            api_version: info.api_version(),
            kind: info.name.to_owned(),
            plural: info.plural.to_owned(),
        };
        Api::namespaced_with(self.inner.clone(), namespace, &resource)
    }

    async fn request(&self, method: Method, path: &str, body: Option<(&str, &Value)>) -> Result<Value, ApiError> {
        let request = Request::builder().method(method).uri(path).header(header::ACCEPT, JSON);
        let request = match body {
            None => request.body(Body::empty()),
            Some((media, value)) => {
                request.header(header::CONTENT_TYPE, media).body(Body::from(value.to_string().into_bytes()))
            }
        };
        let request =
            request.map_err(|error| ApiError::Request { path: path.to_owned(), reason: error.to_string() })?;
        match tokio::time::timeout(self.timeout, self.exchange(request)).await {
            Ok(result) => result,
            Err(_) => Err(ApiError::Timeout { server: self.server.clone(), seconds: self.timeout.as_secs() }),
        }
    }

    async fn exchange(&self, request: Request<Body>) -> Result<Value, ApiError> {
        let path = request.uri().path().to_owned();
        let response = self.inner.send(request).await.map_err(|error| ApiError::connect(&self.server, &error))?;
        let status = response.status();
        for warning in response.headers().get_all(header::WARNING) {
            tell_warning(warning.to_str().unwrap_or_default());
        }
        let body = Limited::new(response.into_body(), RESPONSE_BYTES_MAX).collect().await;
        let bytes = body.map_err(|error| ApiError::Body { server: self.server.clone(), reason: error.to_string() })?;
        let bytes = bytes.to_bytes();
        if !status.is_success() {
            return Err(ApiError::status(&self.server, &path, status.as_u16(), &bytes));
        }
        if bytes.is_empty() {
            return Ok(json!({}));
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::Body { server: self.server.clone(), reason: error.to_string() })
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the client itself: it holds the token.
        f.debug_struct("Client")
            .field("server", &self.server)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// The path of a collection, or of an object in it. A namespace given for a kind without namespaces is left out.
pub(crate) fn path(kind: Kind, namespace: Option<&str>, name: Option<&str>) -> String {
    let info = kind.info();
    let mut path = if info.group.is_empty() {
        format!("/api/{}", info.version)
    } else {
        format!("/apis/{}/{}", info.group, info.version)
    };
    if let Some(namespace) = namespace.filter(|_| info.namespaced) {
        path.push_str(&format!("/namespaces/{}", escape(namespace)));
    }
    path.push_str(&format!("/{}", info.plural));
    if let Some(name) = name {
        path.push_str(&format!("/{}", escape(name)));
    }
    path
}

/// Percent-encodes whatever is not unreserved (RFC 3986, section 2.3).
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// Items of a list may leave out what the list says about all of them.
fn with_kind(mut item: Value, api_version: &str, kind: &str) -> Value {
    if let Value::Object(map) = &mut item {
        map.entry("apiVersion").or_insert_with(|| json!(api_version));
        map.entry("kind").or_insert_with(|| json!(kind));
    }
    item
}

/// A warning header is `299 - "text"`.
fn tell_warning(header: &str) {
    use std::io::Write as _;

    let text = header.splitn(3, ' ').nth(2).unwrap_or(header).trim_matches('"');
    // Nobody is left to be warned when stderr is closed.
    let _ = writeln!(std::io::stderr(), "Warning: {}", crate::output::clean(text));
}

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// Objects asked for at a time, as kubectl.
const PAGE: usize = 500;

/// The longest answer that is read: 500 objects of 1 MiB would be 500 MiB, which no page reaches in earnest.
const RESPONSE_BYTES_MAX: usize = 256 << 20;

/// The namespace when neither an option nor the context names one.
const NAMESPACE: &str = CONTROL_NAMESPACE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_kubernetes() {
        assert_eq!(path(Kind::Namespace, None, Some("a")), "/api/v1/namespaces/a");
        assert_eq!(path(Kind::Secret, Some("x"), None), "/api/v1/namespaces/x/secrets");
        assert_eq!(path(Kind::Cluster, Some("x"), Some("a")), "/apis/windlass.io/v1alpha1/clusters/a");
        let odd = path(Kind::Application, Some("argocd"), Some("a/../b"));
        assert_eq!(odd, "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications/a%2F..%2Fb");
    }
}
