//! The etcd below one control plane or several; each has its own key prefix.

use std::process::Command;

use anyhow::Result;
use tokio::net::TcpStream;

use crate::{Process, START_DEADLINE, Tools, Workdir, free_port, wait_until};

/// A single etcd member that keeps its data only as long as it lives.
#[derive(Debug)]
pub(super) struct Etcd {
    _process: Process,
    _dir: Workdir,
    url: String,
}

impl Etcd {
    /// Starts it and waits until it answers.
    pub(super) async fn start() -> Result<Self> {
        let dir = Workdir::new("etcd")?;
        let url = format!("http://127.0.0.1:{}", free_port()?);
        let peers = format!("http://127.0.0.1:{}", free_port()?);
        let mut command = Command::new(Tools::locate()?.path("etcd")?);
        command.arg("--data-dir").arg(dir.join("data")).args([
            "--name=tests",
            &format!("--listen-client-urls={url}"),
            &format!("--advertise-client-urls={url}"),
            &format!("--listen-peer-urls={peers}"),
            &format!("--initial-advertise-peer-urls={peers}"),
            &format!("--initial-cluster=tests={peers}"),
            "--unsafe-no-fsync", // the data is worth nothing after the test
            "--log-level=warn",
        ]);
        let mut process = Process::start("etcd", dir.path(), command)?.into_peer();
        // It accepts once it has a listener and answers once it has a leader; the API
        // server waits for the rest.
        let address = url.trim_start_matches("http://");
        wait_until(START_DEADLINE, "etcd", async || {
            process.ensure_running()?;
            TcpStream::connect(address).await?;
            Ok(Some(()))
        })
        .await?;
        Ok(Self { _process: process, _dir: dir, url })
    }

    /// Where clients reach it.
    pub(super) fn url(&self) -> &str {
        &self.url
    }
}
