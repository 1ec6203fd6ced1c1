//! A group of real hubs as its operators meet it: joins that cannot be, a hub that leaves and comes back as a new one.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use windlass_chaos::{
    cluster::{
        group::{Group, GroupOptions, Network},
        programs::Programs,
    },
    host::{Workdir, free_port},
};
use windlass_tests::Binaries;

/// One attempt to join, and the words of its refusal.
struct Attempt<'a> {
    name: &'a str,
    arguments: &'a [(&'a str, String)],
    refusal: &'a [&'a str],
}

fn join(program: &Path, dir: &Workdir, attempt: &Attempt<'_>) -> Result<()> {
    let data = dir.join("joining");
    let mut command = Command::new(program);
    command.args(["serve", "--join-seconds", "3", "--listen-api", "127.0.0.1:0", "--listen-agents", "127.0.0.1:0"]);
    command.arg("--data").arg(&data).stdin(Stdio::null());
    let peers = format!("127.0.0.1:{}", free_port()?);
    let given = |flag: &str| attempt.arguments.iter().any(|(name, _)| *name == flag);
    if !given("--listen-peers") {
        command.args(["--listen-peers", &peers]);
    }
    for (name, value) in attempt.arguments {
        command.args([*name, value.as_str()]);
    }
    let output = command.output().context("run the hub")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "{}: the hub joined", attempt.name);
    for words in attempt.refusal {
        ensure!(said.contains(words), "{}: {words:?} is not in:\n{said}", attempt.name);
    }
    ensure!(!data.exists(), "{}: something was written:\n{said}", attempt.name);
    Ok(())
}

#[tokio::test]
async fn a_join_that_cannot_be_says_why_and_writes_nothing() -> Result<()> {
    let program = Binaries::locate()?.path("windlass-hub")?;
    let programs = Programs::within(program.parent().context("a program without a folder")?.to_path_buf());
    let options = GroupOptions { programs, size: 1, seed: 1, network: Network::Direct, environment: Vec::new() };
    let group = Group::start(options).await?;
    let status = group.api().status(0).await?;
    let peer = status.pointer("/status/hubs/0/address").and_then(serde_json::Value::as_str).context("no address")?;
    let (peer, agents) = (peer.to_owned(), group.agents().first().cloned().context("no hub")?);
    let token = |seconds: u64| {
        let mut command = Command::new(&program);
        command.args(["token", "--expires", &seconds.to_string(), "--data"]).arg(group.data(0));
        let output = command.output().context("ask for a token")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let good = token(60)?;
    let dir = Workdir::new("join")?;
    let other = dir.join("other.key");
    std::fs::write(&other, format!("{}\n", "5a".repeat(32)))?;
    std::fs::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let key = group.folder().join("operator.key").display().to_string();
    let other = other.display().to_string();
    let (secret, pin) = good.split_once('.').context("a token without a pin")?;
    let wrong_pin = format!("{secret}.{}", "0".repeat(pin.len()));
    let unknown = format!("wlh_{}.{pin}", "0".repeat(64));
    let nobody = format!("127.0.0.1:{}", free_port()?);
    let taken = std::net::UdpSocket::bind("127.0.0.1:0")?;
    let taken = taken.local_addr()?.to_string();
    let with = |join: &str, token: &str, key: &str| {
        vec![("--join", join.to_owned()), ("--token", token.to_owned()), ("--operator-key-file", key.to_owned())]
    };
    let and = |mut all: Vec<(&'static str, String)>, more: (&'static str, &str)| {
        all.push((more.0, more.1.to_owned()));
        all
    };
    for (name, arguments, refusal) in [
        ("nobody there", with(&nobody, &good, &key), &["cannot join through", "timed out"][..]),
        ("the agents' port", with(&agents, &good, &key), &["speaks another protocol", "7444/udp"]),
        ("a cut token", with(&peer, secret, &key), &["no hub token", "windlass hub token"]),
        ("another group's token", with(&peer, &wrong_pin, &key), &["token of this group", "clocks"]),
        ("an unknown token", with(&peer, &unknown, &key), &["unknown, expired or used"]),
        ("no operator key", with(&peer, &good, "/nonexistent"), &["--operator-key-file"]),
        ("another operator key", with(&peer, &good, &other), &["operator key", "copy the group's key"]),
        ("a member's address", and(with(&peer, &good, &key), ("--advertise-peers", &peer)), &["windlass hub remove 1"]),
        ("a taken port", and(with(&peer, &good, &key), ("--listen-peers", &taken)), &["another process has the port"]),
    ] {
        join(&program, &dir, &Attempt { name, arguments: &arguments, refusal })?;
    }
    let before = std::fs::read_dir(group.folder())?.count();
    ensure!(before > 0, "the group's folder is gone");
    Ok(())
}

#[test]
fn a_directory_of_another_node_is_refused() -> Result<()> {
    let program = Binaries::locate()?.path("windlass-hub")?;
    let dir = Workdir::new("other-node")?;
    let data = dir.join("data");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).arg("--data").arg(&data).args(["--listen-peers", "127.0.0.1:0"]).stdin(Stdio::null());
        command.output().context("run the hub")
    };
    let missing = run(&["serve"])?;
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    ensure!(!missing.status.success() && said.contains("--operator-key-file"), "an empty directory: {said}");
    ensure!(run(&["init"])?.status.success(), "init failed");
    let again = run(&["init"])?;
    ensure!(String::from_utf8_lossy(&again.stderr).contains("holds node 1 of the group"), "a second init: {again:?}");
    let other = run(&["serve", "--node", "2"])?;
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    ensure!(!other.status.success() && said.contains("belongs to node 1, but node 2 was expected"), "{said}");
    Ok(())
}
