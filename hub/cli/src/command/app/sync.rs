//! `app sync`: starts an operation on each Application and waits for its result.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use windlass_protocol::json;

use super::{
    Targets, app_path, is_operating, key,
    wait::{limit, now, print, until},
};
use crate::{
    client::Client,
    failure::Failure,
    follow::Key,
    output::{Document, Output},
    resource_filter::{ResourceFilter, select},
    view,
};

/// Options of `app sync`.
#[derive(Args, Debug)]
pub(crate) struct Sync {
    #[command(flatten)]
    targets: Targets,
    /// Return once the operations are asked for
    #[arg(long)]
    r#async: bool,
    /// Delete resources that are no longer in Git
    #[arg(long)]
    prune: bool,
    /// Ask the API server what would happen; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Delete and create again what cannot be changed in place
    #[arg(long)]
    force: bool,
    /// Replace instead of apply
    #[arg(long)]
    replace: bool,
    /// Apply on the server
    #[arg(long)]
    server_side: bool,
    /// Only resources that are out of sync
    #[arg(long)]
    apply_out_of_sync_only: bool,
    /// Branch, tag or commit instead of the Application's own
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Only these resources, GROUP:KIND:NAME; `*` is any, a leading `!` excludes
    #[arg(long = "resource", value_name = "GROUP:KIND:NAME")]
    resources: Vec<ResourceFilter>,
    /// How often a failed operation is tried again
    #[arg(long, value_name = "N")]
    retry_limit: Option<i64>,
    /// Seconds to wait; 0 waits forever
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeout: u64,
    /// Print the objects at the end instead of their pages
    #[arg(short, long, value_enum)]
    output: Option<Document>,
}

pub(super) async fn run(client: &Client, options: Sync, output: &mut Output) -> Result<()> {
    let apps = options.targets.fetch(client).await?;
    let busy: Vec<String> = apps.iter().filter(|app| is_operating(app)).map(view::qualified).collect();
    if !busy.is_empty() {
        let names = busy.join(" ");
        let message =
            format!("another operation is under way: {names}; wait with `windlass app wait --operation {names}`");
        return Err(Failure::new(message).into());
    }
    let mut before: BTreeMap<Key, Before> = BTreeMap::new();
    pass_the_second(&apps).await;
    for app in &apps {
        let (request, operation) = options.operation(client.user(), app)?;
        let key = key(app);
        client.patch(&app_path(&key), &json!({"operation": operation})).await?;
        let state = json::at(app, &["status", "operationState"]).cloned();
        before.insert(key, Before { request, state });
    }
    if options.r#async {
        for key in before.keys() {
            output.say(format!("{}/{}: sync asked for", key.0, key.1));
        }
        return Ok(());
    }
    let keys: Vec<Key> = before.keys().cloned().collect();
    let done = |app: Option<&Value>| match app {
        None => Err(Failure::new("was deleted while it was synced")),
        Some(app) => Ok(before.get(&key(app)).is_some_and(|before| before.is_done(app))),
    };
    let last = until(client, keys, limit(options.timeout), output, done).await?;
    print(&last, options.output, output)?;
    verdict(last.values().flatten(), options.dry_run || !options.resources.is_empty())
}

impl Sync {
    /// The operation, and the mark by which its result is known.
    fn operation(&self, user: &str, app: &Value) -> Result<(String, Value)> {
        let request = format!("{}-{}", json::text(app, &["metadata", "resourceVersion"]), std::process::id());
        let mut sync = json!({"syncStrategy": {"hook": if self.force { json!({"force": true}) } else { json!({}) }}});
        for (wanted, field) in [(self.prune, "prune"), (self.dry_run, "dryRun")] {
            if wanted {
                json::set(&mut sync, &[field], json!(true));
            }
        }
        if let Some(revision) = &self.revision {
            json::set(&mut sync, &["revision"], json!(revision));
        }
        let own: Vec<&str> = [
            (self.replace, "Replace=true"),
            (self.server_side, "ServerSideApply=true"),
            (self.apply_out_of_sync_only, "ApplyOutOfSyncOnly=true"),
        ]
        .into_iter()
        .filter_map(|(wanted, option)| wanted.then_some(option))
        .collect();
        if !own.is_empty() {
            let kept = view::items(app, &["spec", "syncPolicy", "syncOptions"]).filter_map(Value::as_str);
            let all: Vec<&str> = kept.chain(own).collect();
            json::set(&mut sync, &["syncOptions"], json!(all));
        }
        if !self.resources.is_empty() {
            let listed: Vec<Value> = view::items(app, &["status", "resources"]).cloned().collect();
            let chosen = select(&self.resources, &listed);
            if chosen.is_empty() {
                let message = format!("no resource of {} matches --resource", view::qualified(app));
                return Err(Failure::new(message).into());
            }
            json::set(&mut sync, &["resources"], Value::Array(chosen));
        }
        let info = json!([{"name": REQUEST, "value": request}]);
        let mut operation = json!({"sync": sync, "initiatedBy": {"username": user}, "info": info});
        if let Some(limit) = self.retry_limit {
            json::set(&mut operation, &["retry"], json!({"limit": limit}));
        }
        Ok((request, operation))
    }
}

/// What was known before the operation was asked for.
struct Before {
    request: String,
    state: Option<Value>,
}

impl Before {
    /// Our operation has ended. A hub that keeps the operation beside its state is believed by the mark; with another one
    /// the state has to differ from the one before.
    fn is_done(&self, app: &Value) -> bool {
        if is_operating(app) {
            return false;
        }
        let Some(state) = json::at(app, &["status", "operationState"]).filter(|state| state.is_object()) else {
            return false;
        };
        let mut marks =
            view::items(state, &["operation", "info"]).filter(|info| json::text(info, &["name"]) == REQUEST);
        match marks.next() {
            Some(mark) => json::text(mark, &["value"]) == self.request,
            None => self.state.as_ref() != Some(state),
        }
    }
}

/// Times of operations are whole seconds: the result of an operation that starts in the second in which the last one ended
/// could not be told from it.
async fn pass_the_second(apps: &[Value]) {
    let now = now();
    let ends = apps.iter().map(|app| json::text(app, &["status", "operationState", "finishedAt"]));
    if ends.into_iter().any(|end| end == now) {
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
}

/// Exit code 1 unless every operation succeeded and, for whole Applications, nothing waits for pruning.
fn verdict<'a>(apps: impl Iterator<Item = &'a Value>, partial: bool) -> Result<()> {
    let mut problems = Vec::new();
    for app in apps {
        let name = view::qualified(app);
        let phase = json::text(app, &["status", "operationState", "phase"]);
        if phase != "Succeeded" {
            let message = json::text(app, &["status", "operationState", "message"]);
            let colon = if message.is_empty() { "" } else { ": " };
            problems.push(format!("{name}: operation has completed with phase {phase}{colon}{message}"));
        } else if !partial && view::sync_status(app) != "Synced" {
            let pruning = view::items(app, &["status", "operationState", "syncResult", "resources"])
                .filter(|result| json::text(result, &["status"]) == "PruneSkipped")
                .count();
            if pruning > 0 {
                problems.push(format!("{name}: {pruning} resources require pruning: sync again with --prune"));
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Failure::new(problems.join("\n")).into()) }
}

/// Name of the `info` that marks an operation as ours.
const REQUEST: &str = "windlass.io/request";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_our_operation_is_told_from_an_older_one() {
        let before =
            Before { request: "7-1".to_owned(), state: Some(json!({"phase": "Succeeded", "startedAt": "t1"})) };
        let app = |state: Value| json!({"status": {"operationState": state}});
        assert!(!before.is_done(&app(json!({"phase": "Succeeded", "startedAt": "t1"}))));
        assert!(!before.is_done(&app(json!({"phase": "Running", "startedAt": "t2"}))));
        assert!(before.is_done(&app(json!({"phase": "Failed", "startedAt": "t2"}))));
        let marked = |value: &str| {
            app(
                json!({"phase": "Succeeded", "startedAt": "t2", "operation": {"info": [{"name": REQUEST, "value": value}]}}),
            )
        };
        assert!(!before.is_done(&marked("6-9")));
        assert!(before.is_done(&marked("7-1")));
        let mut waiting = marked("7-1");
        json::set(&mut waiting, &["operation"], json!({"sync": {}}));
        assert!(!before.is_done(&waiting));
    }

    #[test]
    fn pruning_that_is_left_is_a_failure_of_a_whole_sync_only() {
        let result = json!({"resources": [{"status": "PruneSkipped"}, {"status": "Synced"}]});
        let app = json!({"metadata": {"namespace": "argocd", "name": "a"}, "status": {"sync": {"status": "OutOfSync"},
            "operationState": {"phase": "Succeeded", "syncResult": result}}});
        let error = verdict(std::iter::once(&app), false).unwrap_err();
        assert_eq!(error.to_string(), "argocd/a: 1 resources require pruning: sync again with --prune");
        assert!(verdict(std::iter::once(&app), true).is_ok());
    }
}
