//! What every scenario has: a group, clients at work, and the same examination in the end.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    group::{Group, GroupOptions},
    history::{Counts, Outcome},
    register::{Ended, RegisterClient, Seen, Trust},
    workload::{Workload, same_everywhere},
};
use crate::host::{WAIT_DEADLINE, wait_until};

/// Clients of a scenario: enough to meet, few enough for two cores.
const CLIENTS: usize = 4;

/// A group under load.
#[derive(Debug)]
pub struct Stage {
    /// The hubs.
    pub group: Group,
    /// The clients.
    pub workload: Workload,
}

impl Stage {
    /// Starts both; the first write is acknowledged then.
    ///
    /// # Errors
    /// What did not start.
    pub async fn start(options: &GroupOptions) -> Result<Self> {
        let group = Group::start(options.clone()).await?;
        Self::over(group, options.seed).await
    }

    /// Puts load on a group.
    ///
    /// # Errors
    /// When no write succeeds.
    pub async fn over(group: Group, seed: u64) -> Result<Self> {
        let workload = Workload::start(group.access(), CLIENTS, seed)?;
        workload.acknowledged_after(Instant::now()).await?;
        Ok(Self { group, workload })
    }

    /// The leader.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn leader(&self) -> Result<usize> {
        self.group.leader_other_than(None, WAIT_DEADLINE).await
    }

    /// Lets clients work for a while; at least one write must be acknowledged in it.
    ///
    /// # Errors
    /// When none is.
    pub async fn work_for(&self, time: Duration) -> Result<()> {
        let start = Instant::now();
        tokio::time::sleep(time).await;
        self.workload.acknowledged_after(start).await.map(drop)
    }

    /// A client beside the others, for questions to one hub.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn prober(&self) -> Result<Prober> {
        // Each has values of its own.
        let number = PROBERS.fetch_add(1, Ordering::Relaxed);
        Ok(Prober { client: self.workload.client(self.group.access(), number)?, seen: None })
    }

    /// The end of each scenario: all hubs serve, a write is acknowledged, everything acknowledged is there, the history is
    /// linearizable, all replicas are equal.
    ///
    /// # Errors
    /// What does not hold.
    pub async fn examine(&mut self) -> Result<String> {
        self.group.all_ready().await?;
        self.workload.acknowledged_after(Instant::now()).await?;
        self.workload.finish().await?;
        let operations = self.workload.check_history()?;
        let mut entries = 0;
        for hub in 0..self.group.size() {
            entries = self.workload.check_ledger(self.group.api(), hub).await?;
        }
        same_everywhere(&self.group).await?;
        let Counts { writes, unknown, labelled, .. } = self.workload.recorder().counts();
        Ok(format!(
            "history of {operations} operations is linearizable ({writes} writes, {unknown} of unknown outcome, {labelled} \
             reads labelled); {entries} acknowledged entries are all there; replicas are equal"
        ))
    }
}

/// Asks one hub directly; what it answers is part of the history.
#[derive(Debug)]
pub struct Prober {
    client: RegisterClient,
    seen: Option<Seen>,
}

impl Prober {
    /// Learns what its register holds while the group still answers; makes it when it is not there.
    ///
    /// # Errors
    /// When the group does not answer in time.
    pub async fn prepare(&mut self) -> Result<()> {
        let Self { client, seen } = self;
        wait_until(WAIT_DEADLINE, "the prober's register", async || {
            match client.read(REGISTER).await {
                Ended::Known(None) => drop(client.create(REGISTER).await),
                Ended::Known(found) => {
                    *seen = found;
                    return Ok(Some(()));
                }
                Ended::Lost => {}
            }
            Ok(None)
        })
        .await
    }

    /// Tries a write at one hub, over what [`Self::prepare`] saw.
    ///
    /// # Errors
    /// When nothing was seen before.
    pub async fn write_at(&mut self, hub: usize) -> Result<Outcome> {
        let seen = self.seen.clone().context("the prober is not prepared")?;
        Ok(self.client.swap_at(hub, REGISTER, &seen).await)
    }

    /// Reads at one hub.
    pub async fn read_at(&mut self, hub: usize) -> Trust {
        self.client.read_at(hub, REGISTER).await
    }

    /// Reads and writes at a hub that is cut off for so long: it may vouch for nothing, and acknowledge nothing. Gives the
    /// number of reads that it labelled.
    ///
    /// # Errors
    /// What it did all the same.
    pub async fn must_be_silent(&mut self, hub: usize, time: Duration) -> Result<u32> {
        let (end, mut labelled) = (Instant::now() + time, 0);
        while Instant::now() < end {
            match self.read_at(hub).await {
                Trust::Linearizable => bail!("hub {} vouches for a read without a quorum", hub + 1),
                Trust::Labelled => labelled += 1,
                Trust::Nothing => {}
            }
            let outcome = self.write_at(hub).await?;
            ensure!(outcome != Outcome::Done, "hub {} acknowledged a write without a quorum", hub + 1);
        }
        Ok(labelled)
    }
}

/// Numbers of probers, far above those of the workload's clients.
static PROBERS: AtomicUsize = AtomicUsize::new(1_000);
const REGISTER: &str = "probed";
