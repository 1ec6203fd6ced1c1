//! Reads an OpenAPI document (JSON or YAML) into a table, as far as a strategic merge needs it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use windlass_protocol::yaml;

use super::{Custom, CustomType, FieldType, TypeRef};
use crate::error::Problem;

pub(super) fn parse(content: &[u8]) -> Result<Custom, Problem> {
    let text = std::str::from_utf8(content).map_err(|_| Problem::field("the schema is not UTF-8"))?;
    let document = yaml::value(text).map_err(|error| Problem::field(format!("invalid schema file: {error}")))?;
    let empty = Map::new();
    let definitions = document.get("definitions").and_then(Value::as_object).unwrap_or(&empty);
    let mut builder = Builder { types: Vec::new(), names: BTreeMap::new() };
    for name in definitions.keys() {
        let index = builder.types.len();
        builder.types.push(CustomType::default());
        builder.names.insert(name.as_str(), TypeRef(index));
    }
    let mut custom = Custom::default();
    for (name, definition) in definitions {
        let Some(of) = builder.names.get(name.as_str()).copied() else { continue };
        builder.fill(of, definition, 0);
        for (api_version, kind) in kinds(definition.get("x-kubernetes-group-version-kind")) {
            custom.kinds.insert((api_version, kind), of);
        }
    }
    custom.types = builder.types;
    if let Some(paths) = document.get("paths").and_then(Value::as_object) {
        for (path, operations) in paths {
            let get = operations.get("get").and_then(|get| get.get("x-kubernetes-group-version-kind"));
            if let Some(kind) = get.and_then(one_kind) {
                let namespaced = path.contains("namespaces/{namespace}");
                let known = custom.namespaced.entry(kind).or_insert(namespaced);
                *known = *known || namespaced;
            }
        }
    }
    Ok(custom)
}

/// Inline objects inside one another are followed to this depth.
const DEPTH: usize = 64;

struct Builder<'d> {
    types: Vec<CustomType>,
    names: BTreeMap<&'d str, TypeRef>,
}

impl Builder<'_> {
    fn fill(&mut self, of: TypeRef, definition: &Value, depth: usize) {
        if depth > DEPTH {
            return;
        }
        let mut made = CustomType::default();
        if let Some(properties) = definition.get("properties").and_then(Value::as_object) {
            for (name, property) in properties {
                let field = self.field(property, depth);
                made.fields.insert(name.clone(), field);
            }
        }
        if let Some(other) = definition.get("additionalProperties").filter(|other| other.is_object()) {
            made.other = Some(self.field(other, depth));
        }
        if let Some(place) = self.types.get_mut(of.0) {
            *place = made;
        }
    }

    fn field(&mut self, property: &Value, depth: usize) -> FieldType {
        if let Some(known) = self.reference(property) {
            return FieldType::Object(known);
        }
        if property.get("type").and_then(Value::as_str) == Some("array") {
            let items = property.get("items").and_then(|items| self.object(items, depth));
            let strategy = property.get("x-kubernetes-patch-strategy").and_then(Value::as_str).unwrap_or_default();
            return if strategy.split(',').any(|part| part == "merge") {
                FieldType::MergeList { keys: merge_keys(property), items }
            } else {
                FieldType::List(items)
            };
        }
        self.object(property, depth).map_or(FieldType::Leaf, FieldType::Object)
    }

    fn object(&mut self, property: &Value, depth: usize) -> Option<TypeRef> {
        if let Some(known) = self.reference(property) {
            return Some(known);
        }
        let inline = property.get("properties").is_some() || property.get("additionalProperties").is_some();
        if !inline {
            return None;
        }
        let of = TypeRef(self.types.len());
        self.types.push(CustomType::default());
        self.fill(of, property, depth + 1);
        Some(of)
    }

    fn reference(&self, property: &Value) -> Option<TypeRef> {
        let name = property.get("$ref")?.as_str()?.strip_prefix("#/definitions/")?;
        self.names.get(name).copied()
    }
}

fn merge_keys(property: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match property.get("x-kubernetes-list-map-keys").and_then(Value::as_array) {
        Some(keys) => keys.iter().filter_map(text).collect(),
        None => property.get("x-kubernetes-patch-merge-key").and_then(text).into_iter().collect(),
    }
}

fn kinds(extension: Option<&Value>) -> Vec<(String, String)> {
    match extension {
        Some(Value::Array(all)) => all.iter().filter_map(one_kind).collect(),
        _ => Vec::new(),
    }
}

fn one_kind(extension: &Value) -> Option<(String, String)> {
    let text = |name: &str| extension.get(name).and_then(Value::as_str).unwrap_or_default();
    let (group, version, kind) = (text("group"), text("version"), text("kind"));
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    (!kind.is_empty()).then(|| (api_version, kind.to_owned()))
}
