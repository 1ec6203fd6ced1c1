//! Prints a node with its own order and styles, for YAML that stands inside of a string.
//!
//! Comments are not kept; they are not part of the tree.

use serde_json::Value;
use windlass_protocol::yaml::{Dialect, Node, Scalar, Style, Tag, resolve, to_yaml};

/// The node as YAML, ending in a line feed.
pub(super) fn print(node: &Node) -> String {
    let mut out = String::new();
    block(&mut out, node, 0);
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

fn block(out: &mut String, node: &Node, indent: usize) {
    match node {
        Node::Scalar(scalar) => out.push_str(&text(scalar, indent)),
        Node::Sequence(items) if items.is_empty() => out.push_str("[]"),
        Node::Mapping(entries) if entries.is_empty() => out.push_str("{}"),
        Node::Sequence(items) => {
            for (index, item) in items.iter().enumerate() {
                start(out, index, indent);
                out.push_str("- ");
                block(out, item, indent + 2);
            }
        }
        Node::Mapping(entries) => {
            for (index, (key, value)) in entries.iter().enumerate() {
                start(out, index, indent);
                out.push_str(&text(key, indent));
                out.push(':');
                match value {
                    Node::Sequence(items) if !items.is_empty() => {
                        out.push('\n');
                        out.push_str(&" ".repeat(indent));
                        block(out, value, indent);
                    }
                    Node::Mapping(entries) if !entries.is_empty() => {
                        out.push('\n');
                        out.push_str(&" ".repeat(indent + 2));
                        block(out, value, indent + 2);
                    }
                    _ => {
                        out.push(' ');
                        block(out, value, indent + 2);
                    }
                }
            }
        }
    }
}

fn start(out: &mut String, index: usize, indent: usize) {
    if index > 0 {
        if !out.ends_with('\n') {
            out.push('\n');
        }
        out.push_str(&" ".repeat(indent));
    }
}

fn text(scalar: &Scalar, indent: usize) -> String {
    let tag = match scalar.tag {
        Tag::Int => "!!int ",
        Tag::Float => "!!float ",
        Tag::Bool => "!!bool ",
        _ => "",
    };
    // A text that no longer shows its type is written with it, even if it cannot be read back so.
    if !tag.is_empty() && Tag::from(&resolve(&scalar.text, Dialect::Kyaml)) != scalar.tag {
        return format!("{tag}{}", scalar.text);
    }
    match scalar.style {
        Style::SingleQuoted => format!("'{}'", scalar.text.replace('\'', "''")),
        Style::DoubleQuoted => serde_json::to_string(&scalar.text).unwrap_or_default(),
        Style::Plain | Style::Tagged if scalar.effective_tag(Dialect::Kyaml) != Tag::Str => scalar.text.clone(),
        Style::Plain | Style::Literal | Style::Folded | Style::Tagged => {
            let printed = to_yaml(&Value::String(scalar.text.clone()));
            let pad = " ".repeat(indent.saturating_sub(2));
            let mut lines = printed.trim_end_matches('\n').split('\n');
            let mut out = lines.next().unwrap_or_default().to_owned();
            for line in lines {
                out.push('\n');
                if !line.is_empty() {
                    out.push_str(&pad);
                    out.push_str(line);
                }
            }
            out
        }
    }
}
