//! What the API needs from the rest of the hub, as traits, and its limits.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use http::HeaderMap;
use serde_json::Value;
use windlass_protocol::{
    ids::{Digest, NamespacedName},
    time::Millis,
};
use windlass_transport::identity::RootPin;

use crate::{
    replica::{CommandError, Replica},
    sealing::Sealer,
};

/// Everything that an [`super::ApiServer`] is made of.
#[derive(Clone)]
pub struct ApiContext {
    /// The state, and the way to change it.
    pub replica: Replica,
    /// Opens and seals Secrets.
    pub sealer: Arc<Sealer>,
    /// Details of Applications.
    pub details: Arc<dyn Details>,
    /// Join tokens.
    pub admission: Arc<dyn Admission>,
    /// Rendered manifests.
    pub manifests: Arc<dyn Manifests>,
    /// Applications that a set would make.
    pub generators: Arc<dyn Generators>,
    /// Deliveries of Git hosts.
    pub webhook: Arc<dyn Webhook>,
    /// Sessions of agents on this node.
    pub presence: Arc<dyn Presence>,
    /// Backups.
    pub backups: Arc<dyn BackupStreams>,
    /// Bounds.
    pub limits: ApiLimits,
}

impl fmt::Debug for ApiContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiContext").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Bounds of the API of one hub.
#[derive(Clone, Debug)]
pub struct ApiLimits {
    /// Requests at a time, watches aside. 400 as a Kubernetes API server; more get 429.
    pub in_flight: usize,
    /// Watches at a time, 2,000 (DESIGN.md section 10).
    pub watches: usize,
    /// Bytes of a request body: an object of 1 MiB, and room for the blanks and escapes of its text.
    pub body_bytes: usize,
    /// Webhook deliveries at a time: each may hold 25 MiB.
    pub webhooks: usize,
    /// A request body must be here within this time.
    pub body_timeout: Duration,
    /// An idle watch that asked for bookmarks gets one this often.
    pub bookmark_every: Duration,
    /// Longest watch, whatever was asked for.
    pub watch_time_max: Duration,
    /// Wrong tokens from one address within a minute before it gets 429.
    pub failures_per_minute: u32,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            in_flight: 400,
            watches: 2_000,
            body_bytes: (1 << 20) + (1 << 19),
            webhooks: 4,
            body_timeout: Duration::from_secs(30),
            bookmark_every: Duration::from_secs(30),
            watch_time_max: Duration::from_secs(3_600),
            failures_per_minute: 60,
        }
    }
}

/// Reads the detail of an assignment, as JSON of [`windlass_protocol::message::Detail`].
pub trait Details: Send + Sync {
    /// The detail, or `None` where it is not here (yet). May read a file; called on a thread that may block.
    fn detail(&self, digest: &Digest) -> Option<Value>;
}

/// Makes join tokens.
pub trait Admission: Send + Sync {
    /// A token that admits the agent of a Cluster until it expires. `subject` asked for it.
    fn join_token<'a>(
        &'a self,
        subject: &'a str,
        cluster: &'a str,
        expires_in: Duration,
    ) -> BoxFuture<'a, Result<JoinToken, ProviderError>>;
}

/// A new join token, and what an agent needs beside it.
#[derive(Clone)]
pub struct JoinToken {
    /// The secret; shown once.
    pub token: String,
    /// Wall time.
    pub expires_at: Millis,
    /// `sha256:...` of the root.
    pub root_pin: String,
    /// `host:port` of hubs.
    pub hubs: Vec<String>,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// Reads rendered manifests.
pub trait Manifests: Send + Sync {
    /// The target manifests of an Application, in clear; the API masks the data of Secrets.
    fn manifests<'a>(&'a self, application: &'a NamespacedName) -> BoxFuture<'a, Result<Vec<Value>, ProviderError>>;
}

/// Runs generators.
pub trait Generators: Send + Sync {
    /// The Applications that a set would make now; nothing is stored.
    fn generate<'a>(&'a self, namespace: &'a str, set: Value) -> BoxFuture<'a, Result<Vec<Value>, ProviderError>>;
}

/// Takes deliveries of Git hosts.
pub trait Webhook: Send + Sync {
    /// Checks and acts on one delivery; the text is the answer's body. Nobody has checked anything about it before.
    fn deliver(&self, headers: HeaderMap, body: Bytes) -> BoxFuture<'_, Result<String, ProviderError>>;
}

/// Makes backups.
pub trait BackupStreams: Send + Sync {
    /// A backup of the group as it is now.
    fn backup(&self) -> BoxFuture<'_, Result<BackupStream, ProviderError>>;
}

/// A backup on its way: an error as its last piece means that it has no end.
pub struct BackupStream {
    /// What it is to be called.
    pub name: String,
    /// Its bytes.
    pub pieces: BoxStream<'static, std::io::Result<Bytes>>,
}

impl fmt::Debug for BackupStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupStream").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Knows the agents that are connected to this node.
pub trait Presence: Send + Sync {
    /// Number of sessions.
    fn sessions(&self) -> usize;

    /// What agents and hubs check before they trust.
    fn pin(&self) -> RootPin;
}

/// Why a provider has no answer. The texts go to the client.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProviderError {
    /// HTTP 404.
    #[error("{0}")]
    NotFound(String),
    /// HTTP 422.
    #[error("{0}")]
    Invalid(String),
    /// HTTP 401; the text stays in the hub.
    #[error("{0}")]
    Unauthorized(String),
    /// HTTP 503; try again.
    #[error("{0}")]
    Unavailable(String),
    /// A command was not applied.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// HTTP 500; the text goes into the log.
    #[error("{0}")]
    Internal(String),
}
