//! `windlass-chaos load ...`: arguments, what is run, what is printed.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::measure::{self, Restart};
use crate::{
    cluster::{
        group::{GroupOptions, Network},
        programs::Programs,
    },
    host::scenario,
};

/// Arguments of `load`.
#[derive(Args, Debug)]
pub struct LoadArguments {
    /// Agents.
    #[arg(long, global = true, default_value_t = 1_000)]
    agents: usize,
    /// How many hubs.
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=7))]
    hubs: u8,
    #[command(subcommand)]
    command: LoadCommand,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum LoadCommand {
    /// Memory of the hubs per idle session.
    Sessions,
    /// Time and bytes until everybody is back after a restart of all hubs.
    Reconnect {
        /// How the hubs end.
        #[arg(long, value_enum, default_value_t = Restart::Ask)]
        how: Restart,
    },
}

/// Runs what was asked for.
#[must_use]
pub(crate) fn run(arguments: &LoadArguments) -> ExitCode {
    match scenario(perform(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "the output of the program")]
async fn perform(arguments: &LoadArguments) -> Result<()> {
    let options = GroupOptions {
        programs: Programs::locate()?,
        size: arguments.hubs.into(),
        seed: 1,
        network: Network::Direct,
        environment: Vec::new(),
    };
    let text = match arguments.command {
        LoadCommand::Sessions => measure::sessions(options, arguments.agents).await?,
        LoadCommand::Reconnect { how } => measure::reconnect(options, arguments.agents, how).await?,
    };
    println!("{text}");
    Ok(())
}
