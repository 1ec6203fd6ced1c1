//! Changes made past Git: undone with selfHeal, reported without.

use std::time::Instant;

use anyhow::{Result, ensure};
use windlass_tests::{WAIT_DEADLINE, wait_until};

use crate::fleet::{Fleet, Site, automated, revision, same};

const MANIFESTS: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: 'example.org/web:1'}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
data: {color: blue}
";

pub(super) async fn check(fleet: &Fleet) -> Result<()> {
    let repository = fleet.repository("drift")?;
    repository.write("all.yaml", MANIFESTS)?;
    let commit = repository.commit_and_push("first")?;
    fleet.hub.apply(&fleet.application("healed", &repository, ".", automated(true, true))?).await?;
    fleet.hub.apply(&fleet.application("reported", &repository, ".", automated(true, false))?).await?;
    fleet.hub.settled("healed", &commit).await?;
    fleet.hub.settled("reported", &commit).await?;
    let site = fleet.first()?;
    healed(site).await?;
    fleet.hub.settled("healed", &commit).await?;
    reported(fleet, site).await
}

/// Edits, scales and deletes; each is undone before the next.
async fn healed(site: &Site) -> Result<()> {
    let patch = r#"{"data":{"color":"red"}}"#;
    site.plane.kubectl(&["-n", "healed", "patch", "configmap", "settings", "--type=merge", "-p", patch]).await?;
    until_healed("an edit", async || {
        same(&site.look.get("configmaps", "healed", "settings").await?, "/data/color", "blue")
    })
    .await?;

    site.plane.kubectl(&["-n", "healed", "scale", "deployment", "web", "--replicas=3"]).await?;
    until_healed("a scaling", async || {
        same(&site.look.get("deployments", "healed", "web").await?, "/spec/replicas", 1)
    })
    .await?;

    // Another object: one that was healed a moment ago waits two seconds, and longer each time.
    let before = revision(&site.look.get("configmaps", "healed", "other").await?).0;
    site.plane.kubectl(&["-n", "healed", "delete", "configmap", "other"]).await?;
    until_healed("a deletion", async || {
        let map = site.look.get("configmaps", "healed", "other").await?;
        ensure!(revision(&map).0 != before, "not deleted yet");
        same(&map, "/data/color", "blue")
    })
    .await
}

/// The clock starts when kubectl returns, thus after the drift.
async fn until_healed(what: &str, check: impl AsyncFn() -> Result<()>) -> Result<()> {
    let started = Instant::now();
    wait_until(WAIT_DEADLINE, format!("{what} undone"), async || check().await.map(Some)).await?;
    println!("measured: {what} undone after {} ms", started.elapsed().as_millis());
    Ok(())
}

async fn reported(fleet: &Fleet, site: &Site) -> Result<()> {
    let patch = r#"{"data":{"color":"red"}}"#;
    site.plane.kubectl(&["-n", "reported", "patch", "configmap", "settings", "--type=merge", "-p", patch]).await?;
    let edited = revision(&site.look.get("configmaps", "reported", "settings").await?);
    fleet
        .hub
        .until("reported", |application| {
            same(application, "/status/sync/status", "OutOfSync")?;
            let resources = application["status"]["resources"].as_array().into_iter().flatten();
            for resource in resources {
                same(resource, "/status", if resource["name"] == "settings" { "OutOfSync" } else { "Synced" })?;
            }
            Ok(())
        })
        .await?;
    // A drift of the other Application, healed after this one was seen, proves that the agent has had its turn.
    site.plane.kubectl(&["-n", "healed", "delete", "configmap", "settings"]).await?;
    site.look.until("configmaps", "healed", "settings", |_| Ok(())).await?;
    let now = revision(&site.look.get("configmaps", "reported", "settings").await?);
    ensure!(now == edited, "touched without selfHeal");
    Ok(())
}
