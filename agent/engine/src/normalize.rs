//! One form for what means the same: desired manifests before they are compared and sent, live objects before an exact comparison.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};
use windlass_protocol::{json, manifest};

/// Annotation of kubectl's client-side apply.
pub const LAST_APPLIED_ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A desired manifest without what a manifest cannot decide (status, server's metadata, nulls), and with `stringData` folded into
/// `data`: the API server does the same, but would keep the ownership of a field that is then never seen again.
#[must_use]
pub fn desired(manifest: &Value) -> Value {
    let mut object = manifest.clone();
    if let Value::Object(map) = &mut object {
        map.remove("status");
    }
    strip_metadata(&mut object);
    drop_nulls(&mut object, 0);
    if manifest::is_secret(&object) {
        fold_string_data(&mut object);
    }
    if manifest::kind(&object) == "Service" && json::text(&object, &["spec", "clusterIP"]).is_empty() {
        json::remove(&mut object, &["spec", "clusterIP"]);
    }
    object
}

/// An object without metadata that changes by itself, and without status: for the comparison of a predicted with a live object.
#[must_use]
pub fn stable(object: &Value) -> Value {
    let mut stable = object.clone();
    if let Value::Object(map) = &mut stable {
        map.remove("status");
    }
    strip_metadata(&mut stable);
    stable
}

/// Fields of `metadata` that only the API server writes.
const SERVER_METADATA: [&str; 8] = [
    "managedFields",
    "resourceVersion",
    "uid",
    "generation",
    "creationTimestamp",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

fn strip_metadata(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in SERVER_METADATA {
            metadata.remove(field);
        }
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED_ANNOTATION);
        }
    }
}

/// A null in a manifest means "not set", as for kubectl.
fn drop_nulls(value: &mut Value, depth: usize) {
    if depth > DEPTH_MAX {
        return;
    }
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(|value| drop_nulls(value, depth + 1));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| drop_nulls(value, depth + 1)),
        _ => {}
    }
}

/// No Kubernetes type nests as deep; a manifest that does is compared only so far.
pub(crate) const DEPTH_MAX: usize = 100;

fn fold_string_data(secret: &mut Value) {
    let Some(Value::Object(texts)) = json::remove(secret, &["stringData"]) else { return };
    if !secret.get("data").is_some_and(Value::is_object) {
        json::set(secret, &["data"], Value::Object(Map::new()));
    }
    for (key, text) in texts {
        let text = text.as_str().map_or_else(|| text.to_string(), str::to_owned);
        json::set(secret, &["data", &key], Value::from(STANDARD.encode(text)));
    }
}

/// The bytes of a base64 text as Go reads it: line breaks do not count.
#[must_use]
pub(crate) fn base64_bytes(text: &str) -> Option<Vec<u8>> {
    let text: String = text.chars().filter(|character| !matches!(character, '\r' | '\n')).collect();
    STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn string_data_wins_over_data() {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "creationTimestamp": null},
            "data": {"a": "b2xk", "b": "Yg=="}, "stringData": {"a": "new"}, "status": {}});
        let expected = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
            "data": {"a": "bmV3", "b": "Yg=="}});
        assert_eq!(desired(&secret), expected);
    }

    #[test]
    fn base64_ignores_line_breaks() {
        assert_eq!(base64_bytes("aGVs\nbG8=\n"), base64_bytes("aGVsbG8="));
        assert_eq!(base64_bytes("not base64!"), None);
    }
}
