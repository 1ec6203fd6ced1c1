//! RFC 6902 as the library that Kustomize uses applies it: negative indices count from the end, `replace` of a
//! missing key adds it, and a missing value is null.

use serde_json::Value;
use windlass_protocol::yaml::{self, DuplicateKeys};

use crate::error::{Problem, ProblemKind};

/// A decoded patch.
#[derive(Debug, Clone)]
pub(super) struct JsonPatch {
    operations: Vec<Operation>,
}

#[derive(Debug, Clone)]
struct Operation {
    op: String,
    path: Option<String>,
    from: Option<String>,
    value: Value,
}

impl JsonPatch {
    /// Decodes JSON (when it starts with `[`) or YAML.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let value = if text.starts_with('[') {
            serde_json::from_str(text).map_err(|error| Problem::new(ProblemKind::Syntax, error.to_string()))?
        } else {
            // Further documents are not looked at, as in the real tool.
            let options = yaml::Options { duplicates: DuplicateKeys::LastWins, ..yaml::Options::default() };
            yaml::values(text.as_bytes(), &options)
                .map_err(|error| Problem::new(ProblemKind::Syntax, error.to_string()).at_line(error.line))?
                .into_iter()
                .next()
                .map_or(Value::Null, |document| document.value)
        };
        let items = match value {
            Value::Null => Vec::new(),
            Value::Array(items) => items,
            other => {
                let kind = kind_name(&other);
                let message = format!("cannot unmarshal {kind} into Go value of type jsonpatch.Patch");
                return Err(Problem::patch(message));
            }
        };
        let operations = items.iter().map(Operation::parse).collect::<Result<_, _>>()?;
        Ok(Self { operations })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Applies all operations in order.
    pub(super) fn apply(&self, document: &mut Value) -> Result<(), Problem> {
        self.operations.iter().try_for_each(|operation| operation.apply(document))
    }
}

impl Operation {
    fn parse(item: &Value) -> Result<Self, Problem> {
        let Value::Object(map) = item else {
            let kind = kind_name(item);
            let message = format!("cannot unmarshal {kind} into Go value of type jsonpatch.Operation");
            return Err(Problem::patch(message));
        };
        let text = |name: &str| map.get(name).and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            op: text("op").unwrap_or_else(|| "unknown".to_owned()),
            path: text("path"),
            from: text("from"),
            value: map.get("value").cloned().unwrap_or(Value::Null),
        })
    }

    fn apply(&self, document: &mut Value) -> Result<(), Problem> {
        let missing =
            |field: &str| Problem::patch(format!("{} operation failed to decode {field}: missing value", self.op));
        let path = self.path.as_deref().ok_or_else(|| missing("path"));
        let from = self.from.as_deref().ok_or_else(|| missing("from"));
        match self.op.as_str() {
            "add" => self.add(document, path?, self.value.clone()),
            "remove" => self.take(document, path?).map(|_| ()),
            "replace" => self.replace(document, path?),
            "move" => {
                let (from, path) = (from?, path?);
                let value = self.take(document, from)?;
                self.add(document, path, value)
            }
            "copy" => {
                let value = self.look(document, from?)?.unwrap_or(Value::Null);
                self.add(document, path?, value)
            }
            "test" => self.test(document, path?),
            other => Err(Problem::patch(format!("Unexpected kind: {other}"))),
        }
    }

    fn add(&self, document: &mut Value, path: &str, value: Value) -> Result<(), Problem> {
        let (parent, key) = self.parent(document, path)?;
        match parent {
            Value::Object(map) => {
                map.insert(key, value);
                Ok(())
            }
            Value::Array(items) if key == "-" => {
                items.push(value);
                Ok(())
            }
            Value::Array(items) => {
                let index = self.index(&key, items.len() + 1, path)?;
                items.insert(index.min(items.len()), value);
                Ok(())
            }
            _ => Err(self.no_path(path)),
        }
    }

    fn take(&self, document: &mut Value, path: &str) -> Result<Value, Problem> {
        let (parent, key) = self.parent(document, path)?;
        match parent {
            Value::Object(map) => map.remove(&key).ok_or_else(|| {
                Problem::patch(format!(
                    "error in {} for path: '{path}': Unable to remove nonexistent key: {key}",
                    self.op
                ))
            }),
            Value::Array(items) => {
                let index = self.index(&key, items.len(), path)?;
                if index < items.len() { Ok(items.remove(index)) } else { Err(self.no_index(&key, path)) }
            }
            _ => Err(self.no_path(path)),
        }
    }

    fn replace(&self, document: &mut Value, path: &str) -> Result<(), Problem> {
        if path.is_empty() {
            if !self.value.is_object() && !self.value.is_array() {
                return Err(Problem::patch("replace operation value must be object or array"));
            }
            *document = self.value.clone();
            return Ok(());
        }
        let (parent, key) = self.parent(document, path)?;
        match parent {
            Value::Object(map) => {
                map.insert(key, self.value.clone());
                Ok(())
            }
            Value::Array(items) => {
                let index = self.index(&key, items.len(), path)?;
                let Some(place) = items.get_mut(index) else { return Err(self.no_index(&key, path)) };
                *place = self.value.clone();
                Ok(())
            }
            _ => Err(self.no_path(path)),
        }
    }

    fn test(&self, document: &mut Value, path: &str) -> Result<(), Problem> {
        let found = if path.is_empty() { Some(document.clone()) } else { self.look(document, path)? };
        if found.unwrap_or(Value::Null) == self.value {
            return Ok(());
        }
        Err(Problem::patch(format!("testing value {path} failed: test failed")))
    }

    fn look(&self, document: &mut Value, path: &str) -> Result<Option<Value>, Problem> {
        let (parent, key) = self.parent(document, path)?;
        match parent {
            Value::Object(map) => Ok(map.get(&key).cloned()),
            Value::Array(items) => {
                let index = self.index(&key, items.len(), path)?;
                items.get(index).cloned().map(Some).ok_or_else(|| self.no_index(&key, path))
            }
            _ => Err(self.no_path(path)),
        }
    }

    /// The container that the last part of `path` is in, and that part.
    fn parent<'d>(&self, document: &'d mut Value, path: &str) -> Result<(&'d mut Value, String), Problem> {
        let mut parts: Vec<String> = path.split('/').skip(1).map(unescape).collect();
        let Some(last) = parts.pop() else { return Err(self.no_path(path)) };
        let mut here = document;
        for part in parts {
            let next = match here {
                Value::Object(map) => map.get_mut(&part),
                Value::Array(items) => match self.index(&part, items.len(), path) {
                    Ok(index) => items.get_mut(index),
                    Err(_) => None,
                },
                _ => None,
            };
            here = next.filter(|value| value.is_object() || value.is_array()).ok_or_else(|| self.no_path(path))?;
        }
        Ok((here, last))
    }

    /// An index below `length`; negative ones count from the end.
    fn index(&self, key: &str, length: usize, path: &str) -> Result<usize, Problem> {
        let number: i64 = key.parse().map_err(|_| {
            Problem::patch(format!(
                "error in {} for path: '{path}': value was not a proper array index: '{key}'",
                self.op
            ))
        })?;
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        let index = if number < 0 { number + length } else { number };
        if index < 0 || index >= length {
            return Err(self.no_index(key, path));
        }
        usize::try_from(index).map_err(|_| self.no_index(key, path))
    }

    fn no_path(&self, path: &str) -> Problem {
        Problem::patch(format!("{} operation does not apply: doc is missing path: \"{path}\": missing value", self.op))
    }

    fn no_index(&self, key: &str, path: &str) -> Problem {
        Problem::patch(format!("error in {} for path: '{path}': Unable to access invalid index: {key}", self.op))
    }
}

fn unescape(part: &str) -> String {
    if part.contains('~') { part.replace("~1", "/").replace("~0", "~") } else { part.to_owned() }
}

fn kind_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
