//! From an Application to its assignment: project, destination, source, policy; then what rendering found.

use std::collections::BTreeMap;

use serde_json::Value;
use windlass_protocol::{
    ids::{Digest, NamespacedName},
    json::{self, Json},
    manifest,
    message::{AssignmentPolicy, Automated, BundleRef, RetryPolicy},
    resource::{
        AppProjectSpec, ApplicationSource, ApplicationSpec, CONTROL_NAMESPACE, ClusterSpec, IN_CLUSTER_SERVER, Kind,
        RetryStrategy, RolloutCause, parse,
    },
    status::Condition,
    time::Millis,
};

use super::owner;
use crate::{
    command::{Command, TargetChange},
    policy::{self, ClusterEntry, Destinations, ResolvedDestination},
    state::{ObjectKey, ObjectRecord, State},
};

/// Changes in one command: with their policies they stay far below the limit of an entry.
const CHANGES_PER_COMMAND_MAX: usize = 100;
/// Bytes of the changes of one command; the entry's limit is 1 MiB.
const COMMAND_BYTES_MAX: usize = 600 * 1024;
/// Characters of one condition: enough for every file and line, short enough for an entry.
const CONDITION_CHARS_MAX: usize = 4_000;

/// What planning needs to know of projects and clusters, read once per pass.
#[derive(Debug)]
pub struct Applications {
    destinations: Destinations,
    uids: BTreeMap<String, String>,
    projects: BTreeMap<String, Result<AppProjectSpec, String>>,
}

/// What planning found before rendering.
#[derive(Clone, Debug)]
pub enum Prepared {
    /// Nothing can be rendered; the conditions say why.
    Blocked(Box<TargetChange>),
    /// Resolve and render the source, then [`ToRender::finish`].
    Render(Box<ToRender>),
}

/// An Application that is allowed where it wants to go.
#[derive(Clone, Debug)]
pub struct ToRender {
    /// What to render.
    pub source: ApplicationSource,
    /// Name of the project.
    pub project: String,
    change: TargetChange,
}

/// What rendering found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The bundle, already stored as blobs.
    pub bundle: BundleRef,
    /// `Directory`, `Kustomize`, ...
    pub source_type: String,
    /// Images of the bundle, sorted.
    pub images: Vec<String>,
    /// Group, kind and namespace of each manifest.
    pub kinds: Vec<(String, String, String)>,
    /// What was accepted but its author should know.
    pub warnings: Vec<String>,
}

impl Applications {
    /// Reads projects and clusters of a state.
    #[must_use]
    pub fn new(state: &State) -> Self {
        let mut uids = BTreeMap::new();
        let mut entries = Vec::new();
        for (key, record) in state.objects(Kind::Cluster, None) {
            let spec = record.value().get("spec").cloned().unwrap_or_default();
            let spec: ClusterSpec = serde_json::from_value(spec).unwrap_or_default();
            let name = key.name.name.clone();
            uids.insert(name.clone(), record.uid.clone());
            entries.push(ClusterEntry { name, servers: spec.servers, project: spec.project });
        }
        let projects = state.objects(Kind::AppProject, Some(CONTROL_NAMESPACE)).map(|(key, record)| {
            let spec = record.value().get("spec").cloned().unwrap_or_default();
            let spec = parse::<AppProjectSpec>("spec", &spec).map(|parsed| parsed.value);
            (key.name.name.clone(), spec.map_err(|error| error.to_string()))
        });
        Self { destinations: Destinations::new(entries), uids, projects: projects.collect() }
    }

    /// Checks an Application before its source is read.
    #[must_use]
    pub fn prepare(&self, name: &NamespacedName, record: &ObjectRecord) -> Prepared {
        let value = record.value();
        let spec = value.get("spec").cloned().unwrap_or_default();
        let mut change = TargetChange {
            application: name.clone(),
            uid: record.uid.clone(),
            cluster: None,
            tracking_name: tracking_name(name),
            namespace: json::text(&spec, &["destination", "namespace"]).to_owned(),
            target: None,
            policy: AssignmentPolicy::default(),
            conditions: Vec::new(),
            source_type: String::new(),
            images: Vec::new(),
        };
        let spec = match parse::<ApplicationSpec>("spec", &spec) {
            Ok(parsed) => parsed.value,
            Err(error) => return blocked(change, vec![invalid(error.to_string())]),
        };
        let mut problems = Vec::new();
        let (destination, unresolved) = match self.destinations.resolve(&spec.destination) {
            Ok(destination) => (destination, None),
            Err(error) => (ResolvedDestination::as_written(&spec.destination), Some(error)),
        };
        let project_name = spec.project_name();
        let project = match self.projects.get(project_name) {
            Some(Ok(project)) => Some(project),
            Some(Err(error)) => {
                problems.push(invalid(format!("project {project_name}: {error}")));
                None
            }
            None => None,
        };
        if project.is_some() || problems.is_empty() {
            let denials =
                policy::check_application(project_name, project, name, CONTROL_NAMESPACE, &spec, &destination);
            problems.extend(denials.iter().map(policy::Denial::condition));
        }
        problems.extend(unresolved.map(|error| invalid(error.to_string())));
        let source = match one_source(&spec) {
            Ok(source) => Some(source),
            Err(message) => {
                problems.push(invalid(message));
                None
            }
        };
        let (Some(project), Some(source), true) = (project, source, problems.is_empty()) else {
            return blocked(change, problems);
        };
        if spec.project.is_empty() {
            let message = "spec.project is missing: the project \"default\" is used";
            change.conditions.push(Condition::new("InvalidSpecError", message));
        }
        change.cluster = self.uids.get(&destination.name).cloned();
        change.policy = assignment_policy(&spec, policy::permitted(project_name, project, &destination), &source);
        Prepared::Render(Box::new(ToRender { source, project: project_name.to_owned(), change }))
    }

    /// The clusters, as the cluster generator sees them.
    #[must_use]
    pub fn cluster_views(state: &State) -> Vec<crate::generate::ClusterView> {
        let texts = |value: &Value, field: &str| {
            let map = json::at(value, &["metadata", field]).and_then(Value::as_object).into_iter().flatten();
            map.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
        };
        let clusters = state.objects(Kind::Cluster, None);
        clusters
            .map(|(key, record)| {
                let value = record.value();
                let spec: ClusterSpec =
                    serde_json::from_value(value.get("spec").cloned().unwrap_or_default()).unwrap_or_default();
                let name = key.name.name.clone();
                // Every cluster has a URL in Argo CD; one of its own makes `destination.server: '{{server}}'` work here too.
                let server = spec.servers.first().cloned().unwrap_or_else(|| server_of(&name));
                crate::generate::ClusterView {
                    server,
                    project: spec.project,
                    labels: texts(&value, "labels"),
                    annotations: texts(&value, "annotations"),
                    name,
                }
            })
            .collect()
    }
}

impl ToRender {
    /// Which Application this is.
    #[must_use]
    pub const fn application(&self) -> &NamespacedName {
        &self.change.application
    }

    /// Destination namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.change.namespace
    }

    /// What to propose after rendering; `Err` holds what is wrong with the source, and what there is stays.
    #[must_use]
    pub fn finish(self, outcome: Result<Observed, Vec<String>>) -> TargetChange {
        let mut change = self.change;
        match outcome {
            Ok(observed) => {
                let denied = denied_kinds(&change.policy, &observed.kinds);
                if !denied.is_empty() {
                    change.conditions.push(condition("SyncError", denied.join("; ")));
                }
                // A warning has no type of its own in Argo CD; this one is for what is repeated or ignored.
                let warnings = observed.warnings.into_iter();
                change.conditions.extend(warnings.map(|text| condition("RepeatedResourceWarning", text)));
                change.source_type = observed.source_type;
                change.images = observed.images;
                change.target = Some(observed.bundle);
            }
            Err(problems) => {
                change.conditions.extend(problems.into_iter().map(|text| condition("ComparisonError", text)));
            }
        }
        change
    }
}

/// Whether a change says anything that the state does not hold: what is unchanged causes no Raft entry.
#[must_use]
pub fn is_news(state: &State, change: &TargetChange) -> bool {
    let key = ObjectKey { kind: Kind::Application, name: change.application.clone() };
    let Some(record) = state.object(&key).filter(|record| record.uid == change.uid && !record.deleting) else {
        return false;
    };
    if let Some(cluster) = &change.cluster {
        let Some(assignment) = state.assignment(&change.application) else { return true };
        let digest = |bundle: &Option<BundleRef>| bundle.as_ref().map(|bundle| bundle.digest);
        if assignment.cluster != *cluster
            || assignment.uid != change.uid
            || assignment.policy != change.policy
            || assignment.namespace != change.namespace
            || assignment.tracking_name != change.tracking_name
            || (change.target.is_some() && digest(&change.target) != digest(&assignment.target))
        {
            return true;
        }
    }
    let status = record.value().get("status").cloned().unwrap_or_default();
    let known: Vec<Condition> =
        serde_json::from_value(status.get("conditions").cloned().unwrap_or_default()).unwrap_or_default();
    let known = known.iter().map(|condition| (&condition.kind, &condition.message));
    if !known.eq(change.conditions.iter().map(|condition| (&condition.kind, &condition.message))) {
        return true;
    }
    let source_type = json::text(&status, &["sourceType"]);
    if !change.source_type.is_empty() && source_type != change.source_type {
        return true;
    }
    let images = json::at(&status, &["summary", "images"]).cloned().unwrap_or_default();
    let images: Vec<String> = serde_json::from_value(images).unwrap_or_default();
    change.target.is_some() && images != change.images
}

/// Commands for changes: one Rollout per owner and command. `name` gives uid and name of a Rollout for an owner.
pub fn commands(
    state: &State,
    changes: Vec<TargetChange>,
    cause: RolloutCause,
    mut name: impl FnMut(&ObjectKey) -> (NamespacedName, String),
) -> Vec<Command> {
    let mut by_owner: BTreeMap<ObjectKey, Vec<TargetChange>> = BTreeMap::new();
    for change in changes {
        let key = ObjectKey { kind: Kind::Application, name: change.application.clone() };
        by_owner.entry(owner(state, &key)).or_default().push(change);
    }
    let mut commands = Vec::new();
    for (owner, changes) in by_owner {
        let mut rest = changes.into_iter().peekable();
        while rest.peek().is_some() {
            let (mut chunk, mut bytes) = (Vec::new(), 0);
            while let Some(change) = rest.next_if(|change| {
                chunk.is_empty() || (chunk.len() < CHANGES_PER_COMMAND_MAX && bytes + size(change) <= COMMAND_BYTES_MAX)
            }) {
                bytes += size(&change);
                chunk.push(change);
            }
            let (rollout, rollout_uid) = name(&owner);
            commands.push(Command::Targets { rollout, rollout_uid, owner: owner.clone(), cause, changes: chunk });
        }
    }
    commands
}

/// Name of an application in tracking annotations: `<ns>_<name>` outside of the control namespace.
#[must_use]
fn tracking_name(application: &NamespacedName) -> String {
    if application.namespace == CONTROL_NAMESPACE {
        application.name.clone()
    } else {
        format!("{}_{}", application.namespace, application.name)
    }
}

/// A URL for a Cluster that has none.
fn server_of(name: &str) -> String {
    if name == windlass_protocol::resource::IN_CLUSTER_NAME {
        IN_CLUSTER_SERVER.to_owned()
    } else {
        format!("windlass://{name}")
    }
}

/// About how many bytes a change has in a command.
fn size(change: &TargetChange) -> usize {
    let conditions: usize = change.conditions.iter().map(|condition| condition.message.len() + 64).sum();
    let images: usize = change.images.iter().map(|image| image.len() + 8).sum();
    let ignored: usize = change.policy.ignore_differences.iter().map(|json| json.to_string().len()).sum();
    let permitted = &change.policy.permitted;
    let patterns = permitted.cluster_allow.len()
        + permitted.cluster_deny.len()
        + permitted.namespace_allow.as_ref().map_or(0, Vec::len)
        + permitted.namespace_deny.len()
        + permitted.namespaces.len();
    1024 + conditions + images + ignored + patterns * 64
}

fn blocked(mut change: TargetChange, problems: Vec<Condition>) -> Prepared {
    change.conditions = problems;
    Prepared::Blocked(Box::new(change))
}

fn invalid(message: String) -> Condition {
    condition("InvalidSpecError", message)
}

fn condition(kind: &str, message: String) -> Condition {
    let message = match message.char_indices().nth(CONDITION_CHARS_MAX) {
        Some((cut, _)) => format!("{}…", message.get(..cut).unwrap_or_default()),
        None => message,
    };
    Condition::new(kind, message)
}

fn one_source(spec: &ApplicationSpec) -> Result<ApplicationSource, String> {
    match (&spec.source, spec.sources.as_slice()) {
        (_, [source]) | (Some(source), []) => Ok(source.clone()),
        (None, []) => Err("spec.source: a source is required".to_owned()),
        (_, several) => {
            let count = several.len();
            Err(format!("spec.sources: {count} sources; this version renders Applications with one source"))
        }
    }
}

fn denied_kinds(policy: &AssignmentPolicy, kinds: &[(String, String, String)]) -> Vec<String> {
    let mut denied: Vec<String> = kinds
        .iter()
        .filter_map(|(group, kind, namespace)| {
            // Whether an unknown kind is cluster-scoped only its cluster knows: the agent enforces it there.
            let scoped = manifest::is_cluster_scoped(group, kind)?;
            let checked = policy::check_kind(&policy.permitted, group, kind, scoped, namespace);
            checked.err().map(|denial| denial.to_string())
        })
        .collect();
    denied.sort();
    denied.dedup();
    denied
}

fn assignment_policy(
    spec: &ApplicationSpec,
    permitted: windlass_protocol::message::Permitted,
    source: &ApplicationSource,
) -> AssignmentPolicy {
    let sync = spec.sync_policy.clone().unwrap_or_default();
    let automated = spec.automated().map(|automated| Automated {
        prune: automated.prune,
        self_heal: automated.self_heal,
        allow_empty: automated.allow_empty,
    });
    let metadata = sync.managed_namespace_metadata.unwrap_or_default();
    let ignored = spec.ignore_differences.iter();
    let parameters = serde_json::to_vec(source).unwrap_or_default();
    let parameters = Digest::of(&parameters).0.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    AssignmentPolicy {
        automated,
        sync_options: sync.sync_options,
        retry: retry(sync.retry.as_ref()),
        ignore_differences: ignored.filter_map(|one| serde_json::to_value(one).ok()).map(Json).collect(),
        namespace_labels: metadata.labels.into_iter().collect(),
        namespace_annotations: metadata.annotations.into_iter().collect(),
        permitted,
        held: None,
        prune_approval: None,
        parameters,
    }
}

/// `syncPolicy.retry` in numbers; Argo CD's defaults where nothing is said.
pub(super) fn retry(strategy: Option<&RetryStrategy>) -> RetryPolicy {
    let default = RetryPolicy::default();
    let Some(strategy) = strategy else { return default };
    let backoff = strategy.backoff.clone().unwrap_or_default();
    RetryPolicy {
        limit: strategy.limit.unwrap_or(default.limit),
        initial: Millis::parse_duration(&backoff.duration).unwrap_or(default.initial),
        factor_percent: backoff.factor.map_or(default.factor_percent, |factor| factor.saturating_mul(100)),
        max: Millis::parse_duration(&backoff.max_duration).unwrap_or(default.max),
    }
}
