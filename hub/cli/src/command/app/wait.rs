//! `app wait`: until Applications are as wanted, and the waiting itself, which `app sync` shares.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Result;
use clap::Args;
use serde_json::Value;
use windlass_protocol::{json, resource::Kind};

use super::{Targets, is_operating};
use crate::{
    client::Client,
    failure::Failure,
    follow::{Follow, Key},
    output::{Document, Output, clean},
    resource_filter::{ResourceFilter, picks},
    view::{self, ResourceRow},
};

/// Options of `app wait`; without a state: --sync --health --operation.
#[derive(Args, Debug)]
pub(crate) struct Wait {
    #[command(flatten)]
    targets: Targets,
    #[command(flatten)]
    states: States,
    /// Only look at these resources, GROUP:KIND:NAME
    #[arg(long = "resource", value_name = "GROUP:KIND:NAME")]
    resources: Vec<ResourceFilter>,
    /// Seconds to wait; 0 waits forever
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeout: u64,
    /// Print the objects at the end instead of their pages
    #[arg(short, long, value_enum)]
    output: Option<Document>,
}

/// What is waited for; all of the sync, operation and health parts, where any of the health words will do.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct States {
    /// Until Synced
    #[arg(long)]
    pub(super) sync: bool,
    /// Until Healthy
    #[arg(long)]
    pub(super) health: bool,
    /// Until no operation runs
    #[arg(long)]
    pub(super) operation: bool,
    /// Until Suspended
    #[arg(long)]
    pub(super) suspended: bool,
    /// Until Degraded
    #[arg(long)]
    pub(super) degraded: bool,
    /// Until deleted
    #[arg(long)]
    pub(super) delete: bool,
}

impl States {
    /// Argo CD's choice when none is named.
    fn or_default(self) -> Self {
        let Self { sync, health, operation, suspended, degraded, delete } = self;
        if sync || health || operation || suspended || degraded || delete {
            return self;
        }
        Self { sync: true, health: true, operation: true, ..self }
    }

    /// Whether an Application is as wanted.
    fn hold(self, app: &Value, filters: &[ResourceFilter]) -> bool {
        if self.delete || (self.operation && is_operating(app)) {
            return false;
        }
        if filters.is_empty() {
            return self.fit(view::sync_status(app), view::health(app));
        }
        let mut chosen =
            view::items(app, &["status", "resources"]).filter(|resource| picks(filters, resource)).peekable();
        // A resource that is not there yet is waited for.
        chosen.peek().is_some()
            && chosen.all(|resource| {
                let health = json::text(resource, &["health", "status"]);
                // Kinds without a rule have no health to wait for.
                self.fit(json::text(resource, &["status"]), if health.is_empty() { "Healthy" } else { health })
            })
    }

    fn fit(self, sync: &str, health: &str) -> bool {
        let wanted = [(self.health, "Healthy"), (self.suspended, "Suspended"), (self.degraded, "Degraded")];
        let any = wanted.iter().any(|(wanted, _)| *wanted);
        let healthy = !any || wanted.iter().any(|(wanted, word)| *wanted && *word == health);
        (!self.sync || sync == "Synced") && healthy
    }
}

pub(super) async fn run(client: &Client, options: Wait, output: &mut Output) -> Result<()> {
    let states = options.states.or_default();
    let keys = options.targets.keys(client).await?;
    let limit = limit(options.timeout);
    let what = |app: Option<&Value>| match app {
        None if states.delete => Ok(true),
        None => Err(Failure::new("does not exist (or was deleted while it was waited for)")),
        Some(app) => Ok(states.hold(app, &options.resources)),
    };
    let last = until(client, keys, limit, output, what).await?;
    print(&last, options.output, output)
}

/// The pages, or the objects, of what was waited for.
pub(super) fn print(last: &BTreeMap<Key, Option<Value>>, format: Option<Document>, output: &mut Output) -> Result<()> {
    let apps: Vec<&Value> = last.values().flatten().collect();
    if let Some(format) = format {
        let value = match apps.as_slice() {
            [only] => (*only).clone(),
            several => Value::Array(several.iter().map(|app| (*app).clone()).collect()),
        };
        return output.document(format, &value);
    }
    for (index, app) in apps.into_iter().enumerate() {
        if index > 0 {
            output.line("")?;
        }
        view::summary(output, app)?;
        view::operation(output, app)?;
        view::resources(output, app)?;
    }
    Ok(())
}

/// `--timeout`: 0 is forever.
pub(super) fn limit(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds)).filter(|limit| !limit.is_zero())
}

/// Follows Applications until `done` holds for each, and tells each change of a resource on stderr. Gives the versions for
/// which it held.
///
/// # Errors
/// `done` refuses, the time is up (naming what is missing), or the hub cannot be asked.
pub(super) async fn until(
    client: &Client,
    keys: Vec<Key>,
    limit: Option<Duration>,
    output: &mut Output,
    mut done: impl FnMut(Option<&Value>) -> Result<bool, Failure>,
) -> Result<BTreeMap<Key, Option<Value>>> {
    let mut waiting: BTreeSet<Key> = keys.iter().cloned().collect();
    let mut follow = Follow::new(client, Kind::Application, waiting.clone());
    let mut last: BTreeMap<Key, Option<Value>> = BTreeMap::new();
    let mut progress = Progress::new(keys.len() > 1);
    let deadline = limit.map(|limit| tokio::time::Instant::now() + limit);
    while !waiting.is_empty() {
        let next = follow.next(output);
        let news = match deadline {
            None => next.await?,
            Some(deadline) => match tokio::time::timeout_at(deadline, next).await {
                Ok(news) => news?,
                Err(_) => return Err(timed_out(&waiting, &last, limit).into()),
            },
        };
        for (key, app) in news {
            if !waiting.contains(&key) || is_stale(last.get(&key), app.as_ref()) {
                continue;
            }
            if let Some(app) = &app {
                progress.tell(app, output);
            }
            let held = done(app.as_ref())
                .map_err(|failure| anyhow::Error::new(failure).context(format!("{}/{}", key.0, key.1)))?;
            if held {
                waiting.remove(&key);
            }
            last.insert(key, app);
        }
    }
    Ok(last)
}

/// A read and a watch may overtake each other; resource versions of one object only grow.
fn is_stale(known: Option<&Option<Value>>, new: Option<&Value>) -> bool {
    let version = |app: &Value| json::text(app, &["metadata", "resourceVersion"]).parse::<u64>().ok();
    let uid = |app: &Value| json::text(app, &["metadata", "uid"]).to_owned();
    match (known, new) {
        (Some(Some(known)), Some(new)) => uid(known) == uid(new) && version(new) < version(known),
        _ => false,
    }
}

fn timed_out(waiting: &BTreeSet<Key>, last: &BTreeMap<Key, Option<Value>>, limit: Option<Duration>) -> Failure {
    let seconds = limit.map(|limit| limit.as_secs()).unwrap_or_default();
    let mut message = format!("timed out after {seconds} s (--timeout) waiting for:");
    for key in waiting {
        let state = match last.get(key) {
            Some(Some(app)) => {
                let phase = json::text(app, &["status", "operationState", "phase"]);
                let phase = if phase.is_empty() { "none" } else { phase };
                format!("sync {}, health {}, operation {phase}", view::sync_status(app), view::health(app))
            }
            Some(None) => "gone".to_owned(),
            None => "not heard of".to_owned(),
        };
        message.push_str(&format!("\n  {}/{}: {state}", key.0, key.1));
    }
    Failure::new(message)
}

/// Lines on stderr, one for each change of a resource.
struct Progress {
    told: BTreeMap<(String, [String; 4]), ResourceRow>,
    several: bool,
    header: bool,
}

impl Progress {
    fn new(several: bool) -> Self {
        Self { told: BTreeMap::new(), several, header: false }
    }

    fn tell(&mut self, app: &Value, output: &mut Output) {
        let name = json::text(app, &["metadata", "name"]).to_owned();
        for row in view::resource_rows(app) {
            let place = (name.clone(), row.key.clone());
            if self.told.get(&place) == Some(&row) {
                continue;
            }
            self.told.insert(place, row.clone());
            if !std::mem::replace(&mut self.header, true) {
                output.say(self.line(
                    "TIMESTAMP",
                    "APPLICATION",
                    view::RESOURCE_COLUMNS.iter().map(|name| (*name).to_owned()),
                ));
            }
            let text = self.line(&now(), &name, row.cells());
            output.say(text);
        }
    }

    fn line(&self, time: &str, name: &str, cells: impl IntoIterator<Item = String>) -> String {
        let mut text = format!("{time:<20}");
        if self.several {
            text.push_str(&format!("  {name:<20}"));
        }
        for (cell, width) in cells.into_iter().zip(WIDTHS) {
            text.push_str(&format!("  {:<width$}", clean(&cell)));
        }
        text.trim_end().to_owned()
    }
}

/// Widths of the columns of resources: lines come one by one, so that they are set beforehand, as Argo CD does.
const WIDTHS: [usize; 8] = [6, 11, 12, 20, 9, 11, 8, 0];

/// The time as objects carry it.
fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    windlass_protocol::time::Millis::from_secs(since.map(|since| since.as_secs()).unwrap_or_default()).rfc3339()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn app(sync: &str, health: &str, phase: &str) -> Value {
        json!({"status": {"sync": {"status": sync}, "health": {"status": health}, "operationState": {"phase": phase},
            "resources": [{"group": "apps", "kind": "Deployment", "name": "a", "status": "Synced", "health": {"status": "Healthy"}},
                {"kind": "ConfigMap", "name": "c", "status": "OutOfSync"}]}})
    }

    #[test]
    fn states_are_those_of_argo_cd() {
        let default = States::default().or_default();
        let none: &[ResourceFilter] = &[];
        assert!(default.hold(&app("Synced", "Healthy", "Succeeded"), none));
        assert!(!default.hold(&app("Synced", "Healthy", "Running"), none));
        assert!(!default.hold(&app("OutOfSync", "Healthy", "Succeeded"), none));
        assert!(!default.hold(&app("Synced", "Progressing", "Succeeded"), none));
        let health = States { health: true, ..States::default() }.or_default();
        assert!(health.hold(&app("OutOfSync", "Healthy", "Running"), none));
        let either = States { suspended: true, degraded: true, ..States::default() }.or_default();
        assert!(either.hold(&app("OutOfSync", "Degraded", "Failed"), none));
        assert!(!either.hold(&app("Synced", "Healthy", "Succeeded"), none));
        let gone = States { delete: true, ..States::default() }.or_default();
        assert!(!gone.hold(&app("Synced", "Healthy", "Succeeded"), none));
    }

    #[test]
    fn resources_narrow_what_is_looked_at() {
        let default = States::default().or_default();
        let app = app("OutOfSync", "Degraded", "");
        let filters = |text: &str| vec![text.parse::<ResourceFilter>().unwrap()];
        assert!(default.hold(&app, &filters("apps:Deployment:a")));
        assert!(!default.hold(&app, &filters(":ConfigMap:c")));
        assert!(!default.hold(&app, &filters(":ConfigMap:not-yet")));
    }

    #[test]
    fn older_versions_are_not_news() {
        let version = |text: &str, uid: &str| json!({"metadata": {"resourceVersion": text, "uid": uid}});
        assert!(is_stale(Some(&Some(version("10", "a"))), Some(&version("9", "a"))));
        assert!(!is_stale(Some(&Some(version("9", "a"))), Some(&version("10", "a"))));
        assert!(!is_stale(Some(&Some(version("9", "a"))), Some(&version("9", "a"))));
        assert!(!is_stale(Some(&Some(version("10", "a"))), Some(&version("9", "b"))));
        assert!(!is_stale(None, Some(&version("9", "b"))));
    }
}
