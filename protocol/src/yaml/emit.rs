//! Prints JSON values as Go's `sigs.k8s.io/yaml` does, byte for byte.
//!
//! The layout rules are those of the emitter of go-yaml v2 (`emitterc.go`, Apache-2.0), reduced to what a tree of
//! JSON values can reach: block collections, `[]` and `{}`, and scalars of four styles. Lines of plain and quoted
//! text are broken at the first blank after column 80. Keys are in go-yaml's natural order, not in byte order.

mod order;
mod scalar;

use serde_json::{Map, Value};

use self::scalar::{Analysis, Look};
use super::{Style, number::json_number_text};

/// Widest line before a break is looked for.
const WIDTH: usize = 80;

/// Columns per level.
const INDENT: usize = 2;

/// Longest key that is written as `key: value`; longer ones need `? key`.
const SIMPLE_KEY: usize = 128;

/// Prints one document, ending in a line feed, without a document marker.
#[must_use]
pub fn to_yaml(value: &Value) -> String {
    let mut emitter = Emitter::default();
    emitter.document(value);
    emitter.out
}

/// Prints several documents with `---` between them, as `kustomize build` does.
#[must_use]
pub fn to_yaml_documents<'v>(values: impl IntoIterator<Item = &'v Value>) -> String {
    let mut emitter = Emitter::default();
    for value in values {
        if !emitter.out.is_empty() {
            emitter.out.push_str("---\n");
        }
        emitter.reset();
        emitter.document(value);
    }
    emitter.out
}

/// The style a string is printed in.
pub(super) fn style_of(text: &str) -> Style {
    match Analysis::of(text).value_look(text) {
        Look::Plain => Style::Plain,
        Look::SingleQuoted => Style::SingleQuoted,
        Look::DoubleQuoted => Style::DoubleQuoted,
        Look::Literal => Style::Literal,
    }
}

/// Where a node stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Item,
    Value,
}

/// Whether an indicator wants a blank before it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gap {
    Blank,
    None,
}

struct Emitter {
    out: String,
    /// Characters on the current line.
    column: usize,
    /// Columns of the current block; `None` before the first.
    indent: Option<usize>,
    /// The last thing written was blank.
    whitespace: bool,
    /// Only indentation and `-`, `?`, `:` stand on the line.
    indention: bool,
}

impl Default for Emitter {
    fn default() -> Self {
        Self { out: String::new(), column: 0, indent: None, whitespace: true, indention: true }
    }
}

impl Emitter {
    fn reset(&mut self) {
        self.column = 0;
        self.indent = None;
        self.whitespace = true;
        self.indention = true;
    }

    fn document(&mut self, value: &Value) {
        self.node(value, Place::Root);
        self.write_indent();
        if !self.out.ends_with('\n') {
            self.line_feed();
        }
    }

    fn node(&mut self, value: &Value, place: Place) {
        match value {
            Value::Null => self.plain_word("null"),
            Value::Bool(true) => self.plain_word("true"),
            Value::Bool(false) => self.plain_word("false"),
            Value::Number(number) => self.plain_word(&json_number_text(number)),
            Value::String(text) => {
                let analysis = Analysis::of(text);
                let look = analysis.value_look(text);
                self.scalar(text, look, Breaks::Allowed);
            }
            Value::Array(items) => self.sequence(items, place),
            Value::Object(map) => self.mapping(map),
        }
    }

    fn sequence(&mut self, items: &[Value], place: Place) {
        if items.is_empty() {
            self.indicator('[', Gap::Blank);
            self.whitespace = true;
            self.indicator(']', Gap::None);
            return;
        }
        let before = self.indent;
        self.indent = Some(match before {
            None => 0,
            // A list under a key is not indented; one under `? ` or in a list is.
            Some(columns) if place == Place::Value && !self.indention => columns,
            Some(columns) => columns + INDENT,
        });
        for item in items {
            self.write_indent();
            self.block_indicator('-');
            self.node(item, Place::Item);
        }
        self.indent = before;
    }

    fn mapping(&mut self, map: &Map<String, Value>) {
        if map.is_empty() {
            self.indicator('{', Gap::Blank);
            self.whitespace = true;
            self.indicator('}', Gap::None);
            return;
        }
        let before = self.indent;
        self.indent = Some(before.map_or(0, |columns| columns + INDENT));
        let mut entries: Vec<(&String, &Value)> = map.iter().collect();
        entries.sort_by(|(left, _), (right, _)| order::natural(left, right));
        for (key, value) in entries {
            self.write_indent();
            let analysis = Analysis::of(key);
            if analysis.multiline || key.len() > SIMPLE_KEY {
                self.block_indicator('?');
                let look = analysis.value_look(key);
                self.scalar(key, look, Breaks::Allowed);
                self.write_indent();
                self.block_indicator(':');
            } else {
                self.scalar(key, analysis.key_look(key), Breaks::Forbidden);
                self.indicator(':', Gap::None);
            }
            self.node(value, Place::Value);
        }
        self.indent = before;
    }

    fn plain_word(&mut self, word: &str) {
        self.scalar(word, Look::Plain, Breaks::Forbidden);
    }

    /// Writes a scalar; its continuation lines are one level deeper.
    fn scalar(&mut self, text: &str, look: Look, breaks: Breaks) {
        let before = self.indent;
        self.indent = Some(before.map_or(INDENT, |columns| columns + INDENT));
        match look {
            Look::Plain => self.write_plain(text, breaks),
            Look::SingleQuoted => self.write_single_quoted(text, breaks),
            Look::DoubleQuoted => self.write_double_quoted(text, breaks),
            Look::Literal => self.write_literal(text),
        }
        self.indent = before;
    }

    fn indicator(&mut self, indicator: char, gap: Gap) {
        if gap == Gap::Blank && !self.whitespace {
            self.put(' ');
        }
        self.put(indicator);
        self.whitespace = false;
        self.indention = false;
    }

    /// `-`, `?` and `:` as openers of a block: they count as indentation.
    fn block_indicator(&mut self, indicator: char) {
        let indention = self.indention;
        self.indicator(indicator, Gap::Blank);
        self.indention = indention;
    }

    fn write_indent(&mut self) {
        let columns = self.indent.unwrap_or(0);
        if !self.indention || self.column > columns || (self.column == columns && !self.whitespace) {
            self.line_feed();
        }
        while self.column < columns {
            self.put(' ');
        }
        self.whitespace = true;
        self.indention = true;
    }

    fn put(&mut self, character: char) {
        self.out.push(character);
        self.column += 1;
    }

    fn line_feed(&mut self) {
        self.out.push('\n');
        self.column = 0;
    }
}

/// Whether a long line may be broken; not in keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Breaks {
    Allowed,
    Forbidden,
}
