//! What a client wants to read (`Accept`) and what it has written (`Content-Type`).

use http::{HeaderMap, StatusCode, header};

use super::error::ApiError;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The objects.
    Full,
    /// Rows for people.
    Table,
    /// Only metadata.
    Partial,
}

/// Media types, in the client's order, with their parameters.
pub(super) fn accepted(headers: &HeaderMap) -> Vec<MediaType<'_>> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(MediaType::of).collect()
}

/// The form for objects and lists.
pub(super) fn form(headers: &HeaderMap) -> Result<Form, ApiError> {
    let accepted = accepted(headers);
    if accepted.is_empty() {
        return Ok(Form::Full);
    }
    accepted.iter().find_map(form_of).ok_or_else(|| {
        let message = "only the following media types are accepted: application/json, \
                       application/json;as=Table;g=meta.k8s.io;v=v1";
        ApiError::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    })
}

fn form_of(media: &MediaType<'_>) -> Option<Form> {
    if !matches!(media.name, "application/json" | "application/*" | "*/*") {
        return None;
    }
    let meta = media.parameter("g") == Some("meta.k8s.io") && media.parameter("v") == Some("v1");
    match media.parameter("as") {
        None => Some(Form::Full),
        Some("Table") if meta => Some(Form::Table),
        Some("PartialObjectMetadata" | "PartialObjectMetadataList") if meta => Some(Form::Partial),
        Some(_) => None,
    }
}

/// One media type with its parameters.
#[derive(Clone, Debug)]
pub(super) struct MediaType<'a> {
    pub(super) name: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> MediaType<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        Self { name, parameters: parts.filter_map(|part| part.split_once('=')).collect() }
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

/// The media type of a request's body, without parameters; JSON when nothing is said.
pub(super) fn content_type(headers: &HeaderMap) -> &str {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match MediaType::of(text).name {
        "" => "application/json",
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_form_wins() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,\
                     application/json";
        for (accept, form) in [
            (table, Some(Form::Table)),
            ("application/json", Some(Form::Full)),
            ("application/vnd.kubernetes.protobuf, application/json", Some(Form::Full)),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Some(Form::Partial)),
            ("*/*", Some(Form::Full)),
            ("application/vnd.kubernetes.protobuf", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            assert_eq!(super::form(&headers).ok(), form, "{accept}");
        }
    }
}
