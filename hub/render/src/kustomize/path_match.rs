//! Field paths of replacements and variables: names, indices, `[key=value]` and `*`.

use regex::Regex;
use windlass_protocol::yaml::{Dialect, DuplicateKeys, Limits, Node, Options, Scalar, parse_documents};

use super::fields::{Create, lookup_or_create, set_field, wrong_kind};
use crate::error::Problem;

/// The node at `path`, without wildcards; `None` when something on the way is missing.
pub(super) fn lookup<'n>(node: &'n mut Node, path: &[String]) -> Result<Option<&'n mut Node>, Problem> {
    let mut here = node;
    for part in path.iter().map(|part| part.trim()).filter(|part| !part.is_empty()) {
        let next = match step(part)? {
            Step::Index(index) => sequence(here)?.and_then(|items| items.get_mut(index)),
            Step::Last => match sequence(here)? {
                Some([]) => return Err(Problem::patch("an empty list has no last item")),
                Some(items) => items.last_mut(),
                None => None,
            },
            Step::Every => return Err(Problem::patch("wildcard is not supported in PathGetter")),
            Step::Match(name, value) => sequence(here)?.and_then(|items| {
                items.iter_mut().find(|item| {
                    if name.is_empty() {
                        raw(item) == value
                    } else {
                        item.get(name).is_some_and(|field| raw(field) == value)
                    }
                })
            }),
            Step::Field(name) => lookup_or_create(here, name, Create::No)?,
        };
        match next {
            None => return Ok(None),
            Some(next) => here = next,
        }
    }
    Ok(Some(here))
}

enum Step<'p> {
    Field(&'p str),
    Index(usize),
    /// `-`
    Last,
    /// `*`
    Every,
    /// `[name=value]`
    Match(&'p str, &'p str),
}

fn step(part: &str) -> Result<Step<'_>, Problem> {
    if let Ok(index) = part.parse::<i64>() {
        return usize::try_from(index)
            .map(Step::Index)
            .map_err(|_| Problem::patch(format!("array index {index} cannot be negative")));
    }
    match part {
        "-" => Ok(Step::Last),
        "*" => Ok(Step::Every),
        _ => match part.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
            None => Ok(Step::Field(part)),
            Some(inner) => inner.split_once('=').map(|(name, value)| Step::Match(name, value)).ok_or_else(|| {
                Problem::patch("list path element must contain fieldName=fieldValue for element to match")
            }),
        },
    }
}

fn sequence(node: &mut Node) -> Result<Option<&mut [Node]>, Problem> {
    match node {
        Node::Sequence(items) => Ok(Some(items)),
        node if node.is_null() => Ok(None),
        node => Err(wrong_kind("SequenceNode", node)),
    }
}

fn raw(node: &Node) -> &str {
    node.scalar().map_or("", |scalar| scalar.text.as_str())
}

/// Visits every node that a path leads to and counts them; makes missing ones when `create` is not `No`.
pub(super) struct Visitor<'v> {
    pub(super) create: Create,
    pub(super) visit: &'v mut dyn FnMut(&mut Node) -> Result<(), Problem>,
}

impl Visitor<'_> {
    pub(super) fn walk(&mut self, node: &mut Node, path: &[String]) -> Result<usize, Problem> {
        let Some((part, rest)) = path.split_first() else {
            (self.visit)(node)?;
            return Ok(1);
        };
        if let Ok(index) = part.parse::<usize>() {
            return self.index(node, index, rest);
        }
        if part.starts_with('[') && part.ends_with(']') {
            return self.matching(node, part, rest);
        }
        if part == "*" {
            return match node {
                Node::Sequence(items) => items.iter_mut().map(|item| self.walk(item, rest)).sum(),
                node if node.is_null() => Ok(0),
                node => Err(wrong_kind("SequenceNode", node)),
            };
        }
        self.field(node, part, rest)
    }

    fn field(&mut self, node: &mut Node, name: &str, rest: &[String]) -> Result<usize, Problem> {
        let create = self.create != Create::No;
        if create && node.get(name).is_none() {
            if !matches!(node, Node::Mapping(_)) {
                return Err(wrong_kind("MappingNode", node));
            }
            set_field(node, name, self.part(rest).node())?;
        }
        match lookup_or_create(node, name, Create::No)? {
            None => Ok(0),
            Some(Node::Scalar(scalar)) if !rest.is_empty() && !scalar.is_null() => self.inside_text(&scalar.text, rest),
            Some(child) => self.walk(child, rest),
        }
    }

    /// YAML or JSON inside of a scalar: it is found, but what is written there goes nowhere.
    fn inside_text(&mut self, text: &str, rest: &[String]) -> Result<usize, Problem> {
        let Some(mut inner) = parse_text(text)? else { return Ok(0) };
        let mut nothing = |_: &mut Node| Ok(());
        Visitor { create: self.create, visit: &mut nothing }.walk(&mut inner, rest)
    }

    fn index(&mut self, node: &mut Node, index: usize, rest: &[String]) -> Result<usize, Problem> {
        let items = match node {
            Node::Sequence(items) => items,
            node if node.is_null() => return Err(no_item(index, 0)),
            node => return Err(wrong_kind("SequenceNode", node)),
        };
        if items.len() == index && self.create != Create::No {
            items.push(self.part(rest).node());
        }
        let count = items.len();
        match items.get_mut(index) {
            Some(item) => self.walk(item, rest),
            None => Err(no_item(index, count)),
        }
    }

    fn matching(&mut self, node: &mut Node, part: &str, rest: &[String]) -> Result<usize, Problem> {
        let Step::Match(name, pattern) = step(part)? else { return Ok(0) };
        let regex = Regex::new(pattern)
            .map_err(|error| Problem::patch(format!("'{pattern}' is not a regular expression: {error}")))?;
        let items = match node {
            Node::Sequence(items) => items,
            node if node.is_null() => return Ok(0),
            node => return Err(wrong_kind("SequenceNode", node)),
        };
        let found = self.matching_items(items, name, &regex, rest)?;
        if found > 0 || self.create == Create::No {
            return Ok(found);
        }
        let value = Node::Scalar(Scalar::untyped(pattern));
        items.push(if name.is_empty() { value } else { Node::Mapping(vec![(Scalar::untyped(name), value)]) });
        let start = items.len().saturating_sub(1);
        let made = items.get_mut(start..).unwrap_or_default();
        match self.matching_items(made, name, &regex, rest)? {
            0 => Err(Problem::patch(format!("failed to create element for \"{part}\""))),
            found => Ok(found),
        }
    }

    fn matching_items(
        &mut self,
        items: &mut [Node],
        name: &str,
        regex: &Regex,
        rest: &[String],
    ) -> Result<usize, Problem> {
        let mut found = 0;
        for item in items {
            let fits = if name.is_empty() {
                regex.is_match(printed(item).trim())
            } else {
                item.get(name).is_some_and(|field| regex.is_match(printed(field).trim()))
            };
            if !fits {
                continue;
            }
            if name.is_empty() {
                // A list of scalars ends the path, whatever follows.
                (self.visit)(item)?;
                found += 1;
            } else {
                found += self.walk(item, rest)?;
            }
        }
        Ok(found)
    }

    /// What a missing node becomes so that `rest` can go on from it.
    fn part(&self, rest: &[String]) -> Create {
        match rest.first() {
            None => self.create,
            Some(next) if next.parse::<usize>().is_ok() || (next.starts_with('[') && next.ends_with(']')) => {
                Create::Sequence
            }
            Some(_) => Create::Mapping,
        }
    }
}

/// The text a regular expression sees: with quotes where the scalar was quoted.
fn printed(node: &Node) -> String {
    use windlass_protocol::yaml::Style;

    match node {
        Node::Scalar(scalar) => match scalar.style {
            Style::SingleQuoted => format!("'{}'", scalar.text.replace('\'', "''")),
            Style::DoubleQuoted => format!("\"{}\"", scalar.text),
            Style::Plain | Style::Literal | Style::Folded | Style::Tagged => scalar.text.clone(),
        },
        Node::Sequence(_) | Node::Mapping(_) => String::new(),
    }
}

fn no_item(index: usize, count: usize) -> Problem {
    Problem::patch(format!("index {index} specified but only {count} elements found"))
}

/// Parses YAML or JSON text inside of a scalar.
pub(super) fn parse_text(text: &str) -> Result<Option<Node>, Problem> {
    let options = Options { dialect: Dialect::Kyaml, duplicates: DuplicateKeys::Error, limits: Limits::default() };
    let documents = parse_documents(text, &options).map_err(|error| Problem::patch(error.to_string()))?;
    Ok(documents.into_iter().next().map(|document| document.node))
}
