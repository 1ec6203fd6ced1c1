//! Label selectors and field selectors, in Kubernetes' text form.

use std::collections::BTreeMap;

use serde_json::Value;
use windlass_hub_core::{ObjectKey, ObjectRecord};
use windlass_protocol::resource::Kind;

use super::error::ApiError;

/// Requirements of one selector; more is no selector that a person or a program writes.
const REQUIREMENTS_MAX: usize = 100;

/// What a list or watch asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Greater,
    Less,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldRequirement {
    path: String,
    equal: bool,
    value: String,
}

impl Selector {
    pub(super) fn parse(kind: Kind, labels: Option<&str>, fields: Option<&str>) -> Result<Self, ApiError> {
        let labels = labels.map(parse_labels).transpose()?.unwrap_or_default();
        let fields = fields.map(|text| parse_fields(kind, text)).transpose()?.unwrap_or_default();
        Ok(Self { labels, fields })
    }

    pub(super) fn matches(&self, key: &ObjectKey, record: &ObjectRecord) -> bool {
        self.matches_labels(&record.labels) && self.matches_fields(key, record)
    }

    fn matches_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|requirement| requirement.matches(labels))
    }

    fn matches_fields(&self, key: &ObjectKey, record: &ObjectRecord) -> bool {
        // Only paths beyond name and namespace need the object itself.
        let mut value = None;
        self.fields.iter().all(|field| {
            let found = match field.path.as_str() {
                "metadata.name" => key.name.name.clone(),
                "metadata.namespace" => key.name.namespace.clone(),
                path => text_at(value.get_or_insert_with(|| record.value()), path),
            };
            (found == field.value) == field.equal
        })
    }

    /// Narrows to one name.
    pub(super) fn require_name(&mut self, name: &str) {
        let field = FieldRequirement { path: "metadata.name".to_owned(), equal: true, value: name.to_owned() };
        self.fields.push(field);
    }
}

impl Requirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let found = labels.get(&self.key);
        let number = |text: &String| text.parse::<i64>().ok();
        let bound = self.values.first().and_then(number);
        match self.operator {
            Operator::In => found.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => found.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => found.is_some(),
            Operator::DoesNotExist => found.is_none(),
            Operator::Greater => found.and_then(number).zip(bound).is_some_and(|(value, bound)| value > bound),
            Operator::Less => found.and_then(number).zip(bound).is_some_and(|(value, bound)| value < bound),
        }
    }
}

fn text_at(value: &Value, path: &str) -> String {
    let found = path.split('.').try_fold(value, |value, key| value.get(key));
    match found {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>, ApiError> {
    let mut requirements = Vec::new();
    for part in split_outside_parentheses(text) {
        let part = part.trim();
        if part.is_empty() {
            continue;
        }
        let requirement = parse_requirement(part).ok_or_else(|| {
            ApiError::bad_request(format!("unable to parse requirement: {part:?} is no label requirement"))
        })?;
        requirements.push(requirement);
        if requirements.len() > REQUIREMENTS_MAX {
            return Err(ApiError::bad_request(format!("labelSelector: more than {REQUIREMENTS_MAX} requirements")));
        }
    }
    Ok(requirements)
}

fn parse_requirement(part: &str) -> Option<Requirement> {
    let make = |key: &str, operator, values: &[&str]| {
        let key = key.trim();
        let values = values.iter().map(|value| value.trim().to_owned()).collect();
        is_key(key).then(|| Requirement { key: key.to_owned(), operator, values })
    };
    if let Some(inner) = part.strip_suffix(')') {
        let (head, list) = inner.split_once('(')?;
        let mut words = head.split_whitespace();
        let (key, word) = (words.next()?, words.next()?);
        let values: Vec<&str> = list.split(',').collect();
        return match (word, words.next()) {
            ("in", None) => make(key, Operator::In, &values),
            ("notin", None) => make(key, Operator::NotIn, &values),
            _ => None,
        };
    }
    for (sign, operator) in [
        ("!=", Operator::NotIn),
        ("==", Operator::In),
        ("=", Operator::In),
        (">", Operator::Greater),
        ("<", Operator::Less),
    ] {
        if let Some((key, value)) = part.split_once(sign) {
            let numeric = matches!(operator, Operator::Greater | Operator::Less);
            if numeric && value.trim().parse::<i64>().is_err() {
                return None;
            }
            return make(key, operator, &[value]);
        }
    }
    match part.strip_prefix('!') {
        Some(key) => make(key, Operator::DoesNotExist, &[]),
        None => make(part, Operator::Exists, &[]),
    }
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut inside = false;
    text.split(move |char| {
        match char {
            '(' => inside = true,
            ')' => inside = false,
            _ => {}
        }
        char == ',' && !inside
    })
    .collect()
}

fn parse_fields(kind: Kind, text: &str) -> Result<Vec<FieldRequirement>, ApiError> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let parsed: Result<Vec<_>, _> = parts.map(|part| parse_field(kind, part)).collect();
    let parsed = parsed?;
    if parsed.len() > REQUIREMENTS_MAX {
        return Err(ApiError::bad_request(format!("fieldSelector: more than {REQUIREMENTS_MAX} requirements")));
    }
    Ok(parsed)
}

fn parse_field(kind: Kind, part: &str) -> Result<FieldRequirement, ApiError> {
    let (path, equal, value) = if let Some((path, value)) = part.split_once("!=") {
        (path, false, value)
    } else if let Some((path, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (path, true, value)
    } else {
        return Err(ApiError::bad_request(format!("invalid selector: {part:?}; can't understand {part:?}")));
    };
    let path = path.trim();
    if !matches!(path, "metadata.name" | "metadata.namespace") && !selectable(kind).contains(&path) {
        return Err(ApiError::bad_request(format!("field label not supported: {path}")));
    }
    Ok(FieldRequirement { path: path.to_owned(), equal, value: value.trim().to_owned() })
}

/// Fields besides name and namespace that may be selected by, as Kubernetes has them.
const fn selectable(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Event => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "type",
        ],
        Kind::Secret => &["type"],
        Kind::Namespace => &["status.phase"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(selector: &str, labels: &[(&str, &str)], expect: bool) {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let selector = Selector::parse(Kind::Cluster, Some(selector), None).unwrap();
        assert_eq!(selector.matches_labels(&labels), expect, "{selector:?}");
    }

    #[test]
    fn labels_are_selected_as_kubernetes_does() {
        let labels = [("env", "prod"), ("ring", "2"), ("a.io/b", "")];
        for (selector, expect) in [
            ("env=prod", true),
            ("env==prod,ring=2", true),
            ("env!=prod", false),
            ("none!=x", true),
            ("env in (dev, prod),ring", true),
            ("env notin (dev,prod)", false),
            ("!env", false),
            ("!none", true),
            ("ring>1,ring<3", true),
            ("ring>2", false),
            ("a.io/b", true),
            ("a.io/b=", true),
        ] {
            check(selector, &labels, expect);
        }
        for bad in ["env in prod", "a b c", "=x", "x>y", "env in (a"] {
            assert!(Selector::parse(Kind::Cluster, Some(bad), None).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_known_fields_are_selected_by() {
        let name = Selector::parse(Kind::Cluster, None, Some("metadata.name=a")).unwrap();
        assert_eq!(name.fields.len(), 1);
        let error = Selector::parse(Kind::Cluster, None, Some("spec.x=a")).unwrap_err();
        assert_eq!(error.message, "field label not supported: spec.x");
        assert!(Selector::parse(Kind::Event, None, Some("involvedObject.name!=a")).is_ok());
    }
}
