//! `windlass app`: Applications, with the verbs, columns and exit codes of `argocd app`.

mod delete;
mod get;
mod sync;
mod wait;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::Value;
use windlass_protocol::{json, resource::Kind};

use crate::{
    client::{Client, Query, path},
    command::list::{self, Columns, ListOptions},
    failure::Failure,
    follow::Key,
    output::Output,
    view,
};

/// Commands for Applications.
#[derive(Debug, Subcommand)]
pub(crate) enum App {
    /// List Applications
    #[command(visible_alias = "ls")]
    List(List),
    /// Show one Application with its resources
    Get(get::Get),
    /// Sync Applications to their target, and wait for the result
    Sync(sync::Sync),
    /// Wait until Applications are synced and healthy
    Wait(wait::Wait),
    /// List the resources of an Application
    Resources(get::Resources),
    /// Print the manifests of an Application as rendered from Git
    Manifests(get::Manifests),
    /// Delete Applications and what they deployed
    #[command(visible_alias = "rm")]
    Delete(delete::Delete),
}

/// Options of `app list`.
#[derive(Args, Debug, Default)]
pub(crate) struct List {
    #[command(flatten)]
    options: ListOptions,
    /// Only of these projects
    #[arg(short, long, value_name = "PROJECT", value_delimiter = ',')]
    project: Vec<String>,
    /// Only with this repository URL
    #[arg(short, long, value_name = "URL")]
    repo: Option<String>,
    /// Only with this path in the repository
    #[arg(short = 'P', long, value_name = "PATH")]
    path: Option<String>,
    /// Only for this cluster, name or URL
    #[arg(short, long, value_name = "CLUSTER")]
    cluster: Option<String>,
}

/// Which Applications a command is about: names, or a selection.
#[derive(Args, Debug, Default)]
pub(crate) struct Targets {
    /// Names, or NAMESPACE/NAME
    #[arg(value_name = "NAME", required_unless_present_any = ["selector", "project"])]
    names: Vec<String>,
    /// All Applications with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "names")]
    selector: Option<String>,
    /// All Applications of these projects
    #[arg(long, value_name = "PROJECT", value_delimiter = ',', conflicts_with = "names")]
    project: Vec<String>,
}

/// Runs a command for Applications.
pub(crate) async fn run(client: &Client, command: App, output: &mut Output) -> Result<()> {
    match command {
        App::List(options) => list_apps(client, options, output).await,
        App::Get(options) => get::get(client, options, output).await,
        App::Sync(options) => sync::run(client, options, output).await,
        App::Wait(options) => wait::run(client, options, output).await,
        App::Resources(options) => get::resources(client, options, output).await,
        App::Manifests(options) => get::manifests(client, options, output).await,
        App::Delete(options) => delete::run(client, options, output).await,
    }
}

async fn list_apps(client: &Client, options: List, output: &mut Output) -> Result<()> {
    let mut apps = options.options.fetch(client, Kind::Application).await?;
    apps.retain(|app| options.picks(app));
    apps.sort_by_cached_key(view::qualified);
    let columns = Columns { narrow: view::APP_COLUMNS, wide: view::APP_COLUMNS_WIDE };
    list::print(output, options.options.output, &columns, apps, view::qualified, view::app_row)
}

impl List {
    fn picks(&self, app: &Value) -> bool {
        let empty = Value::Null;
        let spec = app.get("spec").unwrap_or(&empty);
        let source = |field: &str, wanted: &Option<String>| {
            let same =
                |wanted: &String| view::sources(spec).iter().any(|source| json::text(source, &[field]) == wanted);
            wanted.as_ref().is_none_or(same)
        };
        let destination = |wanted: &String| {
            ["name", "server"].iter().any(|field| json::text(spec, &["destination", field]) == wanted)
        };
        in_projects(&self.project, app)
            && source("repoURL", &self.repo)
            && source("path", &self.path)
            && self.cluster.as_ref().is_none_or(destination)
    }
}

impl Targets {
    /// The Applications as they are now.
    ///
    /// # Errors
    /// A name that does not exist, or a selection that is empty.
    async fn fetch(&self, client: &Client) -> Result<Vec<Value>> {
        let mut apps: Vec<Value> = Vec::new();
        if self.names.is_empty() {
            let query = Query { selector: self.selector.clone() };
            apps = client.list(Kind::Application, Some(client.namespace()), &query).await?;
            apps.retain(|app| in_projects(&self.project, app));
            if apps.is_empty() {
                let namespace = client.namespace();
                return Err(Failure::new(format!("no Application in namespace {namespace} is selected")).into());
            }
        }
        for name in &self.names {
            let (namespace, name) = client.qualified(name);
            let app = client.get(&path(Kind::Application, Some(&namespace), Some(&name))).await?;
            if !apps.iter().any(|known| key(known) == key(&app)) {
                apps.push(app);
            }
        }
        Ok(apps)
    }

    /// Namespace and name of each, without asking the hub for what is named.
    async fn keys(&self, client: &Client) -> Result<Vec<Key>> {
        if self.names.is_empty() {
            return Ok(self.fetch(client).await?.iter().map(key).collect());
        }
        Ok(self.names.iter().map(|name| client.qualified(name)).collect())
    }
}

/// Path of an Application.
fn app_path(key: &Key) -> String {
    path(Kind::Application, Some(&key.0), Some(&key.1))
}

/// Namespace and name of an object.
fn key(app: &Value) -> Key {
    (json::text(app, &["metadata", "namespace"]).to_owned(), json::text(app, &["metadata", "name"]).to_owned())
}

fn in_projects(projects: &[String], app: &Value) -> bool {
    let empty = Value::Null;
    let project = view::project(app.get("spec").unwrap_or(&empty));
    projects.is_empty() || projects.iter().any(|wanted| wanted == project)
}

/// An operation is asked for or under way.
fn is_operating(app: &Value) -> bool {
    let phase = json::text(app, &["status", "operationState", "phase"]);
    app.get("operation").is_some_and(Value::is_object) || matches!(phase, "Running" | "Terminating")
}
