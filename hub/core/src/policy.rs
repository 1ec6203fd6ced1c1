//! AppProjects enforced: which sources, destinations and kinds an Application may use.
//!
//! Denials carry Argo CD's sentences. All rules are asked, not only until the first denies, so that a person can mend a project
//! in one go (COMPAT.md, decision 8). An undefined project denies; it never becomes `default`.
//!
//! How Argo CD reads its globs is in [`windlass_protocol::glob`]; `sourceNamespaces` may also hold `/regular expressions/`.

mod destination;
mod repository;

use std::fmt;

use windlass_protocol::{
    glob::{self, Dialect},
    ids::NamespacedName,
    message::Permitted,
    permitted::NotPermitted,
    resource::{AppProjectSpec, ApplicationSource, ApplicationSpec, Destination},
    status::Condition,
};

pub use self::destination::{ClusterEntry, DestinationError, Destinations, ResolvedDestination};
use self::repository::is_source_permitted;

/// A rule that denies an Application or one of its objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Denial {
    /// Which rule.
    pub rule: Rule,
    /// Argo CD's sentence.
    pub message: String,
}

/// The rules that can deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The project exists.
    Project,
    /// `sourceNamespaces`.
    SourceNamespace,
    /// A source is complete.
    Source,
    /// `sourceRepos`.
    SourceRepo,
    /// A destination names a registered cluster.
    Cluster,
    /// `destinations` and `permitOnlyProjectScopedClusters`.
    Destination,
    /// The lists of kinds.
    Kind,
    /// `destinations`, asked for the namespace of an object.
    Namespace,
}

impl Denial {
    fn new(rule: Rule, message: impl Into<String>) -> Self {
        Self { rule, message: message.into() }
    }

    /// The condition of the Application.
    #[must_use]
    pub fn condition(&self) -> Condition {
        Condition::new("InvalidSpecError", self.message.clone())
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<NotPermitted> for Denial {
    fn from(denied: NotPermitted) -> Self {
        let rule = match denied {
            NotPermitted::Kind { .. } => Rule::Kind,
            NotPermitted::Namespace { .. } => Rule::Namespace,
        };
        Self::new(rule, denied.to_string())
    }
}

impl From<DestinationError> for Denial {
    fn from(error: DestinationError) -> Self {
        Self::new(Rule::Cluster, error.to_string())
    }
}

/// Every rule of the project that denies the Application; empty when it may be deployed.
///
/// A destination that does not resolve is the business of [`Destinations::resolve`]; pass [`ResolvedDestination::as_written`]
/// then, so that the project's own denial is found as well.
#[must_use]
pub fn check_application(
    project_name: &str,
    project: Option<&AppProjectSpec>,
    app: &NamespacedName,
    control_namespace: &str,
    spec: &ApplicationSpec,
    destination: &ResolvedDestination,
) -> Vec<Denial> {
    let mut denials = check_sources_complete(spec);
    let Some(project) = project else {
        let message = format!("Application referencing project {project_name} which does not exist");
        denials.insert(0, Denial::new(Rule::Project, message));
        return denials;
    };
    if !is_app_namespace_permitted(project, &app.namespace, control_namespace) {
        let NamespacedName { namespace, name } = app;
        let message =
            format!("application '{name}' in namespace '{namespace}' is not allowed to use project '{project_name}'");
        denials.push(Denial::new(Rule::SourceNamespace, message));
    }
    for source in sources(spec) {
        if !source.repo_url.is_empty() && !is_source_permitted(&project.source_repos, &source.repo_url) {
            let message = format!("application repo {} is not permitted in project '{project_name}'", source.repo_url);
            denials.push(Denial::new(Rule::SourceRepo, message));
        }
    }
    let namespace = &spec.destination.namespace;
    let is_named = !destination.server.is_empty() || !destination.name.is_empty();
    if is_named && !is_destination_permitted(project_name, project, destination, namespace) {
        let server = if destination.server.is_empty() { &destination.name } else { &destination.server };
        let message = format!(
            "application destination server '{server}' and namespace '{namespace}' do not match any of the allowed destinations in project \
             '{project_name}'"
        );
        denials.push(Denial::new(Rule::Destination, message));
    }
    denials
}

/// Every source of the Application: `sources` wins over `source`, as in Argo CD.
fn sources(spec: &ApplicationSpec) -> &[ApplicationSource] {
    if spec.sources.is_empty() { spec.source.as_slice() } else { &spec.sources }
}

fn check_sources_complete(spec: &ApplicationSpec) -> Vec<Denial> {
    // A hydrated Application has its sources elsewhere.
    if spec.source_hydrator.is_some() {
        return Vec::new();
    }
    let several = !spec.sources.is_empty();
    let mut denials = Vec::new();
    if sources(spec).is_empty() {
        denials.push(Denial::new(Rule::Source, SOURCE_INCOMPLETE));
    }
    for source in sources(spec) {
        let is_ref = several && !source.reference.is_empty();
        if source.repo_url.is_empty() || (source.path.is_empty() && source.chart.is_empty() && !is_ref) {
            let message = if several {
                let name = if source.name.is_empty() { &source.repo_url } else { &source.name };
                format!(
                    "spec.source.repoURL and either source.path, source.chart, or source.ref are required for source {name}"
                )
            } else {
                SOURCE_INCOMPLETE.to_owned()
            };
            denials.push(Denial::new(Rule::Source, message));
        } else if !source.chart.is_empty() && source.target_revision.is_empty() {
            let message = "spec.source.targetRevision is required if the manifest source is a helm chart";
            denials.push(Denial::new(Rule::Source, message));
        }
    }
    denials
}

const SOURCE_INCOMPLETE: &str = "spec.source.repoURL and either spec.source.path or spec.source.chart are required";

/// Checks the kind and namespace of one object (Argo CD's sentences); the agent asks the same once discovery has said the scope.
///
/// # Errors
/// [`Denial`] with the first rule that denies.
pub fn check_kind(
    permitted: &Permitted,
    group: &str,
    kind: &str,
    cluster_scoped: bool,
    namespace: &str,
) -> Result<(), Denial> {
    permitted.check(group, kind, cluster_scoped, namespace).map_err(Denial::from)
}

/// What the project permits inside one cluster, for the agent.
///
/// Argo CD evaluates `!` per destination entry; here a namespace is permitted when some pattern matches and no `!` pattern does,
/// which is the same except for an entry that contradicts itself (its name allows the cluster, its server denies it): that one
/// denies.
#[must_use]
pub fn permitted(project_name: &str, project: &AppProjectSpec, destination: &ResolvedDestination) -> Permitted {
    Permitted {
        project: project_name.to_owned(),
        cluster_allow: project.cluster_resource_whitelist.clone(),
        cluster_deny: project.cluster_resource_blacklist.clone(),
        namespace_allow: project.namespace_resource_whitelist.clone(),
        namespace_deny: project.namespace_resource_blacklist.clone(),
        namespaces: namespaces(project_name, project, destination),
    }
}

fn namespaces(project_name: &str, project: &AppProjectSpec, destination: &ResolvedDestination) -> Vec<String> {
    let is_scoped = is_project_scoped(project_name, destination);
    let mut patterns = Vec::new();
    let mut add = |pattern: &str| {
        if !patterns.iter().any(|known| known == pattern) {
            patterns.push(pattern.to_owned());
        }
    };
    if project.permit_only_project_scoped_clusters && !is_scoped {
        return Vec::new();
    }
    if is_scoped {
        add("*");
    }
    for item in &project.destinations {
        let cluster = ClusterMatch::of(item, destination);
        if cluster.denied {
            add("!*");
        }
        match item.namespace.strip_prefix('!') {
            // An entry that excludes a namespace allows all others, on the clusters that it names.
            Some(_) if cluster.matched => {
                add("*");
                add(&item.namespace);
            }
            Some(_) => add(&item.namespace),
            None if cluster.matched => add(&item.namespace),
            None => {}
        }
    }
    patterns
}

/// A cluster reserved for a project is a destination of it, whatever `destinations` says.
fn is_project_scoped(project_name: &str, destination: &ResolvedDestination) -> bool {
    !destination.project.is_empty() && destination.project == project_name
}

/// What one entry of `destinations` says about a cluster.
struct ClusterMatch {
    matched: bool,
    denied: bool,
}

impl ClusterMatch {
    fn of(item: &Destination, destination: &ResolvedDestination) -> Self {
        // A Cluster need not have a URL here (in Argo CD it does): `*` means it all the same.
        let is_half = |pattern: &str, text: &str| pattern == "*" || (!text.is_empty() && is_match(pattern, text));
        let name = is_half(&item.name, &destination.name);
        let server = is_half(&item.server, &destination.server);
        // A destination that is only half known is not denied for the half that is not.
        let denied = (!destination.name.is_empty() && !name && is_deny(&item.name))
            || (!destination.server.is_empty() && !server && is_deny(&item.server));
        Self { matched: name || server, denied }
    }
}

/// Argo CD's `isDestinationMatched`: some entry matches, and no entry denies.
fn is_destination_permitted(
    project_name: &str,
    project: &AppProjectSpec,
    destination: &ResolvedDestination,
    namespace: &str,
) -> bool {
    let is_scoped = is_project_scoped(project_name, destination);
    if project.permit_only_project_scoped_clusters && !is_scoped {
        return false;
    }
    let mut any = is_scoped;
    for item in &project.destinations {
        let cluster = ClusterMatch::of(item, destination);
        let is_namespace = is_match(&item.namespace, namespace);
        if cluster.matched && is_namespace {
            any = true;
        } else if cluster.denied || (!is_namespace && is_deny(&item.namespace)) {
            return false;
        }
    }
    any
}

fn is_deny(pattern: &str) -> bool {
    pattern.starts_with('!')
}

/// Argo CD's `globMatch` with negation.
fn is_match(pattern: &str, text: &str) -> bool {
    match pattern.strip_prefix('!') {
        Some(denied) => !glob::matches(denied, text, Dialect::Text),
        None => pattern == "*" || glob::matches(pattern, text, Dialect::Text),
    }
}

/// Argo CD's `IsAppNamespacePermitted`: the control namespace always, others by `sourceNamespaces`.
fn is_app_namespace_permitted(project: &AppProjectSpec, namespace: &str, control_namespace: &str) -> bool {
    namespace == control_namespace
        || project.source_namespaces.iter().any(|pattern| {
            match pattern.strip_prefix('/').and_then(|pattern| pattern.strip_suffix('/')) {
                // A regular expression that cannot be read matches nothing, as in Argo CD.
                Some(expression) => regex::Regex::new(expression).is_ok_and(|regex| regex.is_match(namespace)),
                None => glob::matches(pattern, namespace, Dialect::Text),
            }
        })
}
