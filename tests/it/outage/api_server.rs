//! The API server of a cluster is away while a commit comes: it arrives as soon as it is back.

use anyhow::{Context as _, Result};

use crate::fleet::{Fleet, automated, same};

pub(super) async fn away(fleet: &mut Fleet) -> Result<()> {
    let repository = fleet.repository("patient")?;
    repository.write("settings.yaml", &settings("blue"))?;
    let commit = repository.commit_and_push("first")?;
    fleet.hub.apply(&fleet.application("patient", &repository, ".", automated(true, true))?).await?;
    fleet.hub.settled("patient", &commit).await?;
    let Fleet { sites, hub, .. } = fleet;
    let site = sites.first_mut().context("a cluster")?;

    site.plane.stop_api_server()?;
    repository.write("settings.yaml", &settings("green"))?;
    let commit = repository.commit_and_push("second")?;
    hub.until("patient", |application| {
        same(application, "/status/sync/revision", commit.as_str())?;
        same(application, "/status/sync/status", "OutOfSync")
    })
    .await?;
    site.plane.start_api_server().await?;
    hub.settled("patient", &commit).await?;
    same(&site.look.get("configmaps", "patient", "settings").await?, "/data/color", "green")?;

    // The watches are back too.
    let patch = r#"{"data":{"color":"red"}}"#;
    site.plane.kubectl(&["-n", "patient", "patch", "configmap", "settings", "--type=merge", "-p", patch]).await?;
    site.look.until("configmaps", "patient", "settings", |map| same(map, "/data/color", "green")).await.map(drop)
}

fn settings(color: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{color: {color}}}\n")
}
