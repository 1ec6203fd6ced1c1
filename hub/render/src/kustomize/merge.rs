//! Strategic merge, step for step as kyaml's `merge2` walks it: new list items come first, `$patch` directives act,
//! lists without merge keys are replaced.
//!
//! Where kyaml hands the patch's own node over as the new destination, it goes on to merge that node with itself;
//! [`Source::Same`] stands for that.

mod list;

use windlass_protocol::yaml::{Node, Style};

use super::{
    fields::{clear_field, node_kind, quote_look_alikes, set_field},
    schema::{FieldType, Schema, TypeRef},
};
use crate::error::Problem;

/// Applies `patch` to `target`; `None` when the patch deletes it.
pub(super) fn strategic_merge(target: Node, patch: Node, schema: &Schema) -> Result<Option<Node>, Problem> {
    let merge = Merge { schema };
    merge.walk(Some(target), Source::Node(patch), &Known::Unknown).map(|outcome| outcome.map(|merged| merged.node))
}

/// The patch's side at one place.
enum Source {
    /// Nothing is said here.
    Missing,
    /// This is said.
    Node(Node),
    /// The destination is itself the patch's node.
    Same,
}

/// What is known about the type at one place.
#[derive(Clone)]
enum Known {
    /// No schema so far: a map with `apiVersion` and `kind` may still tell.
    Unknown,
    /// An object of this type.
    Object(TypeRef),
    /// A field of this shape.
    Field(FieldType),
}

/// What stands at a place afterwards.
struct Merged {
    node: Node,
    /// A null that stays although nulls mean removal.
    keep_null: bool,
    /// It is the node that stood there before, not the patch's.
    own: bool,
}

impl Merged {
    fn ours(node: Node) -> Self {
        Self { node, keep_null: false, own: true }
    }

    fn theirs(node: Node) -> Self {
        Self { node, keep_null: false, own: false }
    }
}

/// A `$patch` directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

const DIRECTIVE: &str = "$patch";

struct Merge<'s> {
    schema: &'s Schema,
}

impl Merge<'_> {
    fn walk(&self, dest: Option<Node>, source: Source, known: &Known) -> Result<Option<Merged>, Problem> {
        let told = dest.as_ref().filter(|node| !node.is_null());
        let told = told.or_else(|| match &source {
            Source::Node(node) if !node.is_null() => Some(node),
            Source::Node(_) | Source::Missing | Source::Same => None,
        });
        let Some(told) = told else { return self.walk_map(dest, source, &Known::Unknown) };
        check_kinds(told, &dest, &source)?;
        let known = match known {
            Known::Unknown => self.known_from(dest.as_ref(), &source),
            Known::Object(_) | Known::Field(_) => known.clone(),
        };
        match told {
            Node::Mapping(_) => self.walk_map(dest, source, &known),
            Node::Sequence(_) => match known {
                Known::Field(FieldType::MergeList { keys, items }) => self.walk_list(dest, source, &keys, items),
                _ => Ok(later(dest, source)),
            },
            Node::Scalar(_) => Ok(later(dest, source)),
        }
    }

    fn known_from(&self, dest: Option<&Node>, source: &Source) -> Known {
        let source = match source {
            Source::Node(node) => Some(node),
            Source::Missing | Source::Same => None,
        };
        for node in [dest, source].into_iter().flatten() {
            let text = |field: &str| node.get(field).map_or("", Node::text);
            let (api_version, kind) = (text("apiVersion"), text("kind"));
            if !api_version.is_empty()
                && !kind.is_empty()
                && let Some(of) = self.schema.of_kind(api_version, kind)
            {
                return Known::Object(of);
            }
        }
        Known::Unknown
    }

    fn walk_map(&self, dest: Option<Node>, source: Source, known: &Known) -> Result<Option<Merged>, Problem> {
        let Some((mut dest, mut source)) = visit(dest, source)? else { return Ok(None) };
        if dest.node.is_null() {
            return Ok(Some(dest));
        }
        for name in field_names(&dest.node, &source) {
            let below = self.below(known, &name);
            let theirs = match &mut source {
                Source::Missing => Source::Missing,
                Source::Same => Source::Same,
                Source::Node(node) => node.remove(&name).map_or(Source::Missing, Source::Node),
            };
            let place = dest.node.get_mut(&name);
            let style = place.as_ref().and_then(|node| node.scalar()).map(|scalar| scalar.style);
            let ours = place.map(|node| std::mem::replace(node, Node::Sequence(Vec::new())));
            match self.walk(ours, theirs, &below)? {
                None => clear_field(&mut dest.node, &name),
                Some(merged) => put(&mut dest.node, &name, merged, style)?,
            }
        }
        Ok(Some(dest))
    }

    fn below(&self, known: &Known, name: &str) -> Known {
        let of = match known {
            Known::Object(of) | Known::Field(FieldType::Object(of)) => *of,
            Known::Unknown | Known::Field(_) => return Known::Unknown,
        };
        match self.schema.field(of, name) {
            Some(FieldType::Object(of)) => Known::Object(of),
            Some(field) => Known::Field(field),
            None => Known::Unknown,
        }
    }
}

/// What kyaml's visitor makes of a map's two sides; `None` removes it.
fn visit(dest: Option<Node>, source: Source) -> Result<Option<(Merged, Source)>, Problem> {
    let Some(mut ours) = dest.filter(|node| !matches!(&source, Source::Same) || !node.is_null()) else {
        return Ok(take_over(None, source));
    };
    if ours.is_null() {
        return Ok(take_over(Some(ours), source));
    }
    match source {
        Source::Missing => Ok(Some((Merged::ours(ours), Source::Missing))),
        Source::Same => Ok(match directive(&mut ours)? {
            Directive::Delete => None,
            Directive::Merge | Directive::Replace => Some((Merged::ours(ours), Source::Same)),
        }),
        Source::Node(theirs) if theirs.is_null() => Ok(None),
        Source::Node(mut theirs) => Ok(match directive(&mut theirs)? {
            Directive::Delete => None,
            Directive::Replace => Some((Merged::theirs(theirs), Source::Same)),
            Directive::Merge => Some((Merged::ours(ours), Source::Node(theirs))),
        }),
    }
}

/// The destination is missing or null: the patch's node becomes the destination.
fn take_over(null: Option<Node>, source: Source) -> Option<(Merged, Source)> {
    match source {
        Source::Node(mut theirs) => {
            // An unknown directive is not looked at here.
            if directive(&mut theirs).unwrap_or(Directive::Merge) == Directive::Delete {
                return None;
            }
            Some((Merged::theirs(theirs), Source::Same))
        }
        Source::Missing => {
            // A written null stays; an empty value goes.
            let node = null.filter(|node| node.scalar().is_some_and(|scalar| !scalar.text.is_empty()))?;
            Some((Merged { node, keep_null: true, own: true }, Source::Missing))
        }
        Source::Same => None,
    }
}

/// Reads and removes the `$patch` directive of a map.
fn directive(node: &mut Node) -> Result<Directive, Problem> {
    let Some(found) = node.get(DIRECTIVE) else { return Ok(Directive::Merge) };
    let line = found.line();
    let text = found.scalar().map(|scalar| scalar.text.clone()).unwrap_or_default();
    let directive = parse_directive(&text, line)?;
    node.remove(DIRECTIVE);
    Ok(directive)
}

fn parse_directive(text: &str, line: u32) -> Result<Directive, Problem> {
    match text {
        "merge" => Ok(Directive::Merge),
        "replace" => Ok(Directive::Replace),
        "delete" => Ok(Directive::Delete),
        other => Err(Problem::patch(format!("unknown patch strategy '{other}'")).at_line(line)),
    }
}

/// The patch's side if there is one, else ours.
fn later(dest: Option<Node>, source: Source) -> Option<Merged> {
    match source {
        Source::Node(node) => Some(Merged::theirs(node)),
        Source::Missing | Source::Same => dest.map(Merged::ours),
    }
}

fn check_kinds(told: &Node, dest: &Option<Node>, source: &Source) -> Result<(), Problem> {
    let source = match source {
        Source::Node(node) => Some(node),
        Source::Missing | Source::Same => None,
    };
    for node in [dest.as_ref(), source].into_iter().flatten() {
        if !node.is_null() && node_kind(node) != node_kind(told) {
            let (expected, found) = (node_kind(told), node_kind(node));
            return Err(
                Problem::patch(format!("wrong node kind: expected {expected} but got {found}")).at_line(node.line())
            );
        }
    }
    Ok(())
}

fn field_names(dest: &Node, source: &Source) -> Vec<String> {
    let theirs = match source {
        Source::Node(node) => node.entries(),
        Source::Missing | Source::Same => None,
    };
    let both = dest.entries().unwrap_or_default().iter().chain(theirs.unwrap_or_default());
    let mut names: Vec<String> = both.map(|(key, _)| key.text.clone()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Sets a merged field; an existing scalar's style stays (`style`, since its place has been emptied).
fn put(map: &mut Node, name: &str, merged: Merged, style: Option<Style>) -> Result<(), Problem> {
    if merged.node.is_null() && merged.keep_null {
        if let Some(place) = map.get_mut(name) {
            *place = merged.node;
        }
        return Ok(());
    }
    let existed = map.get(name).is_some();
    let mut node = merged.node;
    if node.is_null() || !existed {
        return set_field(map, name, node);
    }
    if let Node::Scalar(scalar) = &mut node {
        if merged.own {
            // Setting a field to itself gives quotes to strings that YAML 1.1 would read as something else, and a
            // later patch inherits them.
            quote_look_alikes(scalar);
        } else {
            scalar.style = style.unwrap_or(scalar.style);
        }
    }
    if let Some(place) = map.get_mut(name) {
        *place = node;
    }
    Ok(())
}
