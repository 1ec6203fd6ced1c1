//! `windlass rollout`: changes under way, looked at.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::Value;
use windlass_protocol::{json, resource::Kind};

use crate::{
    client::{Client, path},
    command::list::{self, Columns, ListOptions},
    output::{Document, Output, Table},
    view,
};

/// Commands for rollouts.
#[derive(Debug, Subcommand)]
pub(crate) enum Rollout {
    /// List rollouts
    #[command(visible_alias = "ls")]
    List(ListOptions),
    /// Show one rollout
    Get(Get),
}

/// Options of `rollout get`.
#[derive(Args, Debug)]
pub(crate) struct Get {
    /// Name, or NAMESPACE/NAME
    name: String,
    /// Print the object instead
    #[arg(short, long, value_enum)]
    output: Option<Document>,
}

/// Runs a command for rollouts.
pub(crate) async fn run(client: &Client, command: Rollout, output: &mut Output) -> Result<()> {
    match command {
        Rollout::List(options) => {
            let mut rollouts = options.fetch(client, Kind::Rollout).await?;
            rollouts.sort_by_cached_key(|rollout| {
                (json::text(rollout, &["metadata", "creationTimestamp"]).to_owned(), view::qualified(rollout))
            });
            let columns = Columns {
                narrow: &["NAME", "OWNER", "PHASE", "STEP", "PROVEN", "CAUSE", "REVISION"],
                wide: &["CREATED", "MANUAL", "SUPERSEDED", "FAILED"],
            };
            list::print(output, options.output, &columns, rollouts, view::qualified, row)
        }
        Rollout::Get(options) => get(client, options, output).await,
    }
}

fn row(rollout: &Value) -> Vec<String> {
    vec![
        view::qualified(rollout),
        owner(rollout),
        json::text(rollout, &["status", "phase"]).to_owned(),
        format!("{}/{}", number(rollout, "step"), number(rollout, "steps")),
        format!("{}/{}", number(rollout, "proven"), number(rollout, "members")),
        json::text(rollout, &["spec", "cause"]).to_owned(),
        json::text(rollout, &["spec", "revision"]).chars().take(12).collect(),
        json::text(rollout, &["metadata", "creationTimestamp"]).to_owned(),
        number(rollout, "manual"),
        number(rollout, "superseded"),
        view::items(rollout, &["status", "failed"]).count().to_string(),
    ]
}

async fn get(client: &Client, options: Get, output: &mut Output) -> Result<()> {
    let (namespace, name) = client.qualified(&options.name);
    let rollout = client.get(&path(Kind::Rollout, Some(&namespace), Some(&name))).await?;
    if let Some(format) = options.output {
        return output.document(format, &rollout);
    }
    output.field("Name", &view::qualified(&rollout))?;
    output.field("Owner", &owner(&rollout))?;
    output.field("Cause", json::text(&rollout, &["spec", "cause"]))?;
    output.field("Revision", json::text(&rollout, &["spec", "revision"]))?;
    output.field("Created", json::text(&rollout, &["metadata", "creationTimestamp"]))?;
    output.field("Phase", json::text(&rollout, &["status", "phase"]))?;
    output.field("Step", &format!("{} of {}", number(&rollout, "step"), number(&rollout, "steps")))?;
    output.field("Proven", &format!("{} of {}", number(&rollout, "proven"), number(&rollout, "members")))?;
    output.field("Manual", &number(&rollout, "manual"))?;
    output.field("Superseded", &number(&rollout, "superseded"))?;
    let failed: Vec<&str> = view::items(&rollout, &["status", "failed"]).filter_map(Value::as_str).collect();
    output.field("Failed", if failed.is_empty() { "<none>" } else { "" })?;
    for name in &failed {
        output.line(format!("- {}", crate::output::clean(name)))?;
    }
    let mut table = Table::new(&["STEP", "APPLICATION", "CLUSTER", "DIGEST", "PREVIOUS"]);
    for (step, members) in view::items(&rollout, &["spec", "steps"]).enumerate() {
        for member in view::items(members, &["members"]) {
            let short = |field: &str| json::text(member, &[field]).chars().take(19).collect::<String>();
            table.row([
                step.saturating_add(1).to_string(),
                name_of(member.get("application")),
                json::text(member, &["cluster"]).to_owned(),
                short("digest"),
                short("previous"),
            ]);
        }
    }
    output.line("")?;
    output.table(&table)
}

fn owner(rollout: &Value) -> String {
    format!("{}/{}", json::text(rollout, &["spec", "ownerKind"]), name_of(json::at(rollout, &["spec", "owner"])))
}

/// A reference is a text `namespace/name`, or a map of both.
fn name_of(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(value) => format!("{}/{}", json::text(value, &["namespace"]), json::text(value, &["name"])),
        None => String::new(),
    }
}

fn number(rollout: &Value, field: &str) -> String {
    json::at(rollout, &["status", field]).and_then(Value::as_u64).unwrap_or_default().to_string()
}
