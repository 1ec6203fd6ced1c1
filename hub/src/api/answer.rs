//! Responses: JSON bodies, warnings, and small lenses for building them.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::Value;

/// Warnings in one answer, and bytes of each: headers are bounded on both sides.
const WARNINGS_MAX: usize = 20;
const WARNING_BYTES_MAX: usize = 250;

/// Says where a read came from when it may be behind the leader.
pub(super) const READ_HEADER: HeaderName = HeaderName::from_static("windlass-read");

pub(super) fn json(code: StatusCode, value: &Value) -> Response<Body> {
    json_text(code, value.to_string())
}

pub(super) fn json_text(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    typed(code, HeaderValue::from_static("application/json"), text.into())
}

pub(super) fn plain(code: StatusCode, text: &'static str) -> Response<Body> {
    typed(code, HeaderValue::from_static("text/plain; charset=utf-8"), Bytes::from_static(text.as_bytes()))
}

pub(super) fn typed(code: StatusCode, media: HeaderValue, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, media);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Adds `Warning` headers (RFC 7234, code 299), which kubectl prints.
pub(super) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings.iter().take(WARNINGS_MAX) {
        let text: String =
            warning.chars().map(|char| if char.is_ascii() && !char.is_ascii_control() { char } else { '?' }).collect();
        let text: String = text.chars().take(WARNING_BYTES_MAX).collect();
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// Sets a field of an object; does nothing to anything else.
pub(super) fn put(object: &mut Value, field: &str, value: Value) {
    if let Value::Object(map) = object {
        map.insert(field.to_owned(), value);
    }
}
