//! `windlass version`: what runs here, and what the hub says that it runs.

use anyhow::Result;
use clap::Args;
use serde_json::json;
use windlass_protocol::json;

use crate::{
    args::Global,
    client::Client,
    output::{Document, Output},
};

/// Options of `version`.
#[derive(Args, Debug)]
pub(crate) struct Version {
    /// Only of this program
    #[arg(long)]
    client: bool,
    /// Print as
    #[arg(short, long, value_enum)]
    output: Option<Document>,
}

/// Prints the versions; a hub that does not answer is an error after the client's own line.
pub(crate) async fn run(global: &Global, options: &Version, output: &mut Output) -> Result<()> {
    let own = concat!("v", env!("CARGO_PKG_VERSION"));
    let mut versions = json!({"client": {"version": own}});
    if options.output.is_none() {
        output.line(format!("windlass: {own}"))?;
        output.flush()?;
    }
    if !options.client {
        let client = Client::new(global).await?;
        let version = client.get("/version").await?;
        if options.output.is_none() {
            output.line(format!("windlass-hub: {}", json::text(&version, &["gitVersion"])))?;
        }
        json::set(&mut versions, &["server"], version);
    }
    match options.output {
        Some(format) => output.document(format, &versions),
        None => Ok(()),
    }
}
