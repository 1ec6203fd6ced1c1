//! The command line: options of every command, and the tree of commands.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::command;

/// GitOps delivery for fleets of Kubernetes clusters.
#[derive(Debug, Parser)]
#[command(name = "windlass", version, max_term_width = 110, propagate_version = false)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command: which hub, as whom.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Global {
    /// Kubeconfig file; several may stand in KUBECONFIG [default: ~/.kube/config]
    #[arg(long, global = true, env = "WINDLASS_KUBECONFIG", value_name = "FILE", help_heading = HUB)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: the one that `windlass login` wrote, else the current one]
    #[arg(long, global = true, value_name = "NAME", help_heading = HUB)]
    pub(crate) context: Option<String>,
    /// Hub to talk to, host:port or URL, instead of the context's
    #[arg(long, global = true, env = "WINDLASS_SERVER", value_name = "SERVER", help_heading = HUB)]
    pub(crate) server: Option<String>,
    /// Bearer token, instead of the context's
    #[arg(
        long, global = true, env = "WINDLASS_TOKEN", hide_env_values = true, value_name = "TOKEN",
        alias = "auth-token", help_heading = HUB
    )]
    pub(crate) token: Option<String>,
    /// Certificates (PEM) that the hub's certificate must chain to
    #[arg(long, global = true, value_name = "FILE", alias = "server-crt", alias = "certificate-authority", help_heading = HUB)]
    pub(crate) ca_file: Option<PathBuf>,
    /// Name to look for in the hub's certificate instead of the host
    #[arg(long, global = true, value_name = "NAME", help_heading = HUB)]
    pub(crate) tls_server_name: Option<String>,
    /// Do not verify the hub's certificate: anyone in between reads your token
    #[arg(long, global = true, help_heading = HUB)]
    pub(crate) insecure_skip_tls_verify: bool,
    /// Namespace in the hub [default: the context's, else argocd]
    #[arg(short, long, global = true, value_name = "NAMESPACE", alias = "app-namespace", short_alias = 'N', help_heading = HUB)]
    pub(crate) namespace: Option<String>,
    /// Seconds that one request may take
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600), help_heading = HUB)]
    pub(crate) request_timeout: u64,
}

const HUB: &str = "Hub";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Verify a hub and write a kubeconfig context for it
    Login(command::login::Login),
    /// Applications
    #[command(subcommand, visible_alias = "apps")]
    App(command::app::App),
    /// ApplicationSets
    #[command(subcommand, visible_alias = "appsets")]
    Appset(command::appset::Appset),
    /// Projects
    #[command(subcommand, visible_alias = "projects")]
    Proj(command::proj::Proj),
    /// Clusters and their join tokens
    #[command(subcommand, visible_alias = "clusters")]
    Cluster(command::cluster::Cluster),
    /// Rollouts
    #[command(subcommand, visible_alias = "rollouts")]
    Rollout(command::rollout::Rollout),
    /// The hub itself
    #[command(subcommand)]
    Hub(command::hub::Hub),
    /// Backups of the hub, and a new group from one
    #[command(subcommand)]
    Admin(command::admin::Admin),
    /// Create or change objects from files
    Apply(command::apply::Apply),
    /// Build a kustomization on this machine, as `kustomize build` does
    Render(command::render::Render),
    /// Print a completion script for a shell
    Completion(command::completion::Completion),
    /// Run three hubs, agents and embedded clusters on this machine, and watch a commit arrive
    #[cfg(feature = "demo")]
    Demo(crate::demo::DemoArgs),
    /// One hub of the demonstration
    #[cfg(feature = "demo")]
    #[command(hide = true)]
    DemoHub(crate::demo::DemoHubArgs),
    /// Print the versions of client and hub
    Version(command::version::Version),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_options_stand_anywhere() {
        for line in [
            &["windlass", "-n", "team", "app", "list"][..],
            &["windlass", "app", "list", "--app-namespace", "team"],
            &["windlass", "app", "list", "-N", "team"],
        ] {
            let parsed = Arguments::try_parse_from(line).unwrap();
            assert_eq!(parsed.global.namespace.as_deref(), Some("team"), "{line:?}");
        }
    }

    #[test]
    fn nonsense_is_a_usage_error() {
        for line in [
            &["windlass"][..],
            &["windlass", "app", "get"],
            &["windlass", "app", "list", "-o", "xml"],
            &["windlass", "app", "wait", "a", "--timeout", "soon"],
            &["windlass", "app", "sync", "a", "--resource", "Deployment"],
            &["windlass", "cluster", "add", "a", "--label", "novalue"],
            &["windlass", "login", "hub:7443", "--token", "t", "--root-pin", "x", "--ca-file", "y"],
            &["windlass", "completion", "tcsh"],
        ] {
            let error = Arguments::try_parse_from(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line:?}");
        }
    }
}
