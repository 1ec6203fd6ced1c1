//! `windlass hub`: the hub's own state.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::Value;
use windlass_protocol::json;

use crate::{
    client::Client,
    failure::Failure,
    output::{Document, Output, Table},
    view,
};

/// Commands for the hub.
#[derive(Debug, Subcommand)]
pub(crate) enum Hub {
    /// Show members, leader and log of the hub; ends 1 when there is no leader
    Status(Status),
}

/// Options of `hub status`.
#[derive(Args, Debug)]
pub(crate) struct Status {
    /// Print the object instead
    #[arg(short, long, value_enum)]
    output: Option<Document>,
}

/// Path of the hub's status.
const STATUS: &str = "/apis/windlass.io/v1alpha1/hubstatus";

/// Runs a command for the hub.
pub(crate) async fn run(client: &Client, command: Hub, output: &mut Output) -> Result<()> {
    let Hub::Status(options) = command;
    let object = client.get(STATUS).await?;
    let empty = Value::Null;
    let status = object.get("status").unwrap_or(&empty);
    match options.output {
        Some(format) => output.document(format, &object)?,
        None => print(client, status, output)?,
    }
    if status.get("leader").is_none_or(Value::is_null) {
        return Err(Failure::new("the hub has no leader: writes wait until a majority of voters is up").into());
    }
    Ok(())
}

fn print(client: &Client, status: &Value, output: &mut Output) -> Result<()> {
    output.field("Server", client.server())?;
    for (key, field) in [
        ("Cluster ID", "clusterId"),
        ("Trust Domain", "trustDomain"),
        ("Version", "version"),
        ("Node", "node"),
        ("Role", "role"),
        ("Leader", "leader"),
        ("Term", "term"),
        ("Last Log", "lastLog"),
        ("Applied", "applied"),
        ("Snapshot", "snapshot"),
        ("Revision", "revision"),
        ("Epoch", "epoch"),
        ("Sessions", "sessions"),
        ("Failure", "failure"),
    ] {
        let text = shown(status.get(field));
        if !text.is_empty() {
            output.field(key, &text)?;
        }
    }
    let mut table = Table::new(&["NODE", "NAME", "KIND", "ADDRESS", "LEADER"]);
    for (field, kind) in [("voters", "voter"), ("learners", "learner")] {
        for member in view::items(status, &[field]) {
            // A node is a number, or a map that holds it.
            let node = member.get("node").unwrap_or(member);
            let leads = if status.get("leader") == Some(node) { "yes" } else { "" };
            let text = |field: &str| json::text(member, &[field]).to_owned();
            table.row([shown(Some(node)), text("name"), kind.to_owned(), text("address"), leads.to_owned()]);
        }
    }
    output.line("")?;
    output.table(&table)
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Object(map)) => {
            let pairs = map.iter().map(|(key, value)| format!("{key} {}", shown(Some(value))));
            pairs.collect::<Vec<_>>().join(", ")
        }
        Some(value) => value.to_string(),
    }
}
