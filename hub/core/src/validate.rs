//! Whether an object may be stored: structure and names, with every problem reported at once. Semantics (does the project
//! allow it, does the repository exist) become conditions later, as in Argo CD.

use serde_json::Value;
use windlass_protocol::{
    json,
    resource::{
        AppProjectSpec, ApplicationOperation, ApplicationSetSpec, ApplicationSpec, ClusterSpec, FieldError, Kind, parse,
    },
};

use crate::state::ObjectKey;

/// Largest object (DESIGN.md section 10).
pub const OBJECT_BYTES_MAX: usize = 1024 * 1024;
/// RFC 1123 subdomain.
const NAME_MAX: usize = 253;
/// RFC 1123 label, for namespaces and the values of labels.
const LABEL_MAX: usize = 63;
/// All annotations of one object together, as Kubernetes.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

/// What an accepted object still deserves to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validated {
    /// Paths of fields that the kind does not have.
    pub unknown: Vec<String>,
}

/// Checks an object of the API.
///
/// # Errors
/// Every problem that was found, with the path of its field.
pub fn validate(key: &ObjectKey, value: &Value) -> Result<Validated, Vec<FieldError>> {
    let mut errors = Vec::new();
    check_metadata(key, value, &mut errors);
    let mut unknown = Vec::new();
    match key.kind {
        Kind::Application => {
            required(value, "spec", &mut errors);
            lens::<ApplicationSpec>(value, "spec", &mut unknown, &mut errors);
            lens::<ApplicationOperation>(value, "operation", &mut unknown, &mut errors);
            top_level(value, &["spec", "status", "operation"], &mut unknown);
        }
        Kind::ApplicationSet => {
            required(value, "spec", &mut errors);
            lens::<ApplicationSetSpec>(value, "spec", &mut unknown, &mut errors);
            if json::at(value, &["spec", "template"]).is_none() {
                errors.push(FieldError::new("spec.template", "Required value"));
            }
            top_level(value, &["spec", "status"], &mut unknown);
        }
        Kind::AppProject => {
            required(value, "spec", &mut errors);
            lens::<AppProjectSpec>(value, "spec", &mut unknown, &mut errors);
            top_level(value, &["spec", "status"], &mut unknown);
        }
        Kind::Cluster => {
            lens::<ClusterSpec>(value, "spec", &mut unknown, &mut errors);
            top_level(value, &["spec", "status"], &mut unknown);
        }
        Kind::ConfigMap => texts(value, "data", &mut errors),
        Kind::Secret => {
            texts(value, "data", &mut errors);
            texts(value, "stringData", &mut errors);
        }
        Kind::Namespace | Kind::Event | Kind::Rollout | Kind::RolloutPolicy => {}
    }
    if errors.is_empty() { Ok(Validated { unknown }) } else { Err(errors) }
}

fn required(value: &Value, field: &str, errors: &mut Vec<FieldError>) {
    if !value.get(field).is_some_and(Value::is_object) {
        errors.push(FieldError::new(field, "Required value"));
    }
}

fn lens<T: serde::de::DeserializeOwned>(
    value: &Value,
    field: &str,
    unknown: &mut Vec<String>,
    errors: &mut Vec<FieldError>,
) {
    let Some(part) = value.get(field).filter(|part| !part.is_null()) else { return };
    match parse::<T>(field, part) {
        Ok(parsed) => unknown.extend(parsed.unknown),
        Err(error) => errors.push(error),
    }
}

fn top_level(value: &Value, known: &[&str], unknown: &mut Vec<String>) {
    let fields = value.as_object().into_iter().flat_map(|map| map.keys());
    let strange = fields.filter(|field| !matches!(field.as_str(), "apiVersion" | "kind" | "metadata"));
    unknown.extend(strange.filter(|field| !known.contains(&field.as_str())).cloned());
}

fn texts(value: &Value, field: &str, errors: &mut Vec<FieldError>) {
    match value.get(field) {
        None | Some(Value::Null) => {}
        Some(Value::Object(map)) => {
            for (key, _) in map.iter().filter(|(_, value)| !value.is_string()) {
                errors.push(FieldError::new(format!("{field}.{key}"), "must be a text: put quotes around it"));
            }
        }
        Some(_) => errors.push(FieldError::new(field, "must be a map of texts")),
    }
}

fn check_metadata(key: &ObjectKey, value: &Value, errors: &mut Vec<FieldError>) {
    let info = key.kind.info();
    if json::text(value, &["kind"]) != info.name || json::text(value, &["apiVersion"]) != info.api_version() {
        let (kind, version) = (info.name, info.api_version());
        errors.push(FieldError::new("kind", format!("must be {kind} of {version} at this address")));
    }
    let name = key.name.name.as_str();
    let is_label = matches!(key.kind, Kind::Namespace | Kind::Cluster);
    let limit = if is_label { LABEL_MAX } else { NAME_MAX };
    if !is_subdomain(name) || name.len() > limit || (is_label && name.contains('.')) {
        let message = format!(
            "Invalid value: {name:?}: lower-case letters, digits and '-'{}, begins and ends with a letter or digit, at \
             most {limit} characters",
            if is_label { "" } else { " or '.'" }
        );
        errors.push(FieldError::new("metadata.name", message));
    }
    check_labels(value, errors);
    texts_at(value, "annotations", errors);
    let annotations = json::at(value, &["metadata", "annotations"]).map_or(0, |map| map.to_string().len());
    if annotations > ANNOTATIONS_BYTES_MAX {
        let message = format!("Too long: {annotations} bytes; the limit is {ANNOTATIONS_BYTES_MAX}");
        errors.push(FieldError::new("metadata.annotations", message));
    }
    match json::at(value, &["metadata", "finalizers"]) {
        None | Some(Value::Null) => {}
        Some(Value::Array(list)) if list.iter().all(Value::is_string) => {}
        Some(_) => errors.push(FieldError::new("metadata.finalizers", "must be a list of texts")),
    }
}

fn check_labels(value: &Value, errors: &mut Vec<FieldError>) {
    texts_at(value, "labels", errors);
    let labels = json::at(value, &["metadata", "labels"]).and_then(Value::as_object).into_iter().flatten();
    for (key, value) in labels {
        let name = key.rsplit('/').next().unwrap_or_default();
        if name.len() > LABEL_MAX || !is_label_text(name) || name.is_empty() {
            errors.push(FieldError::new("metadata.labels", format!("Invalid value: {key:?} is no label key")));
        }
        if let Some(text) = value.as_str().filter(|text| text.len() > LABEL_MAX || !is_label_text(text)) {
            let message = format!(
                "Invalid value: {text:?}: letters, digits, '-', '_' and '.', begins and ends with a letter or digit, at \
                 most {LABEL_MAX} characters"
            );
            errors.push(FieldError::new(format!("metadata.labels.{key}"), message));
        }
    }
}

fn texts_at(value: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let Some(metadata) = value.get("metadata") else { return };
    let mut inner = Vec::new();
    texts(metadata, field, &mut inner);
    errors.extend(inner.into_iter().map(|error| FieldError { path: format!("metadata.{}", error.path), ..error }));
}

/// RFC 1123 subdomain.
#[must_use]
pub fn is_subdomain(name: &str) -> bool {
    !name.is_empty()
        && name.split('.').all(|part| {
            let inside = part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
            !part.is_empty() && inside && !part.starts_with('-') && !part.ends_with('-')
        })
}

fn is_label_text(text: &str) -> bool {
    let inside = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    inside && edge(text.as_bytes().first()) && edge(text.as_bytes().last())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(kind: Kind, name: &str, body: Value, expect: &[&str]) {
        let key = ObjectKey::new(kind, "argocd", name);
        let mut value = body;
        json::set(&mut value, &["kind"], json!(kind.info().name));
        json::set(&mut value, &["apiVersion"], json!(kind.info().api_version()));
        let found: Vec<String> = match validate(&key, &value) {
            Ok(validated) => validated.unknown,
            Err(errors) => errors.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(found.len(), expect.len(), "{found:?}");
        for (found, expect) in found.iter().zip(expect) {
            assert!(found.starts_with(expect), "{found:?} should start with {expect:?}");
        }
    }

    #[test]
    fn problems_are_named_by_field() {
        check(Kind::Application, "a", json!({"spec": {"destination": {"name": "c"}}}), &[]);
        check(Kind::Application, "a", json!({"spec": {"sources": 3}}), &["spec.sources: invalid type"]);
        check(Kind::Application, "a", json!({"spec": {"sorce": {}}, "extra": 1}), &["spec.sorce", "extra"]);
        check(Kind::Application, "a", json!({}), &["spec: Required value"]);
        check(Kind::Application, "A b", json!({"spec": {}}), &["metadata.name: Invalid value"]);
        check(Kind::Cluster, "a.b", json!({}), &["metadata.name: Invalid value"]);
        check(Kind::ApplicationSet, "a", json!({"spec": {"generators": []}}), &["spec.template: Required value"]);
        check(Kind::ConfigMap, "a", json!({"data": {"a": 1}}), &["data.a: must be a text"]);
        let labels = json!({"metadata": {"labels": {"a": "-x", "b": 1}}});
        check(Kind::Namespace, "a", labels, &["metadata.labels.b: must be a text", "metadata.labels.a: Invalid value"]);
    }
}
