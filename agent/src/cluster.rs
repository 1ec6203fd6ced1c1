//! The cluster port: everything the agent asks of a cluster, with a real and a simulated implementation.
//!
//! The only place of the agent that names kube. The port carries objects as JSON and never decides anything: what to
//! apply, heal or delete is the engine's business.

mod embedded;
mod kubernetes;

use std::{collections::BTreeSet, fmt, sync::Arc};

use futures::future::BoxFuture;
use serde_json::Value;
use tokio::{sync::mpsc, task::AbortHandle};
use windlass_engine::{GroupKind, Kinds, Propagation, Scope};
use windlass_protocol::manifest::ResourceKey;

pub use embedded::EmbeddedCluster;
pub use kubernetes::{ConnectError, KubernetesCluster, SecretStore, connect};

/// A cluster. Implementations bound their own concurrency and give every request a deadline.
pub trait ClusterPort: fmt::Debug + Send + Sync + 'static {
    /// The served resource types; cached until asked to be [`Freshness::Fresh`].
    fn discovery(&self, freshness: Freshness) -> BoxFuture<'_, Result<Arc<Discovery>, ClusterError>>;

    /// What the cluster says about itself, for `status.facts` of the hub.
    fn facts(&self) -> BoxFuture<'_, Result<Value, ClusterError>>;

    /// One object, or `None` where there is none (also where its namespace is missing).
    fn get<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Option<Value>, ClusterError>>;

    /// Objects of a type in a namespace (all when empty) that match a label selector.
    fn list<'a>(
        &'a self,
        resource: &'a ResourceType,
        namespace: &'a str,
        selector: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Value>, ClusterError>>;

    /// Writes one object and returns it as stored (as it would be stored, for a dry run).
    fn write<'a>(
        &'a self,
        target: &'a Target,
        write: Write<'a>,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<Value, ClusterError>>;

    /// Asks for the deletion of one object.
    fn delete<'a>(
        &'a self,
        target: &'a Target,
        options: &'a DeleteOptions,
    ) -> BoxFuture<'a, Result<Deletion, ClusterError>>;

    /// Reports the objects of a type that carry the owner label, first all of them, then each change, until the guard
    /// is dropped. Survives every failure of the connection by itself; a full channel slows it down.
    fn watch(&self, resource: &ResourceType, changes: mpsc::Sender<Change>) -> WatchGuard;
}

/// Whether a cached answer will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The last known answer.
    Cached,
    /// Ask again: a CRD was applied, or a type was not found.
    Fresh,
}

/// A resource type as served by the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResourceType {
    /// API group; empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Name in paths.
    pub plural: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Whether it can be listed and watched.
    pub watchable: bool,
}

impl ResourceType {
    /// `apiVersion` of its objects.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// One object of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its type.
    pub resource: ResourceType,
    /// Empty for cluster-scoped types.
    pub namespace: String,
    /// `metadata.name`; empty where the server makes the name.
    pub name: String,
}

impl Target {
    /// The key of the object.
    #[must_use]
    pub fn key(&self) -> ResourceKey {
        ResourceKey {
            group: self.resource.group.clone(),
            kind: self.resource.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

/// How to write.
#[derive(Clone, Copy, Debug)]
pub enum Write<'a> {
    /// Server-side apply as `windlass`, taking over conflicting fields.
    Apply(&'a Value),
    /// Create; an existing object is an error.
    Create(&'a Value),
    /// Replace the whole object; bound to `metadata.resourceVersion` when it has one.
    Replace(&'a Value),
    /// JSON merge patch (RFC 7396).
    Merge(&'a Value),
    /// Strategic merge patch; only types built into Kubernetes take it.
    Strategic(&'a Value),
}

/// How a write is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Only say what would happen.
    pub dry_run: bool,
    /// Refuse unknown and duplicate fields instead of dropping them.
    pub strict: bool,
}

/// How to delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// What becomes of the dependents.
    pub propagation: Propagation,
    /// Delete only the object with this uid.
    pub uid: Option<String>,
}

/// What became of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Accepted; the object may stay until its finalizers are done.
    Accepted,
    /// There is no such object, or it has another uid.
    NotThere,
}

/// What a watch reports.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Everything that carried the label when the watch began, or began anew, has been reported.
    Complete {
        /// The type.
        resource: ResourceType,
    },
    /// An object is there, new, changed or as it was; its label may be gone.
    Present {
        /// The type.
        resource: ResourceType,
        /// The object as it is now.
        object: Arc<Value>,
    },
    /// An object is gone, which was checked by reading it.
    Gone {
        /// The type.
        resource: ResourceType,
        /// The object.
        key: ResourceKey,
        /// Its uid.
        uid: String,
    },
    /// The watch does not work now; it goes on trying.
    Interrupted {
        /// The type.
        resource: ResourceType,
        /// Why.
        error: ClusterError,
    },
}

/// Ends a watch when dropped.
#[derive(Debug)]
pub struct WatchGuard(AbortHandle);

impl WatchGuard {
    /// Guards a task.
    #[must_use]
    pub const fn new(task: AbortHandle) -> Self {
        Self(task)
    }
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a request failed, in the API server's own words where it answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// The API server refused.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// Machine-readable reason (`NotFound`, `Conflict`, `Invalid`, …).
        reason: String,
        /// The server's message.
        message: String,
    },
    /// The cluster does not serve the type.
    #[error("no matches for kind \"{kind}\" in version \"{api_version}\"")]
    NoKind {
        /// `apiVersion` asked for.
        api_version: String,
        /// Kind asked for.
        kind: String,
    },
    /// The API server cannot be reached, or broke off.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// No answer within the deadline.
    #[error("the API server did not answer within {0} s")]
    Timeout(u64),
    /// The answer makes no sense.
    #[error("the API server's answer cannot be read: {0}")]
    Unreadable(String),
}

impl ClusterError {
    /// HTTP status, or 0 without an answer.
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::Refused { code, .. } => *code,
            Self::NoKind { .. } => 404,
            Self::Unreachable(_) | Self::Timeout(_) | Self::Unreadable(_) => 0,
        }
    }

    /// The object, its namespace or its type is not there.
    #[must_use]
    pub const fn is_not_found(&self) -> bool {
        self.code() == 404
    }

    /// The server is away or busy: the same request may work later, without any change.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Timeout(_) => true,
            Self::Refused { code, .. } => matches!(*code, 408 | 429 | 500 | 502..=504),
            Self::NoKind { .. } | Self::Unreadable(_) => false,
        }
    }

    /// The server is away altogether.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Timeout(_))
    }
}

/// The served resource types of a cluster, in the server's order of preference.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    types: Vec<ResourceType>,
    kinds: Arc<Kinds>,
}

impl Discovery {
    /// From the types in the server's order of preference, and the groups whose types could not be found out.
    #[must_use]
    pub fn new(types: Vec<ResourceType>, unavailable: BTreeSet<String>) -> Self {
        let mut kinds = Kinds::new();
        for served in &types {
            let scope = if served.namespaced { Scope::Namespaced } else { Scope::Cluster };
            kinds.insert(GroupKind::new(&*served.group, &*served.kind), scope, &*served.version);
        }
        for group in unavailable {
            kinds.set_unavailable(group);
        }
        Self { types, kinds: Arc::new(kinds) }
    }

    /// For the engine.
    #[must_use]
    pub const fn kinds(&self) -> &Arc<Kinds> {
        &self.kinds
    }

    /// The type of a kind in a version, the preferred one when `None`.
    ///
    /// # Errors
    /// [`ClusterError::NoKind`] when it is not served.
    pub fn find(&self, group: &str, kind: &str, version: Option<&str>) -> Result<&ResourceType, ClusterError> {
        self.types
            .iter()
            .find(|served| {
                served.group == group && served.kind == kind && version.is_none_or(|version| served.version == version)
            })
            .ok_or_else(|| {
                let version = version.unwrap_or("any version");
                let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
                ClusterError::NoKind { api_version, kind: kind.to_owned() }
            })
    }
}
