//! One cluster: its control plane and its agent's process.

use std::{path::PathBuf, process::Command};

use anyhow::Result;
use windlass_tests::{Binaries, ControlPlane, Process, Workdir};

use super::{Hub, Join, Look};

/// A control plane with an agent beside it.
pub(crate) struct Site {
    pub(crate) agent: Process,
    pub(crate) look: Look,
    pub(crate) plane: ControlPlane,
    _data: Workdir,
}

/// How agents are started.
#[derive(Clone, Debug, Default)]
pub(crate) struct AgentOptions {
    /// Further flags.
    pub(crate) flags: Vec<String>,
    /// Another kubeconfig than the administrator's.
    pub(crate) kubeconfig: Option<PathBuf>,
}

impl Site {
    /// Registers a cluster at the hub and starts its agent.
    pub(crate) async fn join(hub: &Hub, plane: ControlPlane, options: &AgentOptions) -> Result<Self> {
        let join = hub.add_cluster(plane.name(), plane.url()).await?;
        Self::start(&join, plane, options)
    }

    /// Starts the agent with a token that is there already.
    pub(crate) fn start(join: &Join, plane: ControlPlane, options: &AgentOptions) -> Result<Self> {
        let data = Workdir::new(&format!("agent-{}", plane.name()))?;
        let mut command = Command::new(Binaries::locate()?.path("windlass-agent")?);
        command.arg("--data").arg(data.join("data"));
        command.arg("--kubeconfig").arg(options.kubeconfig.clone().unwrap_or_else(|| plane.kubeconfig()));
        command.args(["--root-pin", &join.pin]).args(&options.flags);
        for hub in &join.hubs {
            command.args(["--hub", hub]);
        }
        command.env("WINDLASS_TOKEN", &join.token).env("RUST_LOG", "warn,windlass=debug");
        let agent = Process::start(&format!("agent-{}", plane.name()), data.path(), command)?;
        Ok(Self { agent, look: Look::new(plane.client()), plane, _data: data })
    }

    /// Name of the cluster.
    pub(crate) fn name(&self) -> &str {
        self.plane.name()
    }

    /// Memory of the agent, for the figures of the test.
    pub(crate) fn print_memory(&self) -> Result<()> {
        let (now, most) = self.agent.memory_kib()?;
        println!("measured: agent of {}: {now} KiB resident, {most} KiB at most", self.name());
        Ok(())
    }
}
