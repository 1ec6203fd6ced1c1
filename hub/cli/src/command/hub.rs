//! `windlass hub`: the hub's own state.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use windlass_protocol::json;

use crate::{
    client::Client,
    failure::Failure,
    output::{Document, ListFormat, Output, Table},
    view,
};

/// Commands for the hub.
#[derive(Debug, Subcommand)]
pub(crate) enum Hub {
    /// Show members, leader and log of the hub; ends 1 when there is no leader
    Status(Status),
    /// Show the hubs of the group
    Members(Members),
    /// Print a join token for another hub
    Token(Token),
    /// Take a hub out of the group for ever
    #[command(visible_alias = "rm")]
    Remove(Remove),
    /// Let another hub lead
    TransferLeader(TransferLeader),
    /// Replace the root of all certificates, in two steps: begin, and --finish once every agent has the new one
    RotateRoot(RotateRoot),
}

/// Options of `hub rotate-root`.
#[derive(Args, Debug)]
pub(crate) struct RotateRoot {
    /// Drop the old root
    #[arg(long)]
    finish: bool,
    /// Drop it although some connected agents are not ready: they are cut off and renew when they come back
    #[arg(long, requires = "finish")]
    force: bool,
}

/// Options of `hub members`.
#[derive(Args, Debug)]
pub(crate) struct Members {
    /// Output format; `wide` adds store position, release and link
    #[arg(short, long, value_enum, default_value_t)]
    output: ListFormat,
}

/// Options of `hub token`.
#[derive(Args, Debug)]
pub(crate) struct Token {
    /// How long the token can be used, in seconds
    #[arg(long, default_value_t = 3_600, value_name = "SECONDS")]
    expires: u64,
}

/// Options of `hub remove`.
#[derive(Args, Debug)]
pub(crate) struct Remove {
    /// Its node id, as `hub members` shows it
    node: u64,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Options of `hub transfer-leader`.
#[derive(Args, Debug)]
pub(crate) struct TransferLeader {
    /// Node id of the next leader
    node: u64,
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
/// Path of join tokens for hubs.
const TOKENS: &str = "/apis/windlass.io/v1alpha1/hubtokens";
/// Path of the replacement of the root.
const TRUST: &str = "/apis/windlass.io/v1alpha1/hubtrust";
/// Path of what can be done to hubs.
const HUBS: &str = "/apis/windlass.io/v1alpha1/hubs";

/// Runs a command for the hub.
pub(crate) async fn run(client: &Client, command: Hub, output: &mut Output) -> Result<()> {
    match command {
        Hub::Status(options) => status(client, &options, output).await,
        Hub::Members(options) => members(client, &options, output).await,
        Hub::Token(options) => token(client, &options, output).await,
        Hub::Remove(options) => remove(client, &options, output).await,
        Hub::RotateRoot(options) => rotate_root(client, &options, output).await,
        Hub::TransferLeader(options) => {
            let path = format!("{HUBS}/{}/lead", options.node);
            client.create(&path, &json!({})).await?;
            output.line(format!("node {} leads", options.node))
        }
    }
}

async fn status(client: &Client, options: &Status, output: &mut Output) -> Result<()> {
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

async fn members(client: &Client, options: &Members, output: &mut Output) -> Result<()> {
    let object = client.get(STATUS).await?;
    let empty = Value::Null;
    let hubs: Vec<&Value> = view::items(object.get("status").unwrap_or(&empty), &["hubs"]).collect();
    match options.output {
        ListFormat::Json => output.document(Document::Json, &json!(hubs)),
        ListFormat::Yaml => output.document(Document::Yaml, &json!(hubs)),
        ListFormat::Name => hubs.iter().try_for_each(|hub| output.line(shown(hub.get("node")))),
        ListFormat::Wide => output.table(&member_table(hubs.into_iter(), true)),
        ListFormat::Table => output.table(&member_table(hubs.into_iter(), false)),
    }
}

async fn token(client: &Client, options: &Token, output: &mut Output) -> Result<()> {
    let question = json!({"spec": {"expirationSeconds": options.expires}});
    let object = client.create(TOKENS, &question).await?;
    let empty = Value::Null;
    let status = object.get("status").unwrap_or(&empty);
    let token = json::text(status, &["token"]);
    output.line(token)?;
    let hub = view::items(status, &["hubs"]).find_map(Value::as_str).unwrap_or("HUB:7444");
    output.say(format!(
        "\nOn the new node, with a copy of the group's operator key, until {}:\n  windlass-hub serve --data DIR --join {hub} --token TOKEN --operator-key-file FILE --advertise-peers HOST:7444",
        json::text(status, &["expirationTimestamp"]),
    ));
    Ok(())
}

async fn remove(client: &Client, options: &Remove, output: &mut Output) -> Result<()> {
    let node = options.node;
    let question = format!("Are you sure you want to remove hub {node}? Its data directory can never serve again.");
    if !options.yes && !output.confirm(&question)? {
        output.say(format!("hub {node} is kept"));
        return Ok(());
    }
    client.create(&format!("{HUBS}/{node}/remove"), &json!({})).await?;
    output.line(format!("hub {node} removed"))
}

async fn rotate_root(client: &Client, options: &RotateRoot, output: &mut Output) -> Result<()> {
    let step = if options.finish { "finish" } else { "rotate" };
    let question = json!({"spec": {"force": options.force}});
    let object = client.create(&format!("{TRUST}/{step}"), &question).await?;
    let empty = Value::Null;
    let status = object.get("status").unwrap_or(&empty);
    for pin in view::items(status, &["rootPins"]).filter_map(Value::as_str) {
        output.line(pin)?;
    }
    if options.finish {
        output.say("\nThe old root is gone. Kubeconfigs with it alone need the new one: run `windlass login` again.");
    } else {
        output.say(
            "\nThe first root signs now; agents are told both and renew. Give kubeconfigs both roots, then run:\n  windlass hub rotate-root --finish",
        );
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
    output.line("")?;
    output.table(&member_table(view::items(status, &["hubs"]), false))
}

fn member_table<'a>(hubs: impl Iterator<Item = &'a Value>, wide: bool) -> Table {
    let mut columns = vec!["NODE", "NAME", "KIND", "UP", "LEADER", "APPLIED", "SESSIONS", "ADDRESS"];
    if wide {
        columns.extend(["VERSION", "STATE-VERSION", "JOINED", "RTT", "PROBLEM"]);
    }
    let mut table = Table::new(&columns);
    for hub in hubs {
        let text = |field: &str| shown(hub.get(field));
        let yes = |field: &str| if hub.get(field) == Some(&Value::Bool(true)) { "yes" } else { "" }.to_owned();
        let mut row = vec![
            text("node"),
            text("name"),
            text("kind"),
            yes("up"),
            yes("leader"),
            text("applied"),
            text("sessions"),
            text("address"),
        ];
        if wide {
            let rtt = hub.get("rttMicroseconds").and_then(Value::as_u64);
            let rtt = rtt.map(|rtt| format!("{rtt} µs")).unwrap_or_default();
            row.extend([text("version"), text("stateVersion"), text("joinedAt"), rtt, text("problem")]);
        }
        table.row(row);
    }
    table
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
