//! Merge keys (`<<`) and the deep merge of keys that stand twice.

use super::{Error, ErrorKind, Node, Scalar, load::Position};

/// Adds the entries of every mapping under `<<`; keys of the mapping itself win, then earlier mappings.
pub(super) fn apply_merge_keys(
    entries: &mut Vec<(Scalar, Node)>,
    merges: Vec<Node>,
    at: Position,
) -> Result<(), Error> {
    let refuse = || Error { line: at.line, column: at.column, kind: ErrorKind::Merge };
    for node in merges {
        match node {
            Node::Mapping(more) => add_missing(entries, more),
            Node::Sequence(items) => {
                for item in items {
                    match item {
                        Node::Mapping(more) => add_missing(entries, more),
                        Node::Scalar(_) | Node::Sequence(_) => return Err(refuse()),
                    }
                }
            }
            Node::Scalar(_) => return Err(refuse()),
        }
    }
    Ok(())
}

fn add_missing(entries: &mut Vec<(Scalar, Node)>, more: Vec<(Scalar, Node)>) {
    for (key, value) in more {
        if !entries.iter().any(|(known, _)| known.text == key.text) {
            entries.push((key, value));
        }
    }
}

/// Merges `later` into `existing`: maps key by key, lists joined without doubles, anything else replaced.
pub(super) fn deep_merge(existing: &mut Node, later: Node) {
    match (existing, later) {
        (Node::Mapping(entries), Node::Mapping(more)) => {
            for (key, value) in more {
                match entries.iter_mut().find(|(known, _)| known.text == key.text) {
                    Some((_, known)) => deep_merge(known, value),
                    None => entries.push((key, value)),
                }
            }
        }
        (Node::Sequence(items), Node::Sequence(more)) => {
            for item in more {
                if !items.iter().any(|known| same(known, &item)) {
                    items.push(item);
                }
            }
        }
        (existing, later) => *existing = later,
    }
}

/// Equality without regard to style and line.
fn same(left: &Node, right: &Node) -> bool {
    match (left, right) {
        (Node::Scalar(left), Node::Scalar(right)) => left.text == right.text && left.tag == right.tag,
        (Node::Sequence(left), Node::Sequence(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Node::Mapping(left), Node::Mapping(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(key, value)| right.iter().any(|(other, found)| other.text == key.text && same(value, found)))
        }
        _ => false,
    }
}
