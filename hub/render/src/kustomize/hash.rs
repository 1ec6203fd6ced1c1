//! The suffix of generated names: ten letters of a SHA-256 over the content as Go's JSON prints it.

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use windlass_protocol::yaml::{Dialect, Node, json_float};

use crate::error::Problem;

/// The suffix for a ConfigMap, Secret or any other resource.
///
/// The name counts as empty: the real tool looks it up in a field that no resource has.
pub(super) fn suffix(node: &Node) -> Result<String, Problem> {
    let mut text = String::from("{");
    match node.get("kind").map_or("", Node::text) {
        "ConfigMap" => {
            if let Some(binary) = node.get("binaryData").filter(|binary| matches!(binary, Node::Mapping(_))) {
                member(&mut text, "binaryData", binary)?;
                text.push(',');
            }
            field(&mut text, node, "data")?;
            text.push_str(",\"kind\":\"ConfigMap\",\"name\":\"\"");
        }
        "Secret" => {
            field(&mut text, node, "data")?;
            text.push_str(",\"kind\":\"Secret\",\"name\":\"\",");
            if let Some(strings) = node.get("stringData").filter(|strings| matches!(strings, Node::Mapping(_))) {
                member(&mut text, "stringData", strings)?;
                text.push(',');
            }
            field(&mut text, node, "type")?;
        }
        kind => {
            return Err(Problem::unsupported(format!(
                "a hash suffix for kind '{kind}' is not supported; only ConfigMap and Secret have one"
            )));
        }
    }
    text.push('}');
    let digest = format!("{:x}", Sha256::digest(text.as_bytes()));
    Ok(digest.chars().take(10).map(readable).collect())
}

/// Letters that cannot be taken for digits or make words.
fn readable(digit: char) -> char {
    match digit {
        '0' => 'g',
        '1' => 'h',
        '3' => 'k',
        'a' => 'm',
        'e' => 't',
        other => other,
    }
}

fn field(text: &mut String, node: &Node, name: &str) -> Result<(), Problem> {
    match node.get(name) {
        None => {
            string(text, name);
            text.push_str(":\"\"");
            Ok(())
        }
        Some(Node::Scalar(scalar)) => {
            string(text, name);
            text.push(':');
            string(text, &scalar.text);
            Ok(())
        }
        Some(found) => member(text, name, found),
    }
}

fn member(text: &mut String, name: &str, node: &Node) -> Result<(), Problem> {
    let content =
        node.to_value(Dialect::Kyaml).map_err(|error| Problem::object(error.kind.to_string()).at_line(error.line))?;
    string(text, name);
    text.push(':');
    value(text, &content);
    Ok(())
}

/// A value as Go's JSON prints it after it went through floats.
pub(super) fn value(text: &mut String, content: &Value) {
    match content {
        Value::Null => text.push_str("null"),
        Value::Bool(flag) => text.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => text.push_str(&json_float(number.as_f64().unwrap_or_default())),
        Value::String(content) => string(text, content),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                value(text, item);
            }
            text.push(']');
        }
        Value::Object(map) => {
            text.push('{');
            for (index, (key, item)) in map.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                string(text, key);
                text.push(':');
                value(text, item);
            }
            text.push('}');
        }
    }
}

/// A string with Go's escapes: HTML characters and line separators too.
fn string(text: &mut String, content: &str) {
    text.push('"');
    for character in content.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\x08' => text.push_str("\\b"),
            '\x0c' => text.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\x1f' => {
                text.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            other => text.push(other),
        }
    }
    text.push('"');
}
