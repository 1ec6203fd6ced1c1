//! An upgrade: hubs of the previous commit, replaced one by one under load while the group goes on.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use windlass_chaos::cluster::{
    group::{GroupOptions, Network},
    programs::Programs,
    stage::Stage,
};
use windlass_tests::{Binaries, scenario};

const SEED: u64 = 1;
/// Writes and reads go on for so long in each mixture.
const WORK: Duration = Duration::from_millis(1_500);

#[test]
fn hubs_of_two_commits_run_mixed() -> Result<()> {
    let previous = std::env::var_os("WINDLASS_PREVIOUS_HUB").map(PathBuf::from);
    let previous = previous.context("WINDLASS_PREVIOUS_HUB names no program: tests/tools/previous builds it")?;
    let current = Binaries::locate()?.path("windlass-hub")?;
    scenario(async {
        let folder = previous.parent().context("a program without a folder")?.to_path_buf();
        let programs = Programs::within(folder);
        let options =
            GroupOptions { programs, size: 3, seed: SEED, network: Network::Direct, environment: Vec::new() };
        let mut stage = Stage::start(&options).await?;
        for hub in 0..3 {
            stage.work_for(WORK).await?;
            stage.group.terminate(hub).await?;
            stage.group.set_program(hub, current.clone())?;
            stage.group.restart(hub)?;
            stage.group.all_ready().await?;
            // Whoever leads must be understood by the others: both commits lead in turn.
            let leader = stage.leader().await?;
            stage.group.kill(leader)?;
            stage.group.leader_other_than(Some(leader), Duration::from_secs(10)).await?;
            stage.work_for(WORK).await?;
            stage.group.restart(leader)?;
            stage.group.all_ready().await?;
        }
        let said = stage.examine().await?;
        let status = stage.group.api().status(0).await?;
        let (version, newest) = (status.pointer("/status/stateVersion"), status.pointer("/status/hubs/0/stateVersion"));
        ensure!(version.is_some() && version == newest, "the state has version {version:?}, all understand {newest:?}");
        println!("measured: upgraded one by one under load: {said}");
        Ok(())
    })
}
