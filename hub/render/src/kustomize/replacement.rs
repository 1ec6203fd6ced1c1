//! `replacements`: a value from one resource, or a given one, written into fields of others.

use windlass_protocol::yaml::{Dialect, Node, Scalar};

use super::{
    fields::{Create, split_path_with_brackets},
    file::{FieldOptions, Replacement, Source, Target},
    path_match::{Visitor, lookup, parse_text},
    resource::Resource,
    resource_map::ResourceMap,
    schema::Schema,
    selector::Compiled,
};
use crate::error::Problem;

const DEFAULT_PATH: &str = "metadata.name";

pub(super) fn apply(map: &mut ResourceMap, schema: &Schema, replacements: &[Replacement]) -> Result<(), Problem> {
    for replacement in replacements {
        let targets = match (&replacement.source, &replacement.source_value, &replacement.targets) {
            (None, None, _) | (_, _, None) => {
                return Err(refuse("replacements must specify a source and at least one target"));
            }
            (_, _, Some(targets)) => targets,
        };
        let value = source_value(map, schema, replacement)?;
        for target in targets {
            write(map, schema, &value, target)?;
        }
    }
    Ok(())
}

fn refuse(message: impl Into<String>) -> Problem {
    Problem::patch(message).in_field("replacements")
}

fn source_value(map: &mut ResourceMap, schema: &Schema, replacement: &Replacement) -> Result<Node, Problem> {
    match (&replacement.source, &replacement.source_value) {
        (Some(_), Some(_)) => Err(refuse("value and resource selectors are mutually exclusive")),
        (None, Some(text)) => Ok(Node::Scalar(Scalar::untyped(text.as_str()))),
        (None, None) => Err(refuse("replacements must specify a source and at least one target")),
        (Some(source), None) => {
            let resource = select_source(map, schema, source)?;
            let path_text = if source.field_path.is_empty() { DEFAULT_PATH } else { &source.field_path };
            let path = split_path_with_brackets(path_text, '.');
            let found = lookup(&mut resource.node, &path)
                .map_err(|problem| problem.while_("error looking up replacement source").in_field("replacements"))?;
            let Some(found) = found.filter(|node| !node.is_empty()) else {
                let message = format!("fieldPath `{path_text}` is missing for replacement source {}", source.id);
                return Err(refuse(message));
            };
            refined(found, source.options.as_ref())
        }
    }
}

fn select_source<'m>(map: &'m mut ResourceMap, schema: &Schema, source: &Source) -> Result<&'m mut Resource, Problem> {
    let mut selector = source.id.clone();
    selector.cluster_scoped = schema.is_cluster_scoped(&selector.gvk);
    let fits = |resource: &Resource| resource.all_ids(schema).iter().any(|id| id.is_selected_by(&selector));
    let mut matches = map.list.iter_mut().filter(|resource| fits(resource));
    let name = format!("{}{}{}", source.id, if source.field_path.is_empty() { "" } else { ":" }, source.field_path);
    let Some(first) = matches.next() else { return Err(refuse(format!("nothing selected by {name}"))) };
    if matches.next().is_some() {
        return Err(refuse(format!("multiple matches for selector {name}")));
    }
    Ok(first)
}

/// One part of a value that is cut at a delimiter.
fn refined(node: &Node, options: Option<&FieldOptions>) -> Result<Node, Problem> {
    let Some(options) = options.filter(|options| !options.delimiter.is_empty()) else { return Ok(node.clone()) };
    let Node::Scalar(scalar) = node else {
        return Err(refuse("delimiter option can only be used with scalar nodes"));
    };
    let part = usize::try_from(options.index).ok().and_then(|index| scalar.text.split(&options.delimiter).nth(index));
    let Some(part) = part else {
        let message = format!("options.index {} is out of bounds for value {}", options.index, scalar.text);
        return Err(refuse(message));
    };
    Ok(Node::Scalar(Scalar { text: part.to_owned(), ..scalar.clone() }))
}

fn write(map: &mut ResourceMap, schema: &Schema, value: &Node, target: &Target) -> Result<(), Problem> {
    let Some(select) = &target.select else { return Err(refuse("target must specify resources to select")) };
    let select = Compiled::new(select)?;
    let reject = target.reject.iter().map(Compiled::new).collect::<Result<Vec<_>, _>>()?;
    let default = [DEFAULT_PATH.to_owned()];
    let paths: &[String] = if target.field_paths.is_empty() { &default } else { &target.field_paths };
    for resource in &mut map.list {
        let ids = resource.all_ids(schema);
        let rejected = reject.iter().any(|reject| {
            (reject.by_labels && reject.fits_labels(resource))
                || (!reject.blank_id && ids.iter().any(|id| reject.selects_id(id)))
        });
        if rejected || !select.fits_labels(resource) || !ids.iter().any(|id| select.selects_id(id)) {
            continue;
        }
        for path in paths {
            write_field(&mut resource.node, value, path, target.options.as_ref())
                .map_err(|problem| problem.in_field("replacements"))?;
        }
        resource.refresh(schema);
    }
    Ok(())
}

fn write_field(node: &mut Node, value: &Node, path: &str, options: Option<&FieldOptions>) -> Result<(), Problem> {
    let create = match (options.is_some_and(|options| options.create), value) {
        (false, _) => Create::No,
        (true, Node::Scalar(_)) => Create::Scalar,
        (true, Node::Sequence(_)) => Create::Sequence,
        (true, Node::Mapping(_)) => Create::Mapping,
    };
    let parts = split_path_with_brackets(path, '.');
    if write_inside_text(node, value, &parts, create) {
        return Ok(());
    }
    let verb = if create == Create::No { "find" } else { "find or create" };
    let missing = || format!("unable to {verb} field \"{path}\" in replacement target");
    let mut failed = None;
    let mut set = |place: &mut Node| {
        let result = set_value(place, value, options);
        if let Err(problem) = &result {
            failed = Some(problem.clone());
        }
        result
    };
    let outcome = Visitor { create, visit: &mut set }.walk(node, &parts);
    match (outcome, failed) {
        (_, Some(problem)) => Err(problem),
        (Ok(0), None) => Err(refuse(missing())),
        (Ok(_), None) => Ok(()),
        (Err(problem), None) => Err(problem.while_(missing())),
    }
}

fn set_value(place: &mut Node, value: &Node, options: Option<&FieldOptions>) -> Result<(), Problem> {
    let mut value = value.clone();
    if let Some(options) = options.filter(|options| !options.delimiter.is_empty()) {
        let Node::Scalar(old) = &*place else {
            return Err(refuse("delimiter option can only be used with scalar nodes"));
        };
        let part = value.text().to_owned();
        let mut parts: Vec<&str> = old.text.split(&options.delimiter).collect();
        match usize::try_from(options.index) {
            Err(_) => parts.insert(0, &part),
            Ok(index) => match parts.get_mut(index) {
                Some(place) => *place = &part,
                None => parts.push(&part),
            },
        }
        let joined = parts.join(&options.delimiter);
        if let Node::Scalar(scalar) = &mut value {
            scalar.text = joined;
        }
    }
    overwrite(place, value);
    Ok(())
}

/// A scalar keeps its type and takes the text; anything else is replaced.
fn overwrite(place: &mut Node, value: Node) {
    match (place, value) {
        (Node::Scalar(scalar), Node::Scalar(value)) => scalar.text = value.text,
        (Node::Scalar(scalar), _) => scalar.text.clear(),
        (place, value) => *place = value,
    }
}

/// Writes into YAML or JSON that stands in a scalar on the way; says whether it could.
fn write_inside_text(node: &mut Node, value: &Node, parts: &[String], create: Create) -> bool {
    for length in 1..parts.len() {
        let (before, rest) = parts.split_at_checked(length).unwrap_or((parts, &[]));
        let Ok(Some(Node::Scalar(scalar))) = lookup(node, before) else { continue };
        let Ok(inner) = parse_text(&scalar.text) else { continue };
        let Some(mut inner) = inner else { return false };
        let mut set = |place: &mut Node| {
            overwrite(place, value.clone());
            Ok(())
        };
        let found = Visitor { create, visit: &mut set }.walk(&mut inner, rest);
        if !matches!(found, Ok(count) if count > 0) {
            return false;
        }
        let Some(text) = print_text(&inner, &scalar.text) else { return false };
        scalar.text = text;
        return true;
    }
    false
}

/// Prints changed structured text in the form it had: JSON, compact or not, or YAML.
fn print_text(inner: &Node, old: &str) -> Option<String> {
    if old.trim_start().starts_with(['{', '[']) {
        let value = inner.to_value(Dialect::Kyaml).ok()?;
        let mut compact = String::new();
        super::hash::value(&mut compact, &value);
        if old.contains('\n') && old.contains("  ") {
            return Some(super::json_text::indent(&compact));
        }
        return Some(compact);
    }
    Some(super::yaml_text::print(inner).trim().to_owned())
}
