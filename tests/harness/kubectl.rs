//! The real kubectl against one kubeconfig: of a control plane, or of a hub.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tokio::{io::AsyncWriteExt as _, time::timeout};

use crate::Tools;

/// The longest that one command may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// Runs kubectl for one user of one server.
#[derive(Clone, Debug)]
pub struct Kubectl {
    name: String,
    program: PathBuf,
    kubeconfig: PathBuf,
    cache: PathBuf,
}

impl Kubectl {
    /// For a kubeconfig; `name` says in errors which server was asked, `cache` is a folder
    /// for what kubectl remembers.
    pub fn new(name: &str, kubeconfig: &Path, cache: &Path) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            program: Tools::locate()?.path("kubectl")?,
            kubeconfig: kubeconfig.to_owned(),
            cache: cache.to_owned(),
        })
    }

    /// Runs a command; gives what it printed. A failure is an error with what it said.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with_input(arguments, "").await
    }

    /// As [`Self::run`], with `input` on its standard input (for `-f -`).
    pub async fn run_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        let what = format!("kubectl {}", arguments.join(" "));
        let mut child = tokio::process::Command::new(&self.program)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(&self.cache)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start kubectl")?;
        let mut stdin = child.stdin.take().context("kubectl has an input")?;
        let run = async {
            // A command that reads nothing may have closed it already.
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
            child.wait_with_output().await
        };
        let output = timeout(DEADLINE, run)
            .await
            .with_context(|| format!("{what}: not within {} s", DEADLINE.as_secs()))?
            .context("run kubectl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{what} on {}: {}", self.name, said.trim());
        String::from_utf8(output.stdout).with_context(|| format!("{what} printed something else than UTF-8"))
    }

    /// `kubectl apply -f -` of a document or several.
    pub async fn apply(&self, manifests: &str) -> Result<String> {
        self.run_with_input(&["apply", "-f", "-"], manifests).await
    }
}
