//! `app sync`: starts an operation on each Application and waits for its result.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use windlass_protocol::{json, resource::OPERATION_INFO};

use super::{
    Targets, app_path, is_operating, key,
    wait::{limit, print, until},
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
    for app in &apps {
        let operation = options.operation(client.user(), app)?;
        let key = key(app);
        client.patch(&app_path(&key), &json!({"operation": operation})).await?;
        before.insert(key, Before::of(app));
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
    /// What is asked of the hub.
    fn operation(&self, user: &str, app: &Value) -> Result<Value> {
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
        let mut operation = json!({"sync": sync, "initiatedBy": {"username": user}});
        if let Some(limit) = self.retry_limit {
            json::set(&mut operation, &["retry"], json!({"limit": limit}));
        }
        Ok(operation)
    }
}

/// What was known before the operation was asked for.
struct Before {
    number: u64,
    started: String,
}

impl Before {
    fn of(app: &Value) -> Self {
        Self { number: number(app).unwrap_or_default(), started: started(app).to_owned() }
    }

    /// Our operation has ended. The hub numbers what people ask for: a higher number is ours or a later one. What it refused
    /// has no number; it began at another time than the state before, and not by itself.
    fn is_done(&self, app: &Value) -> bool {
        if is_operating(app) || started(app).is_empty() {
            return false;
        }
        let automated = json::at(app, &["status", "operationState", "operation", "initiatedBy", "automated"]);
        match number(app) {
            Some(number) => number > self.number,
            None => automated != Some(&Value::Bool(true)) && started(app) != self.started,
        }
    }
}

/// The number of the operation that the state is of.
fn number(app: &Value) -> Option<u64> {
    let mut infos = view::items(app, &["status", "operationState", "operation", "info"]);
    let info = infos.find(|info| json::text(info, &["name"]) == OPERATION_INFO)?;
    json::text(info, &["value"]).parse().ok()
}

fn started(app: &Value) -> &str {
    json::text(app, &["status", "operationState", "startedAt"])
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_our_operation_is_told_from_an_older_one() {
        let app = |state: Value| json!({"status": {"operationState": state}});
        let numbered = |number: u64, phase: &str| {
            let info = json!([{"name": OPERATION_INFO, "value": number.to_string()}]);
            app(json!({"phase": phase, "startedAt": "t1", "operation": {"info": info}}))
        };
        let before = Before::of(&numbered(7, "Succeeded"));
        assert!(!before.is_done(&numbered(7, "Succeeded")));
        assert!(!before.is_done(&numbered(8, "Running")));
        assert!(before.is_done(&numbered(8, "Failed")), "also within the second of the one before");
        let mut waiting = numbered(8, "Succeeded");
        json::set(&mut waiting, &["operation"], json!({"sync": {}}));
        assert!(!before.is_done(&waiting));
        let refused = |time: &str, automated: bool| {
            let operation = json!({"sync": {}, "initiatedBy": {"automated": automated}});
            app(json!({"phase": "Error", "startedAt": time, "operation": operation}))
        };
        assert!(before.is_done(&refused("t2", false)));
        assert!(!before.is_done(&refused("t2", true)), "self-heal is nobody's answer");
        assert!(!before.is_done(&refused("t1", false)));
        assert!(!Before::of(&json!({})).is_done(&json!({})));
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
