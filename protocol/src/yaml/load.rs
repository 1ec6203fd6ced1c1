//! Parser events become trees: aliases copied, merge keys applied, duplicate keys judged, limits kept.
//!
//! The builder keeps its own stack, so a deep text cannot exhaust the thread's.

use std::collections::BTreeMap;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use super::{
    Dialect, Document, DuplicateKeys, Error, ErrorKind, Limits, Node, Options, Scalar, Style, Tag, Warning, merge,
    resolve,
};

/// See [`super::parse_documents`].
pub(super) fn documents(text: &str, options: &Options) -> Result<Vec<Document>, Error> {
    if text.len() > options.limits.bytes {
        return Err(limit("bytes", options.limits.bytes, Position { line: 1, column: 1 }));
    }
    let parser_options = granit_parser::options! {
        emit_comments: false,
        block_scalar_eof_without_line_feed: true,
        simple_key_max_lookahead: text.len().max(1024),
    };
    let mut loader = Loader::new(options);
    for event in Parser::new_from_str_with_options(text, parser_options) {
        let (event, span) = event.map_err(|error| syntax(&error))?;
        loader.handle(event, &span)?;
    }
    Ok(loader.finished)
}

#[derive(Clone, Copy)]
pub(super) struct Position {
    pub(super) line: u32,
    pub(super) column: u32,
}

impl Position {
    fn of(span: &Span) -> Self {
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Self { line: number(span.start.line()), column: number(span.start.col()).saturating_add(1) }
    }
}

/// A key that stood twice, until the document's end decides what that means.
pub(super) struct Duplicate {
    pub(super) key: String,
    pub(super) first_line: u32,
    pub(super) at: Position,
}

struct Loader<'o> {
    options: &'o Options,
    stack: Vec<Open>,
    anchors: BTreeMap<usize, Anchored>,
    duplicates: Vec<Duplicate>,
    document_line: u32,
    nodes: usize,
    finished: Vec<Document>,
}

/// A collection whose end has not been seen.
struct Open {
    anchor: usize,
    at: Position,
    content: Content,
    /// Levels below this one.
    height: usize,
    nodes_before: usize,
}

enum Content {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<(Scalar, Node)>, key: Option<Scalar>, merges: Vec<Node> },
}

/// What an alias copies.
struct Anchored {
    node: Node,
    nodes: usize,
    height: usize,
}

impl<'o> Loader<'o> {
    fn new(options: &'o Options) -> Self {
        Self {
            options,
            stack: Vec::new(),
            anchors: BTreeMap::new(),
            duplicates: Vec::new(),
            document_line: 0,
            nodes: 0,
            finished: Vec::new(),
        }
    }

    fn handle(&mut self, event: Event<'_>, span: &Span) -> Result<(), Error> {
        let at = Position::of(span);
        match event {
            Event::DocumentStart(..) => {
                self.document_line = 0;
                self.anchors.clear();
                self.duplicates.clear();
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.begin(at)?;
                let tag = tag.as_deref().map(tag_name);
                // The parser gives a tilde for a value that is not written at all.
                let absent = style == ScalarStyle::Plain && text == "~" && span.is_empty();
                let text = if absent { String::new() } else { text.into_owned() };
                let scalar = self.scalar(text, style, tag.as_deref(), at)?;
                self.finish(Node::Scalar(scalar), Measure { anchor, nodes: 1, height: 0 }, at)
            }
            Event::SequenceStart(_, anchor, _) => self.open(anchor, at, Content::Sequence(Vec::new())),
            Event::MappingStart(_, anchor, _) => {
                self.open(anchor, at, Content::Mapping { entries: Vec::new(), key: None, merges: Vec::new() })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(anchor, at),
            _ => Ok(()),
        }
    }

    /// Counts a node about to be read.
    fn begin(&mut self, at: Position) -> Result<(), Error> {
        let Limits { nodes, depth, .. } = self.options.limits;
        if self.document_line == 0 {
            self.document_line = at.line;
        }
        self.nodes += 1;
        if self.nodes > nodes {
            return Err(limit("nodes", nodes, at));
        }
        if self.stack.len() > depth {
            return Err(limit("depth", depth, at));
        }
        Ok(())
    }

    fn open(&mut self, anchor: usize, at: Position, content: Content) -> Result<(), Error> {
        self.begin(at)?;
        self.stack.push(Open { anchor, at, content, height: 0, nodes_before: self.nodes - 1 });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        let Some(open) = self.stack.pop() else { return Ok(()) };
        let node = match open.content {
            Content::Sequence(items) => Node::Sequence(items),
            Content::Mapping { entries, merges, .. } => {
                let mut entries = self.unique(entries);
                merge::apply_merge_keys(&mut entries, merges, open.at)?;
                Node::Mapping(entries)
            }
        };
        let measure = Measure { anchor: open.anchor, nodes: self.nodes - open.nodes_before, height: open.height + 1 };
        self.finish(node, measure, open.at)
    }

    fn alias(&mut self, anchor: usize, at: Position) -> Result<(), Error> {
        self.begin(at)?;
        let Limits { nodes, depth, .. } = self.options.limits;
        let Some(known) = self.anchors.get(&anchor) else {
            return Err(Error { line: at.line, column: at.column, kind: ErrorKind::Cycle });
        };
        self.nodes = self.nodes.saturating_add(known.nodes);
        if self.nodes > nodes {
            return Err(limit("nodes", nodes, at));
        }
        if self.stack.len() + known.height > depth {
            return Err(limit("depth", depth, at));
        }
        let (node, measure) = (known.node.clone(), Measure { anchor: 0, nodes: known.nodes, height: known.height });
        self.finish(node, measure, at)
    }

    /// Puts a complete node where it belongs.
    fn finish(&mut self, node: Node, measure: Measure, at: Position) -> Result<(), Error> {
        if measure.anchor != 0 {
            let anchored = Anchored { node: node.clone(), nodes: measure.nodes, height: measure.height };
            self.nodes = self.nodes.saturating_add(measure.nodes);
            self.anchors.insert(measure.anchor, anchored);
        }
        let Some(parent) = self.stack.last_mut() else { return self.document(node, at) };
        parent.height = parent.height.max(measure.height);
        match &mut parent.content {
            Content::Sequence(items) => items.push(node),
            Content::Mapping { entries, key, merges } => match key.take() {
                None => match node {
                    Node::Scalar(scalar) => *key = Some(scalar),
                    Node::Sequence(_) | Node::Mapping(_) => {
                        let name = format!("a {}", node.kind_name());
                        return Err(Error { line: at.line, column: at.column, kind: ErrorKind::Key(name) });
                    }
                },
                Some(name) if name.tag == Tag::Merge => merges.push(node),
                Some(name) => entries.push((name, node)),
            },
        }
        Ok(())
    }

    fn document(&mut self, node: Node, at: Position) -> Result<(), Error> {
        let mergeable = match self.options.duplicates {
            DuplicateKeys::Error => false,
            DuplicateKeys::Merge | DuplicateKeys::LastWins => true,
            DuplicateKeys::MergeInArgo => {
                node.get("apiVersion").is_some_and(|version| version.text().starts_with("argoproj.io/"))
            }
        };
        let mut warnings = Vec::new();
        for Duplicate { key, first_line, at } in self.duplicates.drain(..) {
            if !mergeable {
                let kind = ErrorKind::DuplicateKey { key, first_line };
                return Err(Error { line: at.line, column: at.column, kind });
            }
            let outcome = match self.options.duplicates {
                DuplicateKeys::LastWins => "this one counts",
                DuplicateKeys::Error | DuplicateKeys::Merge | DuplicateKeys::MergeInArgo => "the two are merged",
            };
            let message = format!("mapping key \"{key}\" already defined at line {first_line}; {outcome}");
            warnings.push(Warning { line: at.line, message });
        }
        if node.is_null() {
            return Ok(());
        }
        if self.finished.len() >= self.options.limits.documents {
            return Err(limit("documents", self.options.limits.documents, at));
        }
        self.finished.push(Document { node, line: self.document_line, warnings });
        Ok(())
    }

    /// Merges entries with equal keys and notes each.
    fn unique(&mut self, entries: Vec<(Scalar, Node)>) -> Vec<(Scalar, Node)> {
        if !has_duplicates(&entries) {
            return entries;
        }
        let mut index: BTreeMap<String, usize> = BTreeMap::new();
        let mut result: Vec<(Scalar, Node)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let known = index.get(&key.text).and_then(|at| result.get_mut(*at));
            if let Some((first, existing)) = known {
                let at = Position { line: key.line, column: 1 };
                self.duplicates.push(Duplicate { key: key.text, first_line: first.line, at });
                if self.options.duplicates == DuplicateKeys::LastWins {
                    *existing = value;
                } else {
                    merge::deep_merge(existing, value);
                }
            } else {
                index.insert(key.text.clone(), result.len());
                result.push((key, value));
            }
        }
        result
    }

    fn scalar(&self, text: String, style: ScalarStyle, tag: Option<&str>, at: Position) -> Result<Scalar, Error> {
        let style = match style {
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::SingleQuoted => Style::SingleQuoted,
            ScalarStyle::DoubleQuoted => Style::DoubleQuoted,
            ScalarStyle::Literal => Style::Literal,
            ScalarStyle::Folded => Style::Folded,
        };
        let found = if style == Style::Plain { Tag::from(&resolve(&text, self.options.dialect)) } else { Tag::Str };
        let (tag, style) = match tag {
            None => (found, style),
            Some("!") => (Tag::Str, style),
            Some(name) => {
                let tag = declared(name, &text, self.options.dialect).ok_or_else(|| Error {
                    line: at.line,
                    column: at.column,
                    kind: ErrorKind::Tag { text: text.clone(), tag: name.to_owned() },
                })?;
                (tag, Style::Tagged)
            }
        };
        Ok(Scalar { text, tag, style, line: at.line })
    }
}

struct Measure {
    anchor: usize,
    nodes: usize,
    height: usize,
}

/// The tag a scalar declares, if its text fits it; go-yaml resolves even quoted text then.
fn declared(name: &str, text: &str, dialect: Dialect) -> Option<Tag> {
    let found = Tag::from(&resolve(text, dialect));
    match name {
        "!!str" => Some(Tag::Str),
        "!!binary" => Some(Tag::Binary),
        "!!int" => (found == Tag::Int).then_some(Tag::Int),
        "!!float" => matches!(found, Tag::Int | Tag::Float).then_some(Tag::Float),
        "!!bool" => (found == Tag::Bool).then_some(Tag::Bool),
        "!!null" => (found == Tag::Null).then_some(Tag::Null),
        "!!timestamp" => (found == Tag::Timestamp).then_some(Tag::Timestamp),
        _ => Some(Tag::Other),
    }
}

fn tag_name(tag: &granit_parser::Tag) -> String {
    match tag.core_suffix() {
        Some(suffix) => format!("!!{suffix}"),
        None => match (tag.handle(), tag.suffix()) {
            ("tag:yaml.org,2002:", suffix) => format!("!!{suffix}"),
            (handle, suffix) => format!("{handle}{suffix}"),
        },
    }
}

fn has_duplicates(entries: &[(Scalar, Node)]) -> bool {
    /// Up to here comparing all pairs is quicker than sorting.
    const PAIRWISE: usize = 16;
    if entries.len() <= PAIRWISE {
        return entries
            .iter()
            .enumerate()
            .any(|(index, (key, _))| entries.iter().take(index).any(|(other, _)| other.text == key.text));
    }
    let mut names: Vec<&str> = entries.iter().map(|(key, _)| key.text.as_str()).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair.first() == pair.last())
}

fn limit(name: &'static str, limit: usize, at: Position) -> Error {
    Error { line: at.line, column: at.column, kind: ErrorKind::Limit { name, limit } }
}

fn syntax(error: &ScanError) -> Error {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Error {
        line: number(error.marker().line()).max(1),
        column: number(error.marker().col()).saturating_add(1),
        kind: ErrorKind::Syntax(error.info()),
    }
}
