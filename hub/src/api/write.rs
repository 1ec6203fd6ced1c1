//! `create`, `update` and `patch`: the body is checked and completed here, decided on in `apply`.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use windlass_hub_core::{
    Command, Envelope, ObjectKey, ObjectRecord, Precondition, Rejection, Reply, State,
    command::{Part, Write},
    validate::{OBJECT_BYTES_MAX, validate},
};
use windlass_protocol::{
    ids::{RequestId, StateRevision},
    json,
    resource::{FieldError, Kind},
};

use super::{
    answer,
    body::{self, Document},
    entry::{ApiServer, Asked},
    error::ApiError,
    media,
    object::drop_detail,
    patch::Patch,
    query::{FieldValidation, Mode, parse_revision},
    read::blocking,
    route::TargetPart,
    table::{Header, Presentation},
};
use crate::replica::{CommandError, wall_clock};

/// Attempts of a patch whose author named no revision, and of a generated name.
const ATTEMPTS_MAX: usize = 5;
/// Letters of generated names, as Kubernetes: no vowels, no digits that look like letters.
const NAME_LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const GENERATED_LETTERS: usize = 5;
const GENERATED_PREFIX_MAX: usize = 58;

/// An object that is ready to be proposed.
struct Prepared {
    body: String,
    sealed: Option<Vec<u8>>,
}

impl ApiServer {
    /// `POST` to a collection.
    pub(super) async fn create(
        &self,
        asked: &Asked,
        kind: Kind,
        namespace: &str,
        bytes: &Bytes,
    ) -> Result<Response<Body>, ApiError> {
        let document = body::object(&asked.headers, bytes)?;
        let mut value = document.value;
        place(kind, namespace, &mut value)?;
        let prefix = json::text(&value, &["metadata", "generateName"]).to_owned();
        let generate = json::text(&value, &["metadata", "name"]).is_empty() && !prefix.is_empty();
        for attempt in 1..=ATTEMPTS_MAX {
            if generate {
                json::set(&mut value, &["metadata", "name"], json!(self.generated_name(&prefix)?));
            }
            let key = ObjectKey::new(kind, namespace, json::text(&value, &["metadata", "name"]));
            if key.name.name.is_empty() {
                let error = FieldError::new("metadata.name", "Required value: name or generateName is required");
                return Err(ApiError::invalid(&key, &[error]));
            }
            complete(&key, &mut value);
            let warnings = check(asked, &key, &value, None, &document.duplicates)?;
            let prepared = self.prepare(&key, value.clone(), None)?;
            let sealed = prepared.sealed.clone();
            let uid = self.context.replica.new_uid().map_err(|error| ApiError::of_command(error, &key))?;
            let write = Write::Create { key: key.clone(), uid, body: prepared.body, sealed: prepared.sealed };
            match self.commit(asked, Vec::new(), vec![write], asked.query.mode()?).await {
                Ok(reply) => return self.written(asked, StatusCode::CREATED, &key, &reply, sealed, &warnings).await,
                Err(CommandError::Rejected(Rejection::AlreadyExists { .. })) if generate && attempt < ATTEMPTS_MAX => {}
                Err(error) => return Err(ApiError::of_command(error, &key)),
            }
        }
        Err(ApiError::internal("no free name was found"))
    }

    /// `PUT` of an object, or of its status.
    pub(super) async fn replace(
        &self,
        asked: &Asked,
        key: &ObjectKey,
        part: TargetPart,
        bytes: &Bytes,
    ) -> Result<Response<Body>, ApiError> {
        let Document { mut value, duplicates } = body::object(&asked.headers, bytes)?;
        place(key.kind, &key.name.namespace, &mut value)?;
        let name = json::text(&value, &["metadata", "name"]);
        if name != key.name.name {
            let ours = &key.name.name;
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({ours})"
            )));
        }
        let revision = given_revision(&value)?;
        let mut state = self.context.replica.state();
        if state.object(key).is_none_or(|record| revision.is_some_and(|revision| revision != record.revision)) {
            state = self.newest_state().await?;
        }
        let record = state.object(key).ok_or_else(|| ApiError::not_found(key))?;
        complete(key, &mut value);
        let old = self.view(Arc::clone(&state)).stored(key, record)?;
        let warnings = check(asked, key, &value, Some(&old), &duplicates)?;
        // Without a revision another writer may come between: then the content is always sent.
        let prepared = self.prepare(key, value.clone(), revision.map(|_| &old))?;
        let uid = json::text(&value, &["metadata", "uid"]).to_owned();
        let preconditions = if revision.is_none() && uid.is_empty() {
            Vec::new()
        } else {
            vec![Precondition::Object { key: key.clone(), uid, revision }]
        };
        let sealed = prepared.sealed.clone().or_else(|| record.sealed.clone());
        let write = replacement(key, part, prepared);
        let reply = self.commit(asked, preconditions, vec![write], asked.query.mode()?).await;
        let reply = reply.map_err(|error| ApiError::of_command(error, key))?;
        self.written(asked, StatusCode::OK, key, &reply, sealed, &warnings).await
    }

    /// `PATCH` of an object, or of its status: computed again when another writer came between.
    pub(super) async fn patch(
        &self,
        asked: &Asked,
        key: &ObjectKey,
        part: TargetPart,
        bytes: &Bytes,
    ) -> Result<Response<Body>, ApiError> {
        let (patch, duplicates) = Patch::read(key.kind.info(), &asked.headers, bytes)?;
        let mut attempt = 1;
        let mut state = self.context.replica.state();
        if state.object(key).is_none() {
            state = self.newest_state().await?;
        }
        loop {
            match self.try_patch(asked, key, part, &patch, &duplicates, state).await {
                Err(Attempt::Lost(_)) if attempt < ATTEMPTS_MAX => attempt += 1,
                Err(Attempt::Lost(error) | Attempt::Failed(error)) => return Err(error),
                Ok(response) => return Ok(response),
            }
            state = self.newest_state().await?;
        }
    }

    async fn try_patch(
        &self,
        asked: &Asked,
        key: &ObjectKey,
        part: TargetPart,
        patch: &Patch,
        duplicates: &[String],
        state: Arc<State>,
    ) -> Result<Response<Body>, Attempt> {
        let record = state.object(key).ok_or_else(|| ApiError::not_found(key))?;
        let old = self.view(Arc::clone(&state)).stored(key, record)?;
        let mut new = patch.apply(old.clone())?;
        let named = json::text(&new, &["metadata", "resourceVersion"]).to_owned();
        if !named.is_empty() && named != record.revision.to_string() {
            return Err(Attempt::Lost(ApiError::conflict(key, MODIFIED)));
        }
        unchanged_identity(key, &old, &new)?;
        complete(key, &mut new);
        let warnings =
            check(asked, key, &new, Some(&old), duplicates).map_err(|error| as_patch_error(key, patch, error))?;
        let mode = asked.query.mode()?;
        if new == old {
            return Ok(self.shown(asked, StatusCode::OK, key, record, &warnings).await?);
        }
        let prepared = self.prepare(key, new, Some(&old))?;
        let sealed = prepared.sealed.clone().or_else(|| record.sealed.clone());
        let precondition =
            Precondition::Object { key: key.clone(), uid: record.uid.clone(), revision: Some(record.revision) };
        let write = replacement(key, part, prepared);
        match self.commit(asked, vec![precondition], vec![write], mode).await {
            Ok(reply) => Ok(self.written(asked, StatusCode::OK, key, &reply, sealed, &warnings).await?),
            Err(error @ CommandError::Rejected(Rejection::Conflict { .. })) => {
                Err(Attempt::Lost(ApiError::of_command(error, key)))
            }
            Err(error) => Err(ApiError::of_command(error, key).into()),
        }
    }

    /// Seals what must be sealed. A Secret whose data stays as in `old` keeps its sealed content.
    fn prepare(&self, key: &ObjectKey, mut value: Value, old: Option<&Value>) -> Result<Prepared, ApiError> {
        let sealer = &self.context.sealer;
        json::remove(&mut value, &["metadata", "managedFields"]);
        if key.kind == Kind::Application {
            drop_detail(&mut value);
        }
        let mut sealed = None;
        if key.kind == Kind::Secret {
            let fresh = sealer.split_secret(&mut value)?;
            let mut joined = value.clone();
            sealer.join_secret(&mut joined, &fresh)?;
            let empty = json!({});
            let data = |secret: Option<&Value>| secret.and_then(|secret| secret.get("data")).unwrap_or(&empty).clone();
            if old.is_none() || data(old) != data(Some(&joined)) {
                sealed = Some(fresh);
            }
        }
        let body = value.to_string();
        if body.len() + sealed.as_ref().map_or(0, Vec::len) > OBJECT_BYTES_MAX {
            return Err(ApiError::too_large(OBJECT_BYTES_MAX));
        }
        Ok(Prepared { body, sealed })
    }

    /// Proposes writes; a dry run applies them to a copy of the state.
    pub(super) async fn commit(
        &self,
        asked: &Asked,
        preconditions: Vec<Precondition>,
        writes: Vec<Write>,
        mode: Mode,
    ) -> Result<Reply, CommandError> {
        let replica = &self.context.replica;
        let keys: Vec<ObjectKey> = writes.iter().map(written_key).collect();
        let command = Command::Write { writes };
        if mode == Mode::Commit {
            return replica.propose(&asked.subject, &asked.source, preconditions, command).await;
        }
        let envelope = Envelope {
            request: RequestId(replica.random_bytes()?),
            subject: asked.subject.clone(),
            source: asked.source.clone(),
            proposed_at: wall_clock(),
            preconditions,
            command,
        };
        let before = replica.state();
        let mut state = (*before).clone();
        let mut reply = state.apply(&envelope).result?;
        for (body, key) in reply.bodies.iter_mut().zip(&keys) {
            let Ok(mut value) = serde_json::from_str::<Value>(body) else { continue };
            // A revision that was never given out must not be named.
            match before.object(key) {
                Some(record) => {
                    json::set(&mut value, &["metadata", "resourceVersion"], json!(record.revision.to_string()))
                }
                None => drop(json::remove(&mut value, &["metadata", "resourceVersion"])),
            }
            *body = value.to_string();
        }
        Ok(reply)
    }

    /// The answer to a write: the object as it is now.
    async fn written(
        &self,
        asked: &Asked,
        code: StatusCode,
        key: &ObjectKey,
        reply: &Reply,
        sealed: Option<Vec<u8>>,
        warnings: &[String],
    ) -> Result<Response<Body>, ApiError> {
        let body = reply.bodies.last().filter(|body| !body.is_empty());
        let Some(body) = body else {
            // Its last finalizer was taken, or the answer was too large to travel.
            return match self.context.replica.state().object(key).cloned() {
                Some(record) => self.shown(asked, code, key, &record, warnings).await,
                None => Ok(answer::json(code, &deleted(key, ""))),
            };
        };
        let value: Value = serde_json::from_str(body).unwrap_or_default();
        let record = ObjectRecord {
            uid: json::text(&value, &["metadata", "uid"]).to_owned(),
            revision: given_revision(&value)?.unwrap_or_default(),
            generation: json::at(&value, &["metadata", "generation"]).and_then(Value::as_u64).unwrap_or_default(),
            labels: std::collections::BTreeMap::new(),
            owners: Vec::new(),
            deleting: json::at(&value, &["metadata", "deletionTimestamp"]).is_some(),
            body: body.clone(),
            sealed,
        };
        self.shown(asked, code, key, &record, warnings).await
    }

    pub(super) async fn shown(
        &self,
        asked: &Asked,
        code: StatusCode,
        key: &ObjectKey,
        record: &ObjectRecord,
        warnings: &[String],
    ) -> Result<Response<Body>, ApiError> {
        let form = media::form(&asked.headers)?;
        let presentation = Presentation::new(key.kind, form, &asked.query, wall_clock())?;
        let (view, owned_key, record) = (self.view(self.context.replica.state()), key.clone(), record.clone());
        let text = blocking(key.kind, move || presentation.object(&view, &owned_key, &record, Header::Present));
        let mut response = answer::json_text(code, text.await?);
        answer::warn(&mut response, warnings);
        Ok(response)
    }

    fn generated_name(&self, prefix: &str) -> Result<String, ApiError> {
        let random: [u8; GENERATED_LETTERS] = self
            .context
            .replica
            .random_bytes()
            .map_err(|_| ApiError::internal("the operating system gives no random numbers"))?;
        let letter =
            |byte: &u8| NAME_LETTERS.get(usize::from(*byte) % NAME_LETTERS.len()).map(|byte| char::from(*byte));
        let prefix: String = prefix.chars().take(GENERATED_PREFIX_MAX).collect();
        Ok(prefix + &random.iter().filter_map(letter).collect::<String>())
    }
}

/// How one attempt of a patch ended without an answer.
enum Attempt {
    /// Another writer came between.
    Lost(ApiError),
    Failed(ApiError),
}

impl From<ApiError> for Attempt {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

/// Kubernetes' sentence for a lost race.
pub(super) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

fn written_key(write: &Write) -> ObjectKey {
    let (Write::Create { key, .. } | Write::Replace { key, .. } | Write::Delete { key }) = write;
    key.clone()
}

fn replacement(key: &ObjectKey, part: TargetPart, prepared: Prepared) -> Write {
    let part = match part {
        TargetPart::Whole => Part::Main,
        TargetPart::Status => Part::Status,
    };
    Write::Replace { key: key.clone(), part, body: prepared.body, sealed: prepared.sealed }
}

/// `metadata.resourceVersion`; zero and nothing mean any.
pub(super) fn given_revision(value: &Value) -> Result<Option<StateRevision>, ApiError> {
    match json::text(value, &["metadata", "resourceVersion"]) {
        "" | "0" => Ok(None),
        text => parse_revision(text).map(Some),
    }
}

/// Kind, version and namespace must be those of the address; what is missing is filled in.
fn place(kind: Kind, namespace: &str, value: &mut Value) -> Result<(), ApiError> {
    let info = kind.info();
    for (field, ours) in [("apiVersion", info.api_version()), ("kind", info.name.to_owned())] {
        match json::text(value, &[field]) {
            "" => json::set(value, &[field], json!(ours)),
            theirs if theirs == ours => {}
            theirs => {
                let what = if field == "kind" { "kind" } else { "API version" };
                return Err(ApiError::bad_request(format!(
                    "the {what} in the data ({theirs}) does not match the expected {what} ({ours})"
                )));
            }
        }
    }
    if value.get("metadata").is_some_and(|metadata| !metadata.is_object() && !metadata.is_null()) {
        return Err(ApiError::bad_request("metadata must be an object"));
    }
    if !info.namespaced {
        return Ok(());
    }
    match json::text(value, &["metadata", "namespace"]) {
        "" => json::set(value, &["metadata", "namespace"], json!(namespace)),
        theirs if theirs == namespace => {}
        _ => {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}

/// Defaults of core kinds.
fn complete(key: &ObjectKey, value: &mut Value) {
    match key.kind {
        Kind::Secret if json::text(value, &["type"]).is_empty() => json::set(value, &["type"], json!("Opaque")),
        Kind::Namespace => {
            json::set(value, &["metadata", "labels", "kubernetes.io/metadata.name"], json!(key.name.name));
        }
        _ => {}
    }
}

/// What validation says, as an error or as warnings.
fn check(
    asked: &Asked,
    key: &ObjectKey,
    value: &Value,
    old: Option<&Value>,
    duplicates: &[String],
) -> Result<Vec<String>, ApiError> {
    let validated = validate(key, value).map_err(|errors| ApiError::invalid(key, &errors))?;
    let immutable = immutable_changes(key, value, old);
    if !immutable.is_empty() {
        return Err(ApiError::invalid(key, &immutable));
    }
    let policy = asked.query.field_validation()?;
    if policy == FieldValidation::Ignore {
        return Ok(Vec::new());
    }
    // What was accepted before is not held against who changes something else.
    let known = old.and_then(|old| validate(key, old).ok()).map(|old| old.unknown).unwrap_or_default();
    let unknown = validated.unknown.into_iter().chain(unknown_of_core(key, value));
    let unknown = unknown.filter(|path| !known.contains(path)).map(|path| format!("unknown field \"{path}\""));
    let doubled = duplicates.iter().map(|path| format!("duplicate field \"{path}\""));
    let found: Vec<String> = unknown.chain(doubled).collect();
    if policy == FieldValidation::Warn || found.is_empty() {
        return Ok(found);
    }
    let info = key.kind.info();
    let (kind, version) = (info.name, info.version);
    let all = found.join(", ");
    let message =
        format!("{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {all}");
    Err(ApiError::bad_request(message))
}

/// Kubernetes words strict errors of patches as invalid values.
fn as_patch_error(key: &ObjectKey, patch: &Patch, error: ApiError) -> ApiError {
    match error.message.split_once("strict decoding error: ") {
        Some((_, found)) if error.code == StatusCode::BAD_REQUEST => {
            let message = format!("Invalid value: {:?}: strict decoding error: {found}", patch.quoted());
            ApiError::invalid(key, &[FieldError::new("patch", message)])
        }
        _ => error,
    }
}

/// Fields at the top of core kinds that they do not have.
fn unknown_of_core(key: &ObjectKey, value: &Value) -> Vec<String> {
    let known: &[&str] = match key.kind {
        Kind::ConfigMap => &["data", "binaryData", "immutable"],
        Kind::Secret => &["data", "stringData", "type", "immutable"],
        Kind::Namespace => &["spec", "status"],
        _ => return Vec::new(),
    };
    let fields = value.as_object().into_iter().flat_map(|map| map.keys().map(String::as_str));
    let unknown =
        fields.filter(|field| !matches!(*field, "apiVersion" | "kind" | "metadata") && !known.contains(field));
    unknown.map(str::to_owned).collect()
}

/// What Kubernetes never lets change in Secrets and ConfigMaps.
fn immutable_changes(key: &ObjectKey, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let Some(old) = old.filter(|_| matches!(key.kind, Kind::Secret | Kind::ConfigMap)) else { return Vec::new() };
    let mut errors = Vec::new();
    let changed = |field: &str| old.get(field) != new.get(field);
    if key.kind == Kind::Secret && old.get("type").is_some() && changed("type") {
        errors.push(FieldError::new("type", "Invalid value: field is immutable"));
    }
    if old.get("immutable") == Some(&json!(true)) {
        let fields = ["immutable", "data", "binaryData"].into_iter().filter(|field| changed(field));
        let message = "Forbidden: field is immutable when `immutable` is set";
        errors.extend(fields.map(|field| FieldError::new(field, message)));
    }
    errors
}

/// A patch may not turn an object into another one.
fn unchanged_identity(key: &ObjectKey, old: &Value, new: &Value) -> Result<(), ApiError> {
    for field in ["name", "namespace", "uid"] {
        let (before, after) = (json::text(old, &["metadata", field]), json::text(new, &["metadata", field]));
        if before != after && !(field == "uid" && after.is_empty()) {
            let message = format!("Invalid value: {after:?}: field is immutable");
            return Err(ApiError::invalid(key, &[FieldError::new(format!("metadata.{field}"), message)]));
        }
    }
    for field in ["apiVersion", "kind"] {
        if old.get(field) != new.get(field) {
            return Err(ApiError::bad_request(format!("a patch cannot change {field}")));
        }
    }
    Ok(())
}

/// The `Status` of a finished deletion.
pub(super) fn deleted(key: &ObjectKey, uid: &str) -> Value {
    let info = key.kind.info();
    let mut details = json!({"name": key.name.name, "kind": info.plural});
    for (field, value) in [("group", info.group), ("uid", uid)] {
        if !value.is_empty() {
            answer::put(&mut details, field, json!(value));
        }
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
