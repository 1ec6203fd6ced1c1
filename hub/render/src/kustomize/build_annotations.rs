//! Annotations in which Kustomize and its plugins keep the state of a build.
//!
//! They may come in with a resource (a generator wrote them); they never go out.

use super::resource::{Behavior, Previous, Resource, metadata_map, set_metadata_map};

const DOMAIN: &str = "internal.config.kubernetes.io/";

pub(super) const ORIGIN: &str = "config.kubernetes.io/origin";
pub(super) const TRANSFORMATIONS: &str = "alpha.config.kubernetes.io/transformations";

/// Removed from every resource at the end of a build.
const BUILD: [&str; 19] = [
    "internal.config.kubernetes.io/previousKinds",
    "internal.config.kubernetes.io/previousNames",
    "internal.config.kubernetes.io/prefixes",
    "internal.config.kubernetes.io/suffixes",
    "internal.config.kubernetes.io/previousNamespaces",
    "internal.config.kubernetes.io/allowNameChange",
    "internal.config.kubernetes.io/allowKindChange",
    "internal.config.kubernetes.io/refBy",
    "internal.config.kubernetes.io/generatorBehavior",
    "internal.config.kubernetes.io/needsHashSuffix",
    "internal.config.kubernetes.io/path",
    "internal.config.kubernetes.io/index",
    "internal.config.kubernetes.io/seqindent",
    "internal.config.kubernetes.io/id",
    "internal.config.kubernetes.io/annotations-migration-resource-id",
    "config.kubernetes.io/path",
    "config.kubernetes.io/index",
    "config.k8s.io/id",
    "internal.config.kubernetes.io/helm-generated",
];

/// Moves state annotations of a fresh resource into its fields.
pub(super) fn lift(resource: &mut Resource) {
    let carries = resource.node.get("metadata").and_then(|metadata| metadata.get("annotations"));
    let carries = carries.and_then(|annotations| annotations.entries()).unwrap_or_default();
    if !carries.iter().any(|(key, _)| key.text.starts_with(DOMAIN)) {
        return;
    }
    let mut map = metadata_map(&resource.node, "annotations");
    let mut take = |name: &str| map.remove(&format!("{DOMAIN}{name}")).unwrap_or_default();
    resource.needs_hash = take("needsHashSuffix") == "enabled";
    resource.behavior = Behavior::parse(&take("generatorBehavior"));
    resource.allow_name_change = take("allowNameChange") == "enabled";
    resource.allow_kind_change = take("allowKindChange") == "enabled";
    resource.history.prefixes = list(&take("prefixes"));
    resource.history.suffixes = list(&take("suffixes"));
    let (names, spaces, kinds) =
        (list(&take("previousNames")), list(&take("previousNamespaces")), list(&take("previousKinds")));
    for ((name, namespace), kind) in names.into_iter().zip(spaces).zip(kinds) {
        resource.history.previous.push(Previous { name, namespace, kind });
    }
    // A resource whose metadata is not a map has no annotations to lift, so this cannot fail here.
    let _ = set_metadata_map(&mut resource.node, "annotations", &map);
}

/// Whether an annotation is state of a build, which never leaves it.
pub(super) fn is_build_annotation(name: &str) -> bool {
    BUILD.contains(&name)
}

fn list(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { text.split(',').map(str::to_owned).collect() }
}
