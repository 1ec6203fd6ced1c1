//! What reaches the terminal: tables, documents, talk.
//!
//! Data goes to `out`, talk to `err`. Colours appear only on a terminal and without `NO_COLOR`. Whatever comes from a
//! cluster is printed without control characters: a resource's message must not move the cursor.

mod table;

use std::{
    fmt,
    io::{self, BufRead as _, IsTerminal as _, Write},
};

use anyhow::{Context as _, Result};
use serde_json::Value;
use windlass_protocol::yaml;

pub(crate) use self::table::{Table, clean};
use crate::failure::Failure;

/// `-o` of commands that print tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ListFormat {
    /// The table
    #[default]
    #[value(hide = true)]
    Table,
    /// The table with more columns
    Wide,
    /// One name a line
    Name,
    /// The objects as JSON
    Json,
    /// The objects as YAML
    Yaml,
}

/// `-o` of commands whose ordinary output is text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Document {
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// How strongly a text is set off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colour {
    Green,
    Yellow,
    Red,
}

/// Where a command prints.
pub(crate) struct Output {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    colour: bool,
    questions: bool,
}

impl Output {
    /// Standard output and standard error.
    pub(crate) fn standard() -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            out: Box::new(io::BufWriter::new(io::stdout())),
            err: Box::new(io::stderr()),
            colour: io::stdout().is_terminal() && !no_colour,
            questions: io::stdin().is_terminal() && io::stderr().is_terminal(),
        }
    }

    /// Any two writers, without colours and questions.
    #[cfg(test)]
    pub(crate) fn to(out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        Self { out, err, colour: false, questions: false }
    }

    /// One line of data.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> Result<()> {
        writeln!(self.out, "{}", text.as_ref()).context("cannot write to standard output")
    }

    /// Bytes of data as they are.
    pub(crate) fn raw(&mut self, text: &str) -> Result<()> {
        self.out.write_all(text.as_bytes()).context("cannot write to standard output")
    }

    /// One line of talk.
    pub(crate) fn say(&mut self, text: impl AsRef<str>) {
        // Talk that nobody hears is no failure of the command.
        let _ = writeln!(self.err, "{}", text.as_ref());
    }

    /// `Key:   value`, the value in Argo CD's column.
    pub(crate) fn field(&mut self, key: &str, value: &str) -> Result<()> {
        let key = format!("{key}:");
        let value = self.paint(value, &clean(value));
        self.line(format!("{key:<19} {value}").trim_end())
    }

    /// A table with its header.
    pub(crate) fn table(&mut self, table: &Table) -> Result<()> {
        let text = table.render(self.colour);
        self.raw(&text)
    }

    /// A value as JSON or YAML.
    pub(crate) fn document(&mut self, format: Document, value: &Value) -> Result<()> {
        match format {
            Document::Json => {
                let text = serde_json::to_string_pretty(value).context("cannot print JSON")?;
                self.line(text)
            }
            Document::Yaml => self.raw(&yaml::to_yaml(value)),
        }
    }

    /// Sends what is buffered on its way.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.out.flush().context("cannot write to standard output")
    }

    /// Asks before something that cannot be taken back. Where nobody can be asked, `--yes` is demanded.
    pub(crate) fn confirm(&mut self, question: &str) -> Result<bool> {
        if !self.questions {
            return Err(Failure::usage(format!(
                "{question} Nobody can be asked here (standard input is not a terminal): pass --yes"
            ))
            .into());
        }
        self.flush()?;
        write!(self.err, "{question} [y/N] ").and_then(|()| self.err.flush()).context("cannot ask")?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// Asks for input, where a person is there to give it.
    pub(crate) fn ask_for(&mut self, what: &str) {
        if self.questions {
            // A prompt that cannot be shown still lets the answer be typed.
            let _ = write!(self.err, "{what}").and_then(|()| self.err.flush());
        }
    }

    fn paint(&self, value: &str, shown: &str) -> String {
        match colour_of(value.split_whitespace().next().unwrap_or_default()) {
            Some(colour) if self.colour => painted(shown, colour),
            _ => shown.to_owned(),
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("colour", &self.colour).finish_non_exhaustive()
    }
}

/// The colour of a status word; other words have none.
fn colour_of(word: &str) -> Option<Colour> {
    match word {
        "Synced" | "Healthy" | "Succeeded" | "Connected" | "Completed" => Some(Colour::Green),
        "OutOfSync" | "Progressing" | "Suspended" | "Missing" | "Running" | "Pending" | "Paused" | "Terminating"
        | "PruneSkipped" => Some(Colour::Yellow),
        "Degraded" | "Failed" | "Error" | "SyncFailed" | "Disconnected" | "Revoked" | "RolledBack" | "Aborted" => {
            Some(Colour::Red)
        }
        _ => None,
    }
}

fn painted(text: &str, colour: Colour) -> String {
    let code = match colour {
        Colour::Green => 32,
        Colour::Yellow => 33,
        Colour::Red => 31,
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}
