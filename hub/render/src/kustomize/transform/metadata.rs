//! Name prefixes and suffixes, labels and annotations.

use std::collections::BTreeMap;

use windlass_protocol::yaml::{Node, Scalar, Style, Tag};

use crate::{
    error::Problem,
    kustomize::{
        fields::{Create, set_field, set_scalar},
        fieldspec::FieldSpecs,
        id::ResourceId,
        resource::Resource,
        resource_map::ResourceMap,
        schema::Schema,
    },
};

pub(super) fn prefix(map: &mut ResourceMap, schema: &Schema, prefix: &str, specs: &FieldSpecs) -> Result<(), Problem> {
    rename(
        map,
        schema,
        specs,
        prefix,
        |resource| resource.history.prefixes.push(prefix.to_owned()),
        |name| format!("{prefix}{name}"),
    )
}

pub(super) fn suffix(map: &mut ResourceMap, schema: &Schema, suffix: &str, specs: &FieldSpecs) -> Result<(), Problem> {
    rename(
        map,
        schema,
        specs,
        suffix,
        |resource| resource.history.suffixes.push(suffix.to_owned()),
        |name| format!("{name}{suffix}"),
    )
}

/// Kinds whose names belong to others.
fn keeps_name(id: &ResourceId) -> bool {
    match id.gvk.kind.as_str() {
        "CustomResourceDefinition" | "Namespace" => true,
        "APIService" => id.gvk.group == "apiregistration.k8s.io",
        _ => false,
    }
}

fn rename(
    map: &mut ResourceMap,
    schema: &Schema,
    specs: &FieldSpecs,
    affix: &str,
    note: impl Fn(&mut Resource),
    change: impl Fn(&str) -> String,
) -> Result<(), Problem> {
    for resource in &mut map.list {
        let original = resource.original_id(schema);
        if keeps_name(&original) {
            continue;
        }
        for spec in specs.0.iter().filter(|spec| original.gvk.is_selected(&spec.gvk)) {
            if spec.path == "metadata/name" && !affix.is_empty() {
                note(resource);
                resource.store_previous();
            }
            let id = resource.id.clone();
            spec.apply(&mut resource.node, &id, Create::Scalar, &mut |node| {
                let text = node.scalar().map_or("", |scalar| scalar.text.as_str());
                let changed = Scalar::untyped(change(text));
                set_scalar(node, changed)
            })?;
        }
        resource.refresh(schema);
    }
    Ok(())
}

/// Sets every pair in every map that the specs lead to.
pub(super) fn pairs(
    map: &mut ResourceMap,
    schema: &Schema,
    pairs: &BTreeMap<String, String>,
    specs: &FieldSpecs,
) -> Result<(), Problem> {
    if pairs.is_empty() {
        return Ok(());
    }
    for resource in &mut map.list {
        let id = resource.id.clone();
        specs.apply(&mut resource.node, &id, Create::Mapping, &mut |node| {
            pairs.iter().try_for_each(|(key, value)| {
                let text = Scalar { text: value.clone(), tag: Tag::Str, style: Style::Plain, line: 0 };
                set_field(node, key, Node::Scalar(text))
            })
        })?;
        resource.refresh(schema);
    }
    Ok(())
}
