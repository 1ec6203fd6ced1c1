//! `windlass apply`: files become objects of the hub.
//!
//! A three-way merge with kubectl's own annotation (see `patch`), so that both tools may be used on the same object. Secrets
//! are replaced instead: an annotation with their content would show it to everyone who reads the object.

use std::{fmt, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use windlass_protocol::{
    json,
    resource::{KINDS, Kind},
};

use crate::{
    client::{ApiError, Client, path},
    failure::Failure,
    manifest::{self, Depth, Manifest},
    output::Output,
    patch,
};

/// Options of `apply`.
#[derive(Args, Debug)]
pub(crate) struct Apply {
    /// Files, directories, or - for standard input
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Read directories inside of directories too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Change nothing; `server` lets the hub check everything
    #[arg(
        long, value_enum, default_value = "none", default_missing_value = "client", num_args = 0..=1, require_equals = true
    )]
    dry_run: DryRun,
}

/// `--dry-run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DryRun {
    None,
    Client,
    Server,
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Created,
    Configured,
    Unchanged,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        })
    }
}

/// Applies every object that can be, then fails if one could not.
pub(crate) async fn run(client: &Client, options: Apply, output: &mut Output) -> Result<()> {
    let depth = if options.recursive { Depth::Recursive } else { Depth::Flat };
    let mut read = manifest::read(&options.files, depth, output)?;
    if read.manifests.is_empty() && read.problems.is_empty() {
        return Err(Failure::new("there is no object in the files").into());
    }
    // The only order that matters: whatever else is missing turns up by itself, a missing namespace refuses its objects.
    read.manifests.sort_by_key(|manifest| json::text(&manifest.object, &["kind"]) != Kind::Namespace.info().name);
    let mut failures = read.problems;
    for manifest in read.manifests {
        match apply(client, &manifest, options.dry_run).await {
            Ok(line) => output.line(line)?,
            Err(error) => failures.push(format!("{}: {error:#}", manifest.place)),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure::new(failures.join("\nerror: ")).into()) }
}

async fn apply(client: &Client, manifest: &Manifest, dry: DryRun) -> Result<String> {
    let (kind, mut object) = (kind(&manifest.object)?, manifest.object.clone());
    let info = kind.info();
    let name = json::text(&object, &["metadata", "name"]).to_owned();
    if name.is_empty() {
        return Err(Failure::new(
            "metadata.name is missing, or is no text (quotes make it one): apply has to know which object is meant",
        )
        .into());
    }
    let own = json::text(&object, &["metadata", "namespace"]).to_owned();
    let namespace = if own.is_empty() { client.namespace().to_owned() } else { own };
    if info.namespaced {
        json::set(&mut object, &["metadata", "namespace"], json!(namespace));
    }
    // What the hub writes is not ours to apply.
    drop(json::remove(&mut object, &["status"]));
    let address = Address { kind, namespace, name };
    let verb = merge(client, &address, &object, dry).await?;
    let group = if info.group.is_empty() { String::new() } else { format!(".{}", info.group) };
    let note = match dry {
        DryRun::None => "",
        DryRun::Client => " (dry run)",
        DryRun::Server => " (server dry run)",
    };
    Ok(format!("{}{group}/{} {verb}{note}", info.singular, address.name))
}

/// Where an object is.
struct Address {
    kind: Kind,
    namespace: String,
    name: String,
}

/// Somebody else may write in between: that is tried again a few times.
async fn merge(client: &Client, address: &Address, object: &Value, dry: DryRun) -> Result<Verb> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        match attempt(client, address, object, dry).await {
            Err(error) if error.is_conflict() || error.is_already_exists() => last = Some(error),
            result => return Ok(result?),
        }
    }
    Err(last.map_or_else(|| anyhow::anyhow!("no attempt was made"), anyhow::Error::new))
        .context("others keep changing the object")
}

async fn attempt(client: &Client, address: &Address, object: &Value, dry: DryRun) -> Result<Verb, ApiError> {
    let Address { kind, namespace, name } = address;
    let at = path(*kind, Some(namespace), Some(name));
    let query = if dry == DryRun::Server { "?dryRun=All" } else { "" };
    let is_secret = *kind == Kind::Secret;
    let wanted = if is_secret { object.clone() } else { patch::with_last_applied(object) };
    let Some(live) = client.find(&at).await? else {
        if dry != DryRun::Client {
            client.create(&format!("{}{query}", path(*kind, Some(namespace), None)), &wanted).await?;
        }
        return Ok(Verb::Created);
    };
    let changed = |answer: &Value| {
        let version = |object: &Value| json::text(object, &["metadata", "resourceVersion"]).to_owned();
        if version(answer) == version(&live) { Verb::Unchanged } else { Verb::Configured }
    };
    if is_secret {
        if dry == DryRun::Client {
            return Ok(Verb::Configured);
        }
        let mut wanted = wanted;
        json::set(
            &mut wanted,
            &["metadata", "resourceVersion"],
            json!(json::text(&live, &["metadata", "resourceVersion"])),
        );
        let answer = client.replace(&format!("{at}{query}"), &wanted).await?;
        return Ok(if query.is_empty() { changed(&answer) } else { Verb::Configured });
    }
    match patch::three_way(patch::last_applied(&live).as_ref(), &wanted, &live) {
        None => Ok(Verb::Unchanged),
        Some(_) if dry == DryRun::Client => Ok(Verb::Configured),
        Some(patch) => {
            let answer = client.patch(&format!("{at}{query}"), &patch).await?;
            Ok(if query.is_empty() { changed(&answer) } else { Verb::Configured })
        }
    }
}

/// The kind of an object, if it is one of the hub's.
fn kind(object: &Value) -> Result<Kind> {
    let (version, name) = (json::text(object, &["apiVersion"]), json::text(object, &["kind"]));
    Kind::of(version, name).ok_or_else(|| {
        let known: Vec<&str> = KINDS.iter().map(|info| info.name).collect();
        Failure::new(format!(
            "{name} of {version} is no object of the hub, which keeps {}; what belongs into a cluster is deployed by an \
             Application",
            known.join(", ")
        ))
        .into()
    })
}

/// How often an object that others change meanwhile is tried again.
const ATTEMPTS: usize = 5;
