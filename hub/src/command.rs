//! The command line of `windlass-hub`. Data on stdout, talk on stderr.

use std::{io::Write as _, process::ExitCode};

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::{Config, Flags},
    init::init,
    node::Node,
    telemetry,
};

/// The Windlass hub: computes what every cluster should run, and tells the agents.
#[derive(Debug, Parser)]
#[command(name = "windlass-hub", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Make a new group: trust domain, keys, admin account.
    Init(Flags),
    /// Serve agents and users.
    Serve(Flags),
}

/// Runs a command line.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let (Subcommands::Init(flags) | Subcommands::Serve(flags)) = &cli.command;
    let result = Config::load(flags).map_err(anyhow::Error::from).and_then(|config| {
        telemetry::install(config.log_format);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            match cli.command {
                Subcommands::Init(_) => initialize(&config).await,
                Subcommands::Serve(_) => serve(&config).await,
            }
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn initialize(config: &Config) -> anyhow::Result<()> {
    let made = init(config).await?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "trust domain   {}", made.trust_domain)?;
    writeln!(out, "root pin       {}", made.pin)?;
    writeln!(out, "admin token    {}", made.admin_token.expose())?;
    writeln!(out, "kubeconfig     {}", made.kubeconfig.display())?;
    let mut talk = std::io::stderr().lock();
    if let Some(key) = made.operator_key {
        let key = key.display();
        writeln!(
            talk,
            "\nAn operator key was made: {key}. Everything sealed is lost without it: keep a copy elsewhere."
        )?;
    }
    let data = config.data.display();
    writeln!(talk, "\nThe token is shown once. Next:\n  windlass-hub serve --data {data}")?;
    writeln!(talk, "  export WINDLASS_KUBECONFIG={}\n  windlass hub status", made.kubeconfig.display())?;
    Ok(())
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    let node = Node::start(config).await?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("shutting down");
    node.stop().await;
    Ok(())
}
