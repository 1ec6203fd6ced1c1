//! ApplicationSets to Applications: generators give sets of parameters, each set of parameters renders the template once.
//!
//! Everything that has to be fetched is asked of [`Sources`], which answers from trees at a pinned commit, so equal inputs give
//! equal Applications on every node. An error anywhere gives no Application at all: whoever calls changes and deletes nothing
//! then (a set that truly makes no Application is `Ok` and empty; the brake judges that). Projects are not judged here: see
//! [`crate::policy`].
//!
//! Seams for what is not here yet: Go templates need parameters that keep their JSON shape (an engine beside
//! `windlass_template::render_value`), and the generators that ask a network (`scmProvider`, `pullRequest`, `plugin`) become
//! further methods of [`Sources`].

mod application;
mod clusters;
mod conditions;
mod error;
mod git;
mod list;
mod names;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;
use windlass_protocol::{
    ids::NamespacedName,
    json::Json,
    resource::{ApplicationSetSpec, Generator, GitItem, LabelSelector},
};
use windlass_template::{Limits, Params};

pub use self::{
    conditions::{ApplicationSetCondition, conditions},
    error::{GenerateCause, GenerateError, SourceUnavailable},
    git::{wants_directory, wants_file},
    names::normalize,
};

/// What generators may ask the shell for; the shell answers from trees at a pinned commit.
///
/// Both methods may answer with more than was asked for: the caller filters with [`wants_file`] and [`wants_directory`].
pub trait Sources {
    /// The files that the items select, paths from the root of the repository.
    ///
    /// # Errors
    /// [`SourceUnavailable`] when the repository or the revision is not there (yet).
    fn files(&self, repo_url: &str, revision: &str, items: &[GitItem]) -> Result<Vec<SourceFile>, SourceUnavailable>;

    /// The directories that the items select, paths from the root of the repository.
    ///
    /// # Errors
    /// [`SourceUnavailable`] when the repository or the revision is not there (yet).
    fn directories(&self, repo_url: &str, revision: &str, items: &[GitItem]) -> Result<Vec<String>, SourceUnavailable>;
}

/// A file of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Path from the root of the repository, without a leading slash.
    pub path: String,
    /// Its content.
    pub content: Arc<[u8]>,
}

/// What the cluster generator sees of a registered Cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// Name.
    pub name: String,
    /// API server URL, as Applications write it.
    pub server: String,
    /// Project that the cluster is reserved for; empty for none.
    pub project: String,
    /// Labels set by an administrator.
    pub labels: BTreeMap<String, String>,
    /// Annotations set by an administrator.
    pub annotations: BTreeMap<String, String>,
}

/// An Application as the set wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// `metadata.name`, a valid name, distinct within the set.
    pub name: String,
    /// `metadata.namespace`: always the set's own.
    pub namespace: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `metadata.finalizers`: the template's, or the cascading one unless resources are preserved.
    pub finalizers: Vec<String>,
    /// `spec`, readable as an `ApplicationSpec`.
    pub spec: Value,
    /// `spec.project`, or `default`.
    pub project: String,
    /// What was accepted, but its author should know: unknown fields, a missing project.
    pub warnings: Vec<String>,
}

/// Bounds on one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerateLimits {
    /// Applications of one set. DESIGN.md plans 100,000 for a whole hub.
    pub applications: usize,
    /// Files or directories that one git generator may select.
    pub paths: usize,
    /// Bytes of one parameter file: parameters are small, a larger file was selected by mistake.
    pub file_bytes: usize,
    /// Bounds on the rendering of each Application.
    pub template: Limits,
}

impl Default for GenerateLimits {
    fn default() -> Self {
        Self { applications: 100_000, paths: 100_000, file_bytes: 1 << 20, template: Limits::default() }
    }
}

/// Everything the generators read.
struct Inputs<'a> {
    clusters: &'a [ClusterView],
    sources: &'a dyn Sources,
    limits: &'a GenerateLimits,
}

/// Makes the Applications of a set, in the order of its generators.
///
/// # Errors
/// [`GenerateError`] with the generator and the cause of the first failure.
pub fn generate(
    name: &NamespacedName,
    spec: &ApplicationSetSpec,
    clusters: &[ClusterView],
    sources: &dyn Sources,
    limits: &GenerateLimits,
) -> Result<Vec<Generated>, GenerateError> {
    if spec.go_template {
        return Err(GenerateError::of_set(GenerateCause::GoTemplates));
    }
    if spec.template_patch.is_some() {
        return Err(GenerateError::of_set(GenerateCause::TemplatePatch));
    }
    let inputs = Inputs { clusters, sources, limits };
    let preserve = spec.sync_policy.as_ref().is_some_and(|policy| policy.preserve_resources_on_deletion);
    let mut names = BTreeSet::new();
    let mut result = Vec::new();
    for (index, generator) in spec.generators.iter().enumerate() {
        let produced = produce(generator, &inputs).map_err(|(kind, cause)| GenerateError::new(index, kind, cause))?;
        for Produced { kind, template, params } in produced {
            let error = |cause| GenerateError::new(index, kind, cause);
            let template = application::merge_templates(template, &spec.template);
            for params in &params {
                let made = application::render(name, &template, params, preserve, limits).map_err(error)?;
                if !names.insert(made.name.clone()) {
                    let set = name.name.clone();
                    return Err(error(GenerateCause::DuplicateName { set, application: made.name }));
                }
                if result.len() == limits.applications {
                    let limit = limits.applications;
                    return Err(error(GenerateCause::Limit { name: "Applications", limit }));
                }
                result.push(made);
            }
        }
    }
    Ok(result)
}

/// What one kind of one entry of `spec.generators` gives.
struct Produced<'a> {
    kind: &'static str,
    template: Option<&'a Value>,
    params: Vec<Params>,
}

/// Runs one entry. Like Argo CD, an entry with several kinds runs them all, in the order of the type's fields.
fn produce<'a>(
    generator: &'a Generator,
    inputs: &Inputs<'_>,
) -> Result<Vec<Produced<'a>>, (&'static str, GenerateCause)> {
    let unsupported = [
        ("matrix", &generator.matrix),
        ("merge", &generator.merge),
        ("scmProvider", &generator.scm_provider),
        ("pullRequest", &generator.pull_request),
        ("plugin", &generator.plugin),
        ("clusterDecisionResource", &generator.cluster_decision_resource),
    ];
    if let Some((kind, _)) = unsupported.iter().find(|(_, value)| value.is_some()) {
        return Err((kind, GenerateCause::Unsupported));
    }
    let mut produced = Vec::new();
    let mut add = |kind, template: &'a Option<Json>, params: Result<Vec<Params>, _>| {
        let params = select(generator.selector.as_ref(), params.map_err(|cause| (kind, cause))?);
        let template = template.as_ref().map(|template| &template.0);
        produced.push(Produced { kind, template, params });
        Ok(())
    };
    if let Some(one) = &generator.list {
        add("list", &one.template, list::params(one))?;
    }
    if let Some(one) = &generator.clusters {
        add("clusters", &one.template, clusters::params(one, inputs.clusters))?;
    }
    if let Some(one) = &generator.git {
        add("git", &one.template, git::params(one, inputs.sources, inputs.limits))?;
    }
    // A kind that this version does not know must not look like a generator that became empty.
    if produced.is_empty() { Err(("unknown", GenerateCause::NoKind)) } else { Ok(produced) }
}

/// Keeps the sets of parameters that match `selector`.
fn select(selector: Option<&LabelSelector>, params: Vec<Params>) -> Vec<Params> {
    let Some(selector) = selector else { return params };
    let is_selected = |one: &Params| selector.matches(|key| one.get(key).map(String::as_str));
    params.into_iter().filter(is_selected).collect()
}

/// Adds `values.*`: each text is rendered over the parameters there were before, never over another of the values.
fn append_values(values: &BTreeMap<String, String>, params: &mut Params) -> Result<(), GenerateCause> {
    let mut added = Params::new();
    for (key, text) in values {
        let name = format!("values.{key}");
        let text = windlass_template::render_str(text, params)
            .map_err(|error| GenerateCause::Parameter { name: name.clone(), message: error.to_string() })?;
        added.insert(name, text);
    }
    params.append(&mut added);
    Ok(())
}
