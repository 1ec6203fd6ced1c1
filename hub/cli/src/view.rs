//! Applications as Argo CD's command line shows them.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::Value;
use windlass_protocol::{json, time::Millis};

use crate::output::{Output, Table, clean};

/// `NAMESPACE/NAME`.
pub(crate) fn qualified(object: &Value) -> String {
    format!("{}/{}", json::text(object, &["metadata", "namespace"]), json::text(object, &["metadata", "name"]))
}

/// The sources of a spec: the one, or the several.
pub(crate) fn sources(spec: &Value) -> Vec<&Value> {
    match spec.get("sources").and_then(Value::as_array).filter(|sources| !sources.is_empty()) {
        Some(sources) => sources.iter().collect(),
        None => spec.get("source").into_iter().collect(),
    }
}

/// The project; an unset one is `default`.
pub(crate) fn project(spec: &Value) -> &str {
    Some(json::text(spec, &["project"])).filter(|name| !name.is_empty()).unwrap_or("default")
}

/// `destination.server`, else `destination.name`.
pub(crate) fn destination(spec: &Value) -> &str {
    let server = json::text(spec, &["destination", "server"]);
    if server.is_empty() { json::text(spec, &["destination", "name"]) } else { server }
}

/// Whether and how a spec syncs by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Manual,
    Auto,
    AutoPrune,
}

impl Policy {
    /// The policy of a spec.
    pub(crate) fn of(spec: &Value) -> Self {
        let Some(automated) = json::at(spec, &["syncPolicy", "automated"]).filter(|value| value.is_object()) else {
            return Self::Manual;
        };
        let flag = |name: &str| automated.get(name).and_then(Value::as_bool);
        match (flag("enabled"), flag("prune")) {
            (Some(false), _) => Self::Manual,
            (_, Some(true)) => Self::AutoPrune,
            _ => Self::Auto,
        }
    }

    /// In tables.
    pub(crate) fn short(self) -> &'static str {
        match self {
            Self::Manual => "Manual",
            Self::Auto => "Auto",
            Self::AutoPrune => "Auto-Prune",
        }
    }

    /// In `app get`.
    pub(crate) fn long(self) -> &'static str {
        match self {
            Self::Manual => "Manual",
            Self::Auto => "Automated",
            Self::AutoPrune => "Automated (Prune)",
        }
    }
}

/// `Type(count),Type`, or `<none>`.
pub(crate) fn conditions_summary(object: &Value) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for condition in items(object, &["status", "conditions"]) {
        *counts.entry(json::text(condition, &["type"])).or_default() += 1;
    }
    if counts.is_empty() {
        return "<none>".to_owned();
    }
    let text = |(kind, count): (&str, usize)| if count > 1 { format!("{kind}({count})") } else { kind.to_owned() };
    counts.into_iter().map(text).collect::<Vec<_>>().join(",")
}

/// The columns of `app list`.
pub(crate) const APP_COLUMNS: &[&str] =
    &["NAME", "CLUSTER", "NAMESPACE", "PROJECT", "STATUS", "HEALTH", "SYNCPOLICY", "CONDITIONS"];
/// What `-o wide` adds.
pub(crate) const APP_COLUMNS_WIDE: &[&str] = &["REPO", "PATH", "TARGET"];

/// One line of `app list`, wide columns included.
pub(crate) fn app_row(app: &Value) -> Vec<String> {
    let empty = Value::Null;
    let spec = app.get("spec").unwrap_or(&empty);
    let source = |field: &str| {
        let texts = sources(spec).into_iter().map(|source| json::text(source, &[field]));
        texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(",")
    };
    let path = source("path");
    vec![
        qualified(app),
        destination(spec).to_owned(),
        json::text(spec, &["destination", "namespace"]).to_owned(),
        project(spec).to_owned(),
        sync_status(app).to_owned(),
        health(app).to_owned(),
        Policy::of(spec).short().to_owned(),
        conditions_summary(app),
        source("repoURL"),
        if path.is_empty() { source("chart") } else { path },
        source("targetRevision"),
    ]
}

/// Sync status; unset is Unknown.
pub(crate) fn sync_status(app: &Value) -> &str {
    or_unknown(json::text(app, &["status", "sync", "status"]))
}

/// Health status; unset is Unknown.
pub(crate) fn health(app: &Value) -> &str {
    or_unknown(json::text(app, &["status", "health", "status"]))
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "Unknown" } else { text }
}

/// The key and value lines of `app get`.
pub(crate) fn summary(output: &mut Output, app: &Value) -> Result<()> {
    let empty = Value::Null;
    let spec = app.get("spec").unwrap_or(&empty);
    output.field("Name", &qualified(app))?;
    output.field("Project", project(spec))?;
    output.field("Server", destination(spec))?;
    output.field("Namespace", json::text(spec, &["destination", "namespace"]))?;
    source_lines(output, spec)?;
    output.field("Sync Policy", Policy::of(spec).long())?;
    output.field("Sync Status", &sync_line(app))?;
    let message = json::text(app, &["status", "health", "message"]);
    let health = health(app);
    output.field("Health Status", &if message.is_empty() { health.to_owned() } else { format!("{health} ({message})") })
}

/// `Source:` and its lines.
pub(crate) fn source_lines(output: &mut Output, spec: &Value) -> Result<()> {
    let sources = sources(spec);
    output.line(if sources.len() > 1 { "Sources:" } else { "Source:" })?;
    for source in sources {
        for (key, path) in [
            ("- Repo", &["repoURL"][..]),
            ("  Target", &["targetRevision"]),
            ("  Path", &["path"]),
            ("  Chart", &["chart"]),
            ("  Ref", &["ref"]),
            ("  Name Prefix", &["kustomize", "namePrefix"]),
        ] {
            let value = json::text(source, path);
            if !value.is_empty() || matches!(key, "- Repo" | "  Target") {
                output.field(key, value)?;
            }
        }
        let values: Vec<&str> = items(source, &["helm", "valueFiles"]).filter_map(Value::as_str).collect();
        if !values.is_empty() {
            output.field("  Helm Values", &values.join(","))?;
        }
    }
    Ok(())
}

/// `Synced to main (abcdef1)`.
fn sync_line(app: &Value) -> String {
    let empty = Value::Null;
    let status = sync_status(app);
    let spec = app.get("spec").unwrap_or(&empty);
    let target = sources(spec).first().map(|source| json::text(source, &["targetRevision"])).unwrap_or_default();
    let target = if target.is_empty() { "HEAD" } else { target };
    let word = match status {
        "Synced" => "to",
        "OutOfSync" => "from",
        _ => return status.to_owned(),
    };
    let revision = json::text(app, &["status", "sync", "revision"]);
    match revision.get(..7) {
        Some(short) if !revision.starts_with(target) => format!("{status} {word} {target} ({short})"),
        _ => format!("{status} {word} {target}"),
    }
}

/// What an operation did; nothing when there was none.
pub(crate) fn operation(output: &mut Output, app: &Value) -> Result<()> {
    let Some(state) = json::at(app, &["status", "operationState"]).filter(|state| state.is_object()) else {
        return Ok(());
    };
    output.line("")?;
    output.field("Operation", "Sync")?;
    let revision = json::text(state, &["syncResult", "revision"]);
    if !revision.is_empty() {
        output.field("Sync Revision", revision)?;
    }
    output.field("Phase", json::text(state, &["phase"]))?;
    let (started, finished) = (json::text(state, &["startedAt"]), json::text(state, &["finishedAt"]));
    output.field("Start", started)?;
    if !finished.is_empty() {
        output.field("Finished", finished)?;
        if let (Some(start), Some(end)) = (Millis::parse_rfc3339(started), Millis::parse_rfc3339(finished)) {
            output.field("Duration", &duration(end.since(start).as_secs()))?;
        }
    }
    let message = json::text(state, &["message"]);
    if message.is_empty() { Ok(()) } else { output.field("Message", message) }
}

/// The table of conditions, when there are any.
pub(crate) fn conditions(output: &mut Output, object: &Value) -> Result<()> {
    let mut table = Table::new(&["CONDITION", "MESSAGE", "LAST TRANSITION"]);
    let mut any = false;
    for condition in items(object, &["status", "conditions"]) {
        any = true;
        table.row(["type", "message", "lastTransitionTime"].map(|field| json::text(condition, &[field])));
    }
    if !any {
        return Ok(());
    }
    output.line("")?;
    output.table(&table)
}

/// The columns of resources.
pub(crate) const RESOURCE_COLUMNS: &[&str] =
    &["GROUP", "KIND", "NAMESPACE", "NAME", "STATUS", "HEALTH", "HOOK", "MESSAGE"];

/// The table of resources, when there are any.
pub(crate) fn resources(output: &mut Output, app: &Value) -> Result<()> {
    let rows = resource_rows(app);
    if rows.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(RESOURCE_COLUMNS);
    for row in rows {
        table.row(row.cells());
    }
    output.line("")?;
    output.table(&table)
}

/// A line of the table of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResourceRow {
    /// Group, kind, namespace, name.
    pub(crate) key: [String; 4],
    /// Sync status, or how the hook or the pruning went.
    pub(crate) status: String,
    /// Health.
    pub(crate) health: String,
    /// Type of hook.
    pub(crate) hook: String,
    /// What the API server or the health rule said.
    pub(crate) message: String,
}

impl ResourceRow {
    /// In the order of [`RESOURCE_COLUMNS`].
    pub(crate) fn cells(self) -> Vec<String> {
        let rest = [self.status, self.health, self.hook, self.message];
        self.key.into_iter().chain(rest).collect()
    }
}

/// The live resources with what the operation said about each, then hooks and pruned resources.
pub(crate) fn resource_rows(app: &Value) -> Vec<ResourceRow> {
    let mut results: BTreeMap<[String; 4], ResourceRow> = BTreeMap::new();
    for result in items(app, &["status", "operationState", "syncResult", "resources"]) {
        let phase = json::text(result, &["hookPhase"]);
        let hook = json::text(result, &["hookType"]);
        let row = ResourceRow {
            key: key(result),
            status: if hook.is_empty() { json::text(result, &["status"]) } else { phase }.to_owned(),
            health: String::new(),
            hook: hook.to_owned(),
            message: json::text(result, &["message"]).to_owned(),
        };
        results.insert(row.key.clone(), row);
    }
    let mut rows = Vec::new();
    for resource in items(app, &["status", "resources"]) {
        let result = results.remove(&key(resource));
        let (mut status, own) = (json::text(resource, &["status"]), json::text(resource, &["message"]));
        let health_message = json::text(resource, &["health", "message"]);
        let hook = result.as_ref().map(|row| row.hook.clone()).unwrap_or_default();
        if let Some(row) = result.as_ref().filter(|row| !row.hook.is_empty() && status.is_empty()) {
            status = &row.status;
        }
        let message = [own, health_message].into_iter().find(|text| !text.is_empty()).map(str::to_owned);
        rows.push(ResourceRow {
            key: key(resource),
            status: status.to_owned(),
            health: json::text(resource, &["health", "status"]).to_owned(),
            hook: if hook.is_empty() && resource.get("hook") == Some(&Value::Bool(true)) {
                "Hook".to_owned()
            } else {
                hook
            },
            message: message.or_else(|| result.map(|row| row.message)).unwrap_or_default(),
        });
    }
    rows.extend(results.into_values());
    rows
}

/// The list at a path, empty where there is none.
pub(crate) fn items<'a>(value: &'a Value, path: &[&str]) -> impl Iterator<Item = &'a Value> {
    json::at(value, path).and_then(Value::as_array).into_iter().flatten()
}

/// `1h2m3s`.
pub(crate) fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, rest) => format!("{rest}s"),
        (0, minutes, rest) => format!("{minutes}m{rest}s"),
        (hours, minutes, rest) => format!("{hours}h{minutes}m{rest}s"),
    }
}

/// `k=v,k=v`, or `<none>`.
pub(crate) fn labels(value: Option<&Value>) -> String {
    let pairs: Vec<String> = value
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", clean(value.as_str().unwrap_or_default())))
        .collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

fn key(resource: &Value) -> [String; 4] {
    ["group", "kind", "namespace", "name"].map(|field| json::text(resource, &[field]).to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tests::captured;

    fn app() -> Value {
        json!({
            "metadata": {"namespace": "argocd", "name": "web"},
            "spec": {
                "destination": {"name": "eu-1", "namespace": "web"},
                "source": {"repoURL": "https://git/x", "path": "overlays/eu", "targetRevision": "main"},
                "syncPolicy": {"automated": {"prune": true}},
            },
            "status": {
                "sync": {"status": "OutOfSync", "revision": "0123456789abcdef"},
                "health": {"status": "Degraded"},
                "conditions": [
                    {"type": "SyncError", "message": "a\nb", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                    {"type": "ComparisonError", "message": "x"}, {"type": "SyncError", "message": "y"},
                ],
                "resources": [
                    {"group": "apps", "kind": "Deployment", "namespace": "web", "name": "web", "status": "Synced",
                     "health": {"status": "Degraded", "message": "crash"}},
                    {"kind": "Service", "namespace": "web", "name": "web", "status": "OutOfSync"},
                ],
                "operationState": {
                    "phase": "Failed", "message": "one failed", "startedAt": "2026-01-01T00:00:00Z",
                    "finishedAt": "2026-01-01T00:01:05Z",
                    "syncResult": {"revision": "0123456789abcdef", "resources": [
                        {"kind": "Service", "namespace": "web", "name": "web", "status": "SyncFailed", "message": "denied"},
                        {"group": "batch", "kind": "Job", "namespace": "web", "name": "migrate", "hookType": "PreSync",
                         "hookPhase": "Succeeded", "message": "done"},
                    ]},
                },
            },
        })
    }

    #[test]
    fn a_row_has_argo_columns() {
        let row = app_row(&app());
        assert_eq!(
            row,
            [
                "argocd/web",
                "eu-1",
                "web",
                "default",
                "OutOfSync",
                "Degraded",
                "Auto-Prune",
                "ComparisonError,SyncError(2)",
                "https://git/x",
                "overlays/eu",
                "main"
            ]
        );
        assert_eq!(row.len(), APP_COLUMNS.len() + APP_COLUMNS_WIDE.len());
        let bare = app_row(&json!({"metadata": {"namespace": "a", "name": "b"}}));
        assert_eq!(bare, ["a/b", "", "", "default", "Unknown", "Unknown", "Manual", "<none>", "", "", ""]);
    }

    #[test]
    fn disabled_automation_is_manual() {
        let policy = |automated: Value| Policy::of(&json!({"syncPolicy": {"automated": automated}}));
        assert_eq!(policy(json!({})), Policy::Auto);
        assert_eq!(policy(json!({"enabled": false, "prune": true})), Policy::Manual);
        assert_eq!(policy(Value::Null), Policy::Manual);
    }

    #[test]
    fn the_page_of_an_application_is_laid_out_as_argo_cds() {
        let (mut output, data, _) = captured();
        let app = app();
        summary(&mut output, &app).unwrap();
        operation(&mut output, &app).unwrap();
        conditions(&mut output, &app).unwrap();
        resources(&mut output, &app).unwrap();
        let expected = "\
Name:               argocd/web
Project:            default
Server:             eu-1
Namespace:          web
Source:
- Repo:             https://git/x
  Target:           main
  Path:             overlays/eu
Sync Policy:        Automated (Prune)
Sync Status:        OutOfSync from main (0123456)
Health Status:      Degraded

Operation:          Sync
Sync Revision:      0123456789abcdef
Phase:              Failed
Start:              2026-01-01T00:00:00Z
Finished:           2026-01-01T00:01:05Z
Duration:           1m5s
Message:            one failed

CONDITION        MESSAGE  LAST TRANSITION
SyncError        a b      2026-01-01T00:00:00Z
ComparisonError  x
SyncError        y

GROUP  KIND        NAMESPACE  NAME     STATUS     HEALTH    HOOK     MESSAGE
apps   Deployment  web        web      Synced     Degraded           crash
       Service     web        web      OutOfSync                     denied
batch  Job         web        migrate  Succeeded            PreSync  done
";
        assert_eq!(data.text(), expected);
    }
}
