//! Measurements on real processes. Each says what starts and ends its clock.

use std::{
    fmt::Write as _,
    fs::File,
    io::Write as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use super::{
    api::{Answer, Api},
    figures::Times,
    group::{Group, GroupOptions},
    register::COLLECTION,
    stage::Stage,
};

/// Numbers of clients that write at a time.
const CLIENTS: [usize; 3] = [1, 16, 128];
/// One record of the raw disk: a page, as a small batch of the log.
const RECORD_BYTES: usize = 4_096;
/// How long the raw disk is measured.
const DISK_TIME: Duration = Duration::from_secs(3);
/// Clients warm up for this long, uncounted.
const WARM_UP: Duration = Duration::from_millis(500);

/// Kills the leader again and again. The clock starts before SIGKILL is sent and ends with the first answer to a write that was
/// sent later; clients write all the time and go to another hub when one fails.
///
/// # Errors
/// When the group does not come back.
pub async fn failover(options: &GroupOptions, runs: u64) -> Result<String> {
    let mut stage = Stage::start(options).await?;
    let mut times = Times::default();
    for run in 1..=runs {
        let leader = stage.leader().await?;
        let killed = Instant::now();
        stage.group.kill(leader)?;
        times.push(stage.workload.acknowledged_after(killed).await.with_context(|| format!("run {run}"))?);
        stage.group.restart(leader)?;
        stage.group.all_ready().await?;
    }
    let end = stage.examine().await?;
    Ok(format!("failover, from the kill of the leader to the next acknowledged write: {times}\n{end}"))
}

/// Durable writes a second: each client replaces a ConfigMap of its own as fast as answers come, at all hubs in turn. An answer
/// means that the write is synced on a quorum. The disk is measured in the same run.
///
/// # Errors
/// When a write is refused.
pub async fn writes(options: &GroupOptions, time: Duration) -> Result<String> {
    let group = Group::start(options.clone()).await?;
    let raw = {
        let folder = group.folder().to_owned();
        tokio::task::spawn_blocking(move || disk(&folder)).await.context("the disk's measurement ended")??
    };
    let mut text = format!("{raw:.0} syncs a second of {RECORD_BYTES} bytes by one writer of the raw disk\n");
    for clients in CLIENTS {
        let (count, took, latency) = measure(&group, clients, time).await?;
        let rate = count as f64 / took.as_secs_f64();
        writeln!(
            text,
            "{clients} clients at {} hubs: {rate:.0} writes a second, {:.2} of the disk's syncs; {latency}",
            group.size(),
            rate / raw
        )?;
    }
    Ok(text)
}

/// Writes in a time, the time, and how long each took.
async fn measure(group: &Group, clients: usize, time: Duration) -> Result<(u64, Duration, Times)> {
    let (start, counted) = (Instant::now() + WARM_UP, Arc::new(AtomicU64::new(0)));
    let mut set = JoinSet::new();
    for number in 0..clients {
        let (api, hub) = (group.access().connect()?, number % group.size());
        set.spawn(write(api, hub, number, start, start + time, Arc::clone(&counted)));
    }
    let mut latency = Times::default();
    while let Some(ended) = set.join_next().await {
        for one in ended.context("a client ended badly")?? {
            latency.push(one);
        }
    }
    ensure!(latency.count() > 0, "no write was answered");
    Ok((counted.load(Ordering::Relaxed), time, latency))
}

async fn write(
    api: Api,
    hub: usize,
    number: usize,
    start: Instant,
    end: Instant,
    counted: Arc<AtomicU64>,
) -> Result<Vec<Duration>> {
    let name = format!("bench-{number}");
    let (mut times, mut round) = (Vec::new(), 0_u64);
    let (mut method, mut path) = (Method::POST, COLLECTION.to_owned());
    while Instant::now() < end {
        round += 1;
        let body = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"round": round.to_string()},
        });
        let sent = Instant::now();
        match api.send(hub, method, &path, Some(&body)).await {
            Answer::Ok { .. } => {}
            Answer::Refused { reason, .. } if reason == "AlreadyExists" => {}
            Answer::NotDone(said) | Answer::Unknown(said) => bail!("{name}: {said}"),
            Answer::Refused { code, reason, message, .. } => bail!("{name}: {code} {reason}: {message}"),
        }
        (method, path) = (Method::PUT, format!("{COLLECTION}/{name}"));
        let answered = Instant::now();
        if sent >= start && answered <= end {
            counted.fetch_add(1, Ordering::Relaxed);
            times.push(answered - sent);
        }
    }
    Ok(times)
}

/// Appends and syncs of one file, a second.
fn disk(folder: &Path) -> Result<f64> {
    let path = folder.join("raw");
    let mut file = File::create(&path).context("a file for the raw disk")?;
    let (start, mut count, record) = (Instant::now(), 0_u64, [7; RECORD_BYTES]);
    while start.elapsed() < DISK_TIME {
        file.write_all(&record).context("write the raw disk")?;
        file.sync_data().context("sync the raw disk")?;
        count += 1;
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(&path).context("remove the file")?;
    Ok(rate)
}
