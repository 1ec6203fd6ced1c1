//! `windlass-chaos cluster ...`: arguments, what is run, what is printed.

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use clap::{Args, Command, Subcommand};

use super::{
    bench,
    group::{GroupOptions, Network},
    kill::{KillOptions, kill},
    programs::Programs,
    scenarios::Scenario,
};
use crate::host::scenario;

/// Arguments of `cluster`.
#[derive(Args, Debug)]
pub struct ClusterArguments {
    /// Narrows what happens; real processes have a mind of their own.
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    /// Prints every scenario with its invariant.
    #[arg(long)]
    list: bool,
    /// How many hubs.
    #[arg(long, global = true, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    hubs: u8,
    /// What to run.
    #[command(subcommand)]
    command: Option<ClusterCommand>,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Kills random hubs, also all at once, under writes: nothing acknowledged is lost, the history is linearizable.
    Kill {
        /// How often.
        #[arg(long, default_value_t = 50)]
        rounds: u64,
        /// Clients at a time.
        #[arg(long, default_value_t = 6)]
        clients: usize,
    },
    /// Measures.
    #[command(subcommand)]
    Bench(Bench),
    #[command(flatten)]
    Scenario(Scenario),
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Bench {
    /// From the kill of the leader to the next acknowledged write.
    Failover {
        /// How often.
        #[arg(long, default_value_t = 50)]
        runs: u64,
    },
    /// Durable writes a second by 1, 16 and 128 clients, beside what the disk's sync allows.
    Writes {
        /// Seconds for each number of clients.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
}

impl ClusterArguments {
    fn group(&self, network: Network) -> Result<GroupOptions> {
        Ok(GroupOptions {
            programs: Programs::locate()?,
            size: self.hubs.into(),
            seed: self.seed,
            network,
            environment: Vec::new(),
        })
    }
}

/// Runs what was asked for; fails when an invariant does not hold.
#[must_use]
pub(crate) fn run(arguments: &ClusterArguments) -> ExitCode {
    match scenario(perform(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAILED (seed {}): {error:#}", arguments.seed);
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "the output of the program")]
async fn perform(arguments: &ClusterArguments) -> Result<()> {
    let Some(command) = &arguments.command else {
        ensure!(arguments.list, "nothing to do: name a scenario (--list shows them), kill or bench");
        print!("{}", list());
        return Ok(());
    };
    let text = match command {
        ClusterCommand::Kill { rounds, clients } => {
            let options = KillOptions { group: arguments.group(Network::Direct)?, rounds: *rounds, clients: *clients };
            kill(&options).await?.to_string()
        }
        ClusterCommand::Bench(Bench::Failover { runs }) => {
            bench::failover(&arguments.group(Network::Direct)?, *runs).await?
        }
        ClusterCommand::Bench(Bench::Writes { seconds }) => {
            bench::writes(&arguments.group(Network::Direct)?, Duration::from_secs(*seconds)).await?
        }
        ClusterCommand::Scenario(scenario) => scenario.run(&arguments.group(scenario.network())?).await?,
    };
    println!("{text}");
    Ok(())
}

/// Every scenario with its invariant, one a line.
fn list() -> String {
    let command = Scenario::augment_subcommands(Command::new("scenarios"));
    let lines = command.get_subcommands().map(|scenario| {
        let invariant = scenario.get_about().map(ToString::to_string).unwrap_or_default();
        format!("{:<20} {invariant}\n", scenario.get_name())
    });
    lines.collect()
}
