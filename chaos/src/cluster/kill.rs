//! The kill test: clients write while hubs are killed at random points and started again; nothing acknowledged may be lost.
//!
//! After each round the group must serve again. In the end every acknowledged entry is there, the history is linearizable,
//! all replicas are equal, and all logs verify once more from a cold start.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    figures::Times,
    group::{Group, GroupOptions},
    history::Counts,
    workload::{Workload, same_everywhere},
};
use crate::{host::WAIT_DEADLINE, sim::Random};

/// Rounds after which other registers are used and the ledger is looked through.
const CHECK_ROUNDS: u64 = 10;

/// How to run it.
#[derive(Clone, Debug)]
pub struct KillOptions {
    /// The group.
    pub group: GroupOptions,
    /// Rounds: each kills at least one hub.
    pub rounds: u64,
    /// Clients at a time.
    pub clients: usize,
}

/// What happened, and how fast.
#[derive(Clone, Debug, Default)]
pub struct KillReport {
    rounds: u64,
    kills: u64,
    leaders: u64,
    all_at_once: u64,
    counts: Counts,
    operations: usize,
    entries: usize,
    objects: usize,
    failover: Times,
    cold: Times,
    took: Duration,
}

/// Runs the test.
///
/// # Errors
/// The first thing that must not be, with the round in which it was found.
pub async fn kill(options: &KillOptions) -> Result<KillReport> {
    let mut group = Group::start(options.group.clone()).await?;
    let started = Instant::now();
    let mut random = Random::new(options.group.seed);
    let mut workload = Workload::start(group.access(), options.clients, random.next())?;
    let mut report = KillReport::default();
    workload.acknowledged_after(Instant::now()).await?;
    for round in 1..=options.rounds {
        let result = one_round(&mut group, &workload, &mut random, &mut report).await;
        result.with_context(|| format!("round {round}"))?;
        report.rounds = round;
        if round % CHECK_ROUNDS == 0 {
            workload.next_generation();
            let hub = usize::try_from(random.below(group.size() as u64))?;
            workload.check_ledger(group.api(), hub).await.with_context(|| format!("after round {round}"))?;
        }
    }
    workload.finish().await?;
    report.operations = workload.check_history()?;
    same_everywhere(&group).await?;
    // Cold: everything must come from the disks.
    for hub in 0..group.size() {
        group.kill(hub)?;
    }
    for hub in 0..group.size() {
        group.restart(hub)?;
    }
    group.all_ready().await?;
    report.objects = same_everywhere(&group).await?;
    for hub in 0..group.size() {
        report.entries = workload.check_ledger(group.api(), hub).await?;
    }
    report.counts = workload.recorder().counts();
    report.took = started.elapsed();
    Ok(report)
}

/// Kills some hubs at a random point, starts them again at another one, and waits until all serve and a write succeeds.
async fn one_round(group: &mut Group, workload: &Workload, random: &mut Random, report: &mut KillReport) -> Result<()> {
    tokio::time::sleep(Duration::from_millis(random.between(20, 300))).await;
    let leader = group.leader_other_than(None, WAIT_DEADLINE).await?;
    let victims = victims(group.size(), leader, random);
    let killed = Instant::now();
    for hub in &victims {
        group.kill(*hub)?;
    }
    report.kills += victims.len() as u64;
    let quorum_lives = victims.len() * 2 < group.size();
    if quorum_lives && victims.contains(&leader) {
        report.leaders += 1;
        report.failover.push(workload.acknowledged_after(killed).await?);
    } else {
        tokio::time::sleep(Duration::from_millis(random.between(0, 300))).await;
    }
    let started = Instant::now();
    for hub in &victims {
        group.restart(*hub)?;
        // Sometimes a hub is cut down again while it recovers.
        if random.chance(150) {
            tokio::time::sleep(Duration::from_millis(random.between(1, 200))).await;
            group.restart(*hub)?;
            report.kills += 1;
        }
    }
    group.all_ready().await?;
    workload.acknowledged_after(Instant::now()).await?;
    if victims.len() == group.size() {
        report.all_at_once += 1;
        report.cold.push(started.elapsed());
    }
    Ok(())
}

/// Half of the rounds hit the leader alone; the others anyone, several, or all at once.
fn victims(size: usize, leader: usize, random: &mut Random) -> Vec<usize> {
    let any = |random: &mut Random| usize::try_from(random.below(size as u64)).unwrap_or_default();
    match random.below(10) {
        0..=4 => vec![leader],
        5 | 6 => vec![any(random)],
        7 => {
            let other = (leader + 1) % size;
            if other == leader { vec![leader] } else { vec![leader, other] }
        }
        _ => (0..size).collect(),
    }
}

impl fmt::Display for KillReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { reads, writes, refused, unknown, labelled, retries, abandoned } = self.counts;
        writeln!(
            f,
            "{} rounds in {:.1} s: {} kills, {} of the leader, {} times all at once",
            self.rounds,
            self.took.as_secs_f64(),
            self.kills,
            self.leaders,
            self.all_at_once
        )?;
        writeln!(
            f,
            "history of {} operations is linearizable: {writes} writes, {reads} reads, {refused} refused, {unknown} of unknown \
             outcome; {labelled} reads labelled, {retries} attempts repeated, {abandoned} operations given up",
            self.operations
        )?;
        writeln!(f, "{} acknowledged entries are all there; {} objects equal on all hubs", self.entries, self.objects)?;
        writeln!(f, "failover, from the kill of the leader to the next acknowledged write: {}", self.failover)?;
        write!(f, "cold start of all hubs, to the next acknowledged write: {}", self.cold)
    }
}
