//! Scheduled backups: made by the leader, remembered in the state.
//!
//! The ConfigMap [`BACKUP_OBJECT`] of the control namespace says when the last good backup was begun, what failed since, and
//! when the next attempt is: a new leader goes on where the last one was. Whatever fails is logged, written there, and tried
//! again later; older backups are removed only after the new one was read back whole from everywhere.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use windlass_hub_core::{Command, ObjectKey, State, command::Part, command::Write};
use windlass_protocol::{
    backup::file_name,
    json,
    resource::{CONTROL_NAMESPACE, Kind},
    time::Millis,
};

use super::{Backup, BackupError, BackupSource, S3Settings, Schedule, Summary, destination::Destination, s3::S3};
use crate::replica::wall_clock;

/// Name of the ConfigMap in the control namespace that says how scheduled backups went.
pub const BACKUP_OBJECT: &str = "windlass-backup";
/// Between two looks at the schedule.
const LOOK: Duration = Duration::from_secs(1);
/// After the first failure; doubled with each that follows.
const RETRY_FIRST: Millis = Millis::from_secs(5);
/// A destination that is away for days is asked this often.
const RETRY_MAX: Millis = Millis::from_secs(1_800);
/// Names of backups shown in the object.
const SHOWN_MAX: usize = 100;
/// Characters of an error shown in the object.
const ERROR_CHARS_MAX: usize = 1_000;

/// What is made when, and where it goes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// When.
    pub schedule: Schedule,
    /// A directory; on every hub the same files, such as a mounted share, or each leader keeps its own.
    pub directory: Option<PathBuf>,
    /// S3.
    pub s3: Option<S3Settings>,
    /// Backups kept, newest first.
    pub keep: usize,
}

/// Makes scheduled backups while this node leads.
#[derive(Clone, Debug)]
pub struct Backups {
    source: BackupSource,
    settings: Settings,
}

/// What the ConfigMap says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Remembered {
    last: Option<Millis>,
    attempts: u32,
    next_attempt: Option<Millis>,
}

/// A backup that is everywhere it should be.
struct Made {
    name: String,
    addresses: Vec<String>,
    summary: Summary,
    kept: Vec<String>,
}

impl Backups {
    /// Of this source, by these settings.
    #[must_use]
    pub const fn new(source: BackupSource, settings: Settings) -> Self {
        Self { source, settings }
    }

    /// Works until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            if !self.is_due(wall_clock()).await {
                continue;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.attempt() => {}
            }
        }
    }

    async fn is_due(&self, now: Millis) -> bool {
        if !self.source.replica.leads() || now < self.next(&self.source.replica.state()) {
            return false;
        }
        // What another leader has made and remembered must be seen before one is made again.
        self.source.replica.read_barrier().await.is_ok()
            && self.source.replica.leads()
            && now >= self.next(&self.source.replica.state())
    }

    fn next(&self, state: &State) -> Millis {
        let remembered = Remembered::of(state);
        let due = self.settings.schedule.due(remembered.last);
        remembered.next_attempt.map_or(due, |retry| retry.max(due))
    }

    async fn attempt(&self) {
        let now = wall_clock();
        let attempts = Remembered::of(&self.source.replica.state()).attempts.saturating_add(1);
        let told = match self.make(now).await {
            Ok(made) => {
                let Made { name, addresses, summary, .. } = &made;
                let (bytes, revision) = (summary.bytes, summary.header.revision.0);
                tracing::info!(backup = name, bytes, revision, at = ?addresses, "backup made and verified");
                made.facts(self.settings.schedule.due(Some(now)))
            }
            Err((step, error)) => {
                let error = error.to_string();
                let doubled = RETRY_FIRST.0.saturating_mul(1 << attempts.saturating_sub(1).min(16));
                let next = now.plus(Millis(doubled).min(RETRY_MAX));
                tracing::error!(step, error, attempts, next = %next, "backup failed, it will be tried again");
                failure(now, step, &error, attempts, next)
            }
        };
        if let Err(error) = self.remember(told).await {
            tracing::error!(%error, "what became of the backup could not be remembered");
        }
    }

    /// Every step must succeed before the next one is made.
    async fn make(&self, now: Millis) -> Result<Made, (&'static str, BackupError)> {
        let step = |name: &'static str| move |error| (name, error);
        let mut places = Vec::new();
        if let Some(directory) = &self.settings.directory {
            places.push(Destination::Directory(directory.clone()));
        }
        if let Some(s3) = &self.settings.s3 {
            places
                .push(Destination::S3(S3::open(s3).map_err(BackupError::from).map_err(step("open the destination"))?));
        }
        let backup = Backup::take(&self.source, now).await.map_err(step("take the picture"))?;
        let (backup, name) = (Arc::new(backup), file_name(now));
        let mut written: Vec<&Destination> = Vec::new();
        let mut summary = None;
        for place in &places {
            match place.save(&name, &backup).await {
                Ok(saved) => summary = Some(saved),
                Err(error) => {
                    // A retry makes a new one: what only some places hold would pile up there.
                    self.withdraw(&name, &written).await;
                    return Err(("write and verify", error));
                }
            }
            written.push(place);
        }
        let none = || BackupError::NoDirectory(PathBuf::from("of [backup]"));
        let summary = summary.ok_or_else(none).map_err(step("open the destination"))?;
        let mut kept = Vec::new();
        if summary.missing > 0 {
            // The older ones may hold what this one lacks.
            tracing::warn!(missing = summary.missing, "blobs are missing in the backup: none is removed");
        } else {
            for place in &places {
                kept = place.prune(self.settings.keep).await.map_err(step("remove old backups"))?;
            }
        }
        let addresses = places.iter().map(|place| place.address(&name)).collect();
        Ok(Made { name, addresses, summary, kept })
    }

    async fn withdraw(&self, name: &str, written: &[&Destination]) {
        for place in written {
            if let Err(error) = place.remove(name).await {
                tracing::warn!(%error, backup = place.address(name), "a backup without its copy could not be removed");
            }
        }
    }

    /// Puts facts over those in the object; an empty text removes one.
    async fn remember(&self, facts: BTreeMap<&'static str, String>) -> anyhow::Result<()> {
        let replica = &self.source.replica;
        let key = object();
        let record = replica.state().object(&key).cloned();
        let mut object = record.as_ref().map_or_else(
            || {
                json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": BACKUP_OBJECT, "namespace": CONTROL_NAMESPACE},
                })
            },
            |record| record.value(),
        );
        for (name, text) in facts {
            if text.is_empty() {
                json::remove(&mut object, &["data", name]);
            } else {
                json::set(&mut object, &["data", name], json!(text));
            }
        }
        let body = object.to_string();
        let write = match record {
            Some(_) => Write::Replace { key, part: Part::Main, body, sealed: None },
            None => Write::Create { key, uid: replica.new_uid()?, body, sealed: None },
        };
        replica.propose("hub", "backup", Vec::new(), Command::Write { writes: vec![write] }).await?;
        Ok(())
    }
}

impl Remembered {
    /// What cannot be read counts as nothing: a backup too many does no harm.
    fn of(state: &State) -> Self {
        let Some(record) = state.object(&object()) else { return Self::default() };
        let value = record.value();
        let text = |name: &str| json::at(&value, &["data", name]).and_then(Value::as_str).unwrap_or_default();
        Self {
            last: Millis::parse_rfc3339(text("lastSuccess")),
            attempts: text("attempts").parse().unwrap_or_default(),
            next_attempt: Millis::parse_rfc3339(text("nextAttempt")),
        }
    }
}

impl Made {
    fn facts(self, next: Millis) -> BTreeMap<&'static str, String> {
        let Summary { header, bytes, missing, .. } = self.summary;
        BTreeMap::from([
            ("lastSuccess", header.created_at.rfc3339()),
            ("lastBackup", self.name),
            ("lastAddresses", self.addresses.join("\n")),
            ("lastBytes", bytes.to_string()),
            ("lastRevision", header.revision.0.to_string()),
            ("lastMissing", if missing == 0 { String::new() } else { missing.to_string() }),
            ("backups", self.kept.iter().take(SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join("\n")),
            ("nextDue", if next == Millis(u64::MAX) { String::new() } else { next.rfc3339() }),
            ("attempts", String::new()),
            ("lastFailure", String::new()),
            ("lastError", String::new()),
            ("nextAttempt", String::new()),
        ])
    }
}

fn failure(now: Millis, step: &str, error: &str, attempts: u32, next: Millis) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("attempts", attempts.to_string()),
        ("lastFailure", now.rfc3339()),
        ("lastError", format!("{step}: {error}").chars().take(ERROR_CHARS_MAX).collect()),
        ("nextAttempt", next.rfc3339()),
    ])
}

fn object() -> ObjectKey {
    ObjectKey::new(Kind::ConfigMap, CONTROL_NAMESPACE, BACKUP_OBJECT)
}
