//! Resources in the order in which they were added, unique by identity.

use std::collections::BTreeMap;

use windlass_protocol::yaml::Node;

use super::{
    file::Selector,
    id::ResourceId,
    resource::{Behavior, Resource, set_metadata_map},
    schema::Schema,
    selector::Compiled,
};
use crate::error::Problem;

/// The resources of one accumulation.
#[derive(Debug, Default)]
pub(super) struct ResourceMap {
    pub(super) list: Vec<Resource>,
}

impl ResourceMap {
    pub(super) fn append(&mut self, resource: Resource) -> Result<(), Problem> {
        if self.list.iter().any(|known| known.id.same(&resource.id)) {
            let message = format!("may not add resource with an already registered id: {}", resource.id);
            return Err(Problem::conflict(message).at_line(resource.node.line()));
        }
        self.list.push(resource);
        Ok(())
    }

    pub(super) fn append_all(&mut self, resources: Vec<Resource>) -> Result<(), Problem> {
        resources.into_iter().try_for_each(|resource| self.append(resource))
    }

    /// Adds a generated resource by its behavior: new, over an old one, or in its place.
    pub(super) fn absorb(&mut self, mut resource: Resource, schema: &Schema) -> Result<(), Problem> {
        let matches: Vec<usize> = self.positions_by_any_id(schema, |id| id.same(&resource.id));
        let id = resource.id.clone();
        match (matches.as_slice(), resource.behavior) {
            ([], Behavior::Merge | Behavior::Replace) => {
                Err(Problem::conflict(format!("id {id} does not exist; cannot merge or replace")))
            }
            ([], Behavior::Create | Behavior::Unspecified) => self.append(resource),
            ([place], behavior) => {
                let Some(old) = self.list.get_mut(*place) else { return Ok(()) };
                match behavior {
                    Behavior::Replace => take_metadata(&mut resource, old, schema)?,
                    Behavior::Merge => {
                        let origin = old.origin.clone();
                        take_metadata(&mut resource, old, schema)?;
                        merge_data(&mut resource.node, &old.node, "data");
                        merge_data(&mut resource.node, &old.node, "binaryData");
                        resource.origin = origin.or(resource.origin);
                    }
                    Behavior::Create | Behavior::Unspecified => {
                        return Err(Problem::conflict(format!(
                            "id {id} exists; can not use behavior: '{}', behavior must be merge or replace",
                            behavior.name()
                        )));
                    }
                }
                *old = resource;
                Ok(())
            }
            _ => Err(Problem::conflict(format!("found multiple objects that could accept merge of {id}"))),
        }
    }

    /// Positions of resources one of whose identities, earlier or current, fits.
    pub(super) fn positions_by_any_id(&self, schema: &Schema, fits: impl Fn(&ResourceId) -> bool) -> Vec<usize> {
        let any = |resource: &Resource| {
            !resource.is_empty() && (fits(&resource.id) || resource.previous_ids(schema).iter().any(&fits))
        };
        self.list.iter().enumerate().filter(|(_, resource)| any(resource)).map(|(index, _)| index).collect()
    }

    /// The one resource that has or had the identity.
    pub(super) fn position_by_id(&self, id: &ResourceId, schema: &Schema) -> Result<usize, Problem> {
        let found = self.positions_by_any_id(schema, |known| known.same(id));
        let what = match found.as_slice() {
            [only] => return Ok(*only),
            [] => "no",
            _ => "multiple",
        };
        Err(Problem::patch(format!("{what} matches for Id {id}; failed to find unique target for patch {id}")))
    }

    /// Positions of the resources that a selector selects.
    pub(super) fn select(&self, selector: &Selector, schema: &Schema) -> Result<Vec<usize>, Problem> {
        let compiled = Compiled::new(selector)?;
        let selected = self.list.iter().enumerate().filter(|(_, resource)| compiled.selects(resource, schema));
        Ok(selected.map(|(index, _)| index).collect())
    }

    pub(super) fn drop_empties(&mut self) {
        self.list.retain(|resource| !resource.is_empty());
    }

    /// # Errors
    /// Two resources have the same identity.
    pub(super) fn check_unique(&self, what: &str) -> Result<(), Problem> {
        let mut seen: BTreeMap<(&str, &str, &super::id::Gvk), ()> = BTreeMap::new();
        for resource in &self.list {
            let id = &resource.id;
            if seen.insert((&id.name, id.effective_namespace(), &id.gvk), ()).is_some() {
                return Err(Problem::conflict(format!("{what}: {id}")));
            }
        }
        Ok(())
    }
}

/// Takes labels, annotations, name, namespace and history of the resource that is merged or replaced.
fn take_metadata(resource: &mut Resource, old: &Resource, schema: &Schema) -> Result<(), Problem> {
    for field in ["labels", "annotations"] {
        let mut map = super::resource::metadata_map(&old.node, field);
        map.extend(super::resource::metadata_map(&resource.node, field));
        set_metadata_map(&mut resource.node, field, &map)?;
    }
    resource.history = old.history.clone();
    resource.needs_hash = resource.needs_hash && old.needs_hash;
    resource.behavior = old.behavior;
    resource.allow_name_change = old.allow_name_change;
    resource.allow_kind_change = old.allow_kind_change;
    resource.variables.clone_from(&old.variables);
    if resource.transformations.is_empty() {
        resource.transformations.clone_from(&old.transformations);
    }
    set_namespace(&mut resource.node, &old.id.namespace)?;
    resource.set_name(&old.id.name, schema)
}

/// Sets the namespace; an empty one removes the field.
pub(super) fn set_namespace(node: &mut Node, namespace: &str) -> Result<(), Problem> {
    if namespace.is_empty() {
        if let Some(metadata) = node.get_mut("metadata") {
            super::fields::clear_field(metadata, "namespace");
        }
        return Ok(());
    }
    super::resource::set_metadata_field(node, "namespace", windlass_protocol::yaml::Scalar::untyped(namespace))
}

/// Lays our data over the old data.
fn merge_data(node: &mut Node, old: &Node, field: &str) {
    let mut merged: BTreeMap<String, Node> = BTreeMap::new();
    for source in [old.get(field), node.get(field)].into_iter().flatten() {
        for (key, value) in source.entries().unwrap_or_default() {
            merged.insert(key.text.clone(), super::generator::data_value(value.text()));
        }
    }
    super::fields::clear_field(node, field);
    if merged.is_empty() {
        return;
    }
    let entries = merged.into_iter().map(|(key, value)| (super::generator::data_key(&key), value)).collect();
    if let Node::Mapping(fields) = node {
        fields.push((windlass_protocol::yaml::Scalar::untyped(field), Node::Mapping(entries)));
    }
}
