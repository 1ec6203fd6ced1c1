//! OpenAPI: what `kubectl apply`, `explain` and `--validate` ask for before they trust the server with the work.
//!
//! Version 3 documents per group and version name every operation with its parameters (`fieldValidation`, `dryRun`), so that
//! kubectl leaves validation to the server. Version 2, which clients only read as protobuf and as a fallback, is empty but valid.

mod schemas;

use std::{collections::BTreeMap, sync::LazyLock};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};
use windlass_protocol::resource::{KINDS, KindInfo};

use super::{answer, discovery, error::ApiError, media};

const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const TITLE: &str = "Windlass";

/// `/openapi/v2`
pub(super) fn v2(headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    let version = env!("CARGO_PKG_VERSION");
    let accepted = media::accepted(headers);
    let is_protobuf = |media: &media::MediaType<'_>| {
        matches!(media.name, V2_PROTOBUF | "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
    };
    let is_json = |media: &media::MediaType<'_>| matches!(media.name, "application/json" | "*/*" | "application/*");
    for media in &accepted {
        if is_protobuf(media) {
            return Ok(answer::typed(
                StatusCode::OK,
                HeaderValue::from_static(V2_PROTOBUF),
                v2_protobuf(version).into(),
            ));
        }
        if is_json(media) {
            break;
        }
    }
    if !accepted.is_empty() && !accepted.iter().any(is_json) {
        return Err(ApiError::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", "only JSON and protobuf are served"));
    }
    let document = json!({
        "swagger": "2.0", "info": {"title": TITLE, "version": version}, "paths": {}, "definitions": {},
    });
    Ok(answer::json(StatusCode::OK, &document))
}

/// `openapi.v2.Document` (gnostic): field 1 `swagger`, field 2 `info` with field 1 `title` and field 2 `version`.
fn v2_protobuf(version: &str) -> Vec<u8> {
    let mut info = Vec::new();
    field(&mut info, 1, TITLE.as_bytes());
    field(&mut info, 2, version.as_bytes());
    let mut document = Vec::new();
    field(&mut document, 1, b"2.0");
    field(&mut document, 2, &info);
    document
}

/// A length-delimited field; numbers and lengths here are below 128, one byte each.
fn field(out: &mut Vec<u8>, number: u8, content: &[u8]) {
    let length = u8::try_from(content.len()).ok().filter(|length| *length < 128);
    if let Some(length) = length {
        out.extend([number << 3 | 2, length]);
        out.extend_from_slice(content);
    }
}

/// `/openapi/v3`
pub(super) fn v3() -> Response<Body> {
    let mut paths = Map::new();
    for ((group, version), document) in DOCUMENTS.iter() {
        let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
        // Clients cache documents by this.
        let hash = blake3::hash(document).to_hex();
        let url = format!("/openapi/v3/{path}?hash={}", hash.get(..32).unwrap_or_default());
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    answer::json(StatusCode::OK, &json!({"paths": paths}))
}

/// Documents by group and version: they only change with the build.
static DOCUMENTS: LazyLock<BTreeMap<(&str, &str), Bytes>> = LazyLock::new(|| {
    let text = |(group, version)| Bytes::from(document(group, version).to_string());
    discovery::served().map(|served| (served, text(served))).collect()
});

/// `/openapi/v3/apis/GROUP/VERSION`
pub(super) fn v3_of(group: &str, version: &str) -> Result<Response<Body>, ApiError> {
    let document = DOCUMENTS.get(&(group, version)).ok_or_else(ApiError::no_such_path)?;
    Ok(answer::json_text(StatusCode::OK, document.clone()))
}

fn document(group: &str, version: &str) -> Value {
    let kinds = || KINDS.iter().filter(|info| info.group == group && info.version == version);
    let mut paths = Map::new();
    let mut schemas = schemas::shared();
    for info in kinds() {
        add_paths(&mut paths, info);
        schemas.insert(schemas::name(info), schemas::of_kind(info));
        schemas.insert(format!("{}List", schemas::name(info)), schemas::list_of(info));
    }
    json!({
        "openapi": "3.0.0", "info": {"title": TITLE, "version": env!("CARGO_PKG_VERSION")},
        "paths": paths, "components": {"schemas": schemas},
    })
}

fn add_paths(paths: &mut Map<String, Value>, info: &KindInfo) {
    let root = if info.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", info.group) };
    let scope = if info.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{root}/{}{scope}/{}", info.version, info.plural);
    let object = format!("{collection}/{{name}}");
    let of_collection = [("get", "list"), ("post", "post"), ("delete", "deletecollection")];
    paths.insert(collection, path(info, &of_collection, &[]));
    let of_object = [("get", "get"), ("put", "put"), ("patch", "patch"), ("delete", "delete")];
    let status = format!("{object}/status");
    paths.insert(object, path(info, &of_object, &["name"]));
    if info.status {
        let of_status = [("get", "get"), ("put", "put"), ("patch", "patch")];
        paths.insert(status, path(info, &of_status, &["name"]));
    }
    if info.namespaced {
        let everywhere = format!("{root}/{}/{}", info.version, info.plural);
        paths.insert(everywhere, path(info, &[("get", "list")], &[]));
    }
}

fn path(info: &KindInfo, operations: &[(&str, &str)], names: &[&str]) -> Value {
    let mut parameters: Vec<Value> = names.iter().map(|name| in_path(name)).collect();
    if info.namespaced {
        parameters.push(in_path("namespace"));
    }
    let mut path = Map::new();
    path.insert("parameters".to_owned(), Value::Array(parameters));
    for (method, action) in operations {
        path.insert((*method).to_owned(), operation(info, action));
    }
    Value::Object(path)
}

fn operation(info: &KindInfo, action: &str) -> Value {
    let names: &[&str] = match action {
        "list" | "deletecollection" => &[
            "labelSelector",
            "fieldSelector",
            "limit",
            "continue",
            "resourceVersion",
            "resourceVersionMatch",
            "watch",
            "allowWatchBookmarks",
            "sendInitialEvents",
            "timeoutSeconds",
        ],
        "get" => &["resourceVersion"],
        "delete" => &["dryRun", "propagationPolicy", "gracePeriodSeconds", "orphanDependents"],
        _ => &["dryRun", "fieldManager", "fieldValidation"],
    };
    let parameters: Vec<Value> = names.iter().map(|name| in_query(name)).collect();
    let name = schemas::name(info);
    let answered = match action {
        "list" => format!("{name}List"),
        "delete" | "deletecollection" => schemas::STATUS.to_owned(),
        _ => name.clone(),
    };
    let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let content = json!({"application/json": {"schema": reference(&answered)}});
    let code = if action == "post" { "201" } else { "200" };
    let mut operation = json!({
        "parameters": parameters,
        "responses": {code: {"description": "OK", "content": content}, "401": {"description": "Unauthorized"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": info.group, "version": info.version, "kind": info.name},
    });
    let media: &[&str] = match action {
        "post" | "put" => &["application/json", "application/yaml"],
        "patch" if info.group.is_empty() => {
            &["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"]
        }
        "patch" => &["application/json-patch+json", "application/merge-patch+json"],
        _ => return operation,
    };
    let body = if action == "patch" { json!({"type": "object"}) } else { reference(&name) };
    let content: Map<String, Value> =
        media.iter().map(|media| ((*media).to_owned(), json!({"schema": body}))).collect();
    answer::put(&mut operation, "requestBody", json!({"required": true, "content": content}));
    operation
}

fn in_path(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}})
}

fn in_query(name: &str) -> Value {
    let kind = match name {
        "limit" | "timeoutSeconds" | "gracePeriodSeconds" => "integer",
        "watch" | "allowWatchBookmarks" | "sendInitialEvents" | "orphanDependents" => "boolean",
        _ => "string",
    };
    json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
}
