//! The command line of `windlass-hub`. Data on stdout, talk on stderr.

mod recovery;

use std::{io::Write as _, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use self::recovery::{RestoreFlags, VerifyFlags, restore_group, verify_backup};
use crate::{
    config::{Config, Flags},
    group::join::join,
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
    /// Serve agents and users; with --join, become a member of a group first.
    Serve(Serve),
    /// Print a join token for another hub; asks the hub that this directory's kubeconfig names.
    Token(Token),
    /// Make the first node of a new group out of a backup, in an empty directory.
    Restore(RestoreFlags),
    /// Read a backup from its first to its last byte with the operator key, and check all of it.
    VerifyBackup(VerifyFlags),
}

#[derive(Args, Debug)]
struct Serve {
    #[command(flatten)]
    flags: Flags,
    /// Peer address (`host:port`, UDP) of a hub of the group to join; without effect once this node has joined.
    #[arg(long, env = "WINDLASS_HUB_JOIN", value_name = "HOST:PORT", requires = "token")]
    join: Option<String>,
    /// Token from `windlass hub token`.
    #[arg(long, env = "WINDLASS_HUB_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Try to join for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    join_seconds: u64,
}

#[derive(Args, Debug)]
struct Token {
    #[command(flatten)]
    flags: Flags,
    /// How long it can be used.
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    expires: u64,
}

/// Runs a command line.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let flags = match &cli.command {
        Subcommands::Init(flags) => flags.clone(),
        Subcommands::Serve(serve) => serve.flags.clone(),
        Subcommands::Token(token) => token.flags.clone(),
        Subcommands::Restore(restore) => restore.hub.clone(),
        Subcommands::VerifyBackup(verify) => verify.config_flags(),
    };
    let result = Config::load(&flags).map_err(anyhow::Error::from).and_then(|config| {
        telemetry::install(config.log_format);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            match cli.command {
                Subcommands::Init(_) => initialize(&config).await,
                Subcommands::Serve(options) => serve(&config, &options).await,
                Subcommands::Token(token) => print_token(&config, token.expires).await,
                Subcommands::Restore(flags) => restore_group(config, flags).await,
                Subcommands::VerifyBackup(flags) => verify_backup(config, flags).await,
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

async fn print_token(config: &Config, seconds: u64) -> anyhow::Result<()> {
    let token = crate::token::hub_token(&config.data.join("admin.kubeconfig"), seconds).await?;
    writeln!(std::io::stdout().lock(), "{token}")?;
    Ok(())
}

async fn serve(config: &Config, options: &Serve) -> anyhow::Result<()> {
    if let (Some(address), Some(token)) = (&options.join, &options.token) {
        join(config, address, token, Duration::from_secs(options.join_seconds)).await?;
    }
    let mut node = Node::start(config).await?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        reason = node.failed() => {
            node.stop().await;
            anyhow::bail!(reason);
        }
    }
    tracing::info!("shutting down");
    node.stop().await;
    Ok(())
}
