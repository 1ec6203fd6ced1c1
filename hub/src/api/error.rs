//! Errors as Kubernetes' `Status` objects, with its reasons, codes and sentences.

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use windlass_hub_core::{ObjectKey, Rejection};
use windlass_protocol::resource::{FieldError, KindInfo};

use super::{answer, ports::ProviderError};
use crate::{raft::ProposeError, replica::CommandError, sealing::SealError};

/// Causes in one answer; whoever makes more mistakes mends these first.
const CAUSES_MAX: usize = 50;

/// A failed request.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    pub(super) code: StatusCode,
    pub(super) reason: &'static str,
    pub(super) message: String,
    details: Value,
    retry_after_seconds: Option<u32>,
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        Self::of_command_about(error, None)
    }
}

impl ApiError {
    pub(super) fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null, retry_after_seconds: None }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    pub(super) fn unsupported_media(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    /// The path names nothing that this server has.
    pub(super) fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
    }

    pub(super) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    pub(super) fn not_found(key: &ObjectKey) -> Self {
        let message = format!("{} \"{}\" not found", resource(key.kind.info()), key.name.name);
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about_resource(key)
    }

    pub(super) fn conflict(key: &ObjectKey, message: &str) -> Self {
        let (resource, name) = (resource(key.kind.info()), &key.name.name);
        let message = format!("Operation cannot be fulfilled on {resource} \"{name}\": {message}");
        Self::new(StatusCode::CONFLICT, "Conflict", message).about_resource(key)
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    pub(super) fn too_many_requests(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message).retry_after(1)
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message).retry_after(1)
    }

    /// The revision has left the ring, or is not known: list again.
    pub(super) fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    pub(super) fn timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message).retry_after(1)
    }

    /// The object breaks rules of its kind.
    pub(super) fn invalid(key: &ObjectKey, errors: &[FieldError]) -> Self {
        let texts: Vec<String> = errors.iter().take(CAUSES_MAX).map(ToString::to_string).collect();
        let all = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let info = key.kind.info();
        let kind = if info.group.is_empty() { info.name.to_owned() } else { format!("{}.{}", info.name, info.group) };
        let message = format!("{kind} \"{}\" is invalid: {all}", key.name.name);
        let cause = |error: &FieldError| {
            let (reason, found) = if error.message.starts_with("Required value") {
                ("FieldValueRequired", &error.message)
            } else {
                ("FieldValueInvalid", &error.message)
            };
            json!({"reason": reason, "message": found, "field": error.path})
        };
        let causes: Vec<Value> = errors.iter().take(CAUSES_MAX).map(cause).collect();
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message);
        error.details = details(&key.name.name, info.group, info.name);
        answer::put(&mut error.details, "causes", Value::Array(causes));
        error
    }

    pub(super) fn forbidden(user: &str, verb: &str, info: &KindInfo, namespace: Option<&str>, name: &str) -> Self {
        let scope = match namespace {
            Some(namespace) => format!("in the namespace \"{namespace}\""),
            None => "at the cluster scope".to_owned(),
        };
        let subject = if name.is_empty() { resource(info) } else { format!("{} \"{name}\"", resource(info)) };
        let (plural, group) = (info.plural, info.group);
        let message = format!(
            "{subject} is forbidden: User \"{user}\" cannot {verb} resource \"{plural}\" in API group \"{group}\" {scope}"
        );
        let mut error = Self::new(StatusCode::FORBIDDEN, "Forbidden", message);
        error.details = details(name, info.group, info.plural);
        error
    }

    fn about_resource(mut self, key: &ObjectKey) -> Self {
        let info = key.kind.info();
        self.details = details(&key.name.name, info.group, info.plural);
        self
    }

    pub(super) fn cause(mut self, reason: &str, message: &str) -> Self {
        if !self.details.is_object() {
            self.details = json!({});
        }
        answer::put(&mut self.details, "causes", json!([{"reason": reason, "message": message}]));
        self
    }

    pub(super) const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// The `Status` object.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code.as_u16(),
        });
        let mut details = self.details.clone();
        if let Some(seconds) = self.retry_after_seconds {
            if !details.is_object() {
                details = json!({});
            }
            answer::put(&mut details, "retryAfterSeconds", json!(seconds));
        }
        if details.is_object() {
            answer::put(&mut status, "details", details);
        }
        status
    }

    pub(super) fn response(&self) -> Response<axum::body::Body> {
        let mut response = answer::json(self.code, &self.status());
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }

    /// A command about one object was not applied.
    pub(super) fn of_command(error: CommandError, key: &ObjectKey) -> Self {
        Self::of_command_about(error, Some(key))
    }

    fn of_command_about(error: CommandError, key: Option<&ObjectKey>) -> Self {
        match error {
            CommandError::Rejected(rejection) => Self::of_rejection(&rejection, key),
            CommandError::Unavailable(error) => Self::of_proposal(&error),
            CommandError::Encoding(_) => Self::too_large(windlass_hub_core::command::ENVELOPE_BYTES_MAX),
            CommandError::Random => Self::internal("the operating system gives no random numbers"),
        }
    }

    fn of_rejection(rejection: &Rejection, key: Option<&ObjectKey>) -> Self {
        let (code, reason) = match rejection {
            Rejection::AlreadyExists { .. } => (StatusCode::CONFLICT, "AlreadyExists"),
            Rejection::NotFound { .. } => (StatusCode::NOT_FOUND, "NotFound"),
            Rejection::Conflict { .. } | Rejection::Precondition(_) => (StatusCode::CONFLICT, "Conflict"),
            Rejection::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
            Rejection::Forbidden(_) | Rejection::Identity(_) => (StatusCode::FORBIDDEN, "Forbidden"),
        };
        let mut error = Self::new(code, reason, rejection.to_string());
        if let Rejection::NotFound { kind, name }
        | Rejection::AlreadyExists { kind, name }
        | Rejection::Conflict { kind, name, .. } = rejection
        {
            // The object may be another one than the asked: its namespace.
            let (plural, group) = kind.split_once('.').unwrap_or((kind, ""));
            error.details = details(name, group, plural);
        } else if let Some(key) = key {
            error = error.about_resource(key);
        }
        error
    }

    fn of_proposal(error: &ProposeError) -> Self {
        let message = error.to_string();
        match error {
            ProposeError::NotLeader { .. } | ProposeError::Stopped { .. } => Self::unavailable(message),
            ProposeError::Overloaded { .. } => Self::too_many_requests(message),
            ProposeError::TooLarge { maximum, .. } => Self::too_large(*maximum),
            ProposeError::Timeout => Self::timeout(message),
        }
    }
}

impl From<ProviderError> for ApiError {
    fn from(error: ProviderError) -> Self {
        match error {
            ProviderError::NotFound(message) => Self::new(StatusCode::NOT_FOUND, "NotFound", message),
            ProviderError::Invalid(message) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message),
            ProviderError::Unauthorized(message) => {
                tracing::debug!(message, "refused by a provider");
                Self::unauthorized()
            }
            ProviderError::Unavailable(message) => Self::unavailable(message),
            ProviderError::Command(CommandError::Rejected(rejection)) => Self::of_rejection(&rejection, None),
            ProviderError::Command(CommandError::Unavailable(error)) => Self::of_proposal(&error),
            ProviderError::Command(error) => Self::internal(error.to_string()),
            ProviderError::Internal(message) => {
                tracing::error!(message, "a provider of the API failed");
                Self::internal("an internal error occurred; the hub's log says more")
            }
        }
    }
}

impl From<SealError> for ApiError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Content(message) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message),
            other => Self::internal(other.to_string()),
        }
    }
}

/// `applications.argoproj.io`, as Kubernetes names resources in sentences.
pub(super) fn resource(info: &KindInfo) -> String {
    if info.group.is_empty() { info.plural.to_owned() } else { format!("{}.{}", info.plural, info.group) }
}

/// `details` of a `Status`; empty fields are left out.
fn details(name: &str, group: &str, kind: &str) -> Value {
    let fields = [("name", name), ("group", group), ("kind", kind)];
    let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
    Value::Object(fields.map(|(field, value)| (field.to_owned(), json!(value))).collect())
}
