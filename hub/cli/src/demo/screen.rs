//! The demonstration on a terminal: a table that is drawn again in place; plain lines where stderr is no terminal.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    time::Instant,
};

use super::repository::short;

/// One Application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) cluster: String,
    pub(super) revision: String,
    pub(super) sync: String,
    pub(super) health: String,
}

impl Row {
    /// Whether this commit is what runs.
    pub(super) fn runs(&self, commit: &str) -> bool {
        self.revision == commit && self.sync == "Synced" && self.health == "Healthy"
    }

    fn line(&self) -> String {
        let Self { name, cluster, revision, sync, health } = self;
        format!("{name:<24} {cluster:<14} {:<9} {sync:<10} {health}", short(revision))
    }
}

/// Where the demonstration talks: stderr.
#[derive(Debug)]
pub(super) struct Screen {
    began: Instant,
    live: bool,
    colour: bool,
    /// Lines of the table that are on the screen now.
    drawn: usize,
    shown: BTreeMap<String, Row>,
}

impl Screen {
    pub(super) fn new() -> Self {
        let live = std::io::stderr().is_terminal();
        let colour = live && std::env::var_os("NO_COLOR").is_none();
        Self { began: Instant::now(), live, colour, drawn: 0, shown: BTreeMap::new() }
    }

    /// A line that stays.
    pub(super) fn say(&mut self, text: &str) {
        let seconds = self.began.elapsed().as_secs_f64();
        self.write(&format!("{seconds:6.1} s  {text}\n"));
        self.drawn = 0;
    }

    /// A command for the user to copy.
    pub(super) fn command(&mut self, text: &str) {
        self.write(&format!("    {text}\n"));
        self.drawn = 0;
    }

    /// The fleet as it is now.
    pub(super) fn show(&mut self, rows: &[Row]) {
        let changed: Vec<&Row> = rows.iter().filter(|row| self.shown.get(&row.name) != Some(*row)).collect();
        if changed.is_empty() {
            return;
        }
        if self.live {
            let mut text = String::new();
            if self.drawn > 0 {
                // Up to the first line of the table, then clear to the end of the screen.
                text.push_str(&format!("\x1b[{}A\x1b[J", self.drawn));
            }
            for row in rows {
                text.push_str("          ");
                text.push_str(&self.paint(row));
                text.push('\n');
            }
            self.write(&text);
            self.drawn = rows.len();
        } else {
            let seconds = self.began.elapsed().as_secs_f64();
            for row in &changed {
                self.write(&format!("{seconds:6.1} s  {}\n", row.line()));
            }
        }
        self.shown = rows.iter().map(|row| (row.name.clone(), row.clone())).collect();
    }

    fn paint(&self, row: &Row) -> String {
        let colour = match (row.sync.as_str(), row.health.as_str()) {
            ("Synced", "Healthy") => "32",
            (_, "Degraded") => "31",
            _ => "33",
        };
        if self.colour { format!("\x1b[{colour}m{}\x1b[0m", row.line()) } else { row.line() }
    }

    fn write(&self, text: &str) {
        // A closed terminal is no reason to stop the fleet.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}
