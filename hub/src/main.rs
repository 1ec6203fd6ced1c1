//! `windlass-hub`: parses the command line and runs what it says.

use std::process::ExitCode;

use clap::Parser as _;
use windlass_hub::command::{Cli, run};

fn main() -> ExitCode {
    windlass_transport::install_crypto_provider();
    run(Cli::parse())
}
