//! Hubs come and go on purpose.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::super::{
    fleet::{Delivery, Site},
    group::{Group, GroupOptions},
    stage::Stage,
};
use crate::host::{WAIT_DEADLINE, wait_until};

pub(super) async fn replaced(options: &GroupOptions) -> Result<String> {
    let group = Group::start(options.clone()).await?;
    let site = Site::join(&group, "east").await?;
    let delivery = Delivery::new(&group, "blue")?;
    delivery.deliver(&group, &site, "blue").await?;
    let wanted = delivery.manifests(&group, &site, 0).await.context("at the first hub")?;
    let mut stage = Stage::over(group, options.seed).await?;
    let last = stage.group.size() - 1;
    let started = Instant::now();
    stage.group.replace(last, 0).await?;
    let joined = started.elapsed();
    // Another one is lost: what is left, the new hub among them, must have everything.
    stage.group.kill(0)?;
    stage.workload.acknowledged_after(Instant::now()).await?;
    for hub in 1..stage.group.size() {
        wait_until(WAIT_DEADLINE, format!("the manifests at hub {}", hub + 1), async || {
            let found = delivery.manifests(&stage.group, &site, hub).await?;
            ensure!(found == wanted, "{found} instead of {wanted}");
            Ok(Some(()))
        })
        .await?;
    }
    stage.group.restart(0)?;
    let end = stage.examine().await?;
    site.stop().await?;
    Ok(format!("replaced within {} ms; manifests are at every hub that is left\n{end}", joined.as_millis()))
}

pub(super) async fn rolling_restart(options: &GroupOptions) -> Result<String> {
    let mut stage = Stage::start(options).await?;
    let start = Instant::now();
    for hub in 0..stage.group.size() {
        stage.group.terminate(hub).await?;
        stage.group.restart(hub)?;
        // The next one only goes when this one serves again.
        stage.group.ready(hub).await?;
        stage.workload.acknowledged_after(Instant::now()).await?;
    }
    let (took, gap) = (start.elapsed(), stage.workload.recorder().longest_gap(start, Instant::now()));
    let end = stage.examine().await?;
    let counts = stage.workload.recorder().counts();
    ensure!(counts.abandoned == 0, "{} operations failed for clients that retry", counts.abandoned);
    Ok(format!(
        "all hubs restarted in {} ms, longest gap {} ms, {} attempts repeated, no error\n{end}",
        took.as_millis(),
        gap.as_millis(),
        counts.retries
    ))
}
