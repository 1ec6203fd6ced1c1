//! The same load, ended by SIGKILL at random moments, again and again on one directory.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use windlass_chaos::shim::read_trace;
use windlass_tests::{Workdir, power::Random, scenario};

use super::{child, expect, wish};

/// Rounds of a run without wishes; `WINDLASS_KILL_ROUNDS` asks for another number.
const ROUNDS: u64 = 8;

#[test]
fn a_killed_process_loses_nothing_acknowledged() -> Result<()> {
    let rounds = wish("WINDLASS_KILL_ROUNDS").unwrap_or(ROUNDS);
    let mut random = Random::new(wish("WINDLASS_POWER_SEED").unwrap_or(1));
    scenario(async {
        let dir = Workdir::new("kill")?;
        let (data, trace) = (dir.join("data"), dir.join("trace"));
        std::fs::create_dir_all(&data)?;
        for round in 0..rounds {
            let mut running = child(&data, &trace, random.draw() >> 1, 1_000).spawn()?;
            // Chance decides when, not whether: no state is waited for.
            std::thread::sleep(Duration::from_millis(200 + random.below(2_500) as u64));
            running.kill()?;
            running.wait()?;
            let promises = promises(&trace)?;
            let checked = expect::check(data.clone(), promises).await;
            ensure!(checked.is_ok(), "round {round}: {:#}", checked.err().unwrap_or_else(|| anyhow::anyhow!("")));
        }
        Ok(())
    })
}

fn promises(trace: &Path) -> Result<expect::Promises> {
    let mut promises = expect::Promises::default();
    if trace.exists() {
        for event in read_trace(trace)? {
            promises.note(&event)?;
        }
    }
    Ok(promises)
}
