//! Bodies in Kubernetes' protobuf form: what typed clients (`kubectl create namespace`, event recorders) send for core kinds.
//!
//! Only reading, and only the messages below, by their field numbers (`k8s.io/api/core/v1/generated.proto`,
//! `k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto`). Answers are JSON, which every client accepts.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use windlass_protocol::time::Millis;

/// Begins every body.
const MAGIC: &[u8; 4] = b"k8s\0";
/// Messages are flat: deeper ones are not from a client.
const DEPTH_MAX: usize = 8;
/// Elements of one list or map.
const ELEMENTS_MAX: usize = 10_000;

/// How a field is read.
#[derive(Clone, Copy)]
enum Type {
    Text,
    Number,
    Flag,
    Message(&'static [Field]),
    Texts,
    Messages(&'static [Field]),
    /// Map of texts.
    TextMap,
    /// Map of bytes, base64 in JSON.
    ByteMap,
    /// Seconds and nanoseconds since 1970.
    Time,
}

/// One field of a message.
struct Field(u64, &'static str, Type);

const OWNER_REFERENCE: &[Field] = &[
    Field(1, "kind", Type::Text),
    Field(3, "name", Type::Text),
    Field(4, "uid", Type::Text),
    Field(5, "apiVersion", Type::Text),
    Field(6, "controller", Type::Flag),
    Field(7, "blockOwnerDeletion", Type::Flag),
];
const OBJECT_META: &[Field] = &[
    Field(1, "name", Type::Text),
    Field(2, "generateName", Type::Text),
    Field(3, "namespace", Type::Text),
    Field(5, "uid", Type::Text),
    Field(6, "resourceVersion", Type::Text),
    Field(7, "generation", Type::Number),
    Field(8, "creationTimestamp", Type::Time),
    Field(9, "deletionTimestamp", Type::Time),
    Field(11, "labels", Type::TextMap),
    Field(12, "annotations", Type::TextMap),
    Field(13, "ownerReferences", Type::Messages(OWNER_REFERENCE)),
    Field(14, "finalizers", Type::Texts),
];
const CONFIG_MAP: &[Field] = &[
    Field(1, "metadata", Type::Message(OBJECT_META)),
    Field(2, "data", Type::TextMap),
    Field(3, "binaryData", Type::ByteMap),
    Field(4, "immutable", Type::Flag),
];
const SECRET: &[Field] = &[
    Field(1, "metadata", Type::Message(OBJECT_META)),
    Field(2, "data", Type::ByteMap),
    Field(3, "type", Type::Text),
    Field(4, "stringData", Type::TextMap),
    Field(5, "immutable", Type::Flag),
];
const NAMESPACE: &[Field] = &[
    Field(1, "metadata", Type::Message(OBJECT_META)),
    Field(2, "spec", Type::Message(&[Field(1, "finalizers", Type::Texts)])),
    Field(3, "status", Type::Message(&[Field(1, "phase", Type::Text)])),
];
const OBJECT_REFERENCE: &[Field] = &[
    Field(1, "kind", Type::Text),
    Field(2, "namespace", Type::Text),
    Field(3, "name", Type::Text),
    Field(4, "uid", Type::Text),
    Field(5, "apiVersion", Type::Text),
    Field(6, "resourceVersion", Type::Text),
    Field(7, "fieldPath", Type::Text),
];
const EVENT: &[Field] = &[
    Field(1, "metadata", Type::Message(OBJECT_META)),
    Field(2, "involvedObject", Type::Message(OBJECT_REFERENCE)),
    Field(3, "reason", Type::Text),
    Field(4, "message", Type::Text),
    Field(5, "source", Type::Message(&[Field(1, "component", Type::Text), Field(2, "host", Type::Text)])),
    Field(6, "firstTimestamp", Type::Time),
    Field(7, "lastTimestamp", Type::Time),
    Field(8, "count", Type::Number),
    Field(9, "type", Type::Text),
    Field(10, "eventTime", Type::Time),
    Field(11, "series", Type::Message(&[Field(1, "count", Type::Number), Field(2, "lastObservedTime", Type::Time)])),
    Field(12, "action", Type::Text),
    Field(13, "related", Type::Message(OBJECT_REFERENCE)),
    Field(14, "reportingComponent", Type::Text),
    Field(15, "reportingInstance", Type::Text),
];
const DELETE_OPTIONS: &[Field] = &[
    Field(1, "gracePeriodSeconds", Type::Number),
    Field(2, "preconditions", Type::Message(&[Field(1, "uid", Type::Text), Field(2, "resourceVersion", Type::Text)])),
    Field(3, "orphanDependents", Type::Flag),
    Field(4, "propagationPolicy", Type::Text),
    Field(5, "dryRun", Type::Texts),
];
const TYPE_META: &[Field] = &[Field(1, "apiVersion", Type::Text), Field(2, "kind", Type::Text)];

/// Why a body cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProtobufError {
    #[error("the body is not in Kubernetes' protobuf form")]
    Malformed,
    #[error("objects of this kind are not read as protobuf")]
    Kind,
}

/// Reads a body.
pub(super) fn read(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let unknown = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::Malformed)?;
    let (mut meta, mut raw) = (Map::new(), &[][..]);
    for field in Fields(unknown) {
        match field? {
            (1, Wire::Bytes(bytes)) => meta = message(bytes, TYPE_META, 0)?,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let fields = match meta.get("kind").and_then(Value::as_str) {
        Some("Namespace") => NAMESPACE,
        Some("ConfigMap") => CONFIG_MAP,
        Some("Secret") => SECRET,
        Some("Event") => EVENT,
        Some("DeleteOptions") => DELETE_OPTIONS,
        _ => return Err(ProtobufError::Kind),
    };
    let mut object = message(raw, fields, 0)?;
    object.append(&mut meta);
    Ok(Value::Object(object))
}

/// A message as JSON; zero values are left out, as Kubernetes' own JSON does.
fn message(bytes: &[u8], fields: &[Field], depth: usize) -> Result<Map<String, Value>, ProtobufError> {
    if depth > DEPTH_MAX {
        return Err(ProtobufError::Malformed);
    }
    let mut object = Map::new();
    for found in Fields(bytes) {
        let (number, wire) = found?;
        let Some(Field(_, name, kind)) = fields.iter().find(|field| field.0 == number) else { continue };
        let list = || -> Vec<Value> { Vec::new() };
        match (*kind, wire) {
            (Type::Text, Wire::Bytes(bytes)) => {
                let text = text(bytes)?;
                if !text.is_empty() {
                    object.insert((*name).to_owned(), json!(text));
                }
            }
            (Type::Number, Wire::Number(number)) => {
                if number != 0 {
                    object.insert((*name).to_owned(), json!(number.cast_signed()));
                }
            }
            (Type::Flag, Wire::Number(number)) => {
                object.insert((*name).to_owned(), json!(number != 0));
            }
            (Type::Message(inner), Wire::Bytes(bytes)) => {
                let inner = message(bytes, inner, depth + 1)?;
                if !inner.is_empty() {
                    object.insert((*name).to_owned(), Value::Object(inner));
                }
            }
            (Type::Texts, Wire::Bytes(bytes)) => push(&mut object, name, json!(text(bytes)?), list)?,
            (Type::Messages(inner), Wire::Bytes(bytes)) => {
                push(&mut object, name, Value::Object(message(bytes, inner, depth + 1)?), list)?;
            }
            (Type::TextMap | Type::ByteMap, Wire::Bytes(bytes)) => {
                let (key, value) = entry(bytes)?;
                let value = match kind {
                    Type::ByteMap => json!(STANDARD.encode(value)),
                    _ => json!(text(value)?),
                };
                let map = object.entry((*name).to_owned()).or_insert_with(|| json!({}));
                if let Value::Object(map) = map {
                    if map.len() >= ELEMENTS_MAX {
                        return Err(ProtobufError::Malformed);
                    }
                    map.insert(key.to_owned(), value);
                }
            }
            (Type::Time, Wire::Bytes(bytes)) => {
                if let Some(time) = time(bytes)? {
                    object.insert((*name).to_owned(), json!(time));
                }
            }
            _ => return Err(ProtobufError::Malformed),
        }
    }
    Ok(object)
}

fn push(
    object: &mut Map<String, Value>,
    name: &str,
    value: Value,
    empty: impl Fn() -> Vec<Value>,
) -> Result<(), ProtobufError> {
    match object.entry(name.to_owned()).or_insert_with(|| Value::Array(empty())) {
        Value::Array(list) if list.len() < ELEMENTS_MAX => {
            list.push(value);
            Ok(())
        }
        _ => Err(ProtobufError::Malformed),
    }
}

fn entry(bytes: &[u8]) -> Result<(&str, &[u8]), ProtobufError> {
    let (mut key, mut value) = ("", &[][..]);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?,
            (2, Wire::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    Ok((key, value))
}

fn time(bytes: &[u8]) -> Result<Option<String>, ProtobufError> {
    let mut seconds = None;
    for field in Fields(bytes) {
        if let (1, Wire::Number(number)) = field? {
            seconds = Some(number);
        }
    }
    // A zero time has no seconds, or those of year 1, which are negative.
    let seconds = seconds.filter(|seconds| *seconds < 253_402_300_800);
    Ok(seconds.map(|seconds| Millis::from_secs(seconds).rfc3339()))
}

fn text(bytes: &[u8]) -> Result<&str, ProtobufError> {
    std::str::from_utf8(bytes).map_err(|_| ProtobufError::Malformed)
}

/// Numbers and contents of a message's fields.
struct Fields<'a>(&'a [u8]);

enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or(ProtobufError::Malformed))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Wire<'a>)> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => self.take(8).map(|_| Wire::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Wire::Fixed)?,
            _ => return None,
        };
        Some((tag >> 3, wire))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        bytes.extend_from_slice(content);
        bytes
    }

    fn body(kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [part(1, b"v1"), part(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), part(1, &meta), part(2, raw), part(3, b""), part(4, b"")].concat()
    }

    #[test]
    fn core_kinds_are_read() {
        let meta =
            [part(1, b"a"), part(2, b""), part(8, b""), part(11, &[part(1, b"k"), part(2, b"v")].concat())].concat();
        let data = [part(1, b"key"), part(2, b"value")].concat();
        let secret = body("Secret", &[part(1, &meta), part(2, &data), part(3, b"Opaque")].concat());
        let expect = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "labels": {"k": "v"}},
            "data": {"key": "dmFsdWU="}, "type": "Opaque",
        });
        assert_eq!(read(&secret), Ok(expect));
        assert_eq!(read(&body("Pod", b"")), Err(ProtobufError::Kind));
    }

    #[test]
    fn broken_bodies_are_errors() {
        let good = body("ConfigMap", &part(1, &part(1, b"a")));
        for cut in 1..good.len() {
            // Cut anywhere it is an error, or an object with less in it; never a panic.
            let _ = read(&good[..cut]);
        }
        assert_eq!(read(b"k8s\0\xff\xff"), Err(ProtobufError::Malformed));
        assert_eq!(read(b"{}"), Err(ProtobufError::Malformed));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = read(&[MAGIC.to_vec(), bytes].concat());
        }
    }
}
