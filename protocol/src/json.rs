//! JSON inside binary records, and small lenses over it.
//!
//! bincode cannot read back a self-describing value, so [`Json`] travels as its text. Maps are sorted, so equal values are equal
//! bytes: this text is also the canonical form that digests are taken of.

use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;

/// A JSON value that serialises as text in binary formats and as itself in text formats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Json(pub Value);

impl Deref for Json {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0
    }
}

impl DerefMut for Json {
    fn deref_mut(&mut self) -> &mut Value {
        &mut self.0
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self(value)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { self.0.serialize(serializer) } else { serializer.collect_str(&self.0) }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            Value::deserialize(deserializer).map(Self)
        } else {
            let text = String::deserialize(deserializer)?;
            serde_json::from_str(&text).map(Self).map_err(D::Error::custom)
        }
    }
}

/// The text at a path of map keys, or "" where the path or a text is missing.
#[must_use]
pub fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// The value at a path of map keys.
#[must_use]
pub fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(key))
}

/// Sets the value at a path of map keys; makes the maps on the way, and replaces what is not a map.
pub fn set(value: &mut Value, path: &[&str], new: Value) {
    let mut place = value;
    for key in path {
        if !place.is_object() {
            *place = Value::Object(serde_json::Map::new());
        }
        let Value::Object(map) = place else { return };
        place = map.entry((*key).to_owned()).or_insert(Value::Null);
    }
    *place = new;
}

/// Removes the value at a path of map keys and gives it back.
pub fn remove(value: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, parents) = path.split_last()?;
    let parent = parents.iter().try_fold(value, |value, key| value.get_mut(*key))?;
    parent.as_object_mut()?.remove(*last)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_read_write_and_remove() {
        let mut value = json!({"a": {"b": "c"}});
        assert_eq!(text(&value, &["a", "b"]), "c");
        assert_eq!(text(&value, &["a", "x"]), "");
        set(&mut value, &["a", "x", "y"], json!(1));
        assert_eq!(value, json!({"a": {"b": "c", "x": {"y": 1}}}));
        assert_eq!(remove(&mut value, &["a", "x", "y"]), Some(json!(1)));
        assert_eq!(remove(&mut value, &["q", "x"]), None);
    }
}
