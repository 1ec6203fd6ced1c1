//! `windlass admin backup`: fetch a backup, look at one, list the scheduled ones.

use std::{
    fs::{self, File},
    io::{self, BufReader, IsTerminal as _, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};
use http_body_util::BodyExt as _;
use serde_json::Value;
use windlass_protocol::{
    backup::{Header, Outside, check, file_name},
    json,
    resource::{CONTROL_NAMESPACE, Kind},
};

use super::program;
use crate::{
    args::Global,
    client::{Client, path},
    failure::Failure,
    output::{Document, Output},
};

/// Path of the hub's backup.
const BACKUP: &str = "/apis/windlass.io/v1alpha1/hubbackup";
/// Where the hub says how its scheduled backups went.
const STATUS: &str = "windlass-backup";
/// Ends the name of a file that is not whole yet.
const PARTIAL: &str = ".partial";
/// Between two looks of the person who waits.
const PROGRESS: Duration = Duration::from_millis(200);

/// Options of `admin backup`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Backup {
    #[command(subcommand)]
    command: Option<Look>,
    /// File to write; a directory gets YYYYMMDD-HHMMSS.windlass-backup in it, - is standard output
    #[arg(value_name = "FILE|DIR|-", default_value = ".")]
    to: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

/// Looks at backups.
#[derive(Debug, Subcommand)]
enum Look {
    /// Check that a backup is whole; with the operator key also what is inside of it
    Verify(Verify),
    /// Show the scheduled backups and how the last one went; ends 1 when it failed
    List(List),
}

/// Options of `admin backup verify`.
#[derive(Args, Debug)]
struct Verify {
    /// The backup: a file, or with --operator-key-file also s3://BUCKET/PREFIX/NAME
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Also decrypt it and compare the state's hash: runs `windlass-hub verify-backup`
    #[arg(long, value_name = "FILE")]
    operator_key_file: Option<PathBuf>,
    /// More flags of `windlass-hub verify-backup`, such as --s3-endpoint URL
    #[arg(value_name = "FLAG", last = true, requires = "operator_key_file")]
    flags: Vec<String>,
}

/// Options of `admin backup list`.
#[derive(Args, Debug)]
struct List {
    /// Print the object instead
    #[arg(short, long, value_enum)]
    output: Option<Document>,
}

pub(super) async fn run(global: &Global, options: Backup, output: &mut Output) -> Result<()> {
    match options.command {
        None => fetch(&Client::new(global).await?, &options.to, options.force, output).await,
        Some(Look::List(options)) => list(&Client::new(global).await?, &options, output).await,
        Some(Look::Verify(options)) => verify(options, output),
    }
}

async fn fetch(client: &Client, to: &Path, force: bool, output: &mut Output) -> Result<()> {
    if to == Path::new("-") {
        ensure!(
            !io::stdout().is_terminal(),
            Failure::usage("a backup is no text: name a file, or redirect the output")
        );
        let bytes = pour(client, &mut io::stdout()).await?;
        output.say(format!("{bytes} bytes written to standard output"));
        return Ok(());
    }
    let named = !to.is_dir();
    if named {
        refuse(to, force)?;
    }
    let folder = if named { to.parent().filter(|parent| !parent.as_os_str().is_empty()) } else { Some(to) };
    let folder = folder.unwrap_or_else(|| Path::new("."));
    let name = if named { to.file_name().unwrap_or_default().to_string_lossy() } else { "backup".into() };
    // Beside its final place, so that the last step is one rename.
    let partial = folder.join(format!(".{name}.{}{PARTIAL}", std::process::id()));
    let saved = save(client, &partial).await.and_then(|(file, outside)| {
        let path = if named { to.to_owned() } else { folder.join(file_name(outside.header.created_at)) };
        refuse(&path, force)?;
        file.sync_all().with_context(|| format!("cannot sync {}", partial.display()))?;
        fs::rename(&partial, &path).with_context(|| format!("cannot rename {}", partial.display()))?;
        File::open(folder).and_then(|folder| folder.sync_all()).context("cannot sync the directory")?;
        Ok((path, outside))
    });
    if saved.is_err() {
        // Nothing unfinished stays.
        let _ = fs::remove_file(&partial);
    }
    let (path, outside) = saved?;
    output.field("Path", &path.display().to_string())?;
    output.field("Size", &format!("{} ({} bytes)", size(outside.bytes), outside.bytes))?;
    print(&outside.header, output)
}

/// Writes the answer of the hub into a new file, reads it back and checks it.
async fn save(client: &Client, partial: &Path) -> Result<(File, Outside)> {
    let cannot = || format!("cannot write {}", partial.display());
    let mut file = File::create(partial).with_context(cannot)?;
    let received = pour(client, &mut file).await?;
    let written = File::open(partial).with_context(cannot)?;
    let outside = check(BufReader::new(written)).context("what arrived is no whole backup")?;
    ensure!(outside.bytes == received, "{} holds {} bytes of {received}", partial.display(), outside.bytes);
    Ok((file, outside))
}

/// Streams the answer of the hub; shows how far it is to somebody who waits.
async fn pour(client: &Client, out: &mut (impl Write + Send)) -> Result<u64> {
    let mut body = client.stream(BACKUP).await?;
    let watched = io::stderr().is_terminal();
    let (mut bytes, mut shown) = (0_u64, Instant::now());
    while let Some(frame) = client.in_time(body.frame()).await? {
        let frame = frame.with_context(|| format!("{} broke off after {bytes} bytes", client.server()))?;
        let Ok(piece) = frame.into_data() else { continue };
        out.write_all(&piece).context("cannot write the backup")?;
        bytes += piece.len() as u64;
        if watched && shown.elapsed() >= PROGRESS {
            shown = Instant::now();
            let _ = write!(io::stderr(), "\r{} ", size(bytes));
        }
    }
    if watched {
        let _ = write!(io::stderr(), "\r          \r");
    }
    out.flush().context("cannot write the backup")?;
    Ok(bytes)
}

fn refuse(path: &Path, force: bool) -> Result<()> {
    if path.exists() && !force {
        let message = format!("{} is there already: name another file, or replace it with --force", path.display());
        return Err(Failure::usage(message).into());
    }
    Ok(())
}

fn verify(options: Verify, output: &mut Output) -> Result<()> {
    if let Some(key) = options.operator_key_file {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut words = vec!["verify-backup".to_owned(), "--backup".to_owned(), text(options.file)];
        words.extend(["--operator-key-file".to_owned(), text(key)]);
        words.extend(options.flags);
        return Err(program::become_hub(&words));
    }
    let path = options.file;
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let outside = check(BufReader::with_capacity(1 << 20, file)).with_context(|| path.display().to_string())?;
    output.field("Path", &path.display().to_string())?;
    output.field("Size", &format!("{} ({} bytes)", size(outside.bytes), outside.bytes))?;
    print(&outside.header, output)?;
    output.say("The file is whole. Give --operator-key-file to open it and compare the state's hash too.");
    Ok(())
}

fn print(header: &Header, output: &mut Output) -> Result<()> {
    output.field("Revision", &header.revision.to_string())?;
    output.field("Epoch", &header.epoch.to_string())?;
    output.field("Created", &header.created_at.rfc3339())?;
    output.field("Cluster ID", &header.cluster_id)?;
    output.field("Trust Domain", &header.trust_domain)?;
    output.field("Release", &format!("{} (state version {})", header.software, header.state_version))?;
    output.field("Operator Key", &header.key_id)
}

async fn list(client: &Client, options: &List, output: &mut Output) -> Result<()> {
    let Some(object) = client.find(&path(Kind::ConfigMap, Some(CONTROL_NAMESPACE), Some(STATUS))).await? else {
        let message = "no scheduled backup was tried yet: write `schedule` and `directory` or `s3` into [backup] of the hub's configuration";
        return Err(Failure::new(message).into());
    };
    let text = |name: &str| json::at(&object, &["data", name]).and_then(Value::as_str).unwrap_or_default();
    if let Some(format) = options.output {
        output.document(format, &object)?;
    } else {
        for (key, name) in [
            ("Last Success", "lastSuccess"),
            ("Size", "lastBytes"),
            ("Revision", "lastRevision"),
            ("Missing Blobs", "lastMissing"),
            ("Next Due", "nextDue"),
            ("Last Failure", "lastFailure"),
            ("Error", "lastError"),
            ("Failed Attempts", "attempts"),
            ("Next Attempt", "nextAttempt"),
        ] {
            if !text(name).is_empty() {
                output.field(key, text(name))?;
            }
        }
        for address in text("lastAddresses").lines() {
            output.field("Address", address)?;
        }
        output.line("")?;
        for name in text("backups").lines() {
            output.line(name)?;
        }
    }
    if !text("lastError").is_empty() {
        return Err(Failure::new("the last scheduled backup failed").into());
    }
    Ok(())
}

/// Bytes for people: `12.3 MiB`.
fn size(bytes: u64) -> String {
    let mut tenths = u128::from(bytes) * 10;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while tenths >= 10_240
        && let Some(next) = units.next()
    {
        tenths /= 1_024;
        unit = next;
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        assert_eq!(size(0), "0.0 B");
        assert_eq!(size(1_536), "1.5 KiB");
        assert_eq!(size(12_900_000), "12.3 MiB");
    }
}
