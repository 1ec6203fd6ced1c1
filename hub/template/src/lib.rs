//! Templating of ApplicationSets: fasttemplate as Argo CD uses it, Handlebars blocks, and the flattening of parameters.
//!
//! Argo CD's default templating knows flat parameters of text. A tag `{{ name }}` becomes the parameter's text, blanks around
//! the name do not count, and a tag that is no parameter stays exactly as it was written, since Helm values and patches may
//! carry other tools' templates. Keys of maps are rendered as values are. Templates are JSON trees here and every text is
//! rendered on its own, so that no parameter can break out of its text: there is nothing to escape.
//!
//! `{{#if (eq a "b")}}` blocks are an addition (COMPAT.md, decision 3): see `handlebars.rs`. The Go engine (`goTemplate: true`)
//! is not here yet.
//!
//! This crate never reads a file, a clock or the environment, and never panics on a template or a parameter.

mod fasttemplate;
mod flatten;
mod handlebars;

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde_json::{Map, Value};

pub use self::flatten::{flatten, number_text};

/// Parameters of one generated Application: dotted names and texts.
pub type Params = BTreeMap<String, String>;

/// Bounds on the rendering of one template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of text in the result, all texts and keys together. An API object may have 1 MiB, so no more can be useful.
    pub output_bytes: usize,
    /// Levels of JSON nesting: the recursion is bounded by it. Kubernetes itself stops at about a hundred.
    pub depth: usize,
    /// Tags and JSON nodes visited.
    pub steps: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { output_bytes: 1 << 20, depth: 128, steps: 1_000_000 }
    }
}

/// A template could not be rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// Path of the text inside the template, such as `spec.source.kustomize.patches[0].patch`; empty for a lone text.
    pub path: String,
    /// What is wrong.
    pub kind: TemplateErrorKind,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { write!(f, "{}", self.kind) } else { write!(f, "{}: {}", self.path, self.kind) }
    }
}

impl std::error::Error for TemplateError {}

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateErrorKind {
    /// `{{` without `}}`, in a text that has other tags; Argo CD refuses it as well.
    #[error("cannot find the end tag \"}}}}\" of a tag that starts with {near:?}")]
    Unclosed {
        /// The beginning of the tag.
        near: String,
    },
    /// A Handlebars block that could be rendered is never closed, or its parts are out of order.
    #[error("the block {tag} {problem}")]
    Block {
        /// The tag that opens the block.
        tag: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A bound of [`Limits`].
    #[error("the template exceeds the limit of {limit} {name}")]
    Limit {
        /// What was counted.
        name: &'static str,
        /// The bound.
        limit: usize,
    },
    /// Two keys of a map are the same once rendered.
    #[error("the keys of a map are no longer distinct: {key:?} appears twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
}

/// Renders every text and every map key of a template with the default [`Limits`].
///
/// # Errors
/// [`TemplateError`] with the path of the first text that cannot be rendered.
pub fn render_value(template: &Value, params: &Params) -> Result<Value, TemplateError> {
    render_value_within(template, params, &Limits::default())
}

/// Renders every text and every map key of a template.
///
/// # Errors
/// [`TemplateError`] with the path of the first text that cannot be rendered, or where a limit was met.
pub fn render_value_within(template: &Value, params: &Params, limits: &Limits) -> Result<Value, TemplateError> {
    let mut budget = Budget::new(limits);
    let mut path = Vec::new();
    render_node(template, params, &mut budget, &mut path).map_err(|kind| TemplateError { path: path_text(&path), kind })
}

/// Renders one text with the default [`Limits`].
///
/// # Errors
/// [`TemplateError`] without a path.
pub fn render_str(text: &str, params: &Params) -> Result<String, TemplateError> {
    let mut budget = Budget::new(&Limits::default());
    render_text(text, params, &mut budget).map_err(|kind| TemplateError { path: String::new(), kind })
}

/// One step of a path inside a template.
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

fn path_text(path: &[Step<'_>]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => {
                text.push('.');
                text.push_str(key);
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// On an error, `path` is left at the text that failed.
fn render_node<'a>(
    node: &'a Value,
    params: &Params,
    budget: &mut Budget,
    path: &mut Vec<Step<'a>>,
) -> Result<Value, TemplateErrorKind> {
    budget.step()?;
    if path.len() > budget.limits.depth {
        return Err(TemplateErrorKind::Limit { name: "levels", limit: budget.limits.depth });
    }
    match node {
        Value::String(text) => render_text(text, params, budget).map(Value::String),
        Value::Array(items) => {
            let mut rendered = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                path.push(Step::Index(index));
                rendered.push(render_node(item, params, budget, path)?);
                path.pop();
            }
            Ok(Value::Array(rendered))
        }
        Value::Object(map) => {
            let mut rendered = Map::new();
            for (key, value) in map {
                path.push(Step::Key(key));
                let value = render_node(value, params, budget, path)?;
                let key = render_text(key, params, budget)?;
                if rendered.contains_key(&key) {
                    return Err(TemplateErrorKind::DuplicateKey { key });
                }
                rendered.insert(key, value);
                path.pop();
            }
            Ok(Value::Object(rendered))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(node.clone()),
    }
}

/// Blocks come first: inside a block `{{else}}` and `{{/if}}` would look like parameters.
fn render_text(text: &str, params: &Params, budget: &mut Budget) -> Result<String, TemplateErrorKind> {
    let rendered = if text.contains("{{") {
        let chosen = handlebars::render(text, params, budget)?;
        match fasttemplate::render(&chosen, params, budget)? {
            Cow::Owned(rendered) => rendered,
            Cow::Borrowed(_) => chosen.into_owned(),
        }
    } else {
        text.to_owned()
    };
    budget.output(rendered.len())?;
    Ok(rendered)
}

/// What is left of the [`Limits`].
#[derive(Debug)]
pub(crate) struct Budget {
    limits: Limits,
    bytes: usize,
    steps: usize,
}

impl Budget {
    fn new(limits: &Limits) -> Self {
        Self { limits: *limits, bytes: 0, steps: 0 }
    }

    /// Counts a visited tag or node.
    pub(crate) fn step(&mut self) -> Result<(), TemplateErrorKind> {
        self.steps = self.steps.saturating_add(1);
        let limit = self.limits.steps;
        if self.steps > limit { Err(TemplateErrorKind::Limit { name: "steps", limit }) } else { Ok(()) }
    }

    /// Counts bytes of the result.
    fn output(&mut self, bytes: usize) -> Result<(), TemplateErrorKind> {
        self.bytes = self.bytes.saturating_add(bytes);
        self.fits(0)
    }

    /// Whether a text of this length would still fit, so that it need not be built to the end to be refused.
    pub(crate) fn fits(&self, bytes: usize) -> Result<(), TemplateErrorKind> {
        let limit = self.limits.output_bytes;
        let fits = self.bytes.saturating_add(bytes) <= limit;
        if fits { Ok(()) } else { Err(TemplateErrorKind::Limit { name: "bytes", limit }) }
    }
}
