//! Backups of a real group and what a new group makes of them; scheduled ones in a directory and in S3.

mod lost;
mod scheduled;

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use windlass_chaos::cluster::{
    group::{Group, GroupOptions, Network},
    programs::Programs,
};
use windlass_tests::Binaries;

/// A group of real hubs.
async fn group(size: usize) -> Result<Group> {
    let programs = Programs::within(Binaries::locate()?.dir().to_owned());
    Group::start(GroupOptions { programs, size, seed: 1, network: Network::Direct, environment: Vec::new() }).await
}

/// What a program said, and its exit code.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

/// Runs `windlass` or `windlass-hub` to its end, with a kubeconfig for the former.
fn run(program: &str, kubeconfig: &Path, arguments: &[&str]) -> Result<Said> {
    let mut command = Command::new(Binaries::locate()?.path(program)?);
    command.args(arguments).env("WINDLASS_KUBECONFIG", kubeconfig).stdin(Stdio::null());
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"] {
        command.env_remove(name);
    }
    let output = command.output().with_context(|| format!("run {program}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().with_context(|| format!("{program} was killed"))?;
    Ok(Said { code, out: text(&output.stdout), err: text(&output.stderr) })
}

impl Said {
    fn well(self) -> Result<String> {
        anyhow::ensure!(self.code == 0, "exit code {}: {}{}", self.code, self.out, self.err);
        Ok(self.out)
    }

    fn badly(self, parts: &[&str]) -> Result<()> {
        anyhow::ensure!(self.code != 0, "it must fail: {}", self.out);
        let lines = self.err.lines().filter(|line| line.starts_with("error: ")).count();
        anyhow::ensure!(lines == 1, "one sentence: {}", self.err);
        for part in parts {
            anyhow::ensure!(self.err.contains(part), "{:?} does not say {part:?}", self.err);
        }
        Ok(())
    }
}

/// Bytes as a path in an argument list.
fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}
