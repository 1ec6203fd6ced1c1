//! Nodes to JSON values and back, with the types Go would find on the way.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::{
    Dialect, Error, ErrorKind, Node, Resolved, Scalar, Style, Tag,
    emit::style_of,
    number::{float_value, plain_float},
    resolve, timestamp,
};

impl Node {
    /// The JSON value. Whole floats become integers and timestamps become text, as they do in Go.
    ///
    /// # Errors
    /// Infinity, NaN, text that does not fit its tag, and keys that the dialect cannot turn into text.
    pub fn to_value(&self, dialect: Dialect) -> Result<Value, Error> {
        self.convert(dialect, Level::Root)
    }

    fn convert(&self, dialect: Dialect, level: Level) -> Result<Value, Error> {
        match self {
            Self::Scalar(scalar) => scalar.to_value(dialect),
            Self::Sequence(items) => items
                .iter()
                .map(|item| item.convert(dialect, Level::Nested))
                .collect::<Result<_, _>>()
                .map(Value::Array),
            Self::Mapping(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    let value = value.convert(dialect, Level::Nested)?;
                    map.insert(key.to_key(dialect, level)?, value);
                }
                Ok(Value::Object(map))
            }
        }
    }

    /// The node of a JSON value, as Kustomize rebuilds one after a JSON patch: numbers pass through a float.
    #[must_use]
    pub fn from_value(value: &Value) -> Self {
        match value {
            Value::Null => Self::null(),
            Value::Bool(flag) => typed(if *flag { "true" } else { "false" }.to_owned(), Tag::Bool),
            Value::Number(number) => {
                let text = plain_float(number.as_f64().unwrap_or_default());
                let tag = if text.contains(['.', 'e']) { Tag::Float } else { Tag::Int };
                typed(text, tag)
            }
            Value::String(text) => {
                Self::Scalar(Scalar { text: text.clone(), tag: Tag::Str, style: style_of(text), line: 0 })
            }
            Value::Array(items) => Self::Sequence(items.iter().map(Self::from_value).collect()),
            Value::Object(map) => {
                let entry = |(key, value): (&String, &Value)| (Scalar::string(key.as_str()), Self::from_value(value));
                Self::Mapping(map.iter().map(entry).collect())
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Nested,
}

fn typed(text: String, tag: Tag) -> Node {
    Node::Scalar(Scalar { text, tag, style: Style::Plain, line: 0 })
}

impl Scalar {
    /// What this scalar is once written out and read again: an untyped plain text takes the type it looks like.
    #[must_use]
    pub fn effective_tag(&self, dialect: Dialect) -> Tag {
        match (self.tag, self.style) {
            (Tag::Unset, Style::Plain | Style::Tagged) => Tag::from(&resolve(&self.text, dialect)),
            (Tag::Unset, _) => Tag::Str,
            (Tag::Str, _) | (_, Style::Plain | Style::Tagged) => self.tag,
            // A type that the text shows by itself is not written; within quotes it is then read as a string.
            (tag, _) if tag == Tag::from(&resolve(&self.text, dialect)) => Tag::Str,
            (tag, _) => tag,
        }
    }

    /// The JSON value of this scalar.
    ///
    /// # Errors
    /// Infinity, NaN, and text that does not fit its tag.
    pub fn to_value(&self, dialect: Dialect) -> Result<Value, Error> {
        match self.effective_tag(dialect) {
            Tag::Null => Ok(Value::Null),
            Tag::Str | Tag::Other | Tag::Unset | Tag::Merge => Ok(Value::String(self.text.clone())),
            Tag::Timestamp if dialect == Dialect::Sigs => Ok(Value::String(self.text.clone())),
            Tag::Timestamp => timestamp::parse(&self.text)
                .map(|stamp| Value::String(stamp.to_rfc3339()))
                .ok_or_else(|| self.mismatch("!!timestamp")),
            Tag::Binary => self.bytes(),
            Tag::Bool => match resolve(&self.text, dialect) {
                Resolved::Bool(flag) => Ok(Value::Bool(flag)),
                _ => Err(self.mismatch("!!bool")),
            },
            Tag::Int | Tag::Float => match resolve(&self.text, dialect) {
                Resolved::Int(number) => Ok(Value::from(number)),
                Resolved::Uint(number) => Ok(Value::from(number)),
                Resolved::Float(float) => {
                    float_value(float).ok_or_else(|| self.error(ErrorKind::NotANumber(self.text.clone())))
                }
                _ => Err(self.mismatch("!!int")),
            },
        }
    }

    fn bytes(&self) -> Result<Value, Error> {
        let compact: String = self.text.split_whitespace().collect();
        let bytes = STANDARD.decode(compact).map_err(|_| self.mismatch("!!binary"))?;
        Ok(Value::String(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn to_key(&self, dialect: Dialect, level: Level) -> Result<String, Error> {
        let tag = self.effective_tag(dialect);
        match (dialect, tag) {
            (_, Tag::Str | Tag::Other | Tag::Merge | Tag::Unset) => Ok(self.text.clone()),
            // Below the root, Go makes a map with keys of any type, which its JSON then refuses.
            (Dialect::Kyaml, _) if level == Level::Root => Ok(self.text.clone()),
            (Dialect::Kyaml, _) => Err(self.error(ErrorKind::Key(self.text.clone()))),
            (Dialect::Sigs, _) => match self.to_value(dialect)? {
                Value::String(text) => Ok(text),
                Value::Bool(flag) => Ok(flag.to_string()),
                Value::Number(number) => Ok(number.to_string()),
                Value::Null | Value::Array(_) | Value::Object(_) => Err(self.error(ErrorKind::Key("null".to_owned()))),
            },
        }
    }

    fn mismatch(&self, tag: &str) -> Error {
        self.error(ErrorKind::Tag { text: self.text.clone(), tag: tag.to_owned() })
    }

    fn error(&self, kind: ErrorKind) -> Error {
        Error { line: self.line, column: 1, kind }
    }
}
