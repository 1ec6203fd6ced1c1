//! The binary `windlass-chaos`: parses arguments and prints what the library found. Never simulates anything itself.

use std::process::ExitCode;

use clap::Parser as _;
use windlass_chaos::cli::{self, Arguments};

fn main() -> ExitCode {
    cli::run(&Arguments::parse())
}
