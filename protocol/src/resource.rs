//! Resource types of the hub's API, as lenses over JSON objects.
//!
//! The hub stores objects as JSON, exactly as they were accepted. A type here reads the fields that Windlass acts on; reading
//! reports unknown fields as paths (a warning or an error is the caller's choice) and a wrong type as an error that names the
//! field. `argoproj.io` types carry the fields of Argo CD 3 and nothing else: our extensions are kinds or annotations of
//! `windlass.io`.

mod application;
mod applicationset;
mod cluster;
mod kinds;
mod project;
mod rollout;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use self::{application::*, applicationset::*, cluster::*, kinds::*, project::*, rollout::*};

/// The namespace of the hub's own configuration and, by default, of Applications: Argo CD's control namespace.
pub const CONTROL_NAMESPACE: &str = "argocd";
/// The finalizer of Argo CD that makes the deletion of an Application delete what it deployed.
pub const RESOURCES_FINALIZER: &str = "resources-finalizer.argocd.argoproj.io";
/// The same, explicitly in the background.
pub const RESOURCES_FINALIZER_BACKGROUND: &str = "resources-finalizer.argocd.argoproj.io/background";
/// The same, in the foreground.
pub const RESOURCES_FINALIZER_FOREGROUND: &str = "resources-finalizer.argocd.argoproj.io/foreground";
/// Annotation that asks for a fresh comparison: `normal` or `hard`; removed once done.
pub const REFRESH_ANNOTATION: &str = "argocd.argoproj.io/refresh";

/// Name of the entry in `status.operationState.operation.info` that numbers operations a person asked for.
pub const OPERATION_INFO: &str = "windlass.io/operation";

/// A typed view of an object, and what the view did not know.
#[derive(Clone, Debug)]
pub struct Parsed<T> {
    /// The typed view.
    pub value: T,
    /// Paths of fields that the type does not have, such as `spec.source.kustomize.buildOption`.
    pub unknown: Vec<String>,
}

/// A field has the wrong type or a value out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct FieldError {
    /// Path of the field, from the root of the object.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

impl FieldError {
    /// An error at a path.
    #[must_use]
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// Reads a typed view of a JSON value; `prefix` is the path of the value inside its object, such as `spec`.
///
/// # Errors
/// [`FieldError`] with the path of the first field whose type is wrong.
pub fn parse<T: DeserializeOwned>(prefix: &str, value: &Value) -> Result<Parsed<T>, FieldError> {
    let join = |path: &str| match (prefix, path) {
        ("", path) => path.to_owned(),
        (prefix, "" | ".") => prefix.to_owned(),
        (prefix, path) => format!("{prefix}.{path}"),
    };
    let mut unknown = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| unknown.push(join(&plain(&path.to_string())));
    let mut track = serde_path_to_error::Track::new();
    let inner = serde_path_to_error::Deserializer::new(value, &mut track);
    let result = T::deserialize(serde_ignored::Deserializer::new(inner, &mut note));
    match result {
        Ok(value) => Ok(Parsed { value, unknown }),
        Err(error) => Err(FieldError { path: join(&track.path().to_string()), message: error.to_string() }),
    }
}

/// `serde_ignored` writes `?` for an option on the way; people do not.
fn plain(path: &str) -> String {
    path.split('.').filter(|part| *part != "?").collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_fields_and_wrong_types_are_named() {
        let good = json!({"destination": {"name": "a"}, "source": {"repoURL": "r", "kustomize": {"buildOption": "x"}}});
        let parsed = parse::<ApplicationSpec>("spec", &good).unwrap();
        assert_eq!(parsed.unknown, ["spec.source.kustomize.buildOption"]);
        let bad = json!({"destination": {"name": "a"}, "source": {"repoURL": 5}});
        let error = parse::<ApplicationSpec>("spec", &bad).unwrap_err();
        assert_eq!(error.path, "spec.source.repoURL");
        assert!(error.message.contains("expected a string"), "{error}");
    }
}
