//! Patches, computed on the object as it is stored: RFC 6902, RFC 7386, and strategic merge for core kinds.

use bytes::Bytes;
use http::HeaderMap;
use json_patch::PatchOperation;
use serde_json::Value;
use windlass_protocol::resource::KindInfo;

use super::{
    body::{self, DEPTH_MAX},
    error::ApiError,
    media, strategic,
};

/// Operations of one JSON patch, as Kubernetes.
const OPERATIONS_MAX: usize = 10_000;
/// Bytes that `copy` operations may add, as Kubernetes: a few of them can double an object many times.
const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;

/// A patch that was read.
#[derive(Debug)]
pub(super) enum Patch {
    Json(Vec<PatchOperation>),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    /// Reads a patch; `duplicates` are keys that stand twice in it.
    pub(super) fn read(info: &KindInfo, headers: &HeaderMap, bytes: &Bytes) -> Result<(Self, Vec<String>), ApiError> {
        match media::content_type(headers) {
            "application/json-patch+json" => {
                let document = body::from_json(bytes)?;
                let operations: Vec<PatchOperation> = serde_json::from_value(document.value)
                    .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
                if operations.len() > OPERATIONS_MAX {
                    let count = operations.len();
                    return Err(ApiError::too_large(OPERATIONS_MAX)
                        .cause("TooManyOperations", &format!("the patch has {count} operations")));
                }
                Ok((Self::Json(operations), document.duplicates))
            }
            "application/merge-patch+json" => {
                let document = map(body::from_json(bytes)?)?;
                Ok((Self::Merge(document.value), document.duplicates))
            }
            "application/strategic-merge-patch+json" if info.group.is_empty() => {
                let document = map(body::from_json(bytes)?)?;
                Ok((Self::Strategic(document.value), document.duplicates))
            }
            "application/apply-patch+yaml" | "application/apply-patch+cbor" => Err(ApiError::unsupported_media(
                "server-side apply is not served yet: leave out --server-side (kubectl apply patches on the client then)",
            )),
            other => Err(ApiError::unsupported_media(format!(
                "the body of the request was in an unknown format - accepted media types include: {}; not {other:?}",
                accepted(info)
            ))),
        }
    }

    /// The patched object.
    pub(super) fn apply(&self, mut value: Value) -> Result<Value, ApiError> {
        match self {
            Self::Json(operations) => apply_json(&mut value, operations)?,
            Self::Merge(patch) => json_patch::merge(&mut value, patch),
            Self::Strategic(patch) => strategic::merge(&mut value, patch)?,
        }
        if !value.is_object() {
            return Err(ApiError::bad_request("the patch leaves no object"));
        }
        if body::depth(&value) > DEPTH_MAX {
            return Err(ApiError::bad_request(format!("the patched object is nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(value)
    }

    /// The patch as Kubernetes quotes it in errors.
    pub(super) fn quoted(&self) -> String {
        let text = match self {
            Self::Json(operations) => serde_json::to_string(operations).unwrap_or_default(),
            Self::Merge(patch) | Self::Strategic(patch) => patch.to_string(),
        };
        text.chars().take(500).collect()
    }
}

fn map(document: body::Document) -> Result<body::Document, ApiError> {
    if document.value.is_object() {
        return Ok(document);
    }
    Err(ApiError::bad_request("error decoding patch: it is not an object"))
}

fn accepted(info: &KindInfo) -> &'static str {
    if info.group.is_empty() {
        "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json"
    } else {
        "application/json-patch+json, application/merge-patch+json"
    }
}

/// One operation after the other, so that the bounds hold at every step.
fn apply_json(value: &mut Value, operations: &[PatchOperation]) -> Result<(), ApiError> {
    let mut copied = 0_usize;
    for operation in operations {
        let levels = match operation {
            PatchOperation::Add(add) => add.path.tokens().count() + body::depth(&add.value),
            PatchOperation::Replace(replace) => replace.path.tokens().count() + body::depth(&replace.value),
            PatchOperation::Copy(copy) => {
                let source = copy.from.resolve(value).ok();
                copied = copied.saturating_add(source.map_or(0, |source| source.to_string().len()));
                copy.path.tokens().count() + source.map_or(0, body::depth)
            }
            PatchOperation::Move(moved) => {
                moved.path.tokens().count() + moved.from.resolve(value).map_or(0, body::depth)
            }
            PatchOperation::Remove(_) | PatchOperation::Test(_) => 0,
        };
        if levels > DEPTH_MAX || copied > COPIED_BYTES_MAX {
            return Err(ApiError::bad_request("the patch makes the object too deep or copies too much"));
        }
        json_patch::patch(value, std::slice::from_ref(operation)).map_err(|error| {
            let message = format!("the server rejected our request due to an error in our request: {error}");
            ApiError::new(http::StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::header;
    use serde_json::json;
    use windlass_protocol::resource::Kind;

    use super::*;

    fn read(kind: Kind, media: &str, patch: &Value) -> Result<Patch, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, media.parse().unwrap());
        Patch::read(kind.info(), &headers, &Bytes::from(patch.to_string())).map(|(patch, _)| patch)
    }

    #[test]
    fn strategic_merge_is_for_core_kinds_only() {
        let strategic = "application/strategic-merge-patch+json";
        assert!(read(Kind::ConfigMap, strategic, &json!({})).is_ok());
        for (kind, media) in [(Kind::Application, strategic), (Kind::ConfigMap, "application/apply-patch+yaml")] {
            assert_eq!(read(kind, media, &json!({})).unwrap_err().code.as_u16(), 415);
        }
    }

    #[test]
    fn json_patches_stay_bounded() {
        let json = "application/json-patch+json";
        let patch = read(Kind::ConfigMap, json, &json!([{"op": "add", "path": "/a/b", "value": 1}])).unwrap();
        assert_eq!(patch.apply(json!({"a": {}})).unwrap(), json!({"a": {"b": 1}}));
        assert_eq!(patch.apply(json!({})).unwrap_err().code.as_u16(), 422);
        let double: Vec<Value> =
            (0..60).map(|index| json!({"op": "copy", "from": "/a", "path": format!("/a/{index}")})).collect();
        let patch = read(Kind::ConfigMap, json, &Value::Array(double)).unwrap();
        assert_eq!(patch.apply(json!({"a": {"x": "y"}})).unwrap_err().code.as_u16(), 400);
    }
}
