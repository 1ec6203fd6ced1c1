//! `windlass-chaos cluster ...`: arguments, what is run, what is printed.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::{
    group::{GroupOptions, Network},
    kill::{KillOptions, kill},
    programs::Programs,
};
use crate::host::scenario;

/// Arguments of `cluster`.
#[derive(Args, Debug)]
pub struct ClusterArguments {
    /// Narrows what happens; real processes have a mind of their own.
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    /// How many hubs.
    #[arg(long, global = true, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    hubs: u8,
    /// What to run.
    #[command(subcommand)]
    command: ClusterCommand,
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
    match &arguments.command {
        ClusterCommand::Kill { rounds, clients } => {
            let options = KillOptions { group: arguments.group(Network::Direct)?, rounds: *rounds, clients: *clients };
            println!("{}", kill(&options).await?);
        }
    }
    Ok(())
}
