//! Disks and clocks that misbehave, by libraries preloaded into the hubs.

use std::{
    ffi::OsString,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    super::{
        fleet::Site,
        group::{Group, GroupOptions},
        stage::Stage,
    },
    FAULT,
};
use crate::shim::{Clock, Disk, Faults, Full};

/// A group under load whose hubs each have a disk of their own.
async fn stage_with_disks(options: &GroupOptions) -> Result<(Stage, Vec<Disk>)> {
    let mut group = Group::start(options.clone()).await?;
    let mut disks = Vec::new();
    for hub in 0..group.size() {
        let disk = Disk::new(&group.data(hub), &group.folder().join(format!("disk-{}", hub + 1)))?;
        group.set_environment(hub, owned(disk.environment()))?;
        group.restart(hub)?;
        disks.push(disk);
    }
    group.all_ready().await?;
    Ok((Stage::over(group, options.seed).await?, disks))
}

fn owned(environment: Vec<(&'static str, OsString)>) -> Vec<(String, OsString)> {
    environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

const SLOW: Duration = Duration::from_secs(1);
/// Longer on a follower: the invariant is that nobody waits for it.
const SLOW_FOLLOWER: Duration = Duration::from_secs(3);
const SLOW_TIME: Duration = Duration::from_secs(8);

pub(super) async fn slow_leader(options: &GroupOptions) -> Result<String> {
    let (mut stage, disks) = stage_with_disks(options).await?;
    let before = stage.group.leader_and_term().await.context("nobody leads")?;
    let disk = disks.get(before.0).context("a disk for each hub")?;
    let start = Instant::now();
    disk.set(&Faults { fsync: SLOW, ..Faults::default() })?;
    stage.work_for(SLOW_TIME).await?;
    let gap = stage.workload.recorder().longest_gap(start, Instant::now());
    let after = stage.group.leader_and_term().await.unwrap_or_default();
    disk.set(&Faults::default())?;
    let end = stage.examine().await?;
    let leads = if after.0 == before.0 { "still leads" } else { "leads no longer" };
    Ok(format!(
        "hub {} {leads}; longest gap {} ms, {} elections in {} s\n{end}",
        before.0 + 1,
        gap.as_millis(),
        after.1.saturating_sub(before.1),
        SLOW_TIME.as_secs()
    ))
}

pub(super) async fn slow_follower(options: &GroupOptions) -> Result<String> {
    let (mut stage, disks) = stage_with_disks(options).await?;
    let leader = stage.leader().await?;
    let follower = (leader + 1) % stage.group.size();
    let disk = disks.get(follower).context("a disk for each hub")?;
    let start = Instant::now();
    disk.set(&Faults { fsync: SLOW_FOLLOWER, ..Faults::default() })?;
    stage.work_for(SLOW_TIME).await?;
    let gap = stage.workload.recorder().longest_gap(start, Instant::now());
    disk.set(&Faults::default())?;
    ensure!(gap < SLOW_FOLLOWER, "writes wait for the slow follower: {} ms without one", gap.as_millis());
    let end = stage.examine().await?;
    Ok(format!("longest gap {} ms with syncs of {} s on a follower\n{end}", gap.as_millis(), SLOW_FOLLOWER.as_secs()))
}

pub(super) async fn full(options: &GroupOptions) -> Result<String> {
    let (mut stage, disks) = stage_with_disks(options).await?;
    let victim = stage.leader().await?;
    let disk = disks.get(victim).context("a disk for each hub")?;
    let start = Instant::now();
    disk.set(&Faults { full: Full::All, ..Faults::default() })?;
    let next = stage.workload.acknowledged_after(start).await?;
    stage.work_for(FAULT).await?;
    let gap = stage.workload.recorder().longest_gap(start, Instant::now());
    let log = stage.group.log(victim)?.to_lowercase();
    ensure!(log.contains("no space") || log.contains("space left"), "hub {} says nothing of its full disk", victim + 1);
    let alive = if stage.group.is_running(victim)? { "runs on" } else { "has ended" };
    disk.set(&Faults::default())?;
    stage.group.restart(victim)?;
    let end = stage.examine().await?;
    Ok(format!(
        "hub {} {alive}; next acknowledged write after {} ms, longest gap {} ms\n{end}",
        victim + 1,
        next.as_millis(),
        gap.as_millis()
    ))
}

/// Seconds by which the clock jumps: more than any deadline or token, less than a certificate.
const JUMP: i64 = 3_600;

pub(super) async fn clock_jump(options: &GroupOptions) -> Result<String> {
    let mut group = Group::start(options.clone()).await?;
    let mut clocks = Vec::new();
    for hub in 0..group.size() {
        let clock = Clock::new(&group.folder().join(format!("clock-{}", hub + 1)))?;
        group.set_environment(hub, owned(clock.environment()))?;
        group.restart(hub)?;
        clocks.push(clock);
    }
    group.all_ready().await?;
    let site = Site::join(&group, "east").await?;
    let mut stage = Stage::over(group, options.seed).await?;
    let before = stage.group.leader_and_term().await.context("nobody leads")?;
    let clock = clocks.get(before.0).context("a clock for each hub")?;
    let start = Instant::now();
    for offset in [JUMP, -JUMP, 0] {
        clock.set(offset)?;
        stage.work_for(FAULT).await?;
        site.is_connected(&stage.group).await.with_context(|| format!("with the leader's clock {offset} s off"))?;
    }
    let gap = stage.workload.recorder().longest_gap(start, Instant::now());
    let after = stage.group.leader_and_term().await.context("nobody leads")?;
    ensure!(before == after, "the clock unseated the leader: {before:?} before, {after:?} after");
    let end = stage.examine().await?;
    site.stop().await?;
    Ok(format!("longest gap {} ms, the same leader, the agent stays connected\n{end}", gap.as_millis()))
}
