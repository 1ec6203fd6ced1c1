//! The columns of each kind in tables, as Argo CD's CRDs and Kubernetes have them.

use serde_json::{Value, json};
use windlass_protocol::{json, resource::Kind, time::Millis};

/// One column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) description: &'static str,
    /// Above zero: only with `-o wide`.
    pub(super) priority: u8,
    cell: Cell,
}

/// Where a cell's content comes from.
#[derive(Clone, Copy, Debug)]
enum Cell {
    Name,
    Age,
    /// Text, number or nothing at a path.
    At(&'static [&'static str]),
    /// How many entries the maps at these fields have.
    Count(&'static [&'static str]),
    /// List of texts, joined.
    Joined(&'static [&'static str]),
    /// Time since a point.
    Since(&'static [&'static str]),
    /// `kind/name` of an Event's object.
    EventObject,
    /// Kind and name of a Rollout's owner.
    RolloutOwner,
}

const fn column(name: &'static str, kind: &'static str, priority: u8, cell: Cell, description: &'static str) -> Column {
    Column { name, kind, description, priority, cell }
}

const NAME: Column = column("Name", "string", 0, Cell::Name, "Name must be unique within a namespace.");
const AGE: Column = column("Age", "string", 0, Cell::Age, "Time since the creation of the object.");

const PLAIN: &[Column] = &[NAME, AGE];
const APPLICATIONS: &[Column] = &[
    NAME,
    column("Sync Status", "string", 0, Cell::At(&["status", "sync", "status"]), "Compared with the target."),
    column("Health Status", "string", 0, Cell::At(&["status", "health", "status"]), "Worst of all resources."),
    column("Revision", "string", 10, Cell::At(&["status", "sync", "revision"]), "Revision of the target."),
    column("Project", "string", 10, Cell::At(&["spec", "project"]), "Project of the Application."),
];
const CLUSTERS: &[Column] = &[
    NAME,
    column("Phase", "string", 0, Cell::At(&["status", "phase"]), "Where the cluster stands."),
    column("Assignments", "integer", 0, Cell::At(&["status", "assignments"]), "Number of assignments."),
    AGE,
    column("Generation", "integer", 1, Cell::At(&["status", "generation"]), "Generation on the agent's disk."),
    column("Hub", "integer", 1, Cell::At(&["status", "hub"]), "Node that holds the agent's session."),
    column("Kubernetes", "string", 1, Cell::At(&["status", "facts", "kubernetesVersion"]), "As the agent says."),
    column("Servers", "string", 1, Cell::Joined(&["spec", "servers"]), "URLs that destinations may name."),
];
const ROLLOUTS: &[Column] = &[
    NAME,
    column("Owner", "string", 0, Cell::RolloutOwner, "What the change belongs to."),
    column("Phase", "string", 0, Cell::At(&["status", "phase"]), "Where the rollout stands."),
    column("Step", "integer", 0, Cell::At(&["status", "step"]), "The step that is being proven."),
    column("Steps", "integer", 0, Cell::At(&["status", "steps"]), "Number of steps."),
    AGE,
    column("Proven", "integer", 1, Cell::At(&["status", "proven"]), "Members that have proven their digest."),
    column("Revision", "string", 1, Cell::At(&["spec", "revision"]), "Git commit."),
];
const NAMESPACES: &[Column] =
    &[NAME, column("Status", "string", 0, Cell::At(&["status", "phase"]), "The status of the namespace"), AGE];
const CONFIG_MAPS: &[Column] =
    &[NAME, column("Data", "integer", 0, Cell::Count(&["data", "binaryData"]), "Number of entries."), AGE];
const SECRETS: &[Column] = &[
    NAME,
    column("Type", "string", 0, Cell::At(&["type"]), "Used to facilitate programmatic handling of secret data."),
    column("Data", "integer", 0, Cell::Count(&["data"]), "Number of entries."),
    AGE,
];
const EVENTS: &[Column] = &[
    column("Last Seen", "string", 0, Cell::Since(&["lastTimestamp"]), "When it was last seen."),
    column("Type", "string", 0, Cell::At(&["type"]), "Type of this event."),
    column("Reason", "string", 0, Cell::At(&["reason"]), "Why it happened."),
    column("Object", "string", 0, Cell::EventObject, "The object that this event is about."),
    column("Subobject", "string", 1, Cell::At(&["involvedObject", "fieldPath"]), "Part of the object."),
    column("Source", "string", 1, Cell::At(&["source", "component"]), "Who reports it."),
    column("Message", "string", 0, Cell::At(&["message"]), "What happened."),
    column("First Seen", "string", 1, Cell::Since(&["firstTimestamp"]), "When it was first seen."),
    column("Count", "integer", 1, Cell::At(&["count"]), "How often it happened."),
    column("Name", "string", 1, Cell::Name, "Name must be unique within a namespace."),
];

/// The columns of a kind.
pub(super) const fn columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::Application => APPLICATIONS,
        Kind::Cluster => CLUSTERS,
        Kind::Rollout => ROLLOUTS,
        Kind::Namespace => NAMESPACES,
        Kind::ConfigMap => CONFIG_MAPS,
        Kind::Secret => SECRETS,
        Kind::Event => EVENTS,
        Kind::ApplicationSet | Kind::AppProject | Kind::RolloutPolicy => PLAIN,
    }
}

/// The cells of an object.
pub(super) fn cells(kind: Kind, value: &Value, now: Millis) -> Vec<Value> {
    columns(kind).iter().map(|column| column.cell.content(value, now, column.kind)).collect()
}

impl Cell {
    fn content(self, value: &Value, now: Millis, kind: &str) -> Value {
        match self {
            Self::Name => json!(json::text(value, &["metadata", "name"])),
            Self::Age => json!(age(json::text(value, &["metadata", "creationTimestamp"]), now)),
            Self::At(path) => match json::at(value, path) {
                Some(found @ (Value::String(_) | Value::Number(_))) => found.clone(),
                _ if kind == "integer" => Value::Null,
                _ => json!(""),
            },
            Self::Count(fields) => {
                let entries =
                    |field: &&str| value.get(*field).and_then(Value::as_object).map_or(0, serde_json::Map::len);
                json!(fields.iter().map(entries).sum::<usize>())
            }
            Self::Joined(path) => {
                let list = json::at(value, path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                json!(list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","))
            }
            Self::Since(path) => json!(age(json::text(value, path), now)),
            Self::EventObject => {
                let kind = json::text(value, &["involvedObject", "kind"]).to_lowercase();
                json!(format!("{kind}/{}", json::text(value, &["involvedObject", "name"])))
            }
            Self::RolloutOwner => {
                let kind = json::text(value, &["spec", "ownerKind"]).to_lowercase();
                json!(format!("{kind}/{}", json::text(value, &["spec", "owner", "name"])))
            }
        }
    }
}

fn age(since: &str, now: Millis) -> String {
    Millis::parse_rfc3339(since).map_or_else(|| "<unknown>".to_owned(), |time| human(now.since(time).as_secs()))
}

/// A duration as kubectl prints it (`k8s.io/apimachinery/pkg/util/duration`, HumanDuration).
fn human(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let two = |big: u64, big_unit: &str, small: u64, small_unit: &str| {
        if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if hours < 3 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => two(days, "d", hours % 24, "h"),
        () if days < 730 => format!("{days}d"),
        () if days < 2_920 => two(days / 365, "y", days % 365, "d"),
        () => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_kubectl() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (185, "3m5s"),
            (3_600, "60m"),
            (3 * 3_600 + 300, "3h5m"),
            (9 * 3_600, "9h"),
            (3 * 86_400 + 7_200, "3d2h"),
            (100 * 86_400, "100d"),
            (800 * 86_400, "2y70d"),
        ] {
            assert_eq!(human(seconds), text);
        }
    }

    #[test]
    fn cells_follow_the_columns() {
        let value = json!({
            "metadata": {"name": "a"}, "spec": {"project": "p"},
            "status": {"sync": {"status": "Synced", "revision": "r"}, "health": {"status": "Healthy"}},
        });
        let found = cells(Kind::Application, &value, Millis(0));
        assert_eq!(found, [json!("a"), json!("Synced"), json!("Healthy"), json!("r"), json!("p")]);
        for info in windlass_protocol::resource::KINDS {
            assert_eq!(cells(info.kind, &json!({}), Millis(0)).len(), columns(info.kind).len());
        }
    }
}
