//! The command line: arguments, one line per seed, exit code.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::{
    Options, Outcome, Plant,
    cluster::cli::{self, ClusterArguments},
    load::{self, cli::LoadArguments},
    simulate,
};

/// Seeded simulation of a Windlass fleet, and faults against its real processes.
#[derive(Debug, Parser)]
#[command(name = "windlass-chaos", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the pure crates in virtual time; the same seed gives the same trace.
    Sim(SimArguments),
    /// Runs real hub processes and hurts them; the seed only narrows what happens.
    Cluster(ClusterArguments),
    /// Puts many agents on real hub processes and measures.
    Load(LoadArguments),
}

#[derive(Args, Debug)]
struct SimArguments {
    /// First seed; decides everything that happens.
    #[arg(long)]
    seed: u64,
    /// How many seeds, counted up from the first.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Events of the safety phase; the liveness phase follows.
    #[arg(long, default_value_t = Options::STEPS)]
    steps: u64,
    /// A bug to plant: the run is expected to find it.
    #[arg(long, value_enum)]
    plant: Option<Plant>,
    /// Prints every event.
    #[arg(long, short)]
    verbose: bool,
}

/// Runs what was asked for; fails when a seed fails.
#[must_use]
pub fn run(arguments: &Arguments) -> ExitCode {
    match &arguments.command {
        Command::Sim(arguments) => run_simulations(arguments),
        Command::Cluster(arguments) => cli::run(arguments),
        Command::Load(arguments) => load::cli::run(arguments),
    }
}

#[allow(clippy::print_stdout, reason = "the output of the program")]
fn run_simulations(arguments: &SimArguments) -> ExitCode {
    let mut failed = 0_u64;
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.seeds) {
        let options = Options { seed, steps: arguments.steps, plant: arguments.plant, print: arguments.verbose };
        let outcome = simulate(&options);
        println!("{}", describe(&options, &outcome));
        failed += u64::from(outcome.failure.is_some());
    }
    if arguments.seeds > 1 {
        println!("{} seeds, {failed} failed", arguments.seeds);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One line for a seed that holds; the whole story for one that does not.
#[must_use]
pub fn describe(options: &Options, outcome: &Outcome) -> String {
    let seed = options.seed;
    let Some(failure) = &outcome.failure else {
        return format!("seed {seed}: ok, {}, trace {:016x}", outcome.coverage, outcome.trace);
    };
    let mut text = format!(
        "seed {seed}: FAILED at {} ms: {}\n  {}\n  by {}\nlast events:\n",
        failure.at.0, failure.invariant, failure.message, failure.source
    );
    for line in &failure.last {
        text.push_str("  ");
        text.push_str(line);
        text.push('\n');
    }
    let mut reproduce = format!("windlass-chaos sim --seed {seed}");
    if options.steps != Options::STEPS {
        reproduce.push_str(&format!(" --steps {}", options.steps));
    }
    if let Some(plant) = options.plant {
        reproduce.push_str(&format!(" --plant {}", plant.name()));
    }
    format!("{text}covered: {}\nreproduce: {reproduce} -v", outcome.coverage)
}
