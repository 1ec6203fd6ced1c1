//! A bundle as it lands in a real cluster: namespaces filled in by the real scope of each kind, duplicates settled, the project's
//! rules enforced once more. Never decides what to do about it.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde_json::Value;
use windlass_protocol::{
    json,
    manifest::{self, ResourceKey},
    message::{KindPattern, Permitted},
    status::Condition,
};

use crate::{
    discovery::{self, GroupKind, Kinds, Scope},
    glob,
    hook::{self, Role},
    normalize,
    order::Phase,
};

/// One manifest of a bundle in its place.
#[derive(Clone, PartialEq)]
pub struct Item {
    /// Group, kind, namespace and name. The name of a hook may be empty: it gets one per run.
    pub key: ResourceKey,
    /// Version of the manifest, without the group.
    pub version: String,
    /// The manifest with its namespace, normalised, without tracking.
    pub manifest: Arc<Value>,
    /// The project's objection, in Argo CD's words.
    pub denied: Option<String>,
}

impl fmt::Debug for Item {
    /// Without the manifest: it may be a Secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item").field("key", &self.key).field("denied", &self.denied).finish_non_exhaustive()
    }
}

/// A bundle in a cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placed {
    /// Ordinary resources.
    pub items: BTreeMap<ResourceKey, Item>,
    /// Hooks with their phases, in the order of rendering.
    pub hooks: Vec<(Item, Vec<Phase>)>,
    /// Manifests that are neither applied nor pruned.
    pub skipped: Vec<ResourceKey>,
    /// Kinds that the bundle itself defines.
    pub defines: BTreeMap<GroupKind, Scope>,
    /// What is odd about the bundle.
    pub conditions: Vec<Condition>,
    /// Every manifest has a place. Without this, nothing may be pruned.
    pub complete: bool,
}

/// Places the manifests of a bundle. `namespace` is the destination's.
#[must_use]
pub fn place(manifests: &[Value], namespace: &str, permitted: &Permitted, kinds: &Kinds) -> Placed {
    let mut placed = Placed { complete: true, ..Placed::default() };
    placed.defines = manifests.iter().filter_map(discovery::defined_by).collect();
    for manifest in manifests {
        add(&mut placed, manifest, namespace, permitted, kinds);
    }
    placed.conditions.sort();
    placed.conditions.dedup();
    placed
}

fn add(placed: &mut Placed, manifest: &Value, namespace: &str, permitted: &Permitted, kinds: &Kinds) {
    let raw = ResourceKey::of(manifest);
    let (_, version) = manifest::group_version(manifest);
    let role = hook::role(manifest);
    let generated = matches!(role, Role::Hook(_)) && !json::text(manifest, &["metadata", "generateName"]).is_empty();
    if raw.kind.is_empty() || version.is_empty() || (raw.name.is_empty() && !generated) {
        let text = format!("manifest {raw} has no apiVersion, kind or name; nothing is pruned while it is there");
        placed.conditions.push(Condition::new("ComparisonError", text));
        placed.complete = false;
        return;
    }
    let kind = GroupKind::of(&raw);
    let defined = placed.defines.get(&kind).copied();
    // A kind that nobody knows is taken for a namespaced one, as Argo CD does.
    let scope = kinds.scope(&kind).or(defined).unwrap_or(Scope::Namespaced);
    let mut object = normalize::desired(manifest);
    match scope {
        Scope::Cluster => {
            json::remove(&mut object, &["metadata", "namespace"]);
        }
        Scope::Namespaced if raw.namespace.is_empty() => {
            json::set(&mut object, &["metadata", "namespace"], Value::from(namespace));
        }
        Scope::Namespaced => {}
    }
    let key = ResourceKey::of(&object);
    let denied = objection(&key, scope, permitted);
    let item = Item { key: key.clone(), version: version.to_owned(), manifest: Arc::new(object), denied };
    match role {
        Role::Skipped => placed.skipped.push(key),
        Role::Hook(phases) => placed.hooks.push((item, phases)),
        Role::Resource => {
            if placed.items.insert(key.clone(), item).is_some() {
                let text = format!("Resource {key} appeared more than once among application resources.");
                placed.conditions.push(Condition::new("RepeatedResourceWarning", text));
            }
        }
    }
}

/// Why a project does not permit an object, in Argo CD's words; `None` when it does.
#[must_use]
pub fn objection(key: &ResourceKey, scope: Scope, permitted: &Permitted) -> Option<String> {
    let any = |patterns: &[KindPattern]| {
        patterns
            .iter()
            .any(|pattern| glob::matches(&pattern.group, &key.group) && glob::matches(&pattern.kind, &key.kind))
    };
    let allowed = match scope {
        Scope::Cluster => any(&permitted.cluster_allow) && !any(&permitted.cluster_deny),
        Scope::Namespaced => permitted.namespace_allow.as_deref().is_none_or(any) && !any(&permitted.namespace_deny),
    };
    let project = &permitted.project;
    if !allowed {
        return Some(format!("resource {}:{} is not permitted in project {project}", key.group, key.kind));
    }
    if scope == Scope::Namespaced && !glob::permits(&permitted.namespaces, &key.namespace) {
        return Some(format!("namespace {} is not permitted in project {project}", key.namespace));
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kinds() -> Kinds {
        let mut kinds = Kinds::new();
        kinds.insert(GroupKind::new("", "ConfigMap"), Scope::Namespaced, "v1");
        kinds
    }

    fn permitted() -> Permitted {
        let all = KindPattern { group: "*".to_owned(), kind: "*".to_owned() };
        Permitted {
            project: "p".to_owned(),
            cluster_allow: vec![all],
            namespaces: vec!["*".to_owned()],
            ..Permitted::default()
        }
    }

    fn object(api: &str, kind: &str, namespace: &str) -> Value {
        json!({"apiVersion": api, "kind": kind, "metadata": {"name": "x", "namespace": namespace}})
    }

    #[test]
    fn namespaces_follow_the_real_scope() {
        let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "w"},
            "spec": {"group": "example.com", "scope": "Cluster", "names": {"kind": "Widget"}}});
        let bundle = [
            object("v1", "ConfigMap", ""),
            object("v1", "Namespace", "wrong"),
            object("example.com/v1", "Widget", "wrong"),
            crd,
        ];
        let placed = place(&bundle, "dest", &permitted(), &kinds());
        let namespaces: Vec<_> = placed.items.keys().map(|key| (key.kind.as_str(), key.namespace.as_str())).collect();
        assert_eq!(
            namespaces,
            [("ConfigMap", "dest"), ("Namespace", ""), ("CustomResourceDefinition", ""), ("Widget", "")]
        );
        assert!(placed.complete && placed.conditions.is_empty());
    }

    #[test]
    fn projects_deny_in_argos_words() {
        let mut strict = permitted();
        strict.cluster_allow.clear();
        strict.namespaces = vec!["team-*".to_owned()];
        strict.namespace_deny = vec![KindPattern { group: "argoproj.io".to_owned(), kind: "Application".to_owned() }];
        let bundle = [
            object("v1", "ConfigMap", "other"),
            object("v1", "Namespace", ""),
            object("argoproj.io/v1alpha1", "Application", "team-a"),
            object("v1", "Secret", "team-a"),
        ];
        let placed = place(&bundle, "dest", &strict, &kinds());
        let denied: Vec<_> = placed.items.values().map(|item| item.denied.as_deref().unwrap_or("-")).collect();
        assert_eq!(
            denied,
            [
                "namespace other is not permitted in project p",
                "resource :Namespace is not permitted in project p",
                "-",
                "resource argoproj.io:Application is not permitted in project p",
            ]
        );
    }

    #[test]
    fn repeated_and_nameless_manifests_are_told() {
        let nameless = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}});
        let bundle = [object("v1", "ConfigMap", "a"), object("v1", "ConfigMap", "a"), nameless];
        let placed = place(&bundle, "dest", &permitted(), &kinds());
        assert_eq!(placed.items.len(), 1);
        assert!(!placed.complete);
        let kinds: Vec<_> = placed.conditions.iter().map(|condition| condition.kind.as_str()).collect();
        assert_eq!(kinds, ["ComparisonError", "RepeatedResourceWarning"]);
    }
}
