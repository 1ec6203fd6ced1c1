//! The network between the hubs fails.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{
    super::{group::GroupOptions, links::Weather, stage::Stage},
    FAULT,
};
use crate::host::WAIT_DEADLINE;

pub(super) async fn leader_partitioned(options: &GroupOptions) -> Result<String> {
    let mut stage = Stage::start(options).await?;
    let old = stage.leader().await?;
    let mut prober = stage.prober()?;
    prober.prepare().await?;
    let cut = Instant::now();
    stage.group.links()?.isolate(old);
    let failover = stage.workload.acknowledged_after(cut).await?;
    let new = stage.group.leader_other_than(Some(old), WAIT_DEADLINE).await?;
    let labelled = prober.must_be_silent(old, FAULT).await?;
    stage.group.links()?.heal();
    let end = stage.examine().await?;
    Ok(format!(
        "hub {} after hub {}, next acknowledged write after {} ms; the old leader labelled {labelled} reads\n{end}",
        new + 1,
        old + 1,
        failover.as_millis()
    ))
}

pub(super) async fn one_way(options: &GroupOptions) -> Result<String> {
    let mut stage = Stage::start(options).await?;
    let mut times = Vec::new();
    for direction in [Direction::From, Direction::To] {
        let leader = stage.leader().await?;
        let cut = Instant::now();
        let links = stage.group.links()?;
        for other in (0..stage.group.size()).filter(|other| *other != leader) {
            let (from, to) = match direction {
                Direction::From => (leader, other),
                Direction::To => (other, leader),
            };
            links.set(from, to, Weather::BLOCKED);
        }
        times.push(stage.workload.acknowledged_after(cut).await?);
        stage.work_for(FAULT).await?;
        let gap = stage.workload.recorder().longest_gap(cut, Instant::now());
        times.push(gap);
        stage.group.links()?.heal();
        stage.group.all_ready().await?;
    }
    let end = stage.examine().await?;
    let millis: Vec<String> = times.iter().map(|time| time.as_millis().to_string()).collect();
    Ok(format!(
        "next acknowledged write and longest gap: {} ms with the leader unheard, {} ms with the leader deaf\n{end}",
        millis.get(..2).unwrap_or_default().join(" and "),
        millis.get(2..).unwrap_or_default().join(" and ")
    ))
}

/// Which datagrams of the leader are blocked.
#[derive(Clone, Copy, Debug)]
enum Direction {
    From,
    To,
}

/// As bad as the failure model says; delays that still allow an election.
const ROUGH: Weather = Weather {
    blocked: false,
    lost: 300,
    doubled: 50,
    reordered: 100,
    delay_min: Duration::from_millis(1),
    delay_max: Duration::from_millis(20),
};
const ROUGH_TIME: Duration = Duration::from_secs(10);

pub(super) async fn rough(options: &GroupOptions) -> Result<String> {
    let mut stage = Stage::start(options).await?;
    let before = stage.group.leader_and_term().await.unwrap_or_default();
    let (start, counts) = (Instant::now(), stage.workload.recorder().counts());
    stage.group.links()?.set_all(ROUGH);
    stage.work_for(ROUGH_TIME).await?;
    let (gap, written) = {
        let recorder = stage.workload.recorder();
        (recorder.longest_gap(start, Instant::now()), recorder.counts().writes - counts.writes)
    };
    let after = stage.group.leader_and_term().await.unwrap_or_default();
    let traffic = stage.group.links()?.traffic();
    stage.group.links()?.heal();
    let end = stage.examine().await?;
    Ok(format!(
        "{written} writes in {} s, longest gap {} ms, {} elections; {traffic:?}\n{end}",
        ROUGH_TIME.as_secs(),
        gap.as_millis(),
        after.1.saturating_sub(before.1)
    ))
}
