//! All hubs are lost and an older backup is restored on the same addresses: agents come back by themselves, nothing on their
//! clusters is deleted, and nothing that was handed out since is taken for true.

use std::{process::Command, time::Instant};

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use windlass_chaos::cluster::{
    api::Answer,
    fleet::{Delivery, Site},
    group::Group,
};
use windlass_protocol::manifest::ResourceKey;
use windlass_tests::{WAIT_DEADLINE, scenario, wait_until};

use super::{group, run, text};

const APPLICATIONS: &str = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications";

#[test]
fn an_older_backup_deletes_nothing_and_agents_come_back() -> Result<()> {
    scenario(async {
        let mut group = group(3).await?;
        let delivery = Delivery::new(&group, "green")?;
        let site = Site::join(&group, "edge").await?;
        delivery.deliver(&group, &site, "green").await?;

        let kubeconfig = group.folder().join("admin.kubeconfig");
        std::fs::copy(group.data(0).join("admin.kubeconfig"), &kubeconfig)?;
        let file = group.folder().join("fleet.backup");
        let took = Instant::now();
        let said = run("windlass", &kubeconfig, &["admin", "backup", text(&file)?])?.well()?;
        println!("measured: a backup of three hubs and one cluster took {} ms", took.elapsed().as_millis());
        ensure!(said.contains("Path:") && said.contains("Size:") && said.contains("Revision:"), "{said}");
        let again = run("windlass", &kubeconfig, &["admin", "backup", text(&file)?])?;
        again.badly(&["is there already", "--force"])?;
        look_at(&group, &kubeconfig, &file)?;

        deploy_later(&group, &site).await?;
        let lost = revision(&group, 0).await?;
        for hub in 0..3 {
            group.kill(hub)?;
        }
        for hub in 0..3 {
            std::fs::remove_dir_all(group.data(hub)).context("lose a hub")?;
        }

        let config = group.config(0)?.to_owned();
        let took = Instant::now();
        let words = ["admin", "restore", text(&file)?, "--config", text(&config)?];
        let said = run("windlass", &kubeconfig, &words)?.well()?;
        println!("measured: its restore took {} ms", took.elapsed().as_millis());
        ensure!(said.contains("epoch          2 (was 1)"), "{said}");
        group.restart(0)?;
        group.ready(0).await?;
        let took = Instant::now();
        site.connected(&group, None).await?;
        println!("measured: the agent was back {} ms after its hub", took.elapsed().as_millis());

        nothing_is_lost(&group, &delivery, &site, &lost).await?;
        // The new group grows as any other.
        std::fs::copy(&kubeconfig, group.data(0).join("admin.kubeconfig"))?;
        group.join(1, 0).await?;
        site.stop().await
    })
}

/// With and without the key.
fn look_at(group: &Group, kubeconfig: &std::path::Path, file: &std::path::Path) -> Result<()> {
    let said = run("windlass", kubeconfig, &["admin", "backup", "verify", text(file)?])?.well()?;
    ensure!(said.contains("Operator Key:"), "{said}");
    let key = group.folder().join("operator.key");
    let with_key = ["admin", "backup", "verify", text(file)?, "--operator-key-file", text(&key)?];
    let said = run("windlass", kubeconfig, &with_key)?.well()?;
    ensure!(said.contains("missing blobs  0") && said.contains("is whole"), "{said}");
    let bytes = std::fs::read(file)?;
    let cut = group.folder().join("cut.backup");
    std::fs::write(&cut, bytes.get(..bytes.len() / 2).context("a file")?)?;
    run("windlass", kubeconfig, &["admin", "backup", "verify", text(&cut)?])?.badly(&["cut off after"])
}

/// Another Application, which the backup does not know.
async fn deploy_later(group: &Group, site: &Site) -> Result<()> {
    let repository = group.folder().join("repository");
    std::fs::create_dir_all(repository.join("later"))?;
    std::fs::write(repository.join("later/later.yaml"), later().to_string())?;
    for arguments in [&["add", "."][..], &["commit", "--quiet", "-m", "later"]] {
        let mut git = Command::new("git");
        git.arg("-C").arg(&repository).args(["-c", "user.name=test", "-c", "user.email=test@localhost"]);
        git.args(arguments).env("GIT_CONFIG_GLOBAL", "/dev/null");
        ensure!(git.status()?.success(), "git {arguments:?}");
    }
    let application = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
        "metadata": {"name": "later", "namespace": "argocd"},
        "spec": {
            "project": "default",
            "source": {
                "repoURL": format!("file://{}", repository.display()), "path": "later", "targetRevision": "main",
            },
            "destination": {"name": "edge", "namespace": "default"},
            "syncPolicy": {"automated": {"prune": true, "selfHeal": true}},
        },
    });
    group.must(Method::POST, APPLICATIONS, Some(&application)).await?;
    wait_until(WAIT_DEADLINE, "the later Application", async || {
        ensure!(has_later(site), "it is not there yet");
        let application = group.must(Method::GET, &format!("{APPLICATIONS}/later"), None).await?;
        let health = application.pointer("/status/health/status").and_then(Value::as_str);
        ensure!(health == Some("Healthy"), "{health:?}");
        Ok(Some(()))
    })
    .await
}

async fn nothing_is_lost(group: &Group, delivery: &Delivery, site: &Site, lost: &str) -> Result<()> {
    wait_until(WAIT_DEADLINE, "the orphan", async || {
        let cluster = group.api().get(0, "/apis/windlass.io/v1alpha1/clusters/edge").await?;
        let orphaned = cluster.pointer("/status/orphaned").cloned().unwrap_or_default();
        ensure!(orphaned == json!(["argocd/later"]), "orphaned: {orphaned}");
        Ok(Some(()))
    })
    .await?;
    ensure!(has_later(site), "what the backup does not know was deleted");
    delivery.settled(group, site, "green").await?;
    let healed = site.heals().await?;
    println!("measured: an edit undone after the restore in {} ms", healed.as_millis());
    ensure!(has_later(site), "what the backup does not know was deleted");

    // Nobody can go on from a revision of the lost future.
    let old = number(lost)?;
    let now = number(&revision(group, 0).await?)?;
    ensure!(now > old, "the revision went back from {old} to {now}");
    let watch = format!("{APPLICATIONS}?watch=true&resourceVersion={lost}&timeoutSeconds=5");
    let answer = group.api().send(0, Method::GET, &watch, None).await;
    let told = match &answer {
        Answer::Refused { code, .. } => *code == 410,
        other => format!("{other:?}").contains("410"),
    };
    ensure!(told, "a watch goes on from the lost future: {answer:?}");
    Ok(())
}

async fn revision(group: &Group, hub: usize) -> Result<String> {
    let list = group.api().get(hub, APPLICATIONS).await?;
    let revision = list.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    revision.map(str::to_owned).context("a list without revision")
}

fn number(revision: &str) -> Result<u64> {
    revision.parse().with_context(|| format!("revision {revision:?}"))
}

fn later() -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "later", "namespace": "default"},
        "data": {"a": "b"},
    })
}

fn has_later(site: &Site) -> bool {
    let key = ResourceKey::of(&later());
    site.cluster().with(|cluster| cluster.get(&key).is_some())
}
