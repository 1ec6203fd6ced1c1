//! Rewrites fields that hold names of resources whose names have changed.
//!
//! Names are settled before this runs, so what it looks up is taken once from all resources, and resources are then
//! rewritten one by one.

use std::collections::BTreeMap;

use windlass_protocol::yaml::{Node, Scalar};

use super::{
    config::Config,
    fields::{Create, set_field, set_scalar},
    fieldspec::FieldSpec,
    id::{Gvk, ResourceId},
    resource::{History, Resource},
    resource_map::ResourceMap,
    schema::Schema,
};
use crate::error::Problem;

/// Rewrites every reference in `map`.
pub(super) fn fix(map: &mut ResourceMap, config: &Config, schema: &Schema) -> Result<(), Problem> {
    let candidates = Candidates::of(map, schema);
    if candidates.by_previous_name.is_empty() {
        return map.list.iter().try_for_each(|resource| bound_namespaces(resource).map(drop));
    }
    for resource in &mut map.list {
        let original = resource.original_id(schema);
        let referrer = Referrer::of(resource)?;
        for reference in &config.name_reference {
            for spec in &reference.referrers.0 {
                if !original.gvk.is_selected(&spec.gvk) {
                    continue;
                }
                let lookup = Lookup { candidates: &candidates, referrer: &referrer, target: &reference.target, spec };
                // The spec has selected by the first identity; the field is looked up whatever the kind is now.
                let anywhere = FieldSpec::new(Gvk::default(), spec.path.as_str(), spec.create);
                anywhere.apply(&mut resource.node, &referrer.id, Create::No, &mut |node| lookup.set(node)).map_err(
                    |problem| {
                        problem.while_(format!("updating name reference in '{}' field of '{}'", spec.path, referrer.id))
                    },
                )?;
            }
        }
    }
    Ok(())
}

/// A resource that may be referred to.
struct Candidate {
    id: ResourceId,
    original_namespace: String,
    previous: Vec<ResourceId>,
    history: History,
}

struct Candidates {
    all: Vec<Candidate>,
    /// Positions of the resources that ever had a name.
    by_previous_name: BTreeMap<String, Vec<usize>>,
}

impl Candidates {
    fn of(map: &ResourceMap, schema: &Schema) -> Self {
        let mut by_previous_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut all = Vec::with_capacity(map.list.len());
        for (index, resource) in map.list.iter().enumerate() {
            let previous = resource.previous_ids(schema);
            for id in &previous {
                let places = by_previous_name.entry(id.name.clone()).or_default();
                if places.last() != Some(&index) {
                    places.push(index);
                }
            }
            let original = previous.first().unwrap_or(&resource.id);
            all.push(Candidate {
                id: resource.id.clone(),
                original_namespace: original.effective_namespace().to_owned(),
                previous,
                history: resource.history.clone(),
            });
        }
        Self { all, by_previous_name }
    }
}

/// The resource whose fields are rewritten.
struct Referrer {
    id: ResourceId,
    history: History,
    /// Namespaces of the service accounts a RoleBinding binds.
    bound_namespaces: Vec<String>,
    role: Option<Gvk>,
}

impl Referrer {
    fn of(resource: &Resource) -> Result<Self, Problem> {
        let text = |node: Option<&Node>| node.filter(|node| !node.is_null()).map(|node| node.text().to_owned());
        let role = resource.node.get("roleRef");
        let role =
            match (text(role.and_then(|role| role.get("apiGroup"))), text(role.and_then(|role| role.get("kind")))) {
                (Some(group), Some(kind)) => Some(Gvk { group, version: String::new(), kind }),
                _ => None,
            };
        Ok(Self {
            id: resource.id.clone(),
            history: resource.history.clone(),
            bound_namespaces: bound_namespaces(resource)?,
            role,
        })
    }

    /// Whether the kinds and namespaces of the two allow a reference at all.
    fn could_refer_to(&self, candidate: &Candidate) -> bool {
        self.id.cluster_scoped
            || candidate.id.cluster_scoped
            || candidate.id.same_namespace(&self.id)
            || self.bound_namespaces.contains(&candidate.id.namespace)
    }
}

fn bound_namespaces(resource: &Resource) -> Result<Vec<String>, Problem> {
    if resource.id.gvk.kind != "RoleBinding" {
        return Ok(Vec::new());
    }
    let subjects = resource.node.get("subjects").and_then(Node::items).unwrap_or_default();
    let mut namespaces = Vec::new();
    for subject in subjects {
        let is_account = subject.get("kind").is_some_and(|kind| kind.text() == "ServiceAccount");
        match subject.get("namespace") {
            Some(namespace) if is_account => match namespace.scalar() {
                Some(scalar) if scalar.is_string() => namespaces.push(scalar.text.clone()),
                _ => {
                    let message = format!("Invalid Input: namespace is blank for resource \"{}\"", resource.id);
                    return Err(Problem::object(message).at_line(namespace.line()));
                }
            },
            _ => {}
        }
    }
    Ok(namespaces)
}

/// One field of one referrer.
struct Lookup<'a> {
    candidates: &'a Candidates,
    referrer: &'a Referrer,
    target: &'a Gvk,
    spec: &'a FieldSpec,
}

impl Lookup<'_> {
    fn set(&self, node: &mut Node) -> Result<(), Problem> {
        match node {
            node if node.is_null() => Ok(()),
            Node::Scalar(_) => self.set_scalar(node),
            Node::Mapping(_) => self.set_mapping(node),
            Node::Sequence(items) => items.iter_mut().filter(|item| !item.is_null()).try_for_each(|item| match item {
                Node::Scalar(_) => self.set_scalar(item),
                Node::Mapping(_) => self.set_mapping(item),
                Node::Sequence(_) => Err(Problem::object("a list is expected to hold strings or maps")),
            }),
        }
    }

    fn set_scalar(&self, node: &mut Node) -> Result<(), Problem> {
        let old = node.text().to_owned();
        let same = |left: &Candidate, right: &Candidate| left.id.name == right.id.name;
        match self.select(&old, |_| true, same)? {
            Some(found) if found.id.name != old => set_scalar(node, Scalar::untyped(found.id.name.as_str())),
            _ => Ok(()),
        }
    }

    /// A map with a name and maybe a namespace, such as a subject.
    fn set_mapping(&self, node: &mut Node) -> Result<(), Problem> {
        let Some(name) = node.get("name") else {
            return Err(Problem::object("path config error; no 'name' field in node").at_line(node.line()));
        };
        let old = name.scalar().map(|scalar| scalar.text.clone()).unwrap_or_default();
        let namespace = node
            .get("namespace")
            .map(|namespace| namespace.scalar().map_or("", |scalar| scalar.text.as_str()).to_owned());
        let by_original = namespace.as_ref().is_some_and(|namespace| {
            self.all().any(|candidate| candidate.original_namespace == *namespace && !candidate.id.cluster_scoped)
        });
        let in_namespace = |candidate: &Candidate| match &namespace {
            None => true,
            Some(namespace) if by_original => candidate.original_namespace == *namespace,
            Some(namespace) => !candidate.id.cluster_scoped && candidate.id.effective_namespace() == namespace,
        };
        let same = |left: &Candidate, right: &Candidate| {
            left.id.name == right.id.name && left.id.namespace == right.id.namespace
        };
        let Some(found) = self.select(&old, in_namespace, same)? else { return Ok(()) };
        if found.id.name == old && found.id.namespace.is_empty() {
            return Ok(());
        }
        set_field(node, "name", Node::Scalar(Scalar::untyped(found.id.name.as_str())))?;
        if found.id.namespace.is_empty() {
            return Ok(());
        }
        set_field(node, "namespace", Node::Scalar(Scalar::untyped(found.id.namespace.as_str())))
    }

    fn all(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates.all.iter().filter(|candidate| self.referrer.could_refer_to(candidate))
    }

    /// The resource that an old name means, if it is clear which.
    fn select(
        &self,
        old: &str,
        in_namespace: impl Fn(&Candidate) -> bool,
        same: impl Fn(&Candidate, &Candidate) -> bool,
    ) -> Result<Option<&Candidate>, Problem> {
        let places = self.candidates.by_previous_name.get(old).map(Vec::as_slice).unwrap_or_default();
        let role = self.referrer.role.as_ref().filter(|_| self.spec.path.ends_with("roleRef/name"));
        let mut found: Vec<&Candidate> = places
            .iter()
            .filter_map(|place| self.candidates.all.get(*place))
            .filter(|candidate| self.referrer.could_refer_to(candidate) && in_namespace(candidate))
            .filter(|candidate| candidate.previous.iter().any(|id| id.gvk.is_selected(self.target)))
            .filter(|candidate| role.is_none_or(|role| candidate.previous.iter().any(|id| id.gvk.is_selected(role))))
            .filter(|candidate| self.in_referrers_namespace(candidate))
            .collect();
        if let [only] = found.as_slice() {
            return Ok(Some(only));
        }
        found.retain(|candidate| same_affixes(&candidate.history, &self.referrer.history, Strictness::AllowEmpty));
        if found.len() > 1 {
            found.retain(|candidate| same_affixes(&candidate.history, &self.referrer.history, Strictness::Exact));
        }
        let Some((first, rest)) = found.split_first() else { return Ok(None) };
        if rest.iter().all(|other| same(first, other)) {
            return Ok(Some(first));
        }
        let ids: Vec<String> = found.iter().map(|candidate| candidate.id.to_string()).collect();
        Err(Problem::conflict(format!("found multiple possible referrals: {}", ids.join(", "))))
    }

    fn in_referrers_namespace(&self, candidate: &Candidate) -> bool {
        self.referrer.id.cluster_scoped
            || candidate.id.cluster_scoped
            || candidate.id.gvk.kind == "ServiceAccount"
            || self.referrer.id.same_namespace(&candidate.id)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Strictness {
    AllowEmpty,
    Exact,
}

/// Whether two resources went through the same prefixes and suffixes, as far as both did.
fn same_affixes(left: &History, right: &History, strictness: Strictness) -> bool {
    let same = |left: &[String], right: &[String]| {
        (strictness == Strictness::AllowEmpty && (left.is_empty() || right.is_empty())) || same_ending(left, right)
    };
    same(&left.prefixes, &right.prefixes) && same(&left.suffixes, &right.suffixes)
}

fn same_ending(left: &[String], right: &[String]) -> bool {
    if left.is_empty() || right.is_empty() {
        return left.is_empty() && right.is_empty();
    }
    left.iter().rev().zip(right.iter().rev()).all(|(left, right)| left == right)
}
