//! The leader dies, or stands still.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::join_all;

use super::super::{group::GroupOptions, history::Outcome, register::Trust, stage::Stage};
use crate::host::{Signal, WAIT_DEADLINE};

pub(super) async fn killed(options: &GroupOptions) -> Result<String> {
    let mut stage = Stage::start(options).await?;
    let old = stage.leader().await?;
    let killed = Instant::now();
    stage.group.kill(old)?;
    let failover = stage.workload.acknowledged_after(killed).await?;
    let new = stage.group.leader_other_than(Some(old), WAIT_DEADLINE).await?;
    stage.group.restart(old)?;
    let end = stage.examine().await?;
    Ok(format!(
        "hub {} after hub {}, next acknowledged write after {} ms\n{end}",
        new + 1,
        old + 1,
        failover.as_millis()
    ))
}

/// How long the leader stands still.
const PAUSE: Duration = Duration::from_secs(5);
/// Questions put to it while it cannot answer, late enough that their senders still wait when it can.
const ASKED_BEFORE_END: Duration = Duration::from_millis(500);
const QUESTIONS: usize = 8;

pub(super) async fn paused(options: &GroupOptions) -> Result<String> {
    let mut stage = Stage::start(options).await?;
    let old = stage.leader().await?;
    // Connections are open before, so that questions wait in the hub's own socket.
    let mut probers = Vec::new();
    for _ in 0..QUESTIONS {
        let mut prober = stage.prober()?;
        prober.prepare().await?;
        prober.read_at(old).await;
        probers.push(prober);
    }
    let stopped = Instant::now();
    stage.group.signal(old, Signal::Pause)?;
    let failover = stage.workload.acknowledged_after(stopped).await?;
    tokio::time::sleep((PAUSE - ASKED_BEFORE_END).saturating_sub(stopped.elapsed())).await;
    let asked = probers.into_iter().enumerate().map(|(number, mut prober)| async move {
        if number % 2 == 0 {
            let trust = prober.read_at(old).await;
            (Some(trust), None)
        } else {
            (None, prober.write_at(old).await.ok())
        }
    });
    let resume = async {
        tokio::time::sleep(PAUSE.saturating_sub(stopped.elapsed())).await;
        stage.group.signal(old, Signal::Resume)
    };
    let (answers, resumed) = tokio::join!(join_all(asked), resume);
    resumed?;
    let current = answers.iter().filter(|(read, _)| *read == Some(Trust::Linearizable)).count();
    let written = answers.iter().filter(|(_, write)| *write == Some(Outcome::Done)).count();
    let (_, term) = stage.group.leader_and_term().await.unwrap_or_default();
    ensure!(term > 1, "nobody took over");
    // Whether current answers were right is for the history to say: they are part of it.
    let end = stage.examine().await?;
    Ok(format!(
        "next acknowledged write after {} ms; of {QUESTIONS} questions asked of the paused hub, {current} reads answered as \
         current and {written} writes acknowledged once it went on\n{end}",
        failover.as_millis()
    ))
}
