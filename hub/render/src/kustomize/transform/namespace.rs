//! The namespace transformer, with its exceptions: cluster-scoped kinds, role binding subjects, services of webhooks.

use windlass_protocol::yaml::{Node, Scalar, Style, Tag};

use crate::{
    error::Problem,
    kustomize::{
        fields::{Create, lookup_or_create, set_scalar},
        fieldspec::{FieldSpec, FieldSpecs},
        resource::Resource,
        resource_map::ResourceMap,
        schema::Schema,
    },
};

/// Which subjects of role bindings get the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::kustomize) enum Subjects {
    /// Those named `default`.
    #[default]
    DefaultOnly,
    /// All service accounts.
    AllServiceAccounts,
    /// None.
    None,
}

pub(super) fn apply(
    map: &mut ResourceMap,
    schema: &Schema,
    namespace: &str,
    specs: &FieldSpecs,
    subjects: Subjects,
    unset_only: bool,
) -> Result<(), Problem> {
    if namespace.is_empty() {
        return Ok(());
    }
    for resource in map.list.iter_mut().filter(|resource| !resource.is_empty()) {
        resource.store_previous();
        set(resource, namespace, specs, subjects, unset_only)?;
        resource.refresh(schema);
    }
    map.check_unique("namespace transformation produces ID conflict")
}

/// Sets the namespace of one resource.
pub(super) fn set(
    resource: &mut Resource,
    namespace: &str,
    specs: &FieldSpecs,
    subjects: Subjects,
    unset_only: bool,
) -> Result<(), Problem> {
    let mut write = |node: &mut Node| {
        let filled = node.scalar().is_some_and(|scalar| !scalar.is_null() && !scalar.text.is_empty());
        if unset_only && filled {
            return Ok(());
        }
        let text = Scalar { text: namespace.to_owned(), tag: Tag::Str, style: Style::Plain, line: 0 };
        match node {
            Node::Scalar(_) => set_scalar(node, text),
            other => Err(crate::kustomize::fields::wrong_kind("ScalarNode", other)
                .while_("namespace field specs must target scalar nodes")),
        }
    };
    let id = resource.id.clone();
    if !id.cluster_scoped {
        let meta = FieldSpec::everywhere("metadata/namespace", true);
        meta.apply(&mut resource.node, &id, Create::Scalar, &mut write)?;
    }
    let is_binding = matches!(id.gvk.kind.as_str(), "RoleBinding" | "ClusterRoleBinding");
    if is_binding {
        set_subjects(&mut resource.node, subjects, &mut write)?;
    }
    let is_core = id.gvk.group.is_empty() && id.gvk.version == "v1";
    for spec in &specs.0 {
        let covered = spec.path == "metadata/namespace"
            || (spec.path == "metadata/name" && !is_core)
            || (is_binding
                && spec.path == "subjects/namespace"
                && matches!(spec.gvk.kind.as_str(), "RoleBinding" | "ClusterRoleBinding"));
        if !covered {
            spec.apply(&mut resource.node, &id, Create::Scalar, &mut write)?;
        }
    }
    Ok(())
}

fn set_subjects(
    node: &mut Node,
    subjects: Subjects,
    write: &mut dyn FnMut(&mut Node) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let (field, wanted) = match subjects {
        Subjects::None => return Ok(()),
        Subjects::DefaultOnly => ("name", "default"),
        Subjects::AllServiceAccounts => ("kind", "ServiceAccount"),
    };
    let Some(list) = node.get_mut("subjects").filter(|list| !list.is_null()) else { return Ok(()) };
    let Node::Sequence(items) = list else { return Err(crate::kustomize::fields::wrong_kind("SequenceNode", list)) };
    for item in items {
        if item.get(field).is_none_or(|value| value.text() != wanted) {
            continue;
        }
        if let Some(place) = lookup_or_create(item, "namespace", Create::Scalar)? {
            if place.is_null() {
                *place = Create::Scalar.node();
            }
            write(place)?;
        }
    }
    Ok(())
}
