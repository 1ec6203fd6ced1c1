//! `delete` and `deletecollection`, with preconditions and what becomes of what an object owns.
//!
//! Orphaning an Application takes its resources finalizer away in the same command. Orphaning an ApplicationSet holds it with
//! the finalizer `orphan` (as Kubernetes' garbage collector does), takes the owner references out of its Applications in bounded
//! batches, and lets go; asked again after a crash in between, it goes on.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use windlass_hub_core::{
    ObjectKey, ObjectRecord, Precondition, Rejection,
    command::{Part, Write},
};
use windlass_protocol::{
    json,
    resource::{Kind, RESOURCES_FINALIZER},
};

use super::{
    answer, body,
    entry::{ApiServer, Asked},
    error::ApiError,
    query::{Mode, parse_revision},
    route::Target,
    selector::Selector,
    write::deleted,
};
use crate::replica::CommandError;

/// Objects changed by one command.
const BATCH_OBJECTS: usize = 100;
/// Bytes of bodies in one command: an envelope holds 1 MiB.
const BATCH_BYTES: usize = 512 * 1024;
/// Passes over the Applications of a set: each pass ends with those that others changed meanwhile.
const PASSES_MAX: usize = 20;
/// Attempts of a deletion whose object others change meanwhile.
const ATTEMPTS_MAX: usize = 5;
/// Kubernetes' finalizer of an object whose dependents are being let go.
const ORPHAN_FINALIZER: &str = "orphan";

/// `DeleteOptions`, from the body or the query.
#[derive(Debug)]
struct Options {
    orphan: bool,
    uid: String,
    revision: Option<windlass_protocol::ids::StateRevision>,
    mode: Mode,
}

impl Options {
    fn read(asked: &Asked, bytes: &Bytes) -> Result<Self, ApiError> {
        let options = body::optional_object(&asked.headers, bytes)?;
        let text = |path: &[&str]| json::text(&options, path).to_owned();
        let policy = match text(&["propagationPolicy"]) {
            policy if policy.is_empty() => asked.query.get("propagationPolicy").unwrap_or_default().to_owned(),
            policy => policy,
        };
        let deprecated = options.get("orphanDependents").and_then(Value::as_bool).unwrap_or_default()
            || asked.query.flag("orphanDependents");
        let orphan = match policy.as_str() {
            "Orphan" => true,
            "" => deprecated,
            "Background" | "Foreground" => false,
            other => {
                return Err(ApiError::bad_request(format!(
                    "propagationPolicy: Unsupported value: {other:?}: supported values: \"Orphan\", \"Background\", \
                     \"Foreground\""
                )));
            }
        };
        let revision = match text(&["preconditions", "resourceVersion"]) {
            revision if revision.is_empty() => None,
            revision => Some(parse_revision(&revision)?),
        };
        let dry = options.get("dryRun").and_then(Value::as_array).is_some_and(|list| list.contains(&json!("All")));
        let mode = if dry { Mode::DryRun } else { asked.query.mode()? };
        Ok(Self { orphan, uid: text(&["preconditions", "uid"]), revision, mode })
    }
}

impl ApiServer {
    pub(super) async fn delete(
        &self,
        asked: &Asked,
        key: &ObjectKey,
        bytes: &Bytes,
    ) -> Result<Response<Body>, ApiError> {
        let options = Options::read(asked, bytes)?;
        let fits = |record: &ObjectRecord| precondition(key, record, &options);
        let mut state = self.context.replica.state();
        if state.object(key).is_none_or(|record| fits(record).is_err()) {
            state = self.newest_state().await?;
        }
        let record = state.object(key).cloned().ok_or_else(|| ApiError::not_found(key))?;
        fits(&record)?;
        if options.orphan && key.kind == Kind::ApplicationSet && options.mode == Mode::Commit {
            self.orphan_set(asked, key, &record).await?;
        } else {
            self.delete_one(asked, key, &options).await?;
        }
        let left = self.context.replica.state().object(key).filter(|left| left.uid == record.uid).cloned();
        match left {
            Some(left) if options.mode == Mode::Commit && left.deleting => {
                self.shown(asked, StatusCode::OK, key, &left, &[]).await
            }
            _ => Ok(answer::json(StatusCode::OK, &deleted(key, &record.uid))),
        }
    }

    async fn delete_one(&self, asked: &Asked, key: &ObjectKey, options: &Options) -> Result<(), ApiError> {
        let mut attempt = 1;
        loop {
            let known = self.context.replica.state().object(key).cloned().filter(|_| attempt == 1);
            let record = match known {
                Some(record) => record,
                None => self.newest_state().await?.object(key).cloned().ok_or_else(|| ApiError::not_found(key))?,
            };
            let mut writes = Vec::new();
            let mut revision = options.revision;
            if options.orphan && key.kind == Kind::Application {
                // The finalizer must be gone when the deletion begins: one command, on exactly this object.
                revision = Some(record.revision);
                let kept = |name: &str| !name.starts_with(RESOURCES_FINALIZER);
                writes.push(with_finalizers(key, &record, kept, None));
            }
            writes.push(Write::Delete { key: key.clone() });
            let precondition = Precondition::Object { key: key.clone(), uid: options.uid.clone(), revision };
            match self.commit(asked, vec![precondition], writes, options.mode).await {
                Ok(_) => return Ok(()),
                // A deleting Application without its finalizer is gone after the first write.
                Err(CommandError::Rejected(Rejection::NotFound { .. })) if options.orphan && record.deleting => {
                    return self.drop_finalizer(asked, key, &record).await;
                }
                Err(CommandError::Rejected(Rejection::Conflict { .. }))
                    if options.revision.is_none() && attempt < ATTEMPTS_MAX =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(ApiError::of_command(error, key)),
            }
        }
    }

    async fn drop_finalizer(&self, asked: &Asked, key: &ObjectKey, record: &ObjectRecord) -> Result<(), ApiError> {
        let write = with_finalizers(key, record, |name| !name.starts_with(RESOURCES_FINALIZER), None);
        let done = self.commit(asked, vec![exactly(key, record)], vec![write], Mode::Commit).await;
        done.map(drop).map_err(|error| ApiError::of_command(error, key))
    }

    async fn orphan_set(&self, asked: &Asked, key: &ObjectKey, record: &ObjectRecord) -> Result<(), ApiError> {
        let failed = |error| ApiError::of_command(error, key);
        // From here on the set makes no more Applications: it is being deleted, and held until all are let go.
        let hold = with_finalizers(key, record, |name| name != ORPHAN_FINALIZER, Some(ORPHAN_FINALIZER));
        let writes = vec![hold, Write::Delete { key: key.clone() }];
        self.commit(asked, vec![exactly(key, record)], writes, Mode::Commit).await.map_err(failed)?;
        let mut passes = 0;
        while self.orphan_pass(asked, key, &record.uid).await? {
            passes += 1;
            if passes >= PASSES_MAX {
                let message = "its Applications keep changing: delete it again to go on";
                return Err(ApiError::conflict(key, message));
            }
        }
        let mut attempt = 1;
        loop {
            let Some(held) = self.context.replica.state().object(key).cloned() else { return Ok(()) };
            let release = with_finalizers(key, &held, |name| name != ORPHAN_FINALIZER, None);
            match self.commit(asked, vec![exactly(key, &held)], vec![release], Mode::Commit).await {
                Ok(_) => return Ok(()),
                Err(CommandError::Rejected(Rejection::Conflict { .. })) if attempt < ATTEMPTS_MAX => attempt += 1,
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Lets go of Applications of a set in batches; whether any were left to let go.
    async fn orphan_pass(&self, asked: &Asked, set: &ObjectKey, uid: &str) -> Result<bool, ApiError> {
        let state = self.context.replica.state();
        let owned = state.objects(Kind::Application, Some(&set.name.namespace));
        let owned: Vec<(ObjectKey, Arc<ObjectRecord>)> = owned
            .filter(|(_, record)| record.owners.iter().any(|owner| owner == uid))
            .map(|(key, record)| (key.clone(), Arc::clone(record)))
            .collect();
        let mut rest = owned.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |(_, record): &&(ObjectKey, Arc<ObjectRecord>)| {
                bytes += record.body.len();
                bytes <= BATCH_BYTES
            };
            let count = rest.iter().take(BATCH_OBJECTS).take_while(fits).count().max(1);
            let (batch, after) = rest.split_at(count.min(rest.len()));
            rest = after;
            let preconditions = batch.iter().map(|(key, record)| exactly(key, record)).collect();
            let writes = batch.iter().map(|(key, record)| without_owner(key, record, uid)).collect();
            match self.commit(asked, preconditions, writes, Mode::Commit).await {
                // Someone else changed one of them: the next pass sees it as it is then.
                Ok(_) | Err(CommandError::Rejected(Rejection::Conflict { .. } | Rejection::NotFound { .. })) => {}
                Err(error) => return Err(ApiError::of_command(error, set)),
            }
        }
        Ok(!owned.is_empty())
    }

    pub(super) async fn delete_collection(
        &self,
        asked: &Asked,
        target: &Target,
        bytes: &Bytes,
    ) -> Result<Response<Body>, ApiError> {
        let options = Options::read(asked, bytes)?;
        let selector =
            Selector::parse(target.kind, asked.query.get("labelSelector"), asked.query.get("fieldSelector"))?;
        let state = self.context.replica.state();
        let objects = state.objects(target.kind, target.namespace.as_deref());
        let keys: Vec<ObjectKey> =
            objects.filter(|(key, record)| selector.matches(key, record)).map(|(key, _)| key.clone()).collect();
        for batch in keys.chunks(BATCH_OBJECTS) {
            let writes: Vec<Write> = batch.iter().map(|key| Write::Delete { key: key.clone() }).collect();
            let together = !options.orphan && self.commit(asked, Vec::new(), writes, options.mode).await.is_ok();
            if together {
                continue;
            }
            // One of them stands in the way of all: each for itself then, and the first error counts.
            for key in batch {
                let Some(record) = self.context.replica.state().object(key).cloned() else { continue };
                if options.orphan && key.kind == Kind::ApplicationSet && options.mode == Mode::Commit {
                    self.orphan_set(asked, key, &record).await?;
                    continue;
                }
                match self.delete_one(asked, key, &options).await {
                    Err(error) if error.code != StatusCode::NOT_FOUND => return Err(error),
                    _ => {}
                }
            }
        }
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"group": target.kind.info().group, "kind": target.kind.info().plural}});
        tracing::debug!(kind = target.kind.info().plural, count = keys.len(), "collection deleted");
        Ok(answer::json(StatusCode::OK, &status))
    }
}

fn precondition(key: &ObjectKey, record: &ObjectRecord, options: &Options) -> Result<(), ApiError> {
    if !options.uid.is_empty() && options.uid != record.uid {
        let (asked, found) = (&options.uid, &record.uid);
        return Err(ApiError::conflict(
            key,
            &format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {found}"),
        ));
    }
    if let Some(asked) = options.revision.filter(|asked| *asked != record.revision) {
        let found = record.revision;
        return Err(ApiError::conflict(
            key,
            &format!(
                "Precondition failed: ResourceVersion in precondition: {asked}, ResourceVersion in object meta: {found}"
            ),
        ));
    }
    Ok(())
}

/// The object must be exactly as it was read.
fn exactly(key: &ObjectKey, record: &ObjectRecord) -> Precondition {
    Precondition::Object { key: key.clone(), uid: record.uid.clone(), revision: Some(record.revision) }
}

/// The object with some finalizers kept and one added.
fn with_finalizers(key: &ObjectKey, record: &ObjectRecord, kept: impl Fn(&str) -> bool, added: Option<&str>) -> Write {
    let mut value = record.value();
    let old = json::at(&value, &["metadata", "finalizers"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut list: Vec<Value> = old.into_iter().filter(|entry| entry.as_str().is_some_and(&kept)).collect();
    list.extend(added.map(|name| json!(name)));
    if list.is_empty() {
        json::remove(&mut value, &["metadata", "finalizers"]);
    } else {
        json::set(&mut value, &["metadata", "finalizers"], Value::Array(list));
    }
    Write::Replace { key: key.clone(), part: Part::Main, body: value.to_string(), sealed: None }
}

fn without_owner(key: &ObjectKey, record: &ObjectRecord, uid: &str) -> Write {
    let mut value = record.value();
    if let Some(Value::Array(owners)) = value.pointer_mut("/metadata/ownerReferences") {
        owners.retain(|owner| json::text(owner, &["uid"]) != uid);
        if owners.is_empty() {
            json::remove(&mut value, &["metadata", "ownerReferences"]);
        }
    }
    Write::Replace { key: key.clone(), part: Part::Main, body: value.to_string(), sealed: None }
}
