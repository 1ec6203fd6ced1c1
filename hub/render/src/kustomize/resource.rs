//! One resource on its way through the build: its tree, and what Kustomize must remember about it.
//!
//! Kustomize keeps that memory in annotations of the resource itself; here they are fields, and annotations of that
//! name that come in from outside are lifted into them once.

use std::collections::BTreeMap;

use windlass_protocol::yaml::{Node, Scalar};

use super::{
    fields::{self, clear_field, set_field},
    id::{Gvk, ResourceId},
    origin::Origin,
    schema::Schema,
};
use crate::error::Problem;

/// What a generated resource does to one of the same identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Behavior {
    /// Nothing said.
    #[default]
    Unspecified,
    /// It must be new.
    Create,
    /// Its data replaces the old.
    Replace,
    /// Its data is laid over the old.
    Merge,
}

impl Behavior {
    pub(super) fn parse(text: &str) -> Self {
        match text {
            "create" => Self::Create,
            "replace" => Self::Replace,
            "merge" => Self::Merge,
            _ => Self::Unspecified,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Merge => "merge",
        }
    }
}

/// A name, namespace and kind that a resource had earlier in the build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Previous {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) kind: String,
}

/// Name changes so far, outermost last.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    pub(super) previous: Vec<Previous>,
    pub(super) prefixes: Vec<String>,
    pub(super) suffixes: Vec<String>,
}

/// A resource.
#[derive(Debug, Clone)]
pub(super) struct Resource {
    pub(super) node: Node,
    /// The identity of `node`; kept in step by [`Resource::refresh`].
    pub(super) id: ResourceId,
    pub(super) history: History,
    pub(super) needs_hash: bool,
    pub(super) behavior: Behavior,
    pub(super) allow_name_change: bool,
    pub(super) allow_kind_change: bool,
    /// Variables that read from this resource.
    pub(super) variables: Vec<String>,
    pub(super) origin: Option<Origin>,
    pub(super) transformations: Vec<Origin>,
}

impl Resource {
    pub(super) fn new(node: Node, schema: &Schema) -> Self {
        let id = identity(&node, schema);
        let mut resource = Self {
            node,
            id,
            history: History::default(),
            needs_hash: false,
            behavior: Behavior::Unspecified,
            allow_name_change: false,
            allow_kind_change: false,
            variables: Vec::new(),
            origin: None,
            transformations: Vec::new(),
        };
        super::build_annotations::lift(&mut resource);
        resource
    }

    /// Brings `id` in step with `node`.
    pub(super) fn refresh(&mut self, schema: &Schema) {
        self.id = identity(&self.node, schema);
    }

    /// Remembers the current identity as a previous one.
    pub(super) fn store_previous(&mut self) {
        let namespace = self.id.effective_namespace().to_owned();
        let previous = Previous { name: self.id.name.clone(), namespace, kind: self.id.gvk.kind.clone() };
        self.history.previous.push(previous);
    }

    /// Every earlier identity, oldest first.
    pub(super) fn previous_ids(&self, schema: &Schema) -> Vec<ResourceId> {
        let id = |previous: &Previous| {
            let gvk = Gvk { kind: previous.kind.clone(), ..self.id.gvk.clone() };
            let cluster_scoped = schema.is_cluster_scoped(&gvk);
            ResourceId { gvk, name: previous.name.clone(), namespace: previous.namespace.clone(), cluster_scoped }
        };
        self.history.previous.iter().map(id).collect()
    }

    /// The identity it came into the build with.
    pub(super) fn original_id(&self, schema: &Schema) -> ResourceId {
        match self.history.previous.first() {
            None => self.id.clone(),
            Some(_) => self.previous_ids(schema).into_iter().next().unwrap_or_default(),
        }
    }

    /// Earlier identities, then the current one.
    pub(super) fn all_ids(&self, schema: &Schema) -> Vec<ResourceId> {
        let mut ids = self.previous_ids(schema);
        ids.push(self.id.clone());
        ids
    }

    pub(super) fn is_empty(&self) -> bool {
        self.node.is_empty()
    }

    /// `metadata.annotations` as text; a value that is not a scalar is empty.
    pub(super) fn annotations(&self) -> BTreeMap<String, String> {
        metadata_map(&self.node, "annotations")
    }

    /// `metadata.labels` as text.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        metadata_map(&self.node, "labels")
    }

    pub(super) fn set_name(&mut self, name: &str, schema: &Schema) -> Result<(), Problem> {
        set_metadata_field(&mut self.node, "name", Scalar::untyped(name))?;
        self.refresh(schema);
        Ok(())
    }
}

/// Text of `metadata.<field>`, empty when absent or null.
pub(super) fn metadata_text<'n>(node: &'n Node, field: &str) -> &'n str {
    node.get("metadata").and_then(|metadata| metadata.get(field)).map_or("", Node::text)
}

pub(super) fn metadata_map(node: &Node, field: &str) -> BTreeMap<String, String> {
    let entries = node.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Node::entries);
    let entry = |(key, value): &(Scalar, Node)| {
        let text = value.scalar().map_or("", |scalar| scalar.text.as_str());
        (key.text.clone(), text.to_owned())
    };
    entries.unwrap_or_default().iter().map(entry).collect()
}

/// Replaces `metadata.<field>` by a map of strings; an empty map removes it.
pub(super) fn set_metadata_map(node: &mut Node, field: &str, map: &BTreeMap<String, String>) -> Result<(), Problem> {
    let metadata = fields::child_mapping(node, "metadata")?;
    clear_field(metadata, field);
    if map.is_empty() {
        return Ok(());
    }
    let entry =
        |(key, value): (&String, &String)| (Scalar::untyped(key.as_str()), fields::quoted_string(value.as_str()));
    let entries = map.iter().map(entry).collect();
    set_field(metadata, field, Node::Mapping(entries))
}

pub(super) fn set_metadata_field(node: &mut Node, field: &str, value: Scalar) -> Result<(), Problem> {
    let metadata = fields::child_mapping(node, "metadata")?;
    set_field(metadata, field, Node::Scalar(value))
}

fn identity(node: &Node, schema: &Schema) -> ResourceId {
    let text = |field: &str| node.get(field).and_then(Node::scalar).map_or("", |scalar| scalar.text.as_str());
    let gvk = Gvk::new(text("apiVersion"), text("kind"));
    let cluster_scoped = schema.is_cluster_scoped(&gvk);
    let name = metadata_text(node, "name").to_owned();
    let namespace = metadata_text(node, "namespace").to_owned();
    ResourceId { gvk, name, namespace, cluster_scoped }
}
