//! Field specs: paths like `spec/template/spec/containers[]/image` that transformers apply to.

use windlass_protocol::yaml::Node;

use super::{
    fields::{Create, lookup_or_create, split_path},
    id::{Gvk, ResourceId},
};
use crate::error::Problem;

/// Where a transformer acts: kinds, a path, and whether missing fields are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldSpec {
    pub(super) gvk: Gvk,
    pub(super) path: String,
    pub(super) create: bool,
    /// `path`, split once.
    parts: Vec<String>,
}

impl FieldSpec {
    pub(super) fn new(gvk: Gvk, path: impl Into<String>, create: bool) -> Self {
        let path = path.into();
        Self { gvk, parts: split_path(&path, '/'), path, create }
    }

    pub(super) fn everywhere(path: &str, create: bool) -> Self {
        Self::new(Gvk::default(), path, create)
    }

    /// Runs `set` on every node the path leads to, in a resource of identity `id`. `made` is what the last missing
    /// field becomes.
    pub(super) fn apply(
        &self,
        node: &mut Node,
        id: &ResourceId,
        made: Create,
        set: &mut dyn FnMut(&mut Node) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        if !id.gvk.is_selected(&self.gvk) {
            return Ok(());
        }
        let mut walk = Walk { create: self.create, made, set };
        walk.node(node, &self.parts)
            .map_err(|problem| problem.while_(format!("considering field '{}' of object {id}", self.path)))
    }
}

struct Walk<'s> {
    create: bool,
    made: Create,
    set: &'s mut dyn FnMut(&mut Node) -> Result<(), Problem>,
}

impl Walk<'_> {
    fn node(&mut self, node: &mut Node, path: &[String]) -> Result<(), Problem> {
        let Some((name, rest)) = path.split_first() else { return (self.set)(node) };
        match node {
            node if node.is_null() => Ok(()),
            Node::Sequence(items) => {
                for item in items {
                    self.node(item, path)?;
                }
                Ok(())
            }
            Node::Mapping(_) => self.mapping(node, name, rest),
            Node::Scalar(scalar) => Err(Problem::object("expected sequence or mapping node").at_line(scalar.line)),
        }
    }

    fn mapping(&mut self, node: &mut Node, name: &str, rest: &[String]) -> Result<(), Problem> {
        let (field, is_sequence) = match name.strip_suffix("[]") {
            Some(field) => (field, true),
            None => (name, false),
        };
        if field.is_empty() {
            return Err(Problem::field("cannot set or create an empty field name"));
        }
        let create = match (self.create && self.made != Create::No && !is_sequence, rest.is_empty()) {
            (false, _) => Create::No,
            (true, true) => self.made,
            (true, false) => Create::Mapping,
        };
        let Some(child) = lookup_or_create(node, field, create)? else { return Ok(()) };
        // A null that the path needs becomes what the path needs.
        let wanted = if is_sequence { Create::Sequence } else { create };
        if child.is_null() && wanted != Create::No {
            *child = wanted.node();
        }
        self.node(child, rest)
    }
}

/// A list of field specs without doubles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FieldSpecs(pub(super) Vec<FieldSpec>);

impl FieldSpecs {
    /// Adds what is not covered yet.
    ///
    /// # Errors
    /// A spec for the same field disagrees about `create`.
    pub(super) fn merge(&mut self, incoming: &Self) -> Result<(), Problem> {
        incoming.0.iter().try_for_each(|spec| self.merge_one(spec.clone()))
    }

    pub(super) fn merge_one(&mut self, spec: FieldSpec) -> Result<(), Problem> {
        let known = self.0.iter().find(|known| known.gvk.is_selected(&spec.gvk) && known.path == spec.path);
        match known {
            Some(known) if known.create != spec.create => {
                Err(Problem::field(format!("conflicting fieldspecs for '{}'", spec.path)))
            }
            Some(_) => Ok(()),
            None => {
                self.0.push(spec);
                Ok(())
            }
        }
    }

    /// Runs `set` at every field of every spec.
    pub(super) fn apply(
        &self,
        node: &mut Node,
        id: &ResourceId,
        made: Create,
        set: &mut dyn FnMut(&mut Node) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        self.0.iter().try_for_each(|spec| spec.apply(node, id, made, set))
    }
}
