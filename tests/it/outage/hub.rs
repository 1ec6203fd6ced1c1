//! The hub is killed: agents go on healing, also one that starts meanwhile; a commit made meanwhile arrives afterwards.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::fleet::{Fleet, Site, automated, revision, same};

pub(super) async fn away(fleet: &mut Fleet) -> Result<()> {
    let repository = fleet.repository("steady")?;
    repository.write("settings.yaml", &settings("blue"))?;
    let commit = repository.commit_and_push("first")?;
    fleet.hub.apply(&fleet.application("steady", &repository, ".", automated(true, true))?).await?;
    fleet.hub.settled("steady", &commit).await?;
    let Fleet { sites, hub, .. } = fleet;
    let site = sites.first_mut().context("a cluster")?;

    hub.process.kill()?;
    edit(site).await?;
    let started = Instant::now();
    healed(site).await?;
    println!("measured: an edit undone without a hub after {} ms", started.elapsed().as_millis());

    // From the checkpoint alone, with the drift made while nobody looked.
    site.agent.kill()?;
    site.plane.kubectl(&["-n", "steady", "delete", "configmap", "settings"]).await?;
    site.agent.restart()?;
    healed(site).await?;
    let uid = revision(&site.look.get("configmaps", "steady", "settings").await?).0;

    repository.write("settings.yaml", &settings("green"))?;
    let commit = repository.commit_and_push("second")?;
    hub.restart().await?;
    hub.connected(site.name()).await?;
    hub.settled("steady", &commit).await?;
    let map = site.look.get("configmaps", "steady", "settings").await?;
    same(&map, "/data/color", "green")?;
    ensure!(revision(&map).0 == uid, "made anew instead of changed");
    edit(site).await?;
    site.look.until("configmaps", "steady", "settings", |map| same(map, "/data/color", "green")).await.map(drop)
}

async fn edit(site: &Site) -> Result<()> {
    let patch = r#"{"data":{"color":"red"}}"#;
    site.plane.kubectl(&["-n", "steady", "patch", "configmap", "settings", "--type=merge", "-p", patch]).await.map(drop)
}

async fn healed(site: &Site) -> Result<()> {
    site.look.until("configmaps", "steady", "settings", |map| same(map, "/data/color", "blue")).await.map(drop)
}

fn settings(color: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{color: {color}}}\n")
}
