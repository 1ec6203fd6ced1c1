//! `vars`: `$(NAME)` in known fields becomes a value of another resource.

use std::collections::{BTreeMap, BTreeSet};

use windlass_protocol::yaml::{Node, Scalar, Style, Tag, plain_float};

use super::{
    fields::{Create, split_path_with_brackets},
    fieldspec::FieldSpecs,
    file::Variable,
    id::ResourceId,
    path_match::lookup,
    resource_map::ResourceMap,
    schema::Schema,
};
use crate::error::Problem;

/// Variables by name.
pub(super) type Variables = BTreeMap<String, Variable>;

/// Adds the variables of a kustomization and marks the resources they read from.
pub(super) fn declare(
    known: &mut Variables,
    map: &mut ResourceMap,
    incoming: &[Variable],
    schema: &Schema,
) -> Result<(), Problem> {
    for variable in incoming {
        let mut wanted = variable.object.clone();
        wanted.cluster_scoped = schema.is_cluster_scoped(&wanted.gvk);
        let any_namespace = wanted.namespace.is_empty() && !wanted.cluster_scoped;
        let fits = |id: &ResourceId| {
            if any_namespace { id.name == wanted.name && id.gvk == wanted.gvk } else { id.same(&wanted) }
        };
        match map.positions_by_any_id(schema, fits).as_slice() {
            [] => {}
            [place] => {
                if let Some(resource) = map.list.get_mut(*place) {
                    resource.variables.push(variable.name.clone());
                }
            }
            several => {
                let (count, name) = (several.len(), &variable.name);
                return Err(Problem::conflict(format!(
                    "found {count} resId matches for var {name} (unable to disambiguate)"
                ))
                .in_field("vars"));
            }
        }
    }
    incoming.iter().try_for_each(|variable| add(known, variable.clone()))
}

/// Adds the variables of a kustomization below.
pub(super) fn merge(known: &mut Variables, other: Variables) -> Result<(), Problem> {
    other.into_values().try_for_each(|variable| add(known, variable))
}

fn add(known: &mut Variables, variable: Variable) -> Result<(), Problem> {
    if known.contains_key(&variable.name) {
        return Err(Problem::conflict(format!("var '{}' already encountered", variable.name)).in_field("vars"));
    }
    known.insert(variable.name.clone(), variable);
    Ok(())
}

/// What a variable stands for.
enum Value {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    /// A list or a map: it cannot be put into text.
    Unusable,
}

/// Replaces every use; names of variables that are never used go to `warnings`.
pub(super) fn resolve(
    map: &mut ResourceMap,
    variables: &Variables,
    specs: &FieldSpecs,
    warnings: &mut Vec<String>,
) -> Result<(), Problem> {
    if variables.is_empty() {
        return Ok(());
    }
    let mut values = BTreeMap::new();
    for variable in variables.values() {
        values.insert(variable.name.as_str(), value_of(map, variable)?);
    }
    let mut used = BTreeSet::new();
    for resource in &mut map.list {
        let id = resource.id.clone();
        specs.apply(&mut resource.node, &id, Create::No, &mut |node| replace_in(node, &values, &mut used))?;
    }
    let unused: Vec<&str> = values.keys().copied().filter(|name| !used.contains(*name)).collect();
    if !unused.is_empty() {
        warnings.push(format!("well-defined vars that were never replaced: {}", unused.join(",")));
    }
    Ok(())
}

fn value_of(map: &mut ResourceMap, variable: &Variable) -> Result<Value, Problem> {
    let name = &variable.name;
    let Some(resource) = map.list.iter_mut().find(|resource| resource.variables.contains(name)) else {
        let message = format!("var '{name}' cannot be mapped to a field in the set of known resources");
        return Err(Problem::patch(message).in_field("vars"));
    };
    let path = slice_indices(split_path_with_brackets(&variable.field_path, '.'));
    match lookup(&mut resource.node, &path)? {
        Some(Node::Scalar(scalar)) => typed(scalar),
        Some(_) => Some(Value::Unusable),
        None => None,
    }
    .ok_or_else(|| {
        let message = format!("field specified in var '{name}' not found in corresponding resource");
        Problem::patch(message).in_field("vars")
    })
}

/// The value by its tag; numbers must be written as Go's plain parsers read them.
fn typed(scalar: &Scalar) -> Option<Value> {
    let text = scalar.text.as_str();
    match scalar.tag {
        Tag::Int => text.parse().ok().map(Value::Int),
        Tag::Float => text.parse().ok().filter(|float: &f64| float.is_finite()).map(Value::Float),
        Tag::Bool => match text {
            "true" | "True" | "TRUE" => Some(Value::Bool(true)),
            "false" | "False" | "FALSE" => Some(Value::Bool(false)),
            _ => None,
        },
        _ => Some(Value::Text(text.to_owned())),
    }
}

/// `a[0]` becomes `a`, `0`.
fn slice_indices(path: Vec<String>) -> Vec<String> {
    let mut parts = Vec::new();
    for part in path {
        let split = part.strip_suffix(']').and_then(|rest| rest.rsplit_once('['));
        match split {
            Some((name, index)) if !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit()) => {
                if !name.is_empty() {
                    parts.push(name.to_owned());
                }
                parts.push(index.to_owned());
            }
            _ => parts.push(part),
        }
    }
    parts
}

fn replace_in(node: &mut Node, values: &BTreeMap<&str, Value>, used: &mut BTreeSet<String>) -> Result<(), Problem> {
    match node {
        Node::Scalar(scalar) => {
            if scalar.is_string() {
                replace_scalar(scalar, values, used);
            }
            Ok(())
        }
        Node::Mapping(entries) => {
            for (key, value) in entries {
                if !key.is_string() {
                    return Err(Problem::object(format!("invalid map key: value='{}'", key.text)).at_line(key.line));
                }
                if let Node::Scalar(scalar) = value
                    && scalar.is_string()
                {
                    replace_scalar(scalar, values, used);
                }
            }
            Ok(())
        }
        Node::Sequence(items) => items.iter_mut().try_for_each(|item| match item {
            Node::Scalar(scalar) if scalar.is_string() => {
                replace_scalar(scalar, values, used);
                Ok(())
            }
            other => Err(Problem::object("invalid value type expect a string").at_line(other.line())),
        }),
    }
}

fn replace_scalar(scalar: &mut Scalar, values: &BTreeMap<&str, Value>, used: &mut BTreeSet<String>) {
    let line = scalar.line;
    *scalar = expand(&scalar.text, values, used);
    scalar.line = line;
}

/// Replaces `$(NAME)`; `$$` is a dollar. A text that is nothing but one reference takes the value's type.
fn expand(text: &str, values: &BTreeMap<&str, Value>, used: &mut BTreeSet<String>) -> Scalar {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        if let Some(tail) = after.strip_prefix('$') {
            result.push('$');
            rest = tail;
            continue;
        }
        let reference = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        let Some((name, tail)) = reference else {
            result.push('$');
            rest = after;
            continue;
        };
        match values.get(name) {
            Some(value @ (Value::Text(_) | Value::Int(_) | Value::Float(_) | Value::Bool(_))) => {
                used.insert(name.to_owned());
                if text.len() == name.len() + 3 {
                    return whole(value);
                }
                result.push_str(&inner_text(value));
            }
            Some(Value::Unusable) | None => {
                result.push_str("$(");
                result.push_str(name);
                result.push(')');
            }
        }
        rest = tail;
    }
    result.push_str(rest);
    Scalar { text: result, tag: Tag::Str, style: Style::Plain, line: 0 }
}

/// The value as the whole of a field: numbers and booleans stay what they are.
fn whole(value: &Value) -> Scalar {
    let (text, tag) = match value {
        Value::Int(number) => (number.to_string(), Tag::Int),
        Value::Float(number) => (number.to_string(), Tag::Float),
        Value::Bool(flag) => (flag.to_string(), Tag::Bool),
        Value::Text(text) => (text.clone(), Tag::Str),
        Value::Unusable => (String::new(), Tag::Str),
    };
    Scalar { text, tag, style: Style::Plain, line: 0 }
}

/// The value inside of a longer text, as Go's `%v` prints it.
fn inner_text(value: &Value) -> String {
    match value {
        Value::Int(number) => number.to_string(),
        Value::Float(number) if *number == 0.0 || (1e-4..1e21).contains(&number.abs()) => number.to_string(),
        Value::Float(number) => plain_float(*number),
        Value::Bool(flag) => flag.to_string(),
        Value::Text(text) => text.clone(),
        Value::Unusable => String::new(),
    }
}
