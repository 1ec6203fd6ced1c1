//! Patches, strategic and JSON, with or without a target selector.

use windlass_protocol::yaml::{Dialect, Node, Scalar};

use crate::{
    error::Problem,
    kustomize::{
        file::Selector,
        json_patch::JsonPatch,
        merge::strategic_merge,
        resource::{Resource, metadata_map, set_metadata_map},
        resource_map::{ResourceMap, set_namespace},
        schema::Schema,
    },
};

/// The patches of one field or entry.
pub(in crate::kustomize) enum PatchSet {
    /// `patchesStrategicMerge`: each finds its target by its own identity.
    ByIdentity(Vec<Resource>),
    /// A strategic `patches` entry without target; as above, but it may delete and rename.
    Direct(Vec<Resource>),
    /// A strategic `patches` entry with a target.
    Selected { patches: Vec<Resource>, target: Selector, source: String },
    /// A JSON patch.
    Json { patch: JsonPatch, target: Option<Selector>, source: String, remember: bool },
}

impl PatchSet {
    pub(super) fn apply(&self, map: &mut ResourceMap, schema: &Schema) -> Result<(), Problem> {
        match self {
            Self::ByIdentity(patches) => patches.iter().try_for_each(|patch| {
                let place = map.position_by_id(&patch.original_id(schema), schema)?;
                let id = map.list.get(place).map(|resource| resource.id.clone()).unwrap_or_default();
                let same: Vec<usize> = positions_of(map, &id);
                apply_selected(map, schema, &same, patch)
            }),
            Self::Direct(patches) => patches.iter().try_for_each(|patch| {
                let id = patch.original_id(schema);
                let place = map
                    .position_by_id(&id, schema)
                    .map_err(|problem| problem.while_(format!("no resource matches strategic merge patch \"{id}\"")))?;
                map.list
                    .get_mut(place)
                    .map_or(Ok(()), |resource| apply_one(resource, patch, patch.node.clone(), schema))
            }),
            Self::Selected { patches, target, source } => {
                let [patch] = patches.as_slice() else {
                    return Err(Problem::patch(format!(
                        "Multiple Strategic-Merge Patches in one `patches` entry is not allowed to set `patches.target` field: {source}"
                    )));
                };
                let places = map.select(target, schema)?;
                apply_selected(map, schema, &places, patch)
            }
            Self::Json { patch, target, source, remember } => {
                let Some(target) = target else {
                    return Err(Problem::patch(format!("must specify a target for JSON patch {source}")));
                };
                for place in map.select(target, schema)? {
                    let Some(resource) = map.list.get_mut(place) else { continue };
                    if *remember {
                        resource.store_previous();
                    }
                    apply_json(resource, patch, schema)
                        .map_err(|problem| problem.while_(format!("patching {}", resource.id)))?;
                }
                Ok(())
            }
        }
    }
}

fn positions_of(map: &ResourceMap, id: &crate::kustomize::id::ResourceId) -> Vec<usize> {
    map.list.iter().enumerate().filter(|(_, resource)| resource.id == *id).map(|(index, _)| index).collect()
}

/// Applies a patch to resources of possibly other versions; labels and annotations of the patch become strings.
fn apply_selected(map: &mut ResourceMap, schema: &Schema, places: &[usize], patch: &Resource) -> Result<(), Problem> {
    for place in places {
        let Some(resource) = map.list.get_mut(*place) else { continue };
        let mut node = patch.node.clone();
        for field in ["labels", "annotations"] {
            let strings = metadata_map(&node, field);
            set_metadata_map(&mut node, field, &strings)?;
        }
        set_text(&mut node, "apiVersion", resource.id.gvk.api_version())?;
        set_text(&mut node, "kind", patch.id.gvk.kind.clone())?;
        apply_one(resource, patch, node, schema)?;
    }
    map.drop_empties();
    map.check_unique("may not add resource with an already registered id")
}

fn apply_one(resource: &mut Resource, patch: &Resource, node: Node, schema: &Schema) -> Result<(), Problem> {
    let before = resource.id.clone();
    if patch.allow_name_change || patch.allow_kind_change {
        resource.store_previous();
    }
    let target = std::mem::replace(&mut resource.node, Node::null());
    let merged = strategic_merge(target, node, schema)
        .map_err(|problem| problem.while_(format!("applying a patch to {before}")))?;
    let Some(merged) = merged.filter(|merged| !merged.is_empty()) else { return Ok(()) };
    resource.node = merged;
    if !patch.allow_kind_change {
        set_text(&mut resource.node, "kind", before.gvk.kind)?;
    }
    if !patch.allow_name_change {
        crate::kustomize::resource::set_metadata_field(&mut resource.node, "name", Scalar::untyped(before.name))?;
    }
    set_namespace(&mut resource.node, &before.namespace)?;
    resource.refresh(schema);
    Ok(())
}

fn set_text(node: &mut Node, field: &str, text: String) -> Result<(), Problem> {
    crate::kustomize::fields::set_field(node, field, Node::Scalar(Scalar::untyped(text)))
}

fn apply_json(resource: &mut Resource, patch: &JsonPatch, schema: &Schema) -> Result<(), Problem> {
    let mut value = resource
        .node
        .to_value(Dialect::Kyaml)
        .map_err(|error| Problem::object(error.kind.to_string()).at_line(error.line))?;
    patch.apply(&mut value)?;
    if !value.is_object() {
        return Err(Problem::patch("the patched object is no longer an object"));
    }
    resource.node = Node::from_value(&value);
    let annotations = resource.annotations();
    if !annotations.is_empty() {
        set_metadata_map(&mut resource.node, "annotations", &annotations)?;
    }
    resource.refresh(schema);
    Ok(())
}
