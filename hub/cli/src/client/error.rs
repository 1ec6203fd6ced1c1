//! What can go wrong between this program and the hub, in sentences that say what to do.

use std::error::Error;

use serde_json::Value;
use windlass_protocol::json;

/// Why a request has no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// No connection.
    #[error(
        "cannot reach the hub at {server}: {reason}. Is it running, and is this its address? (--server, --context)"
    )]
    Unreachable {
        /// URL of the hub.
        server: String,
        /// The system's reason.
        reason: String,
    },
    /// The certificate does not verify.
    #[error(
        "the certificate of {server} is not trusted: {reason}. Log in again with --root-pin (printed by the hub's \
         administrator) or --ca-file; if the name is what differs, give --tls-server-name"
    )]
    Untrusted {
        /// URL of the hub.
        server: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No answer in time.
    #[error("the hub at {server} did not answer within {seconds} s (--request-timeout)")]
    Timeout {
        /// URL of the hub.
        server: String,
        /// The bound.
        seconds: u64,
    },
    /// 401.
    #[error("the hub at {server} does not accept the token ({message}): log in again with `windlass login {server}`")]
    Unauthorized {
        /// URL of the hub.
        server: String,
        /// The hub's words.
        message: String,
    },
    /// 403.
    #[error("not allowed: {message}")]
    Forbidden {
        /// The hub's words.
        message: String,
    },
    /// 404 of an object.
    #[error("{message}")]
    NotFound {
        /// The hub's words.
        message: String,
    },
    /// 404 of a path.
    #[error("{server} does not know {path}: is it a Windlass hub, and not older than this program?")]
    UnknownPath {
        /// URL of the hub.
        server: String,
        /// What was asked for.
        path: String,
    },
    /// Any other refusal.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// Kubernetes' reason, such as `AlreadyExists`.
        reason: String,
        /// The hub's words.
        message: String,
    },
    /// The answer broke off or is not JSON.
    #[error("the answer of {server} cannot be used: {reason}")]
    Body {
        /// URL of the hub.
        server: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The request cannot be written.
    #[error("{path:?} is not a path: {reason}")]
    Request {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ApiError {
    /// From a failure before any answer.
    pub(super) fn connect(server: &str, error: &kube::Error) -> Self {
        let mut words = Vec::new();
        let mut cause: Option<&dyn Error> = Some(error);
        while let Some(error) = cause {
            words.push(error.to_string());
            cause = error.source();
        }
        let server = server.to_owned();
        // The outer layers say "service error", "client error (Connect)": only the innermost is worth telling.
        let reason = words.last().cloned().unwrap_or_default();
        let is_certificate = words.iter().any(|word| CERTIFICATE.iter().any(|sign| word.contains(sign)));
        if is_certificate { Self::Untrusted { server, reason } } else { Self::Unreachable { server, reason } }
    }

    /// From an answer that is no success.
    pub(super) fn status(server: &str, path: &str, code: u16, body: &[u8]) -> Self {
        let status: Option<Value> =
            serde_json::from_slice(body).ok().filter(|value| json::text(value, &["kind"]) == "Status");
        let field = |name: &str| status.as_ref().map(|value| json::text(value, &[name]).to_owned()).unwrap_or_default();
        let (mut message, reason) = (field("message"), field("reason"));
        if message.is_empty() {
            let text = String::from_utf8_lossy(body.get(..200).unwrap_or(body)).trim().to_owned();
            message =
                if text.is_empty() { format!("HTTP status {code}") } else { format!("HTTP status {code}: {text}") };
        }
        let server = server.to_owned();
        match code {
            401 => Self::Unauthorized { server, message },
            403 => Self::Forbidden { message },
            404 if status.as_ref().is_some_and(names_object) => Self::NotFound { message },
            404 => Self::UnknownPath { server, path: path.to_owned() },
            _ => Self::Refused { code, reason, message },
        }
    }

    /// There is no such object.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// There is such an object already.
    pub(crate) fn is_already_exists(&self) -> bool {
        matches!(self, Self::Refused { reason, .. } if reason == "AlreadyExists")
    }

    /// Somebody else changed the object in the meantime.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { code: 409, reason, .. } if reason != "AlreadyExists")
    }

    /// May pass by itself: the hub restarts, elects a leader, is overloaded.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Body { .. } => true,
            Self::Refused { code, .. } => matches!(code, 429 | 500..=599),
            Self::Untrusted { .. }
            | Self::Unauthorized { .. }
            | Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::UnknownPath { .. }
            | Self::Request { .. } => false,
        }
    }
}

/// A Status about an object names it; one about a path does not.
fn names_object(status: &Value) -> bool {
    !json::text(status, &["details", "name"]).is_empty() || json::text(status, &["message"]).contains('"')
}

/// Words in which rustls and the platform's verifiers speak of certificates.
const CERTIFICATE: [&str; 4] = ["certificate", "UnknownIssuer", "NotValidForName", "unknown issuer"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(code: u16, body: &Value) -> String {
        ApiError::status("https://hub:7443", "/apis/x", code, body.to_string().as_bytes()).to_string()
    }

    #[test]
    fn refusals_say_what_to_do() {
        let status = |reason: &str, message: &str| json!({"kind": "Status", "reason": reason, "message": message});
        assert!(told(401, &status("Unauthorized", "token expired")).contains("windlass login https://hub:7443"));
        assert_eq!(told(403, &status("Forbidden", "no")), "not allowed: no");
        let absent = r#"applications.argoproj.io "a" not found"#;
        assert_eq!(told(404, &status("NotFound", absent)), absent);
        let plain = ApiError::status("https://hub:7443", "/apis/x", 404, b"404 page not found").to_string();
        assert!(plain.contains("/apis/x") && plain.contains("is it a Windlass hub"), "{plain}");
        assert_eq!(told(500, &json!({})), "HTTP status 500: {}");
        let exists = ApiError::status("s", "p", 409, status("AlreadyExists", "x").to_string().as_bytes());
        assert!(exists.is_already_exists() && !exists.is_conflict());
    }
}
