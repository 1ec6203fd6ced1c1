//! One set of parameters and a template to one Application.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Map, Value};
use windlass_protocol::{
    ids::NamespacedName,
    json,
    resource::{ApplicationSpec, RESOURCES_FINALIZER, parse},
};
use windlass_template::{Params, render_value_within};

use super::{GenerateCause, GenerateLimits, Generated, names::check_name};

/// Name of the project of Applications that name none.
const DEFAULT_PROJECT: &str = "default";

/// The generator's template over the set's, as `mergo.Merge` does it in Argo CD: what the generator leaves out or empty comes
/// from the set; maps are merged, lists are not.
pub(super) fn merge_templates<'a>(generator: Option<&Value>, set: &'a Value) -> Cow<'a, Value> {
    match generator {
        None => Cow::Borrowed(set),
        Some(generator) => {
            let mut merged = generator.clone();
            fill(&mut merged, set);
            Cow::Owned(merged)
        }
    }
}

/// The recursion is as deep as the template, which the API bounds.
fn fill(target: &mut Value, from: &Value) {
    if let (Value::Object(target), Value::Object(from)) = (&mut *target, from) {
        for (key, value) in from {
            match target.get_mut(key) {
                Some(place) => fill(place, value),
                None => {
                    target.insert(key.clone(), value.clone());
                }
            }
        }
    } else if is_empty(target) {
        *target = from.clone();
    }
}

/// Go's zero values.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Renders the template and checks what came out.
pub(super) fn render(
    set: &NamespacedName,
    template: &Value,
    params: &Params,
    preserve_resources: bool,
    limits: &GenerateLimits,
) -> Result<Generated, GenerateCause> {
    let mut rendered = render_value_within(template, params, &limits.template)?;
    let name = json::text(&rendered, &["metadata", "name"]).to_owned();
    let reader = Reader { name: &name };
    check_name(&name).map_err(|message| reader.error("metadata.name", message))?;

    let mut warnings = reader.unknown(&rendered, "", &["metadata", "spec"]);
    let known = ["name", "namespace", "labels", "annotations", "finalizers"];
    warnings.extend(reader.unknown(rendered.get("metadata").unwrap_or(&Value::Null), "metadata.", &known));
    let namespace = json::text(&rendered, &["metadata", "namespace"]);
    if !namespace.is_empty() && namespace != set.namespace {
        let set_namespace = &set.namespace;
        warnings.push(format!(
            "metadata.namespace: {namespace} is ignored: Applications live in their set's namespace {set_namespace}"
        ));
    }
    let mut finalizers = reader.texts(&rendered, "finalizers")?;
    if finalizers.is_empty() && !preserve_resources {
        finalizers.push(RESOURCES_FINALIZER.to_owned());
    }
    let labels = reader.map(&rendered, "labels")?;
    let annotations = reader.map(&rendered, "annotations")?;

    let spec = rendered.get_mut("spec").map(Value::take).unwrap_or_default();
    let project = reader.check_spec(&spec, &mut warnings)?;
    Ok(Generated { namespace: set.namespace.clone(), labels, annotations, finalizers, spec, project, warnings, name })
}

/// Reads parts of a rendered Application; errors name the Application and the field.
struct Reader<'a> {
    name: &'a str,
}

impl Reader<'_> {
    fn error(&self, field: impl Into<String>, message: impl Into<String>) -> GenerateCause {
        GenerateCause::Field {
            application: self.name.to_owned(),
            field: format!("template.{}", field.into()),
            message: message.into(),
        }
    }

    /// Warnings about fields that the template type does not have.
    fn unknown(&self, value: &Value, prefix: &str, known: &[&str]) -> Vec<String> {
        let keys = value.as_object().into_iter().flat_map(Map::keys);
        let unknown = keys.filter(|key| !known.contains(&key.as_str()));
        unknown.map(|key| format!("unknown field \"{prefix}{key}\" is ignored")).collect()
    }

    fn map(&self, rendered: &Value, field: &str) -> Result<BTreeMap<String, String>, GenerateCause> {
        let entries = match json::at(rendered, &["metadata", field]) {
            None | Some(Value::Null) => return Ok(BTreeMap::new()),
            Some(Value::Object(entries)) => entries,
            Some(_) => return Err(self.error(format!("metadata.{field}"), "must be a map of texts")),
        };
        let text = |(key, value): (&String, &Value)| match value {
            Value::String(text) => Ok((key.clone(), text.clone())),
            other => {
                Err(self
                    .error(format!("metadata.{field}.{key}"), format!("must be a text, not {other}: put it in quotes")))
            }
        };
        entries.iter().map(text).collect()
    }

    fn texts(&self, rendered: &Value, field: &str) -> Result<Vec<String>, GenerateCause> {
        let items = match json::at(rendered, &["metadata", field]) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(items)) => items,
            Some(_) => return Err(self.error(format!("metadata.{field}"), "must be a list of texts")),
        };
        let text = |item: &Value| match item {
            Value::String(text) => Ok(text.clone()),
            _ => Err(self.error(format!("metadata.{field}"), "must be a list of texts")),
        };
        items.iter().map(text).collect()
    }

    /// Checks the fields that Argo CD's schema requires, and gives the project.
    fn check_spec(&self, spec: &Value, warnings: &mut Vec<String>) -> Result<String, GenerateCause> {
        let required = |field: &str| self.error(field, "Required value");
        if !spec.is_object() {
            return Err(required("spec"));
        }
        if !spec.get("destination").is_some_and(Value::is_object) {
            return Err(required("spec.destination"));
        }
        let parsed = parse::<ApplicationSpec>("spec", spec).map_err(|error| self.error(error.path, error.message))?;
        warnings.extend(parsed.unknown.iter().map(|path| format!("unknown field \"{path}\" is ignored")));
        if parsed.value.project.is_empty() {
            warnings.push(format!("spec.project is missing: project {DEFAULT_PROJECT} is used"));
            return Ok(DEFAULT_PROJECT.to_owned());
        }
        Ok(parsed.value.project)
    }
}
