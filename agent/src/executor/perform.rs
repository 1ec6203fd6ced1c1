//! Performs one piece of work against the cluster port and says what became of it, in the engine's words.
//!
//! Decides nothing and retries nothing, beyond the single requests that one piece of work consists of.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use windlass_engine::{
    Apply, ApplyMode, DryRun, Failure, FailureReason, Outcome, Propagation, action::Validation, hook::RUN_ANNOTATION,
};
use windlass_protocol::{
    json,
    manifest::{self, OWNER_LABEL, ResourceKey, TRACKING_ANNOTATION},
};

use super::merge;
use crate::cluster::{
    ClusterError, ClusterPort, DeleteOptions, Deletion, Discovery, ResourceType, Target, Write, WriteOptions,
};

/// Objects that are read side by side for one observation.
const READS: usize = 8;
/// How long a deletion may take before its object is created anew.
const RECREATE_DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at an object that goes.
const RECREATE_POLL: Duration = Duration::from_millis(250);
/// Finalizers of ours all begin with this.
const OWN_FINALIZERS: &str = "windlass.io/";

/// The cluster as known when the work began.
#[derive(Clone, Debug)]
pub(super) struct Performer {
    pub(super) port: Arc<dyn ClusterPort>,
    pub(super) discovery: Arc<Discovery>,
}

impl Performer {
    /// Objects of a type with this owner label, and those named besides.
    pub(super) async fn observe(&self, resource: &ResourceType, owner: &str, keys: Vec<ResourceKey>) -> Outcome {
        match self.try_observe(resource, owner, keys).await {
            Ok(objects) => Outcome::Observed(objects),
            Err(error) => Outcome::Failed(failure(&error)),
        }
    }

    async fn try_observe(
        &self,
        resource: &ResourceType,
        owner: &str,
        keys: Vec<ResourceKey>,
    ) -> Result<Vec<Arc<Value>>, ClusterError> {
        let selector = format!("{OWNER_LABEL}={owner}");
        let listed = self.port.list(resource, "", &selector).await?;
        let mut objects: Vec<Arc<Value>> = listed.into_iter().map(Arc::new).collect();
        let seen: std::collections::BTreeSet<ResourceKey> =
            objects.iter().map(|object| ResourceKey::of(object)).collect();
        let targets: Vec<Target> = keys
            .into_iter()
            .filter(|key| !seen.contains(key))
            .map(|key| Target { resource: resource.clone(), namespace: key.namespace, name: key.name })
            .collect();
        let reads: Vec<_> = targets.iter().map(|target| self.port.get(target)).collect();
        let mut reads = stream::iter(reads).buffer_unordered(READS);
        while let Some(read) = reads.next().await {
            objects.extend(read?.map(Arc::new));
        }
        Ok(objects)
    }

    /// Writes one object.
    pub(super) async fn apply(&self, apply: Apply) -> Outcome {
        let applied = async {
            let (_, version) = manifest::group_version(&apply.manifest);
            let target = self.target(&apply.key, Some(version))?;
            self.write(&target, &apply).await
        };
        match applied.await {
            Ok(object) => Outcome::Applied(Arc::new(object)),
            Err(error) => Outcome::Failed(failure(&error)),
        }
    }

    async fn write(&self, target: &Target, apply: &Apply) -> Result<Value, ClusterError> {
        let options =
            WriteOptions { dry_run: apply.dry_run == DryRun::Server, strict: apply.validation == Validation::Strict };
        let object = &*apply.manifest;
        match apply.mode {
            ApplyMode::ServerSide => {
                let applied = self.port.write(target, Write::Apply(object), options).await;
                match applied {
                    Err(error) if is_duplicate_key(&error) && !demands_server_side(object) => {
                        tracing::warn!(object = %target.key(), %error, "merged on this side instead");
                        self.merge(target, object, options).await
                    }
                    applied => applied,
                }
            }
            ApplyMode::ClientSide => self.merge(target, object, options).await,
            ApplyMode::Create => self.port.write(target, Write::Create(object), options).await,
            ApplyMode::Replace => self.replace(target, object, options).await,
            ApplyMode::Recreate => self.recreate(target, object, options).await,
        }
    }

    /// Three-way merge with the last-applied annotation, as `kubectl apply`.
    async fn merge(&self, target: &Target, object: &Value, options: WriteOptions) -> Result<Value, ClusterError> {
        let desired = merge::with_last_applied(object);
        let Some(live) = self.port.get(target).await? else {
            return self.port.write(target, Write::Create(&desired), options).await;
        };
        if merge::is_built_in(&target.resource.group) {
            let patch = merge::strategic(&live, &desired);
            self.port.write(target, Write::Strategic(&patch), options).await
        } else {
            let patch = merge::plain(&live, &desired);
            self.port.write(target, Write::Merge(&patch), options).await
        }
    }

    async fn replace(&self, target: &Target, object: &Value, options: WriteOptions) -> Result<Value, ClusterError> {
        match self.port.write(target, Write::Create(object), options).await {
            Err(error) if is_already_there(&error) => {
                let mut desired = object.clone();
                if let Some(live) = self.port.get(target).await? {
                    // The server asks for the version of some types, and it binds the write to what was seen.
                    let version = json::text(&live, &["metadata", "resourceVersion"]);
                    json::set(&mut desired, &["metadata", "resourceVersion"], Value::from(version));
                }
                self.port.write(target, Write::Replace(&desired), options).await
            }
            created => created,
        }
    }

    async fn recreate(&self, target: &Target, object: &Value, options: WriteOptions) -> Result<Value, ClusterError> {
        if options.dry_run {
            return self.replace(target, object, options).await;
        }
        let deadline = Instant::now() + RECREATE_DEADLINE;
        let mut asked = None;
        while let Some(live) = self.port.get(target).await? {
            let uid = json::text(&live, &["metadata", "uid"]).to_owned();
            if asked.as_ref() != Some(&uid) {
                let delete = DeleteOptions { propagation: Propagation::Foreground, uid: Some(uid.clone()) };
                self.port.delete(target, &delete).await?;
                asked = Some(uid);
            }
            if Instant::now() >= deadline {
                return Err(ClusterError::Timeout(RECREATE_DEADLINE.as_secs()));
            }
            sleep(RECREATE_POLL).await;
        }
        self.port.write(target, Write::Create(object), options).await
    }

    /// Deletes one object.
    pub(super) async fn delete(
        &self,
        key: &ResourceKey,
        version: Option<&str>,
        uid: Option<String>,
        propagation: Propagation,
    ) -> Outcome {
        let deleted = async {
            let target = self.target(key, version)?;
            self.port.delete(&target, &DeleteOptions { propagation, uid }).await
        };
        match deleted.await {
            Ok(Deletion::Accepted) => Outcome::Deleting,
            Ok(Deletion::NotThere) => Outcome::Gone,
            Err(error) => Outcome::Failed(failure(&error)),
        }
    }

    /// Takes tracking, label and finalizer from one object.
    pub(super) async fn untrack(&self, key: &ResourceKey, uid: Option<&str>) -> Outcome {
        let untracked = async {
            let target = self.target(key, None)?;
            let Some(live) = self.port.get(&target).await? else { return Ok(None) };
            if uid.is_some_and(|uid| uid != json::text(&live, &["metadata", "uid"])) {
                return Ok(None);
            }
            let patch = untracking(&live);
            self.port.write(&target, Write::Merge(&patch), WriteOptions::default()).await.map(Some)
        };
        match untracked.await {
            Ok(Some(object)) => Outcome::Applied(Arc::new(object)),
            Ok(None) => Outcome::Gone,
            Err(error) if error.is_not_found() => Outcome::Gone,
            Err(error) => Outcome::Failed(failure(&error)),
        }
    }

    fn target(&self, key: &ResourceKey, version: Option<&str>) -> Result<Target, ClusterError> {
        let resource = self.discovery.find(&key.group, &key.kind, version)?.clone();
        Ok(Target { resource, namespace: key.namespace.clone(), name: key.name.clone() })
    }
}

/// A merge patch that is refused unless the object is still the one that was read.
fn untracking(live: &Value) -> Value {
    let mut metadata = json!({
        "uid": json::text(live, &["metadata", "uid"]),
        "resourceVersion": json::text(live, &["metadata", "resourceVersion"]),
        "annotations": {TRACKING_ANNOTATION: null, RUN_ANNOTATION: null},
        "labels": {OWNER_LABEL: null},
    });
    if let Some(Value::Array(finalizers)) = json::at(live, &["metadata", "finalizers"]) {
        let kept: Vec<&Value> = finalizers
            .iter()
            .filter(|finalizer| !finalizer.as_str().unwrap_or_default().starts_with(OWN_FINALIZERS))
            .collect();
        if kept.len() < finalizers.len() {
            json::set(&mut metadata, &["finalizers"], json!(kept));
        }
    }
    json!({"metadata": metadata})
}

/// The engine's view of an error.
pub(super) fn failure(error: &ClusterError) -> Failure {
    let reason = match error {
        ClusterError::NoKind { .. } => FailureReason::NoMatch,
        ClusterError::Unreachable(_) | ClusterError::Timeout(_) => FailureReason::Unavailable,
        ClusterError::Unreadable(_) => FailureReason::Rejected,
        ClusterError::Refused { code, reason, message } => refusal(*code, reason, message),
    };
    Failure::new(reason, error.to_string())
}

fn refusal(code: u16, reason: &str, message: &str) -> FailureReason {
    match code {
        404 if NO_MATCH.iter().any(|words| message.contains(words)) => FailureReason::NoMatch,
        404 => FailureReason::NotFound,
        409 if reason == "AlreadyExists" => FailureReason::AlreadyExists,
        409 => FailureReason::Conflict,
        // Admission refuses with 403 too; only the authorizer speaks of what a user cannot do.
        403 if message.contains(" cannot ") && message.contains("User ") => FailureReason::Forbidden,
        // A webhook that fails concerns its objects, not the API server.
        500 if message.contains("webhook") => FailureReason::Rejected,
        401 | 408 | 410 | 429 | 500..=599 => FailureReason::Unavailable,
        _ => FailureReason::Rejected,
    }
}

/// What a server says about paths of types that it does not serve, and clients about kinds.
const NO_MATCH: &[&str] = &["could not find the requested resource", "no matches for kind"];

fn is_already_there(error: &ClusterError) -> bool {
    matches!(error, ClusterError::Refused { code: 409, reason, .. } if reason == "AlreadyExists")
}

/// Server-side apply refuses lists whose entries share their merge key (COMPAT.md, decision 16).
fn is_duplicate_key(error: &ClusterError) -> bool {
    matches!(error, ClusterError::Refused { message, .. } if message.contains("duplicate entries for key"))
}

fn demands_server_side(object: &Value) -> bool {
    manifest::annotation_has(object, "argocd.argoproj.io/sync-options", "ServerSideApply=true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        let check = |code: u16, reason: &str, message: &str, expected: FailureReason| {
            let error = ClusterError::Refused { code, reason: reason.into(), message: message.into() };
            assert_eq!(failure(&error), Failure::new(expected, message));
        };
        check(404, "NotFound", "the server could not find the requested resource", FailureReason::NoMatch);
        check(404, "NotFound", "namespaces \"shop\" not found", FailureReason::NotFound);
        check(409, "AlreadyExists", "exists", FailureReason::AlreadyExists);
        check(409, "Conflict", "the object has been modified", FailureReason::Conflict);
        check(403, "Forbidden", "pods is forbidden: User \"x\" cannot list", FailureReason::Forbidden);
        check(403, "Forbidden", "pods \"x\" is forbidden: exceeded quota", FailureReason::Rejected);
        check(422, "Invalid", "spec: Invalid value", FailureReason::Rejected);
        check(503, "ServiceUnavailable", "apiserver not ready", FailureReason::Unavailable);
        check(500, "InternalError", "failed calling webhook \"x\"", FailureReason::Rejected);
    }

    #[test]
    fn untracking_keeps_foreign_finalizers() {
        let live = json!({"metadata": {"uid": "u", "resourceVersion": "7", "finalizers": ["a/b", "windlass.io/hook"]}});
        let patch = untracking(&live);
        assert_eq!(patch["metadata"]["finalizers"], json!(["a/b"]));
        assert_eq!(patch["metadata"]["labels"], json!({OWNER_LABEL: null}));
        let live = json!({"metadata": {"uid": "u", "finalizers": ["a/b"]}});
        assert!(untracking(&live)["metadata"].get("finalizers").is_none());
    }
}
