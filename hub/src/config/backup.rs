//! The section `[backup]`: when, where, and how many are kept.

use std::path::PathBuf;

use serde::Deserialize;
use windlass_protocol::time::Millis;

use super::ConfigError;
use crate::backup::{S3Settings, Schedule, Settings};

/// Backups kept when nothing is said: a month of nights.
const KEEP: usize = 30;
/// A year: whoever wants fewer backups wants none.
const PERIOD_SECONDS_MAX: u64 = 31_536_000;

/// The section, before anything is checked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BackupFile {
    schedule: Option<String>,
    every_seconds: Option<u64>,
    directory: Option<PathBuf>,
    keep: Option<usize>,
    s3: Option<S3File>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct S3File {
    endpoint: Option<String>,
    bucket: String,
    prefix: String,
    region: Option<String>,
    access_key_file: Option<PathBuf>,
    secret_key_file: Option<PathBuf>,
    path_style: bool,
    ca_file: Option<PathBuf>,
}

/// Validates the section. The S3 settings count for a restore too, whether or not something is scheduled.
pub(super) fn resolve(file: BackupFile) -> Result<(Option<Settings>, S3Settings), ConfigError> {
    let bad = |name: &'static str, message: String| ConfigError::Value { name, message };
    let s3 = file.s3.map(s3).transpose()?;
    let settings_s3 = s3.clone().unwrap_or_default();
    let schedule = match (file.schedule, file.every_seconds) {
        (Some(_), Some(_)) => {
            return Err(bad("backup.schedule", "give it or backup.every_seconds, not both".to_owned()));
        }
        (Some(pattern), None) => Schedule::cron(&pattern).map_err(|error| bad("backup.schedule", error.to_string()))?,
        (None, Some(seconds @ 1..=PERIOD_SECONDS_MAX)) => Schedule::Every(Millis::from_secs(seconds)),
        (None, Some(seconds)) => {
            let message = format!("{seconds} is out of range: 1 to {PERIOD_SECONDS_MAX} (a year)");
            return Err(bad("backup.every_seconds", message));
        }
        (None, None) if file.directory.is_some() => {
            let message = "say when: a cron pattern such as \"0 3 * * *\", or backup.every_seconds".to_owned();
            return Err(bad("backup.schedule", message));
        }
        (None, None) => return Ok((None, settings_s3)),
    };
    if file.directory.is_none() && s3.is_none() {
        return Err(bad("backup.directory", "say where to: backup.directory, [backup.s3], or both".to_owned()));
    }
    let keep = file.keep.unwrap_or(KEEP);
    if keep == 0 {
        return Err(bad("backup.keep", "zero would remove the backup that was just made".to_owned()));
    }
    Ok((Some(Settings { schedule, directory: file.directory, s3, keep }), settings_s3))
}

fn s3(file: S3File) -> Result<S3Settings, ConfigError> {
    let bad = |name: &'static str, message: &str| ConfigError::Value { name, message: message.to_owned() };
    if file.bucket.is_empty() || file.bucket.contains('/') {
        return Err(bad("backup.s3.bucket", "name the bucket alone, the rest belongs into backup.s3.prefix"));
    }
    if file.endpoint.as_ref().is_some_and(|url| !url.starts_with("https://") && !url.starts_with("http://")) {
        return Err(bad("backup.s3.endpoint", "write a URL, such as https://s3.example.com"));
    }
    if file.access_key_file.is_some() != file.secret_key_file.is_some() {
        return Err(bad("backup.s3.access_key_file", "give it and backup.s3.secret_key_file together, or neither"));
    }
    Ok(S3Settings {
        endpoint: file.endpoint,
        bucket: file.bucket,
        prefix: file.prefix.trim_matches('/').to_owned(),
        region: file.region,
        access_key_file: file.access_key_file,
        secret_key_file: file.secret_key_file,
        path_style: file.path_style,
        ca_file: file.ca_file,
    })
}
