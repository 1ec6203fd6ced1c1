//! Three hubs as real processes, killed, paused and cut off under load: the quick ones of `windlass-chaos cluster`.
//!
//! A failure prints the seed; the rest runs on demand (`windlass-chaos cluster --list`).

use anyhow::{Context as _, Result};
use windlass_chaos::cluster::{
    group::{GroupOptions, Network},
    kill::{KillOptions, kill},
    programs::Programs,
    scenarios::Scenario,
};
use windlass_tests::{Binaries, scenario};

/// Rounds of the kill test: a thousand are for demand.
const ROUNDS: u64 = 50;
const CLIENTS: usize = 6;
const SEED: u64 = 1;

#[test]
fn nothing_acknowledged_is_lost_in_fifty_kills() -> Result<()> {
    scenario(async {
        let options = KillOptions { group: group(Network::Direct)?, rounds: ROUNDS, clients: CLIENTS };
        let report = kill(&options).await.with_context(|| format!("seed {SEED}"))?;
        println!("measured: {report}");
        Ok(())
    })
}

#[test]
fn a_paused_leader_wakes_up_harmless() -> Result<()> {
    run(Scenario::LeaderPaused)
}

#[test]
fn a_leader_that_is_cut_off_stays_silent() -> Result<()> {
    run(Scenario::LeaderPartitioned)
}

#[test]
fn a_slow_disk_of_a_follower_holds_nobody_up() -> Result<()> {
    run(Scenario::SlowDiskFollower)
}

#[test]
fn a_rolling_restart_shows_no_error() -> Result<()> {
    run(Scenario::RollingRestart)
}

fn run(what: Scenario) -> Result<()> {
    scenario(async {
        let text = what.run(&group(what.network())?).await.with_context(|| format!("seed {SEED}"))?;
        println!("measured: {text}");
        Ok(())
    })
}

fn group(network: Network) -> Result<GroupOptions> {
    let programs = Programs::within(Binaries::locate()?.dir().to_path_buf());
    Ok(GroupOptions { programs, size: 3, seed: SEED, network, environment: Vec::new() })
}
