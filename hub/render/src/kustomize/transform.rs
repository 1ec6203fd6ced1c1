//! The transformers, each a value that is configured once and then applied to all resources of a kustomization.

mod images;
mod metadata;
mod namespace;
mod patches;

use std::{collections::BTreeMap, sync::Arc};

use windlass_protocol::yaml::{Node, Scalar, Style, Tag};

use super::{
    fields::{Create, set_scalar, split_path},
    fieldspec::FieldSpecs,
    file::{Image, Replacement, Replica, Selector},
    hash,
    origin::Origin,
    replacement,
    resource_map::ResourceMap,
    schema::Schema,
};
use crate::error::Problem;

pub(super) use self::{images::split as split_image, namespace::Subjects, patches::PatchSet};

/// One transformer of any kind.
pub(super) enum Transformer {
    Patches(PatchSet),
    Namespace { namespace: String, specs: FieldSpecs, subjects: Subjects, unset_only: bool },
    Prefix { prefix: String, specs: FieldSpecs },
    Suffix { suffix: String, specs: FieldSpecs },
    Labels { pairs: BTreeMap<String, String>, specs: FieldSpecs },
    Replicas { replica: Replica, specs: FieldSpecs },
    Images { image: Image, specs: FieldSpecs },
    Replacements(Vec<Replacement>),
    Hash,
    ValueAdd { value: String, targets: Vec<ValueTarget> },
}

/// A target of a `ValueAddTransformer`.
pub(super) struct ValueTarget {
    pub(super) selector: Option<Selector>,
    pub(super) field_path: String,
    pub(super) position: usize,
}

/// A transformer and who configured it.
pub(super) struct Configured {
    pub(super) transformer: Transformer,
    pub(super) origin: Option<Arc<Origin>>,
}

impl Configured {
    /// Applies it, drops what it emptied, and notes it in every resource when origins are kept.
    pub(super) fn apply(&self, map: &mut ResourceMap, schema: &Schema) -> Result<(), Problem> {
        self.transformer.apply(map, schema)?;
        if let Some(origin) = &self.origin {
            for resource in &mut map.list {
                match resource.origin {
                    None => resource.origin = Some(Origin::clone(origin)),
                    Some(_) => resource.transformations.push(Origin::clone(origin)),
                }
                // Kustomize notes it in the annotations, which turns all of them into strings.
                let annotations = resource.annotations();
                super::resource::set_metadata_map(&mut resource.node, "annotations", &annotations)?;
            }
        }
        map.drop_empties();
        Ok(())
    }
}

impl Configured {
    /// Runs it as a validator.
    ///
    /// # Errors
    /// It fails, or it changes something.
    pub(super) fn check(&self, map: &ResourceMap, schema: &Schema) -> Result<(), Problem> {
        let mut copy = ResourceMap { list: map.list.clone() };
        self.transformer.apply(&mut copy, schema)?;
        let same = copy.list.len() == map.list.len()
            && copy.list.iter().zip(&map.list).all(|(after, before)| after.node == before.node);
        if same {
            return Ok(());
        }
        Err(Problem::patch("validator shouldn't modify the resource map").in_field("validators"))
    }
}

impl Transformer {
    fn apply(&self, map: &mut ResourceMap, schema: &Schema) -> Result<(), Problem> {
        match self {
            Self::Patches(patches) => patches.apply(map, schema),
            Self::Namespace { namespace, specs, subjects, unset_only } => {
                namespace::apply(map, schema, namespace, specs, *subjects, *unset_only)
            }
            Self::Prefix { prefix, specs } => metadata::prefix(map, schema, prefix, specs),
            Self::Suffix { suffix, specs } => metadata::suffix(map, schema, suffix, specs),
            Self::Labels { pairs, specs } => metadata::pairs(map, schema, pairs, specs),
            Self::Replicas { replica, specs } => replicas(map, schema, replica, specs),
            Self::Images { image, specs } => images::apply(map, schema, image, specs),
            Self::Replacements(replacements) => replacement::apply(map, schema, replacements),
            Self::Hash => add_hashes(map, schema),
            Self::ValueAdd { value, targets } => add_value(map, schema, value, targets),
        }
    }
}

/// Appends the hash of its content to the name of every resource that asks for it.
pub(super) fn add_hashes(map: &mut ResourceMap, schema: &Schema) -> Result<(), Problem> {
    for resource in map.list.iter_mut().filter(|resource| resource.needs_hash) {
        let suffix = hash::suffix(&resource.node)?;
        resource.store_previous();
        let name = format!("{}-{suffix}", resource.id.name);
        resource.set_name(&name, schema)?;
    }
    Ok(())
}

fn replicas(map: &mut ResourceMap, schema: &Schema, replica: &Replica, specs: &FieldSpecs) -> Result<(), Problem> {
    let mut found = false;
    for spec in &specs.0 {
        let fits = |id: &super::id::ResourceId| id.name == replica.name && id.gvk.is_selected(&spec.gvk);
        for place in map.positions_by_any_id(schema, fits) {
            found = true;
            let Some(resource) = map.list.get_mut(place) else { continue };
            let id = resource.id.clone();
            spec.apply(&mut resource.node, &id, Create::Scalar, &mut |node| {
                let text = replica.count.to_string();
                set_scalar(node, Scalar { text, tag: Tag::Int, style: Style::Plain, line: 0 })
            })?;
        }
    }
    if found {
        return Ok(());
    }
    let kinds: Vec<String> = specs.0.iter().map(|spec| spec.gvk.to_string()).collect();
    Err(Problem::patch(format!(
        "resource with name {} does not match a config with the following GVK [{}]",
        replica.name,
        kinds.join(" ")
    ))
    .in_field("replicas"))
}

fn add_value(map: &mut ResourceMap, schema: &Schema, value: &str, targets: &[ValueTarget]) -> Result<(), Problem> {
    for target in targets {
        let places = match &target.selector {
            None => (0..map.list.len()).collect(),
            Some(selector) => map.select(selector, schema)?,
        };
        for place in places {
            let Some(resource) = map.list.get_mut(place) else { continue };
            if target.field_path == "metadata/namespace" {
                namespace::set(resource, value, &FieldSpecs::default(), Subjects::DefaultOnly, false)?;
            } else {
                set_path(&mut resource.node, target, value)?;
            }
            resource.refresh(schema);
        }
    }
    Ok(())
}

fn set_path(node: &mut Node, target: &ValueTarget, value: &str) -> Result<(), Problem> {
    let path = split_path(&target.field_path, '/');
    let mut here = node;
    for (index, part) in path.iter().enumerate() {
        let create = if index + 1 == path.len() { Create::Scalar } else { Create::Mapping };
        here = match super::fields::lookup_or_create(here, part, create)? {
            Some(child) => child,
            None => return Ok(()),
        };
    }
    let Node::Scalar(old) = here else { return Err(super::fields::wrong_kind("ScalarNode", here)) };
    let text = match target.position {
        0 => value.to_owned(),
        position => insert_part(&old.text, position - 1, value),
    };
    set_scalar(here, Scalar::untyped(text))
}

/// Puts a part into a path; a position beyond its end appends.
fn insert_part(path: &str, position: usize, part: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    parts.insert(position.min(parts.len()), part);
    let joined = parts.join("/");
    if absolute { format!("/{joined}") } else { joined }
}
