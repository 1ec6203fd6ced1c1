//! What a strategic merge must know about types: which lists merge, and by which keys.
//!
//! The built-in table is that of the schema Kustomize 5.8 carries (Kubernetes 1.21); a kustomization may bring its
//! own with `openapi.path`, which then replaces the table.

mod custom;
mod table;

use std::collections::BTreeMap;

use super::id::Gvk;
use crate::error::Problem;

/// A type by its index in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TypeRef(pub(super) usize);

/// What a field of a type holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FieldType {
    /// An object of a known type.
    Object(TypeRef),
    /// A list; `None` when its items' type holds nothing of interest.
    List(Option<TypeRef>),
    /// A list that merges by these keys; without keys, a list of scalars that merges as a set.
    MergeList {
        /// The keys that identify an item.
        keys: Vec<String>,
        /// Type of the items.
        items: Option<TypeRef>,
    },
    /// Known, but without anything of interest below.
    Leaf,
}

/// The table in force.
#[derive(Debug, Default)]
pub(super) struct Schema {
    custom: Option<Custom>,
}

/// A table read from a kustomization's `openapi.path`.
#[derive(Debug, Default)]
struct Custom {
    types: Vec<CustomType>,
    kinds: BTreeMap<(String, String), TypeRef>,
    /// Whether a kind is namespaced, where the paths of the schema tell.
    namespaced: BTreeMap<(String, String), bool>,
}

#[derive(Debug, Default)]
struct CustomType {
    fields: BTreeMap<String, FieldType>,
    /// Type of fields that are not named.
    other: Option<FieldType>,
}

impl Schema {
    /// Whether a custom table is in force.
    pub(super) fn is_custom(&self) -> bool {
        self.custom.is_some()
    }

    /// Puts an OpenAPI document in force.
    pub(super) fn set_custom(&mut self, content: &[u8]) -> Result<(), Problem> {
        self.custom = Some(custom::parse(content)?);
        Ok(())
    }

    /// The type of a kind.
    pub(super) fn of_kind(&self, api_version: &str, kind: &str) -> Option<TypeRef> {
        match &self.custom {
            Some(custom) => custom.kinds.get(&(api_version.to_owned(), kind.to_owned())).copied(),
            None => table::KINDS
                .binary_search_by(|(version, name, _)| (*version, *name).cmp(&(api_version, kind)))
                .ok()
                .and_then(|index| table::KINDS.get(index))
                .map(|(_, _, index)| TypeRef(*index)),
        }
    }

    /// The type of a field, `None` when the type does not know it.
    pub(super) fn field(&self, of: TypeRef, name: &str) -> Option<FieldType> {
        match &self.custom {
            Some(custom) => {
                let known = custom.types.get(of.0)?;
                known.fields.get(name).or(known.other.as_ref()).cloned()
            }
            None => {
                let fields = table::TYPES.get(of.0)?;
                fields.iter().find(|field| field.name == name).map(table::Field::to_type)
            }
        }
    }

    /// Whether objects of a kind certainly have no namespace.
    pub(super) fn is_cluster_scoped(&self, gvk: &Gvk) -> bool {
        if table::is_cluster_scoped(&gvk.group, &gvk.version, &gvk.kind) {
            return true;
        }
        let Some(custom) = &self.custom else { return false };
        custom.namespaced.get(&(gvk.api_version(), gvk.kind.clone())) == Some(&false)
    }
}
