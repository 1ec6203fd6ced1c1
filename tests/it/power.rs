//! Nothing acknowledged is lost when the power goes, or the process is killed, at any moment.
//!
//! A child process works on a disk that records every write and every sync (`chaos/shim`); the disk is rebuilt as it may
//! be after a power cut at many moments (the rules: `windlass_tests::power`), and the real code opens what is left.
//!
//! `WINDLASS_POWER_CUTS=2000 WINDLASS_POWER_SEED=7 cargo test -p windlass-tests power` tries more than the default, and
//! other ones. A cut that fails is printed with its number and its image is kept.

mod damage;
mod expect;
mod hub;
mod kill;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tokio::{sync::Semaphore, task::JoinSet};
use windlass_chaos::shim::{Disk as Shim, Event, read_trace};
use windlass_tests::{
    Workdir,
    power::{Disk, Random, Rest},
    scenario,
};

use self::expect::Promises;

/// Cuts of a run without wishes.
const CUTS: usize = 150;
/// Images that are checked at once.
const AT_ONCE: usize = 4;

#[test]
fn a_power_cut_at_any_moment_loses_nothing_acknowledged() -> Result<()> {
    let cuts = wish("WINDLASS_POWER_CUTS").unwrap_or(CUTS as u64);
    let seed = wish("WINDLASS_POWER_SEED").unwrap_or(1);
    scenario(async {
        let dir = image_folder("power")?;
        let trace = record(&dir, seed, 60)?;
        let events = read_trace(&trace)?;
        let data = dir.join("data").canonicalize()?;
        let mut tally = Summary::default();
        tally.count(&events);
        let check = |image: PathBuf, promises| expect::check(image, promises);
        let failed = cut(&dir, &data, &events, usize::try_from(cuts)?, seed, check).await?;
        println!("power: {cuts} cuts, seed {seed}: {tally}; {} failed", failed.len());
        ensure!(failed.is_empty(), "{}", failed.join("\n"));
        Ok(())
    })
}

/// What a trace holds, for the record.
#[derive(Debug, Default)]
struct Summary {
    writes: usize,
    bytes: usize,
    syncs: usize,
    acknowledged: usize,
    streams: String,
}

impl Summary {
    fn count(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::Write { data, .. } => {
                    self.writes += 1;
                    self.bytes += data.len();
                }
                Event::Sync { .. } | Event::SyncFolder { .. } => self.syncs += 1,
                Event::Mark { text } if text.starts_with("ack") => self.acknowledged += 1,
                Event::Mark { text } if text.starts_with("streams") => self.streams.clone_from(text),
                _ => {}
            }
        }
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { writes, bytes, syncs, acknowledged, streams } = self;
        write!(f, "{writes} writes of {} KiB, {syncs} syncs, {acknowledged} commands, {streams}", bytes >> 10)
    }
}

/// Runs the child on a recording disk until it ends by itself; gives the trace.
fn record(dir: &Workdir, seed: u64, commands: u64) -> Result<PathBuf> {
    let (data, trace) = (dir.join("data"), dir.join("trace"));
    let disk = Shim::new(&data, &dir.join("control"))?.recording(&trace);
    let mut child = child(&data, &trace, seed, commands);
    let output = child.envs(disk.environment()).output().context("run the child")?;
    ensure!(output.status.success(), "the child ended: {}", String::from_utf8_lossy(&output.stderr));
    Ok(trace)
}

fn child(data: &Path, trace: &Path, seed: u64, commands: u64) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass-power-child"));
    command.arg(data).arg(trace).args([seed.to_string(), commands.to_string()]).stdin(Stdio::null());
    command
}

/// Cuts the power `cuts` times and checks what is left with `check`; gives a line for each failure.
async fn cut<F>(
    dir: &Workdir,
    root: &Path,
    events: &[Event],
    cuts: usize,
    seed: u64,
    check: impl Fn(PathBuf, Promises) -> F,
) -> Result<Vec<String>>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut random = Random::new(seed);
    let mut points: Vec<usize> = (0..cuts).map(|_| point(events, &mut random)).collect();
    points.sort_unstable();
    let mut disk = Disk::new(root);
    let mut promises = Promises::default();
    let (mut at, mut running, mut failed) = (0, JoinSet::new(), Vec::new());
    let free = Arc::new(Semaphore::new(AT_ONCE));
    for (number, point) in points.into_iter().enumerate() {
        for event in events.get(at..point).unwrap_or_default() {
            disk.advance(event)?;
            promises.note(event)?;
        }
        at = point;
        let rest = match random.below(10) {
            0..2 => Rest::Gone,
            2 => Rest::There,
            3..5 => Rest::SomeWrites,
            5..8 => Rest::SomeSectors,
            _ => Rest::Torn,
        };
        let image = dir.join(format!("image-{number}"));
        let permit = Arc::clone(&free).acquire_owned().await?;
        disk.after_power_cut(rest, &mut random, &image)?;
        let checked = check(image.clone(), promises.clone());
        running.spawn(async move {
            let result = checked.await;
            drop(permit);
            (number, point, rest, image, result)
        });
        while let Some(ended) = running.try_join_next() {
            failed.extend(verdict(ended?));
        }
    }
    while let Some(ended) = running.join_next().await {
        failed.extend(verdict(ended?));
    }
    Ok(failed)
}

type Verdict = (usize, usize, Rest, PathBuf, Result<()>);

fn verdict((number, point, rest, image, result): Verdict) -> Option<String> {
    match result {
        Ok(()) => {
            drop(std::fs::remove_dir_all(&image));
            None
        }
        Err(error) => Some(format!("cut {number} after event {point}, rest {rest:?}: {error:#}")),
    }
}

/// A moment worth a cut: any, right behind a promise, or right before a sync.
fn point(events: &[Event], random: &mut Random) -> usize {
    let any = random.below(events.len() + 1);
    let find = |wanted: fn(&Event) -> bool| {
        let rest = events.get(any..).unwrap_or_default();
        rest.iter().position(wanted).map_or(any, |further| any + further)
    };
    match random.below(4) {
        0 => find(|event| matches!(event, Event::Mark { .. })) + 1,
        1 => find(|event| matches!(event, Event::Sync { .. } | Event::SyncFolder { .. })),
        _ => any,
    }
    .min(events.len())
}

fn wish(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A work directory, in memory where there is such a place: what a disk does is played, not needed.
fn image_folder(name: &str) -> Result<Workdir> {
    Workdir::new(name)
}

/// How long members may take to elect a leader on a busy machine.
const ELECTION: Duration = Duration::from_secs(60);
