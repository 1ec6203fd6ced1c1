//! `windlass appset`: ApplicationSets.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use windlass_protocol::{json, resource::Kind, yaml};

use crate::{
    client::{Client, path},
    command::list::{self, Columns, ListOptions},
    failure::Failure,
    manifest::{self, Depth, Manifest},
    output::{Document, Output, Table},
    patch,
    view::{self, Policy},
};

/// Commands for ApplicationSets.
#[derive(Debug, Subcommand)]
pub(crate) enum Appset {
    /// List ApplicationSets
    #[command(visible_alias = "ls")]
    List(List),
    /// Show one ApplicationSet
    Get(Get),
    /// Create ApplicationSets from files
    Create(Create),
    /// Print the Applications that a file would make, without creating anything
    Generate(Generate),
    /// Delete ApplicationSets and the Applications that they made
    #[command(visible_alias = "rm")]
    Delete(Delete),
}

/// Options of `appset list`.
#[derive(Args, Debug)]
pub(crate) struct List {
    #[command(flatten)]
    options: ListOptions,
    /// Only whose template is of these projects
    #[arg(short, long, value_name = "PROJECT", value_delimiter = ',')]
    project: Vec<String>,
}

/// Options of `appset get`.
#[derive(Args, Debug)]
pub(crate) struct Get {
    /// Name, or NAMESPACE/NAME
    name: String,
    /// Print the object instead
    #[arg(short, long, value_enum)]
    output: Option<Document>,
}

/// Options of `appset create`.
#[derive(Args, Debug)]
pub(crate) struct Create {
    /// Files, or - for standard input
    #[arg(short, long = "file", value_name = "FILE", required_unless_present = "paths")]
    files: Vec<PathBuf>,
    /// Files, as argocd takes them
    #[arg(value_name = "FILE")]
    paths: Vec<PathBuf>,
    /// Change one that exists and differs
    #[arg(long)]
    upsert: bool,
    /// Let the hub check everything and store nothing
    #[arg(long)]
    dry_run: bool,
    /// Print what the hub answers instead of one line each
    #[arg(short, long, value_enum)]
    output: Option<Document>,
}

/// Options of `appset generate`.
#[derive(Args, Debug)]
pub(crate) struct Generate {
    /// File, or - for standard input
    #[arg(short, long = "file", value_name = "FILE", required_unless_present = "path")]
    file: Option<PathBuf>,
    /// File, as argocd takes it
    #[arg(value_name = "FILE", conflicts_with = "file")]
    path: Option<PathBuf>,
    /// Print the Applications themselves instead of the table
    #[arg(short, long, value_enum)]
    output: Option<Document>,
}

/// Options of `appset delete`.
#[derive(Args, Debug)]
pub(crate) struct Delete {
    /// Names, or NAMESPACE/NAME
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// What happens to its Applications: orphan keeps them
    #[arg(long, value_enum, default_value = "background", value_name = "HOW")]
    cascade: Propagation,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// `--cascade`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// Runs a command for ApplicationSets.
pub(crate) async fn run(client: &Client, command: Appset, output: &mut Output) -> Result<()> {
    match command {
        Appset::List(options) => list_sets(client, options, output).await,
        Appset::Get(options) => get(client, options, output).await,
        Appset::Create(options) => create(client, options, output).await,
        Appset::Generate(options) => generate(client, options, output).await,
        Appset::Delete(options) => delete(client, options, output).await,
    }
}

async fn list_sets(client: &Client, options: List, output: &mut Output) -> Result<()> {
    let mut sets = options.options.fetch(client, Kind::ApplicationSet).await?;
    sets.retain(|set| {
        options.project.is_empty() || options.project.iter().any(|name| name == view::project(template(set)))
    });
    sets.sort_by_cached_key(view::qualified);
    let columns = Columns { narrow: &["NAME", "PROJECT", "SYNCPOLICY", "CONDITIONS"], wide: view::APP_COLUMNS_WIDE };
    list::print(output, options.options.output, &columns, sets, view::qualified, row)
}

fn row(set: &Value) -> Vec<String> {
    let spec = template(set);
    let source = |field: &str| {
        let texts: Vec<&str> = view::sources(spec).into_iter().map(|source| json::text(source, &[field])).collect();
        texts.join(",")
    };
    vec![
        view::qualified(set),
        view::project(spec).to_owned(),
        applications_sync(set).to_owned(),
        conditions(set),
        source("repoURL"),
        source("path"),
        source("targetRevision"),
    ]
}

async fn get(client: &Client, options: Get, output: &mut Output) -> Result<()> {
    let (namespace, name) = client.qualified(&options.name);
    let set = client.get(&path(Kind::ApplicationSet, Some(&namespace), Some(&name))).await?;
    if let Some(format) = options.output {
        return output.document(format, &set);
    }
    let spec = template(&set);
    output.field("Name", &view::qualified(&set))?;
    output.field("Project", view::project(spec))?;
    output.field("Server", view::destination(spec))?;
    output.field("Namespace", json::text(spec, &["destination", "namespace"]))?;
    view::source_lines(output, spec)?;
    output.field("Sync Policy", Policy::of(spec).long())?;
    output.field("Applications Sync", applications_sync(&set))?;
    output.field("Applications", &view::items(&set, &["status", "resources"]).count().to_string())?;
    let mut table = Table::new(&["CONDITION", "STATUS", "MESSAGE", "LAST TRANSITION"]);
    for condition in view::items(&set, &["status", "conditions"]) {
        table.row(["type", "status", "message", "lastTransitionTime"].map(|field| json::text(condition, &[field])));
    }
    output.line("")?;
    output.table(&table)?;
    applications(output, &set)
}

/// The Applications with their step, when the status lists them.
fn applications(output: &mut Output, set: &Value) -> Result<()> {
    let mut statuses = view::items(set, &["status", "applicationStatus"]).peekable();
    if statuses.peek().is_none() {
        return Ok(());
    }
    let mut table = Table::new(&["APPLICATION", "STEP", "STATUS", "MESSAGE"]);
    for status in statuses {
        table.row(["application", "step", "status", "message"].map(|field| json::text(status, &[field])));
    }
    output.line("")?;
    output.table(&table)
}

async fn create(client: &Client, options: Create, output: &mut Output) -> Result<()> {
    let files: Vec<PathBuf> = options.files.iter().chain(&options.paths).cloned().collect();
    let sets = read_sets(&files, output)?;
    for set in &sets {
        let namespace = namespace(client, &set.object);
        let mut wanted = set.object.clone();
        json::set(&mut wanted, &["metadata", "namespace"], json!(namespace));
        let name = json::text(&wanted, &["metadata", "name"]).to_owned();
        let dry = if options.dry_run { "?dryRun=All" } else { "" };
        let collection = path(Kind::ApplicationSet, Some(&namespace), None);
        let address = path(Kind::ApplicationSet, Some(&namespace), Some(&name));
        let (answer, verb) = match client.find(&address).await? {
            None => (client.create(&format!("{collection}{dry}"), &wanted).await?, "created"),
            Some(live) => match patch::three_way(live.get("spec"), spec(&wanted), spec(&live)) {
                None => (live, "unchanged"),
                Some(_) if !options.upsert => {
                    let message =
                        format!("{}: the ApplicationSet {name} exists and differs: change it with --upsert", set.place);
                    return Err(Failure::new(message).into());
                }
                Some(spec) => (client.patch(&format!("{address}{dry}"), &json!({"spec": spec})).await?, "updated"),
            },
        };
        let dry = if options.dry_run { " (dry run)" } else { "" };
        match options.output {
            Some(format) => output.document(format, &answer)?,
            None => output.line(format!("ApplicationSet '{}' {verb}{dry}", view::qualified(&answer)))?,
        }
    }
    Ok(())
}

async fn generate(client: &Client, options: Generate, output: &mut Output) -> Result<()> {
    let files: Vec<PathBuf> = options.file.or(options.path).into_iter().collect();
    let mut all = Vec::new();
    for set in read_sets(&files, output)? {
        let namespace = namespace(client, &set.object);
        let mut wanted = set.object;
        json::set(&mut wanted, &["metadata", "namespace"], json!(namespace));
        let address = format!("{}/generate", path(Kind::ApplicationSet, Some(&namespace), None));
        let list = client.create(&address, &wanted).await?;
        all.extend(view::items(&list, &["items"]).cloned());
    }
    match options.output {
        Some(Document::Yaml) => output.raw(&yaml::to_yaml_documents(&all)),
        Some(Document::Json) => output.document(Document::Json, &Value::Array(all)),
        None => {
            // Nothing has run yet: the columns of status would only say Unknown.
            let mut table =
                Table::new(&["NAME", "CLUSTER", "NAMESPACE", "PROJECT", "SYNCPOLICY", "REPO", "PATH", "TARGET"]);
            for app in &all {
                let cells = view::app_row(app);
                table.row([0, 1, 2, 3, 6, 8, 9, 10].into_iter().filter_map(|index| cells.get(index).cloned()));
            }
            output.table(&table)
        }
    }
}

async fn delete(client: &Client, options: Delete, output: &mut Output) -> Result<()> {
    let (policy, what) = match options.cascade {
        Propagation::Background => ("Background", "and its Applications"),
        Propagation::Foreground => ("Foreground", "and its Applications"),
        Propagation::Orphan => ("Orphan", "and keep its Applications"),
    };
    for name in &options.names {
        let (namespace, name) = client.qualified(name);
        let shown = format!("{namespace}/{name}");
        if !options.yes && !output.confirm(&format!("Are you sure you want to delete {shown} {what}?"))? {
            output.say(format!("{shown} is kept"));
            continue;
        }
        let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
        client.delete(&path(Kind::ApplicationSet, Some(&namespace), Some(&name)), &body).await?;
        output.line(format!("applicationset '{shown}' deleted"))?;
    }
    Ok(())
}

/// The ApplicationSets of files; anything else in them is an error.
fn read_sets(files: &[PathBuf], output: &mut Output) -> Result<Vec<Manifest>> {
    let mut read = manifest::read(files, Depth::Flat, output)?;
    for manifest in &read.manifests {
        let kind = json::text(&manifest.object, &["kind"]);
        if kind != Kind::ApplicationSet.info().name {
            read.problems
                .push(format!("{}: {kind} is no ApplicationSet (`windlass apply` takes any kind)", manifest.place));
        } else if json::text(&manifest.object, &["metadata", "name"]).is_empty() {
            read.problems.push(format!("{}: metadata.name is missing", manifest.place));
        }
    }
    if read.problems.is_empty() && read.manifests.is_empty() {
        read.problems.push("there is no ApplicationSet in the files".to_owned());
    }
    if read.problems.is_empty() { Ok(read.manifests) } else { Err(Failure::new(read.problems.join("\n")).into()) }
}

fn namespace(client: &Client, object: &Value) -> String {
    let own = json::text(object, &["metadata", "namespace"]);
    if own.is_empty() { client.namespace() } else { own }.to_owned()
}

/// `spec.template.spec`, null where there is none.
fn template(set: &Value) -> &Value {
    json::at(set, &["spec", "template", "spec"]).unwrap_or(&Value::Null)
}

fn applications_sync(set: &Value) -> &str {
    let text = json::text(set, &["spec", "syncPolicy", "applicationsSync"]);
    if text.is_empty() { "sync" } else { text }
}

/// The conditions that hold, `Type=Status` for those that do not.
fn conditions(set: &Value) -> String {
    let text =
        |condition: &Value| format!("{}={}", json::text(condition, &["type"]), json::text(condition, &["status"]));
    let all: Vec<String> = view::items(set, &["status", "conditions"]).map(text).collect();
    if all.is_empty() { "<none>".to_owned() } else { all.join(",") }
}

/// `spec` of an object; null where it has none.
fn spec(object: &Value) -> &Value {
    object.get("spec").unwrap_or(&Value::Null)
}
