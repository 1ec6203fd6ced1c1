//! `app get`, `app resources`, `app manifests`: one Application, looked at.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use windlass_protocol::{
    json,
    resource::{Kind, REFRESH_ANNOTATION},
    yaml,
};

use super::{app_path, key};
use crate::{
    client::{Client, path},
    failure::Failure,
    follow::Follow,
    output::{Document, Output, Table},
    view,
};

/// Options of `app get`.
#[derive(Args, Debug)]
pub(crate) struct Get {
    /// Name, or NAMESPACE/NAME
    name: String,
    /// Compare with Git afresh before printing
    #[arg(long)]
    refresh: bool,
    /// Compare afresh and render again, without any memo
    #[arg(long, conflicts_with = "refresh")]
    hard_refresh: bool,
    /// Show the last operation too
    #[arg(long)]
    show_operation: bool,
    /// Seconds to wait for the refresh
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// Print the object instead
    #[arg(short, long, value_enum)]
    output: Option<GetFormat>,
}

/// `-o` of `app get`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum GetFormat {
    /// The page, as without -o
    Wide,
    /// NAMESPACE/NAME
    Name,
    /// The object as JSON
    Json,
    /// The object as YAML
    Yaml,
}

/// Options of `app resources`.
#[derive(Args, Debug)]
pub(crate) struct Resources {
    /// Name, or NAMESPACE/NAME
    name: String,
    /// Print the list of status.resources instead
    #[arg(short, long, value_enum)]
    output: Option<Document>,
}

/// Options of `app manifests`.
#[derive(Args, Debug)]
pub(crate) struct Manifests {
    /// Name, or NAMESPACE/NAME
    name: String,
    /// Print as
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: Document,
}

pub(super) async fn get(client: &Client, options: Get, output: &mut Output) -> Result<()> {
    let (namespace, name) = client.qualified(&options.name);
    let address = path(Kind::Application, Some(&namespace), Some(&name));
    let kind = match (options.refresh, options.hard_refresh) {
        (_, true) => Some("hard"),
        (true, _) => Some("normal"),
        (false, false) => None,
    };
    let app = match kind {
        None => client.get(&address).await?,
        Some(kind) => refresh(client, &address, kind, Duration::from_secs(options.timeout), output).await?,
    };
    match options.output {
        Some(GetFormat::Json) => return output.document(Document::Json, &app),
        Some(GetFormat::Yaml) => return output.document(Document::Yaml, &app),
        Some(GetFormat::Name) => return output.line(view::qualified(&app)),
        Some(GetFormat::Wide) | None => {}
    }
    view::summary(output, &app)?;
    if options.show_operation {
        view::operation(output, &app)?;
    }
    view::conditions(output, &app)?;
    view::resources(output, &app)
}

/// Asks for a comparison; the hub takes the annotation away once it is done.
async fn refresh(client: &Client, address: &str, kind: &str, limit: Duration, output: &mut Output) -> Result<Value> {
    let patch = json!({"metadata": {"annotations": {REFRESH_ANNOTATION: kind}}});
    let asked = client.patch(address, &patch).await?;
    let wanted = key(&asked);
    let mut follow = Follow::new(client, Kind::Application, BTreeSet::from([wanted.clone()]));
    let done = async {
        loop {
            let news = follow.next(output).await?;
            match news.get(&wanted) {
                Some(None) => return Err(Failure::new(format!("{}/{} was deleted", wanted.0, wanted.1)).into()),
                Some(Some(app)) if json::at(app, &["metadata", "annotations", REFRESH_ANNOTATION]).is_none() => {
                    return Ok(app.clone());
                }
                _ => {}
            }
        }
    };
    match tokio::time::timeout(limit, done).await {
        Ok(result) => result,
        Err(_) => Err(Failure::new(format!(
            "the hub did not compare {}/{} within {} s (--timeout); `windlass hub status` shows whether it has a leader",
            wanted.0,
            wanted.1,
            limit.as_secs()
        ))
        .into()),
    }
}

pub(super) async fn resources(client: &Client, options: Resources, output: &mut Output) -> Result<()> {
    let app = client.get(&app_path(&client.qualified(&options.name))).await?;
    if let Some(format) = options.output {
        let list = json::at(&app, &["status", "resources"]).cloned().unwrap_or_else(|| json!([]));
        return output.document(format, &list);
    }
    let mut table = Table::new(&["GROUP", "KIND", "NAMESPACE", "NAME", "ORPHANED", "STATUS", "HEALTH"]);
    for resource in view::items(&app, &["status", "resources"]) {
        let text = |path: &[&str]| json::text(resource, path).to_owned();
        table.row([
            text(&["group"]),
            text(&["kind"]),
            text(&["namespace"]),
            text(&["name"]),
            "No".to_owned(),
            text(&["status"]),
            text(&["health", "status"]),
        ]);
    }
    output.table(&table)
}

pub(super) async fn manifests(client: &Client, options: Manifests, output: &mut Output) -> Result<()> {
    let address = app_path(&client.qualified(&options.name));
    let list = client.get(&format!("{address}/manifests")).await?;
    match options.output {
        Document::Json => output.document(Document::Json, &list),
        Document::Yaml => output.raw(&yaml::to_yaml_documents(view::items(&list, &["items"]))),
    }
}
