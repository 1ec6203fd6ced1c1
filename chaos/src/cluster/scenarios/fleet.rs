//! Hubs fail with agents connected.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    super::{
        fleet::{Delivery, Site},
        group::{Group, GroupOptions},
        stage::Stage,
    },
    FAULT,
};
use crate::host::{WAIT_DEADLINE, wait_until};

/// A hub without its leader says GoAway after 5 s; the rest is dialling another one, on a busy machine.
const MOVE_TIME_MAX: Duration = Duration::from_secs(15);
/// A revoked agent has lost its session after 5 s and a round trip; the rest is the polling here.
const REVOKE_TIME_MAX: Duration = Duration::from_secs(8);

pub(super) async fn agent_moves(options: &GroupOptions) -> Result<String> {
    let group = Group::start(options.clone()).await?;
    let site = Site::join(&group, "east").await?;
    let delivery = Delivery::new(&group, "blue")?;
    delivery.deliver(&group, &site, "blue").await?;
    let mut stage = Stage::over(group, options.seed).await?;
    let old = site.is_connected(&stage.group).await?;
    let cut = Instant::now();
    stage.group.links()?.isolate(old);
    let new = site.connected(&stage.group, Some(old)).await?;
    let moved = cut.elapsed();
    ensure!(moved < MOVE_TIME_MAX, "the agent moved only after {} ms", moved.as_millis());
    // What is committed now arrives although the old hub is still cut off.
    delivery.commit("green")?;
    delivery.settled(&stage.group, &site, "green").await?;
    stage.group.links()?.heal();
    let end = stage.examine().await?;
    site.stop().await?;
    Ok(format!("the agent moved from hub {} to hub {} within {} ms\n{end}", old + 1, new + 1, moved.as_millis()))
}

pub(super) async fn revocation(options: &GroupOptions) -> Result<String> {
    let group = Group::start(options.clone()).await?;
    let site = Site::join(&group, "east").await?;
    let mut stage = Stage::over(group, options.seed).await?;
    let old = site.is_connected(&stage.group).await?;
    stage.group.links()?.isolate(old);
    let other = stage.group.leader_other_than(Some(old), WAIT_DEADLINE).await?;
    stage.workload.acknowledged_after(Instant::now()).await?;
    site.remove(&stage.group, other).await?;
    let removed = Instant::now();
    let api = stage.group.api().clone();
    wait_until(WAIT_DEADLINE, "the end of the revoked session", async || {
        let status = api.status(old).await?;
        let sessions = status.get("sessions").and_then(Value::as_u64).context("a status without sessions")?;
        ensure!(sessions == 0, "{sessions} sessions");
        Ok(Some(()))
    })
    .await?;
    let took = removed.elapsed();
    ensure!(took < REVOKE_TIME_MAX, "the revoked agent kept its session for {} ms", took.as_millis());
    stage.group.links()?.heal();
    let end = stage.examine().await?;
    Ok(format!("the session ended {} ms after the removal was acknowledged\n{end}", took.as_millis()))
}

pub(super) async fn quorum_lost(options: &GroupOptions) -> Result<String> {
    let group = Group::start(options.clone()).await?;
    let site = Site::join(&group, "east").await?;
    let delivery = Delivery::new(&group, "blue")?;
    delivery.deliver(&group, &site, "blue").await?;
    let mut stage = Stage::over(group, options.seed).await?;
    let mut prober = stage.prober()?;
    prober.prepare().await?;
    // The one that stays is the one that served the agent.
    let left = site.is_connected(&stage.group).await?;
    let dead: Vec<usize> = (0..stage.group.size()).filter(|hub| *hub != left).collect();
    for hub in &dead {
        stage.group.kill(*hub)?;
    }
    // A read under way while the others died may still have been theirs.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let labelled = prober.must_be_silent(left, FAULT).await?;
    ensure!(labelled > 0, "the hub that is left answers no read at all");
    let healed = site.heals().await?;
    for hub in &dead {
        stage.group.restart(*hub)?;
    }
    let end = stage.examine().await?;
    site.connected(&stage.group, None).await?;
    delivery.commit("green")?;
    delivery.settled(&stage.group, &site, "green").await?;
    site.stop().await?;
    Ok(format!("{labelled} reads labelled, no write taken; drift undone after {} ms\n{end}", healed.as_millis()))
}

pub(super) async fn all_killed(options: &GroupOptions) -> Result<String> {
    let group = Group::start(options.clone()).await?;
    let site = Site::join(&group, "east").await?;
    let delivery = Delivery::new(&group, "blue")?;
    delivery.deliver(&group, &site, "blue").await?;
    let mut stage = Stage::over(group, options.seed).await?;
    for hub in 0..stage.group.size() {
        stage.group.kill(hub)?;
    }
    let healed = site.heals().await?;
    let before = site.settings();
    let restarted = Instant::now();
    for hub in 0..stage.group.size() {
        stage.group.restart(hub)?;
    }
    stage.group.all_ready().await?;
    let written = stage.workload.acknowledged_after(restarted).await?;
    // Cut off without a word, the agent finds out by its own timers.
    site.connected(&stage.group, None).await?;
    let connected = restarted.elapsed();
    delivery.settled(&stage.group, &site, "blue").await?;
    let end = stage.examine().await?;
    ensure!(site.settings() == before, "applied again: {:?}, before {before:?}", site.settings());
    site.stop().await?;
    Ok(format!(
        "drift undone without a hub after {} ms; from the restart to the next acknowledged write {} ms, to a session at most {} \
         ms\n{end}",
        healed.as_millis(),
        written.as_millis(),
        connected.as_millis()
    ))
}
