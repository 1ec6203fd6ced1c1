//! What happens to objects when their Application or their Cluster is deleted in the hub.

use anyhow::{Result, ensure};
use serde_json::json;
use windlass_tests::{WAIT_DEADLINE, wait_until};

use crate::fleet::{Fleet, automated};

const MANIFEST: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {color: blue}\n";

/// With the finalizer the objects go first; without it they stay.
pub(super) async fn check_applications(fleet: &Fleet) -> Result<()> {
    let repository = fleet.repository("deletion")?;
    repository.write("settings.yaml", MANIFEST)?;
    let commit = repository.commit_and_push("first")?;
    let mut cascading = fleet.application("cascading", &repository, ".", automated(true, true))?;
    cascading["metadata"]["finalizers"] = json!(["resources-finalizer.argocd.argoproj.io"]);
    fleet.hub.apply(&cascading).await?;
    fleet.hub.apply(&fleet.application("leaving", &repository, ".", automated(true, true))?).await?;
    fleet.hub.settled("cascading", &commit).await?;
    fleet.hub.settled("leaving", &commit).await?;

    fleet.hub.kubectl.run(&["delete", "applications.argoproj.io", "cascading", "leaving"]).await?;
    let site = fleet.first()?;
    // kubectl waited for both to be gone, thus the objects are.
    ensure!(site.look.find("configmaps", "cascading", "settings").await?.is_none(), "left behind");
    site.look.get("configmaps", "leaving", "settings").await?;
    fleet.hub.look.until_gone("applications", "argocd", "cascading").await?;
    fleet.hub.look.until_gone("applications", "argocd", "leaving").await?;

    // Nobody owns it any longer: neither healed nor pruned.
    site.plane.kubectl(&["-n", "leaving", "delete", "configmap", "settings"]).await?;
    fleet.hub.apply(&fleet.application("leaving", &repository, ".", json!({}))?).await?;
    fleet
        .hub
        .until("leaving", |application| crate::fleet::same(application, "/status/sync/status", "OutOfSync"))
        .await?;
    ensure!(site.look.find("configmaps", "leaving", "settings").await?.is_none(), "healed without an owner");
    fleet.hub.kubectl.run(&["delete", "applications.argoproj.io", "leaving"]).await.map(drop)
}

/// A removed cluster loses its agent at once and keeps its objects.
pub(super) async fn check_cluster(fleet: &mut Fleet) -> Result<()> {
    let Some(site) = fleet.sites.last_mut() else { anyhow::bail!("a fleet has a cluster") };
    let name = site.name().to_owned();
    let before = site.look.list("configmaps", "shop").await?.len();
    fleet.hub.kubectl.run(&["delete", "clusters.windlass.io", &name]).await?;
    let line = site.agent.wait_for_line("revoked", WAIT_DEADLINE).await?;
    eprintln!("the agent says: {line}");
    fleet.hub.look.until_gone("clusters", "", &name).await?;
    // The ApplicationSet no longer makes an Application for it.
    fleet.hub.look.until_gone("applications", "argocd", &format!("shop-{name}")).await?;
    let sessions = wait_until(WAIT_DEADLINE, "the other session alone", async || {
        let status = fleet.hub.kubectl.run(&["get", "--raw", "/hub/status"]).await?;
        let status: serde_json::Value = serde_json::from_str(&status)?;
        crate::fleet::same(&status, "/status/sessions", 1)?;
        Ok(Some(()))
    });
    sessions.await?;
    site.look.get("deployments", "shop", "prod-web").await?;
    let after = site.look.list("configmaps", "shop").await?.len();
    ensure!(after == before, "{before} ConfigMaps before, {after} after");
    Ok(())
}
