//! What is measured with a crowd of agents.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::time::sleep;

use super::crowd::{Crowd, Seen};
use crate::{
    cluster::group::{Group, GroupOptions},
    host::Signal,
};

/// Everybody has to be connected, or gone, by then.
const PATIENCE: Duration = Duration::from_secs(120);
/// Before memory is read: what a start or a storm needs for a moment is given back.
const SETTLE: Duration = Duration::from_secs(15);

/// How all hubs are restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Restart {
    /// Asked to end: agents are sent away first.
    Ask,
    /// Killed at once: nobody says goodbye.
    Kill,
}

/// Memory of the hubs per idle session: the difference of resident memory with and without, on hubs that were just started.
///
/// # Errors
/// When hubs or agents do not come up.
pub async fn sessions(options: GroupOptions, count: usize) -> Result<String> {
    let mut group = Group::start(options).await?;
    let crowd = Crowd::enrol(&group, count).await?;
    // What enrolment left behind in memory would hide what sessions need.
    for hub in 0..group.size() {
        group.terminate(hub).await?;
        group.restart(hub)?;
    }
    group.all_ready().await?;
    sleep(SETTLE).await;
    let before = resident(&mut group)?;
    let seen = Seen::default();
    let begun = Instant::now();
    let running = crowd.start(&seen);
    seen.wait(count, PATIENCE).await?;
    let connected = begun.elapsed();
    sleep(SETTLE).await;
    let after = resident(&mut group)?;
    let (sent, received) = seen.traffic();
    drop(running);
    let agents = u64::try_from(count).unwrap_or(u64::MAX).max(1);
    let per = |bytes: u64| bytes / agents;
    Ok(format!(
        "{count} idle sessions at {} hubs: {:.1} KiB each (resident {} -> {} KiB), connected in {} ms, {} bytes each on the wire",
        group.size(),
        // KiB of tenths.
        f64::from(u32::try_from(per((after.saturating_sub(before)) * 10)).unwrap_or(u32::MAX)) / 10.0,
        before,
        after,
        connected.as_millis(),
        per(sent + received),
    ))
}

/// All hubs are restarted with everybody connected: the clock runs from the first signal until the last agent has heard a hub's
/// hello again, and said what it has.
///
/// # Errors
/// When somebody does not come back.
pub async fn reconnect(options: GroupOptions, count: usize, how: Restart) -> Result<String> {
    let mut group = Group::start(options).await?;
    let crowd = Crowd::enrol(&group, count).await?;
    let seen = Seen::default();
    let running = crowd.start(&seen);
    seen.wait(count, PATIENCE).await?;
    sleep(SETTLE).await;
    seen.begin();
    let begun = Instant::now();
    for hub in 0..group.size() {
        match how {
            Restart::Ask => group.signal(hub, Signal::Terminate)?,
            Restart::Kill => group.kill(hub)?,
        }
    }
    if how == Restart::Ask {
        for hub in 0..group.size() {
            group.terminate(hub).await?;
        }
    }
    let down = begun.elapsed();
    for hub in 0..group.size() {
        group.restart(hub)?;
    }
    group.all_ready().await?;
    let ready = begun.elapsed();
    seen.wait(count, PATIENCE).await?;
    let back = begun.elapsed();
    let (sent, received) = seen.traffic();
    let (failures, last) = seen.failures();
    drop(running);
    let agents = u64::try_from(count).unwrap_or(u64::MAX).max(1);
    Ok(format!(
        "{count} agents back at {} hubs {} ms after the first signal (down {} ms, ready {} ms; {} ms after that); {} bytes each up, {} down; {failures} failed attempts{}",
        group.size(),
        back.as_millis(),
        down.as_millis(),
        ready.as_millis(),
        back.saturating_sub(ready).as_millis(),
        sent / agents,
        received / agents,
        if failures == 0 { String::new() } else { format!(", the last: {last}") },
    ))
}

/// Resident memory of all hubs, in KiB.
fn resident(group: &mut Group) -> Result<u64> {
    let mut sum = 0;
    for hub in 0..group.size() {
        let pid = group.pid(hub)?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the hub's status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().context("VmRSS")?;
        sum += kibibytes;
    }
    Ok(sum)
}
