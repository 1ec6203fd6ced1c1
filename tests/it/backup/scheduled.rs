//! Scheduled backups: a directory and S3, retention, and what an operator is told when a step fails.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use windlass_chaos::cluster::group::Group;
use windlass_protocol::backup::is_file_name;
use windlass_tests::{S3Server, WAIT_DEADLINE, Workdir, scenario, wait_until};

use super::{group, run, text};

const STATUS: &str = "/api/v1/namespaces/argocd/configmaps/windlass-backup";

#[test]
fn scheduled_backups_are_kept_in_a_directory_and_in_s3() -> Result<()> {
    scenario(async {
        let mut group = group(1).await?;
        let folder = Workdir::new("backups")?;
        let mut s3 = S3Server::start(folder.path()).await?;
        let (id, secret) = s3.keys();
        let (id, secret) = (folder.write("access.key", id)?, folder.write("secret.key", secret)?);
        let directory = folder.join("local");
        let section = format!(
            "[backup]\nevery_seconds = 1\nkeep = 2\ndirectory = {directory:?}\n[backup.s3]\nendpoint = {:?}\n\
             bucket = \"backups\"\nprefix = \"fleet\"\npath_style = true\naccess_key_file = {id:?}\n\
             secret_key_file = {secret:?}\n",
            s3.url(),
        );
        let config = group.config(0)?.to_owned();
        let before = std::fs::read_to_string(&config)?;
        std::fs::write(&config, format!("{before}{section}"))?;
        group.terminate(0).await?;
        group.restart(0)?;
        group.ready(0).await?;
        let kubeconfig = group.data(0).join("admin.kubeconfig");

        // The directory is not there yet: nothing is made, and everybody can read why.
        let failed = told(&group, "lastError", |error| error.contains("does not exist")).await?;
        ensure!(failed.contains("write and verify"), "it names the step: {failed}");
        run("windlass", &kubeconfig, &["admin", "backup", "list"])?.badly(&["the last scheduled backup failed"])?;
        ensure!(ours(&s3.bucket("backups").join("fleet")).is_empty(), "no step after the failed one is made");

        std::fs::create_dir_all(s3.bucket("backups").join("fleet"))?;
        for foreign in [directory.join("notes.txt"), s3.bucket("backups").join("fleet/20260101-000000.tar.gz")] {
            std::fs::create_dir_all(foreign.parent().context("a folder")?)?;
            std::fs::write(foreign, "mine")?;
        }
        let kept = told(&group, "backups", |names| names.lines().count() == 2).await?;
        let oldest = kept.lines().last().context("a name")?.to_owned();
        // Retention: the older one of the two makes room.
        told(&group, "backups", |names| !names.contains(&oldest)).await?;
        run("windlass", &kubeconfig, &["admin", "backup", "list"])?.well()?;
        ensure!(directory.join("notes.txt").exists(), "a foreign file was removed");
        ensure!(s3.bucket("backups").join("fleet/20260101-000000.tar.gz").exists(), "a foreign object was removed");

        // S3 is away: the error is told, and what is there stays.
        s3.kill()?;
        told(&group, "lastError", |error| error.contains("cannot be reached")).await?;
        ensure!(!ours(&s3.bucket("backups").join("fleet")).is_empty() && !ours(&directory).is_empty());
        s3.restart().await?;
        told(&group, "lastError", str::is_empty).await?;
        group.terminate(0).await?;
        restore(&group, &s3, &folder, &id, &secret, &kubeconfig)
    })
}

/// From S3, and every way in which that fails.
fn restore(group: &Group, s3: &S3Server, folder: &Workdir, id: &Path, secret: &Path, kubeconfig: &Path) -> Result<()> {
    let names = ours(&s3.bucket("backups").join("fleet"));
    ensure!(!names.is_empty() && names.len() <= 3, "{names:?}");
    let newest = names.last().context("a backup")?;
    let (key, wrong) = (group.folder().join("operator.key"), folder.write("wrong.key", "wrong")?);
    let data = folder.join("restored");
    let check = |backup: &str, secret: &Path, endpoint: &str, expect: &[&str]| -> Result<()> {
        let words = [
            "restore",
            "--backup",
            backup,
            "--data",
            text(&data)?,
            "--operator-key-file",
            text(&key)?,
            "--s3-path-style",
            "--s3-endpoint",
            endpoint,
            "--s3-access-key-file",
            text(id)?,
            "--s3-secret-key-file",
            text(secret)?,
        ];
        let said = run("windlass-hub", kubeconfig, &words)?;
        if expect.is_empty() {
            return said.well().map(drop);
        }
        said.badly(expect)?;
        ensure!(!data.exists(), "a failed restore left something");
        Ok(())
    };
    let good = format!("s3://backups/fleet/{newest}");
    check(&good, &wrong, s3.url(), &["refuses these credentials", "secret_key_file"])?;
    check("s3://nowhere/fleet/a", secret, s3.url(), &["has no bucket \"nowhere\"", "create it"])?;
    check("s3://backups/fleet/a", secret, s3.url(), &["has no object \"a\""])?;
    check(&good, secret, "http://127.0.0.1:9", &["cannot be reached", "endpoint"])?;
    check("s3://backups", secret, s3.url(), &["s3://BUCKET/PREFIX/NAME"])?;
    check(&good, secret, s3.url(), &[])?;
    ensure!(data.join("store/STORE").exists());
    Ok(())
}

/// Names of backups in a folder, oldest first.
fn ours(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| is_file_name(name)).collect();
    names.sort();
    names
}

/// Waits until a fact about the backups is as wanted; absent counts as empty.
async fn told(group: &Group, fact: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
    wait_until(WAIT_DEADLINE, format!("{fact} of the backups"), async || {
        let object = group.api().get(0, STATUS).await?;
        let text = object.pointer(&format!("/data/{fact}")).and_then(Value::as_str).unwrap_or_default();
        ensure!(wanted(text), "{:?}", object.get("data"));
        Ok(Some(text.to_owned()))
    })
    .await
}
