//! The query parameters that Kubernetes clients send.

use std::time::Duration;

use axum::extract::Query as Pairs;
use http::Uri;
use windlass_protocol::ids::StateRevision;

use super::error::ApiError;

/// Parameters of one request; what is not known is ignored, as Kubernetes does.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
}

/// What to do about fields that a kind does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum FieldValidation {
    /// Say nothing.
    Ignore,
    /// Accept and say so.
    #[default]
    Warn,
    /// Refuse.
    Strict,
}

/// Whether a write is only tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// For real.
    Commit,
    /// Everything but the writing.
    DryRun,
}

impl Query {
    pub(super) fn of(uri: &Uri) -> Result<Self, ApiError> {
        let pairs = Pairs::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| ApiError::bad_request(format!("the query cannot be read: {error}")))?;
        Ok(Self { pairs: pairs.0 })
    }

    /// A parameter; `None` when it is absent or empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.pairs.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1" | "True"))
    }

    pub(super) fn seconds(&self, name: &str) -> Result<Option<Duration>, ApiError> {
        let parse = |text: &str| {
            let bad = || ApiError::bad_request(format!("{name}: {text:?} is not a number of seconds"));
            text.parse().map(Duration::from_secs).map_err(|_| bad())
        };
        self.get(name).map(parse).transpose()
    }

    /// `resourceVersion`; `None` when it is absent, zero means "whatever there is".
    pub(super) fn revision(&self) -> Result<Option<StateRevision>, ApiError> {
        self.get("resourceVersion").map(parse_revision).transpose()
    }

    pub(super) fn mode(&self) -> Result<Mode, ApiError> {
        match self.get("dryRun") {
            None => Ok(Mode::Commit),
            Some("All") => Ok(Mode::DryRun),
            Some(other) => {
                Err(ApiError::bad_request(format!("dryRun: Unsupported value: {other:?}: supported values: \"All\"")))
            }
        }
    }

    pub(super) fn field_validation(&self) -> Result<FieldValidation, ApiError> {
        match self.get("fieldValidation") {
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some(other) => Err(ApiError::bad_request(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }
}

/// A `resourceVersion`.
pub(super) fn parse_revision(text: &str) -> Result<StateRevision, ApiError> {
    let bad = || ApiError::bad_request(format!("Invalid value: {text:?}: resourceVersion must be a decimal number"));
    text.parse().map(StateRevision).map_err(|_| bad())
}
