//! Request bodies: read within bounds, from JSON or YAML, with the keys that stand twice.

use std::{fmt, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use windlass_protocol::yaml;

use super::{
    error::ApiError,
    media,
    protobuf::{self, ProtobufError},
};

/// Levels of nesting in an object: what is stored must always be readable again, inside of lists and events too.
pub(super) const DEPTH_MAX: usize = 100;
/// Duplicate keys that are reported.
const DUPLICATES_MAX: usize = 50;

/// A body as JSON.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) value: Value,
    /// Paths of keys that stand twice; the last one counts.
    pub(super) duplicates: Vec<String>,
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn read(body: Body, limit: usize, within: Duration) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(within, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::too_large(limit)),
        Ok(Err(error)) => Err(ApiError::bad_request(format!("the body could not be read: {error}"))),
        Err(_) => {
            let message = "the body did not arrive in time";
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "Timeout", message))
        }
    }
}

/// Reads an object.
pub(super) fn object(headers: &HeaderMap, bytes: &Bytes) -> Result<Document, ApiError> {
    let document = match media::content_type(headers) {
        "application/yaml" | "text/yaml" | "application/x-yaml" => from_yaml(bytes)?,
        "application/json" | "*/*" => from_json(bytes)?,
        "application/vnd.kubernetes.protobuf" => from_protobuf(bytes)?,
        other => {
            return Err(ApiError::unsupported_media(format!(
                "the body of the request was in an unknown format - accepted media types include: application/json, \
                 application/yaml; not {other:?}"
            )));
        }
    };
    if !document.value.is_object() {
        return Err(ApiError::bad_request("the body of the request is not an object"));
    }
    if depth(&document.value) > DEPTH_MAX {
        return Err(ApiError::bad_request(format!("the object is nested deeper than {DEPTH_MAX} levels")));
    }
    Ok(document)
}

/// An object, or nothing at all.
pub(super) fn optional_object(headers: &HeaderMap, bytes: &Bytes) -> Result<Value, ApiError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    object(headers, bytes).map(|document| document.value)
}

pub(super) fn from_json(bytes: &[u8]) -> Result<Document, ApiError> {
    let value = serde_json::from_slice(bytes)
        .map_err(|error| ApiError::bad_request(format!("couldn't get version/kind; json parse error: {error}")))?;
    Ok(Document { value, duplicates: duplicates(bytes) })
}

pub(super) fn from_yaml(bytes: &[u8]) -> Result<Document, ApiError> {
    let bad = |error: String| ApiError::bad_request(format!("error converting YAML to JSON: {error}"));
    let mut documents =
        yaml::values(bytes, &yaml::Options::default()).map_err(|error| bad(error.to_string()))?.into_iter();
    match (documents.next(), documents.next()) {
        (Some(only), None) => Ok(Document { value: only.value, duplicates: Vec::new() }),
        _ => Err(bad("exactly one document is expected".to_owned())),
    }
}

fn from_protobuf(bytes: &[u8]) -> Result<Document, ApiError> {
    let value = protobuf::read(bytes).map_err(|error| match error {
        ProtobufError::Kind => ApiError::unsupported_media(error.to_string()),
        ProtobufError::Malformed => ApiError::bad_request(error.to_string()),
    })?;
    Ok(Document { value, duplicates: Vec::new() })
}

/// Levels of nesting, without recursion.
pub(super) fn depth(value: &Value) -> usize {
    let mut deepest = 0;
    let mut rest = vec![(value, 1_usize)];
    while let Some((value, level)) = rest.pop() {
        deepest = deepest.max(level);
        match value {
            Value::Object(map) => rest.extend(map.values().map(|inner| (inner, level + 1))),
            Value::Array(list) => rest.extend(list.iter().map(|inner| (inner, level + 1))),
            _ => {}
        }
    }
    deepest
}

/// Paths of keys that stand twice in one map.
fn duplicates(bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    // The text was parsed before, so this walk ends well.
    let walked = Walk { path: String::new(), found: &mut found }.deserialize(&mut reader);
    drop(walked);
    found
}

struct Walk<'a> {
    path: String,
    found: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = std::collections::BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let path = if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
            if !seen.insert(key) {
                if self.found.len() >= DUPLICATES_MAX {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                self.found.push(path.clone());
            }
            map.next_value_seed(Walk { path, found: self.found })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut index = 0_usize;
        loop {
            let path = format!("{}[{index}]", self.path);
            if list.next_element_seed(Walk { path, found: self.found })?.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_stand_twice_are_found() {
        let text = br#"{"a": 1, "b": [{"c": 1, "c": 2}], "a": {"d": null, "d": true}}"#;
        let document = from_json(text).unwrap();
        assert_eq!(document.duplicates, ["b[0].c", "a", "a.d"]);
        assert_eq!(from_json(b"{\"a\": {\"b\": 1}, \"c\": {\"b\": 1}}").unwrap().duplicates, Vec::<String>::new());
    }

    #[test]
    fn deep_bodies_are_refused() {
        let deep = |levels: usize| Bytes::from(format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels)));
        assert!(object(&HeaderMap::new(), &deep(DEPTH_MAX - 1)).is_ok());
        assert!(object(&HeaderMap::new(), &deep(DEPTH_MAX)).is_err());
        assert!(object(&HeaderMap::new(), &deep(100_000)).is_err());
    }
}
