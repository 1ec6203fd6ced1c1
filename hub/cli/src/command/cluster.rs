//! `windlass cluster`: clusters, and the join tokens with which their agents enrol.

mod add;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use windlass_protocol::{json, resource::Kind};

use crate::{
    client::{Client, path},
    command::list::{self, Columns, ListOptions},
    output::{Document, Output, clean},
    view,
};

/// Commands for clusters.
#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// List clusters
    #[command(visible_alias = "ls")]
    List(ListOptions),
    /// Show one cluster
    Get(Get),
    /// Register a cluster and print how its agent joins
    Add(add::Add),
    /// Remove a cluster from the hub and shut its agent out
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

/// Options of `cluster get`.
#[derive(Args, Debug)]
pub(crate) struct Get {
    /// Name
    name: String,
    /// Print the object instead
    #[arg(short, long, value_enum)]
    output: Option<Document>,
}

/// Options of `cluster rm`.
#[derive(Args, Debug)]
pub(crate) struct Rm {
    /// Names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Runs a command for clusters.
pub(crate) async fn run(client: &Client, command: Cluster, output: &mut Output) -> Result<()> {
    match command {
        Cluster::List(options) => {
            let mut clusters = options.fetch(client, Kind::Cluster).await?;
            clusters.sort_by_cached_key(list::plain_name);
            let columns = Columns {
                narrow: &["NAME", "STATUS", "VERSION", "APPS", "PROJECT", "SERVER"],
                wide: &["GENERATION", "HUB", "SINCE", "LABELS"],
            };
            list::print(output, options.output, &columns, clusters, list::plain_name, row)
        }
        Cluster::Get(options) => get(client, options, output).await,
        Cluster::Add(options) => add::run(client, options, output).await,
        Cluster::Rm(options) => remove(client, options, output).await,
    }
}

fn row(cluster: &Value) -> Vec<String> {
    vec![
        list::plain_name(cluster),
        phase(cluster).to_owned(),
        json::text(cluster, &["status", "facts", "kubernetesVersion"]).to_owned(),
        number(cluster, "assignments"),
        json::text(cluster, &["spec", "project"]).to_owned(),
        servers(cluster),
        generation(cluster),
        number(cluster, "hub"),
        json::text(cluster, &["status", "lastTransitionTime"]).to_owned(),
        view::labels(json::at(cluster, &["metadata", "labels"])),
    ]
}

async fn get(client: &Client, options: Get, output: &mut Output) -> Result<()> {
    let cluster = client.get(&path(Kind::Cluster, None, Some(&options.name))).await?;
    if let Some(format) = options.output {
        return output.document(format, &cluster);
    }
    output.field("Name", &list::plain_name(&cluster))?;
    output.field("Status", phase(&cluster))?;
    output.field("Since", json::text(&cluster, &["status", "lastTransitionTime"]))?;
    output.field("Project", json::text(&cluster, &["spec", "project"]))?;
    output.field("Server", &servers(&cluster))?;
    output.field("Labels", &view::labels(json::at(&cluster, &["metadata", "labels"])))?;
    output.field("Annotations", &view::labels(json::at(&cluster, &["metadata", "annotations"])))?;
    output.field("Applications", &number(&cluster, "assignments"))?;
    output.field("Generation", &generation(&cluster))?;
    output.field("Hub", &number(&cluster, "hub"))?;
    let facts = json::at(&cluster, &["status", "facts"]).and_then(Value::as_object);
    if let Some(facts) = facts.filter(|facts| !facts.is_empty()) {
        output.line("Facts:")?;
        for (key, value) in facts {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            output.field(&format!("  {}", clean(key)), &text)?;
        }
    }
    Ok(())
}

async fn remove(client: &Client, options: Rm, output: &mut Output) -> Result<()> {
    for name in &options.names {
        let question = format!("Are you sure you want to remove cluster {name} and shut its agent out?");
        if !options.yes && !output.confirm(&question)? {
            output.say(format!("{name} is kept"));
            continue;
        }
        let body = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        client.delete(&path(Kind::Cluster, None, Some(name)), &body).await?;
        output.line(format!("cluster '{name}' removed"))?;
    }
    Ok(())
}

fn phase(cluster: &Value) -> &str {
    let phase = json::text(cluster, &["status", "phase"]);
    if phase.is_empty() { "Pending" } else { phase }
}

fn servers(cluster: &Value) -> String {
    let urls: Vec<&str> = view::items(cluster, &["spec", "servers"]).filter_map(Value::as_str).collect();
    urls.join(",")
}

/// What the agent has, of what it should have.
fn generation(cluster: &Value) -> String {
    let (wanted, has) = (number(cluster, "generation"), number(cluster, "acknowledgedGeneration"));
    if has.is_empty() || has == wanted { wanted } else { format!("{has}/{wanted}") }
}

fn number(cluster: &Value, field: &str) -> String {
    let value = json::at(cluster, &["status", field]).and_then(Value::as_u64);
    value.map(|value| value.to_string()).unwrap_or_default()
}
