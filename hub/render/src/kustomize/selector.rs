//! Selectors: anchored regular expressions over identities, and label expressions.

use std::collections::BTreeMap;

use regex::Regex;

use super::{
    file::Selector,
    id::{Gvk, ResourceId},
    resource::Resource,
    schema::Schema,
};
use crate::error::Problem;

/// One part of a selector.
enum Pattern {
    Any,
    Literal(String),
    Regex(Regex),
}

impl Pattern {
    fn new(text: &str) -> Result<Self, Problem> {
        if text.is_empty() {
            return Ok(Self::Any);
        }
        let literal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/' | b':');
        if text.bytes().all(literal) {
            return Ok(Self::Literal(text.to_owned()));
        }
        Regex::new(&format!("^(?:{text})$"))
            .map(Self::Regex)
            .map_err(|error| Problem::field(format!("'{text}' is not a regular expression: {error}")))
    }

    fn fits(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Literal(literal) => literal == text,
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

/// A selector ready for use.
pub(super) struct Compiled {
    group: Pattern,
    version: Pattern,
    kind: Pattern,
    name: Pattern,
    namespace: Pattern,
    labels: LabelSelector,
    annotations: LabelSelector,
    /// The identity is blank, so only the label expressions select.
    pub(super) blank_id: bool,
    /// There is a label or annotation expression.
    pub(super) by_labels: bool,
}

impl Compiled {
    pub(super) fn new(selector: &Selector) -> Result<Self, Problem> {
        let ResourceId { gvk, name, namespace, .. } = &selector.id;
        Ok(Self {
            group: Pattern::new(&gvk.group)?,
            version: Pattern::new(&gvk.version)?,
            kind: Pattern::new(&gvk.kind)?,
            name: Pattern::new(name)?,
            namespace: Pattern::new(namespace)?,
            labels: LabelSelector::parse(&selector.label_selector)?,
            annotations: LabelSelector::parse(&selector.annotation_selector)?,
            blank_id: selector.id.is_blank(),
            by_labels: !selector.label_selector.is_empty() || !selector.annotation_selector.is_empty(),
        })
    }

    /// Whether it selects a resource by its first or current identity, as patches do.
    pub(super) fn selects(&self, resource: &Resource, schema: &Schema) -> bool {
        let original = resource.original_id(schema);
        let current = &resource.id;
        (self.namespace.fits(original.effective_namespace()) || self.namespace.fits(current.effective_namespace()))
            && (self.name.fits(&original.name) || self.name.fits(&current.name))
            && self.fits_gvk(&current.gvk)
            && self.fits_labels(resource)
    }

    /// Whether it selects one identity, as replacements do.
    pub(super) fn selects_id(&self, id: &ResourceId) -> bool {
        self.fits_gvk(&id.gvk) && self.name.fits(&id.name) && self.namespace.fits(&id.namespace)
    }

    pub(super) fn fits_labels(&self, resource: &Resource) -> bool {
        (self.labels.is_empty() || self.labels.fits(&resource.labels()))
            && (self.annotations.is_empty() || self.annotations.fits(&resource.annotations()))
    }

    fn fits_gvk(&self, gvk: &Gvk) -> bool {
        self.group.fits(&gvk.group) && self.version.fits(&gvk.version) && self.kind.fits(&gvk.kind)
    }
}

/// A Kubernetes label selector: requirements that all must hold.
#[derive(Debug, Default)]
pub(super) struct LabelSelector {
    requirements: Vec<Requirement>,
}

#[derive(Debug)]
enum Requirement {
    Exists(String),
    Missing(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Greater(String, i64),
    Less(String, i64),
}

impl LabelSelector {
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let requirements = split(text).into_iter().map(requirement).collect::<Result<_, _>>()?;
        Ok(Self { requirements })
    }

    fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    fn fits(&self, labels: &BTreeMap<String, String>) -> bool {
        let number = |key: &String| labels.get(key).and_then(|value| value.parse::<i64>().ok());
        self.requirements.iter().all(|requirement| match requirement {
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Missing(key) => !labels.contains_key(key),
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Requirement::Greater(key, bound) => number(key).is_some_and(|value| value > *bound),
            Requirement::Less(key, bound) => number(key).is_some_and(|value| value < *bound),
        })
    }
}

/// Splits at commas outside of parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut inside = false;
    let is_comma = |character: char| {
        match character {
            '(' => inside = true,
            ')' => inside = false,
            _ => {}
        }
        character == ',' && !inside
    };
    parts.extend(text.split(is_comma).map(str::trim).filter(|part| !part.is_empty()));
    parts
}

fn requirement(text: &str) -> Result<Requirement, Problem> {
    let refuse = || Problem::field(format!("unable to parse requirement '{text}' of a label selector"));
    let key = |key: &str| {
        let key = key.trim();
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
        if key.is_empty() || !key.bytes().all(legal) { Err(refuse()) } else { Ok(key.to_owned()) }
    };
    if let Some((left, right)) = text.split_once('(') {
        let values: Vec<String> =
            right.strip_suffix(')').ok_or_else(refuse)?.split(',').map(|value| value.trim().to_owned()).collect();
        let mut words = left.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(name), Some("in"), None) => Ok(Requirement::In(key(name)?, values)),
            (Some(name), Some("notin"), None) => Ok(Requirement::NotIn(key(name)?, values)),
            _ => Err(refuse()),
        };
    }
    if let Some((left, right)) = text.split_once("!=") {
        return Ok(Requirement::NotIn(key(left)?, vec![right.trim().to_owned()]));
    }
    if let Some((left, right)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(Requirement::In(key(left)?, vec![right.trim().to_owned()]));
    }
    if let Some((left, right)) = text.split_once('>') {
        return Ok(Requirement::Greater(key(left)?, right.trim().parse().map_err(|_| refuse())?));
    }
    if let Some((left, right)) = text.split_once('<') {
        return Ok(Requirement::Less(key(left)?, right.trim().parse().map_err(|_| refuse())?));
    }
    match text.strip_prefix('!') {
        Some(name) => Ok(Requirement::Missing(key(name)?)),
        None => Ok(Requirement::Exists(key(text)?)),
    }
}
