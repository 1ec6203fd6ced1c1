//! The program `windlass-agent`: reads its configuration, then runs until it is told to stop.

use anyhow::Context as _;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use windlass_agent::{Config, Flags, run, telemetry};

/// Two threads: one waits for the disk or the network while the other works; more would only cost memory.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let config = Config::load(Flags::parse()).context("configuration refused")?;
    telemetry::install(config.log_format);
    windlass_transport::install_crypto_provider();
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
    });
    run(config, shutdown).await
}
