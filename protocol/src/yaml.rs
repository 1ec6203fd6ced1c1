//! The one door through which YAML enters and leaves Windlass.
//!
//! The event parser comes from a crate; what a scalar *means* and how a value is *printed* is ours, because
//! Kubernetes tools read and write YAML as Go's `sigs.k8s.io/yaml` does (YAML 1.1 words, octal numbers, its
//! quoting and its key order), and manifests must come out byte for byte the same.
//!
//! - [`parse_documents`] gives [`Document`]s of [`Node`]s: style, tag and line are kept for the renderer.
//! - [`values`] and [`value`] give `serde_json` values for everyone else.
//! - [`to_yaml`] and [`to_yaml_documents`] print.
//!
//! Nothing here reads a file, a clock or the environment, and nothing panics on input: text is bounded by
//! [`Limits`], aliases are expanded under the same bound, and every error names line and column.

mod emit;
mod load;
mod merge;
mod node;
mod number;
mod resolve;
mod timestamp;
mod value;

pub use self::{
    emit::{to_yaml, to_yaml_documents},
    node::{Node, Scalar, Style, Tag},
    number::{json_float, json_number_text, plain_float},
    resolve::{Resolved, resolve},
};

/// Which Go library the text is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `sigs.k8s.io/yaml` (YAML 1.1): `yes`, `on`, `n` are booleans, keys become text. kubectl and Argo CD read so.
    Sigs,
    /// `kyaml` (yaml.v3): only `true` and `false` are booleans, timestamps are timestamps. Kustomize reads so.
    Kyaml,
}

/// What a mapping key that stands twice means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DuplicateKeys {
    /// An error in every document.
    Error,
    /// The two values are merged deeply (lists joined without doubles), with a warning.
    Merge,
    /// The later value counts, with a warning, as in Go where nothing is checked.
    LastWins,
    /// Merged in documents of the API group `argoproj.io`, an error in all others (COMPAT.md, decision 2).
    MergeInArgo,
}

/// Bounds on one text; each error names the limit it met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of text.
    pub bytes: usize,
    /// Levels of nesting. Everything downstream recurses over the tree, so this bounds stack use too.
    pub depth: usize,
    /// Documents in one text.
    pub documents: usize,
    /// Nodes of all documents together, those copied for aliases included: bounds "billion laughs".
    pub nodes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 16 << 20, depth: 128, documents: 10_000, nodes: 4_000_000 }
    }
}

/// How to read a text.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The resolver of plain scalars.
    pub dialect: Dialect,
    /// The duplicate key policy.
    pub duplicates: DuplicateKeys,
    /// Bounds.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self { dialect: Dialect::Sigs, duplicates: DuplicateKeys::Error, limits: Limits::default() }
    }
}

/// One document of a stream; documents that are empty or null are left out.
#[derive(Debug, Clone)]
pub struct Document {
    /// The content.
    pub node: Node,
    /// Line of the first token, from 1.
    pub line: u32,
    /// Keys that were merged because they stood twice.
    pub warnings: Vec<Warning>,
}

/// A document as a JSON value.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueDocument {
    /// The content.
    pub value: serde_json::Value,
    /// Line of the first token, from 1.
    pub line: u32,
    /// Keys that were merged because they stood twice.
    pub warnings: Vec<Warning>,
}

/// Something that was accepted, but that its author should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Line, from 1.
    pub line: u32,
    /// What was done.
    pub message: String,
}

/// Why a text was refused, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {kind}")]
pub struct Error {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// The cause.
    pub kind: ErrorKind,
}

/// The causes of [`Error`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ErrorKind {
    /// Not UTF-8.
    #[error("the text is not valid UTF-8")]
    Encoding,
    /// Not YAML.
    #[error("{0}")]
    Syntax(String),
    /// A key stands twice; worded as Go words it.
    #[error("mapping key \"{key}\" already defined at line {first_line}")]
    DuplicateKey {
        /// The key.
        key: String,
        /// Where it stood first.
        first_line: u32,
    },
    /// A scalar does not fit its explicit tag.
    #[error("cannot decode `{text}` as {tag}")]
    Tag {
        /// The scalar's text.
        text: String,
        /// The tag it carries.
        tag: String,
    },
    /// A key that JSON cannot hold.
    #[error("mapping key `{0}` is not a string")]
    Key(String),
    /// Infinity and NaN have no JSON form.
    #[error("`{0}` has no JSON form")]
    NotANumber(String),
    /// A merge key with a value that cannot be merged.
    #[error("map merge requires map or sequence of maps as the value")]
    Merge,
    /// An alias inside its own anchor.
    #[error("an anchor contains itself")]
    Cycle,
    /// One document was wanted.
    #[error("expected one document, found {0}")]
    DocumentCount(usize),
    /// A bound of [`Limits`].
    #[error("exceeds the limit `{name}` of {limit}")]
    Limit {
        /// The limit's name.
        name: &'static str,
        /// Its value.
        limit: usize,
    },
}

/// Reads every document of `text` as nodes.
///
/// # Errors
/// The first syntax error, duplicate key (see [`DuplicateKeys`]) or exceeded limit.
pub fn parse_documents(text: &str, options: &Options) -> Result<Vec<Document>, Error> {
    load::documents(text, options)
}

/// Like [`parse_documents`], from bytes of unknown encoding.
///
/// # Errors
/// As [`parse_documents`], and [`ErrorKind::Encoding`] with the line of the first bad byte.
pub fn parse_bytes(bytes: &[u8], options: &Options) -> Result<Vec<Document>, Error> {
    parse_documents(utf8(bytes)?, options)
}

/// Reads every document of `bytes` as a JSON value with sorted keys.
///
/// # Errors
/// As [`parse_bytes`], and for content that JSON cannot hold.
pub fn values(bytes: &[u8], options: &Options) -> Result<Vec<ValueDocument>, Error> {
    let documents = parse_bytes(bytes, options)?;
    let convert = |document: Document| {
        let value = document.node.to_value(options.dialect)?;
        Ok(ValueDocument { value, line: document.line, warnings: document.warnings })
    };
    documents.into_iter().map(convert).collect()
}

/// Reads exactly one document (an empty text is null) as `sigs.k8s.io/yaml` does; duplicate keys are errors.
///
/// # Errors
/// As [`values`], and [`ErrorKind::DocumentCount`] for more than one document.
pub fn value(text: &str) -> Result<serde_json::Value, Error> {
    let mut all = values(text.as_bytes(), &Options::default())?;
    match (all.pop(), all.len()) {
        (None, _) => Ok(serde_json::Value::Null),
        (Some(only), 0) => Ok(only.value),
        (Some(last), more) => Err(Error { line: last.line, column: 1, kind: ErrorKind::DocumentCount(more + 1) }),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|error| {
        let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        Error { line: u32::try_from(line).unwrap_or(u32::MAX), column: 1, kind: ErrorKind::Encoding }
    })
}

#[cfg(test)]
mod tests;
