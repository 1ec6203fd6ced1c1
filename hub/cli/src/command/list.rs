//! Options and printing that all `list` and `get` commands share.

use anyhow::Result;
use clap::Args;
use serde_json::Value;
use windlass_protocol::{json, resource::Kind};

use crate::{
    client::{ApiError, Client, Query},
    output::{Document, ListFormat, Output, Table},
};

/// Options of `list`.
#[derive(Args, Debug, Default)]
pub(crate) struct ListOptions {
    /// Only objects with these labels, such as env=prod,tier!=edge
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Print names, JSON, YAML or more columns
    #[arg(short, long, value_enum, default_value = "table", hide_default_value = true)]
    pub(crate) output: ListFormat,
}

impl ListOptions {
    /// The objects that the options ask for.
    pub(crate) async fn fetch(&self, client: &Client, kind: Kind) -> Result<Vec<Value>, ApiError> {
        let namespace = Some(client.namespace()).filter(|_| !self.all_namespaces);
        client.list(kind, namespace, &Query { selector: self.selector.clone() }).await
    }
}

/// A column: its header, and whether only `-o wide` shows it.
pub(crate) struct Columns {
    /// Always shown.
    pub(crate) narrow: &'static [&'static str],
    /// Shown by `-o wide`.
    pub(crate) wide: &'static [&'static str],
}

/// Prints objects; `row` gives the cells of narrow and wide columns together.
pub(crate) fn print(
    output: &mut Output,
    format: ListFormat,
    columns: &Columns,
    objects: Vec<Value>,
    name: impl Fn(&Value) -> String,
    row: impl Fn(&Value) -> Vec<String>,
) -> Result<()> {
    match format {
        ListFormat::Json => output.document(Document::Json, &Value::Array(objects)),
        ListFormat::Yaml => output.document(Document::Yaml, &Value::Array(objects)),
        ListFormat::Name => objects.iter().try_for_each(|object| output.line(name(object))),
        ListFormat::Table | ListFormat::Wide => {
            let mut table = Table::new(columns.narrow);
            if format == ListFormat::Wide {
                table = table.columns(columns.wide);
            }
            for object in &objects {
                table.row(row(object));
            }
            output.table(&table)
        }
    }
}

/// The name of an object without namespace.
pub(crate) fn plain_name(object: &Value) -> String {
    json::text(object, &["metadata", "name"]).to_owned()
}
