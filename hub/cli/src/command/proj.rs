//! `windlass proj`: AppProjects, looked at.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::Value;
use windlass_protocol::{json, resource::Kind};

use crate::{
    client::{Client, path},
    command::list::{self, Columns, ListOptions},
    output::{Document, Output},
    view,
};

/// Commands for projects.
#[derive(Debug, Subcommand)]
pub(crate) enum Proj {
    /// List projects
    #[command(visible_alias = "ls")]
    List(ListOptions),
    /// Show one project
    Get(Get),
}

/// Options of `proj get`.
#[derive(Args, Debug)]
pub(crate) struct Get {
    /// Name
    name: String,
    /// Print the object instead
    #[arg(short, long, value_enum)]
    output: Option<Document>,
}

/// Runs a command for projects.
pub(crate) async fn run(client: &Client, command: Proj, output: &mut Output) -> Result<()> {
    match command {
        Proj::List(options) => {
            let mut projects = options.fetch(client, Kind::AppProject).await?;
            projects.sort_by_cached_key(list::plain_name);
            let columns = Columns { narrow: COLUMNS, wide: &[] };
            list::print(output, options.output, &columns, projects, list::plain_name, row)
        }
        Proj::Get(options) => get(client, options, output).await,
    }
}

async fn get(client: &Client, options: Get, output: &mut Output) -> Result<()> {
    let (namespace, name) = client.qualified(&options.name);
    let project = client.get(&path(Kind::AppProject, Some(&namespace), Some(&name))).await?;
    if let Some(format) = options.output {
        return output.document(format, &project);
    }
    for (key, lines) in [
        ("Name", vec![name]),
        ("Description", vec![json::text(&project, &["spec", "description"]).to_owned()]),
        ("Destinations", lines(&project, "destinations", destination)),
        ("Repositories", lines(&project, "sourceRepos", plain)),
        ("Source Namespaces", lines(&project, "sourceNamespaces", plain)),
        ("Allowed Cluster Resources", lines(&project, "clusterResourceWhitelist", group_kind)),
        ("Denied Cluster Resources", lines(&project, "clusterResourceBlacklist", group_kind)),
        ("Allowed Namespaced Resources", lines(&project, "namespaceResourceWhitelist", group_kind)),
        ("Denied Namespaced Resources", lines(&project, "namespaceResourceBlacklist", group_kind)),
    ] {
        let shown = if lines.is_empty() { vec!["<none>".to_owned()] } else { lines };
        for (index, line) in shown.iter().enumerate() {
            let key = if index == 0 { format!("{key}:") } else { String::new() };
            output.line(format!("{key:<30} {}", crate::output::clean(line)).trim_end())?;
        }
    }
    Ok(())
}

const COLUMNS: &[&str] = &[
    "NAME",
    "DESCRIPTION",
    "DESTINATIONS",
    "SOURCES",
    "CLUSTER-RESOURCE-WHITELIST",
    "NAMESPACE-RESOURCE-BLACKLIST",
    "ORPHANED-RESOURCES",
];

fn row(project: &Value) -> Vec<String> {
    let count = |field: &str, one: fn(&Value) -> String, several: &str| {
        let all = lines(project, field, one);
        match all.as_slice() {
            [] => "<none>".to_owned(),
            [only] => only.clone(),
            all => format!("{} {several}", all.len()),
        }
    };
    let orphaned = match json::at(project, &["spec", "orphanedResources"]) {
        None | Some(Value::Null) => "disabled",
        Some(_) => "enabled",
    };
    vec![
        list::plain_name(project),
        json::text(project, &["spec", "description"]).to_owned(),
        count("destinations", destination, "destinations"),
        count("sourceRepos", plain, "repos"),
        count("clusterResourceWhitelist", group_kind, "resources"),
        count("namespaceResourceBlacklist", group_kind, "resources"),
        orphaned.to_owned(),
    ]
}

fn lines(project: &Value, field: &str, one: fn(&Value) -> String) -> Vec<String> {
    view::items(project, &["spec", field]).map(one).collect()
}

fn destination(value: &Value) -> String {
    format!("{},{}", view::destination(&serde_json::json!({"destination": value})), json::text(value, &["namespace"]))
}

fn plain(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn group_kind(value: &Value) -> String {
    format!("{}/{}", json::text(value, &["group"]), json::text(value, &["kind"]))
}
