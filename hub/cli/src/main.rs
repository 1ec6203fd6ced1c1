//! `windlass`: the operator's command line.
//!
//! A thin client of the hub's Kubernetes-style API and nothing else: whatever it does can be done with `kubectl` and the
//! same kubeconfig. It keeps no state of its own beyond a context in that kubeconfig, and decides nothing that the hub
//! decides. Data goes to stdout, talk to stderr.

mod args;
mod client;
mod command;
#[cfg(feature = "demo")]
mod demo;
mod failure;
mod follow;
mod kubeconfig;
mod manifest;
mod output;
mod patch;
mod resource_filter;
#[cfg(test)]
mod tests;
mod view;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    windlass_transport::install_crypto_provider();
    let arguments = args::Arguments::parse();
    // A hub brings its own runtime.
    #[cfg(feature = "demo")]
    if let args::Command::DemoHub(options) = &arguments.command {
        return demo::serve(options);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure::report(&anyhow::Error::new(error).context("cannot start")),
    };
    let mut output = output::Output::standard();
    match runtime.block_on(command::run(arguments, &mut output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
