//! Edits of nodes with the exact side effects of kyaml's setters: which style and type a written scalar ends up with.

use windlass_protocol::yaml::{self, Dialect, Node, Resolved, Scalar, Style, resolve};

use crate::error::Problem;

/// What to make of a missing field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Create {
    /// Leave it missing.
    No,
    /// An empty scalar.
    Scalar,
    /// An empty map.
    Mapping,
    /// An empty list.
    Sequence,
}

impl Create {
    pub(super) fn node(self) -> Node {
        match self {
            Self::No | Self::Scalar => Node::Scalar(Scalar::untyped("")),
            Self::Mapping => Node::Mapping(Vec::new()),
            Self::Sequence => Node::Sequence(Vec::new()),
        }
    }
}

pub(super) fn wrong_kind(expected: &str, node: &Node) -> Problem {
    Problem::object(format!("wrong node kind: expected {expected} but got {}", node_kind(node))).at_line(node.line())
}

pub(super) fn node_kind(node: &Node) -> &'static str {
    match node {
        Node::Scalar(_) => "ScalarNode",
        Node::Sequence(_) => "SequenceNode",
        Node::Mapping(_) => "MappingNode",
    }
}

/// Writes `value` over a scalar; the old scalar's style stays, so a quoted one stays quoted.
pub(super) fn set_scalar(target: &mut Node, mut value: Scalar) -> Result<(), Problem> {
    let Node::Scalar(old) = target else { return Err(wrong_kind("ScalarNode", target)) };
    if value.is_null() {
        return Ok(());
    }
    value.style = old.style;
    value.line = old.line;
    *old = value;
    Ok(())
}

/// Sets `map[name]`. A null removes the field; a scalar over a scalar keeps the old style.
pub(super) fn set_field(map: &mut Node, name: &str, mut value: Node) -> Result<(), Problem> {
    let entries = match map {
        Node::Mapping(entries) => entries,
        node if node.is_null() => return Ok(()),
        node => return Err(wrong_kind("MappingNode", node)),
    };
    if value.is_null() {
        entries.retain(|(key, _)| key.text != name);
        return Ok(());
    }
    if let Node::Scalar(scalar) = &mut value {
        quote_look_alikes(scalar);
    }
    match entries.iter_mut().find(|(key, _)| key.text == name) {
        Some((_, existing)) => {
            if let Node::Scalar(scalar) = &mut value {
                // Only a scalar has a style that matters; a list or map that is overwritten was plain.
                scalar.style = existing.scalar().map_or(Style::Plain, |old| old.style);
            }
            *existing = value;
        }
        None => entries.push((Scalar::untyped(name), value)),
    }
    Ok(())
}

/// A string as it is once it has been set as a field.
pub(super) fn quoted_string(text: impl Into<String>) -> Node {
    let mut scalar = Scalar::string(text);
    quote_look_alikes(&mut scalar);
    Node::Scalar(scalar)
}

/// A string that YAML 1.1 would read as something else gets quotes when it is set as a field.
pub(super) fn quote_look_alikes(scalar: &mut Scalar) {
    if scalar.is_string() && scalar.style == Style::Plain && reads_as_other_type(&scalar.text) {
        scalar.style = Style::DoubleQuoted;
    }
}

/// Whether a text on one line is YAML 1.1 for anything but a string: a number or word, a list, a map, or nothing.
fn reads_as_other_type(text: &str) -> bool {
    if text.is_empty() || text.contains('\n') {
        return false;
    }
    match resolve(text, Dialect::Sigs) {
        Resolved::Str => {}
        Resolved::Timestamp => return false,
        _ => return true,
    }
    let simple = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b'=' | b'+');
    if text.bytes().all(|byte| simple(byte) || byte == b'-') && !text.starts_with('-') {
        return false;
    }
    match yaml::values(text.as_bytes(), &yaml::Options::default()) {
        Ok(documents) => documents.first().is_none_or(|document| !document.value.is_string()),
        Err(_) => false,
    }
}

pub(super) fn clear_field(map: &mut Node, name: &str) {
    if let Node::Mapping(entries) = map {
        entries.retain(|(key, _)| key.text != name);
    }
}

/// The map under `name`, made if it is missing.
pub(super) fn child_mapping<'n>(node: &'n mut Node, name: &str) -> Result<&'n mut Node, Problem> {
    lookup_or_create(node, name, Create::Mapping)?
        .ok_or_else(|| Problem::object(format!("the field `{name}` cannot be made")))
}

/// The node under `name`; made if it is missing and `create` says so. A null has no fields.
pub(super) fn lookup_or_create<'n>(
    node: &'n mut Node,
    name: &str,
    create: Create,
) -> Result<Option<&'n mut Node>, Problem> {
    let entries = match node {
        Node::Mapping(entries) => entries,
        node if node.is_null() => return Ok(None),
        node => return Err(wrong_kind("MappingNode", node)),
    };
    let index = match entries.iter().position(|(key, _)| key.text == name) {
        Some(index) => index,
        None if create == Create::No => return Ok(None),
        None => {
            entries.push((Scalar::untyped(name), create.node()));
            entries.len().saturating_sub(1)
        }
    };
    Ok(entries.get_mut(index).map(|(_, value)| value))
}

/// Splits at `delimiter`, except after a backslash; one leading delimiter is dropped.
pub(super) fn split_path(path: &str, delimiter: char) -> Vec<String> {
    let mut result: Vec<String> = Vec::new();
    let body = path.strip_prefix(delimiter).unwrap_or(path);
    for part in body.split(delimiter) {
        match result.last_mut() {
            Some(last) if last.ends_with('\\') => {
                last.pop();
                last.push(delimiter);
                last.push_str(part);
            }
            _ => result.push(part.to_owned()),
        }
    }
    result
}

/// Like [`split_path`], but keeps `[name=a.b]` together and unwraps `[a.b]`.
pub(super) fn split_path_with_brackets(path: &str, delimiter: char) -> Vec<String> {
    let mut result = Vec::new();
    let mut parts = split_path(path, delimiter).into_iter();
    while let Some(part) = parts.next() {
        if !part.starts_with('[') || part.ends_with(']') {
            result.push(part);
            continue;
        }
        let mut bracketed = part;
        for next in parts.by_ref() {
            bracketed.push(delimiter);
            bracketed.push_str(&next);
            if next.ends_with(']') {
                break;
            }
        }
        if bracketed.contains('=') {
            result.push(bracketed);
        } else {
            result.push(bracketed.trim_matches(['[', ']']).to_owned());
        }
    }
    result
}
