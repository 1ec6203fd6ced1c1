//! A few of the refusals of a real API server, in its words: enough to try what happens with broken manifests.

use serde_json::Value;
use windlass_protocol::{
    json::{at, text},
    manifest,
};

use crate::action::{Failure, FailureReason};

/// Refuses a malformed object.
pub(super) fn object(object: &Value) -> Result<(), Failure> {
    let (kind, name) = (manifest::kind(object), manifest::name(object));
    let (_, version) = manifest::group_version(object);
    let unmarshal = |found: &Value, field: &str, wanted: &str| {
        let found = match found {
            Value::String(_) => "string",
            Value::Number(_) => "number",
            Value::Bool(_) => "bool",
            Value::Array(_) => "array",
            Value::Object(_) | Value::Null => "object",
        };
        rejected(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: json: cannot unmarshal {found} into Go struct field {field} of type {wanted}"
        ))
    };
    if name.is_empty() || name.chars().any(|it| it.is_ascii_uppercase() || it == '_' || it == ' ' || it == '/') {
        return Err(rejected(format!(
            "{kind} \"{name}\" is invalid: metadata.name: Invalid value: \"{name}\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
        )));
    }
    match kind {
        "ConfigMap" | "Secret" => {
            let data = object.get("data").and_then(Value::as_object).into_iter().flatten();
            for (_, value) in data {
                if !value.is_string() {
                    return Err(unmarshal(value, &format!("{kind}.data"), "string"));
                }
            }
        }
        "Deployment" | "StatefulSet" => {
            if let Some(replicas) = at(object, &["spec", "replicas"]).filter(|it| !it.is_i64()) {
                return Err(unmarshal(replicas, &format!("{kind}Spec.spec.replicas"), "int32"));
            }
            template(object)?;
        }
        "DaemonSet" | "Job" => template(object)?,
        _ => {}
    }
    Ok(())
}

fn template(object: &Value) -> Result<(), Failure> {
    let (kind, name) = (manifest::kind(object), manifest::name(object));
    let containers = at(object, &["spec", "template", "spec", "containers"]).and_then(Value::as_array);
    let Some(containers) = containers.filter(|list| !list.is_empty()) else {
        return Err(rejected(format!(
            "{kind}.apps \"{name}\" is invalid: spec.template.spec.containers: Required value"
        )));
    };
    for (index, container) in containers.iter().enumerate() {
        if text(container, &["image"]).is_empty() {
            return Err(rejected(format!(
                "{kind}.apps \"{name}\" is invalid: spec.template.spec.containers[{index}].image: Required value"
            )));
        }
    }
    Ok(())
}

/// Refuses a change of what cannot be changed.
pub(super) fn change(live: Option<&Value>, new: &Value) -> Result<(), Failure> {
    let Some(live) = live else { return Ok(()) };
    let (kind, name) = (manifest::kind(new), manifest::name(new));
    let fields: &[&[&str]] = match kind {
        "Deployment" | "DaemonSet" | "StatefulSet" => &[&["spec", "selector"]],
        "Job" => &[&["spec", "template"]],
        "PersistentVolumeClaim" => &[&["spec", "storageClassName"]],
        _ => &[],
    };
    for path in fields {
        if at(live, path) != at(new, path) {
            let field = path.join(".");
            return Err(rejected(format!("{kind} \"{name}\" is invalid: {field}: Invalid value: field is immutable")));
        }
    }
    Ok(())
}

fn rejected(message: String) -> Failure {
    Failure::new(FailureReason::Rejected, message)
}
