//! What the API server serves: kinds, their scope and versions. A plain table, filled by the shell from discovery.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use windlass_protocol::{
    json,
    manifest::{self, ResourceKey},
};

/// Group and kind without a version: what a watch is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupKind {
    /// API group; empty for the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
}

impl GroupKind {
    /// From both parts.
    #[must_use]
    pub fn new(group: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { group: group.into(), kind: kind.into() }
    }

    /// Of an object's key.
    #[must_use]
    pub fn of(key: &ResourceKey) -> Self {
        Self::new(&*key.group, &*key.kind)
    }
}

/// Where the objects of a kind live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// In the cluster.
    Cluster,
}

/// The kinds of one API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    served: BTreeMap<GroupKind, Facts>,
    unavailable: BTreeSet<String>,
}

/// What discovery says about one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    scope: Scope,
    /// Preferred version first.
    versions: Vec<String>,
}

impl Kinds {
    /// A server that serves nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a version of a kind; the first one added of a kind is its preferred version.
    pub fn insert(&mut self, kind: GroupKind, scope: Scope, version: impl Into<String>) {
        let version = version.into();
        let facts = self.served.entry(kind).or_insert_with(|| Facts { scope, versions: Vec::new() });
        facts.scope = scope;
        if !facts.versions.contains(&version) {
            facts.versions.push(version);
        }
    }

    /// Takes a kind out: it is not served any more.
    pub fn remove(&mut self, kind: &GroupKind) {
        self.served.remove(kind);
    }

    /// Notes that discovery of a group failed: nothing may be concluded from the absence of its kinds.
    pub fn set_unavailable(&mut self, group: impl Into<String>) {
        self.unavailable.insert(group.into());
    }

    /// Whether a kind that is not listed certainly does not exist.
    #[must_use]
    pub fn is_absent(&self, kind: &GroupKind) -> bool {
        !self.served.contains_key(kind) && !self.unavailable.contains(&kind.group)
    }

    /// Whether the kind is served in some version.
    #[must_use]
    pub fn contains(&self, kind: &GroupKind) -> bool {
        self.served.contains_key(kind)
    }

    /// Whether the kind is served in this version.
    #[must_use]
    pub fn serves(&self, kind: &GroupKind, version: &str) -> bool {
        self.served.get(kind).is_some_and(|facts| facts.versions.iter().any(|served| served == version))
    }

    /// The scope, from discovery, else from the list of built-in kinds, else unknown.
    #[must_use]
    pub fn scope(&self, kind: &GroupKind) -> Option<Scope> {
        if let Some(facts) = self.served.get(kind) {
            return Some(facts.scope);
        }
        manifest::is_cluster_scoped(&kind.group, &kind.kind)
            .map(|cluster| if cluster { Scope::Cluster } else { Scope::Namespaced })
    }

    /// The preferred version.
    #[must_use]
    pub fn preferred(&self, kind: &GroupKind) -> Option<&str> {
        self.served.get(kind)?.versions.first().map(String::as_str)
    }

    /// The served versions of a kind, the preferred one first.
    pub fn versions(&self, kind: &GroupKind) -> impl Iterator<Item = &str> {
        self.served.get(kind).into_iter().flat_map(|facts| facts.versions.iter().map(String::as_str))
    }

    /// All kinds, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&GroupKind, Scope)> {
        self.served.iter().map(|(kind, facts)| (kind, facts.scope))
    }
}

/// The kind and scope that a CustomResourceDefinition defines, if the manifest is one.
#[must_use]
pub fn defined_by(crd: &Value) -> Option<(GroupKind, Scope)> {
    if manifest::kind(crd) != "CustomResourceDefinition" || manifest::group_version(crd).0 != "apiextensions.k8s.io" {
        return None;
    }
    let kind = GroupKind::new(json::text(crd, &["spec", "group"]), json::text(crd, &["spec", "names", "kind"]));
    let scope = if json::text(crd, &["spec", "scope"]) == "Cluster" { Scope::Cluster } else { Scope::Namespaced };
    (!kind.kind.is_empty()).then_some((kind, scope))
}
