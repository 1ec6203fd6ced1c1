//! The agent is killed: in the middle of a bundle, and after it has stored a bundle of which nothing is applied yet.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt as _,
    api::{WatchEvent, WatchParams},
};
use tokio::time::timeout;
use windlass_tests::WAIT_DEADLINE;

use crate::fleet::{Fleet, Site, automated, revision};

/// Objects of the bundle.
const OBJECTS: usize = 50;
/// Killed when so many are there.
const ENOUGH: usize = 10;

pub(super) async fn killed_while_it_applies(fleet: &mut Fleet) -> Result<()> {
    let repository = fleet.repository("many")?;
    for number in 0..OBJECTS {
        let text =
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: map-{number:02}}}\ndata: {{n: '{number}'}}\n");
        repository.write(&format!("map-{number:02}.yaml"), &text)?;
    }
    let commit = repository.commit_and_push("many")?;
    let application = fleet.application("many", &repository, ".", automated(true, true))?;
    let Fleet { sites, hub, .. } = fleet;
    let site = sites.first_mut().context("a cluster")?;
    site.plane.kubectl(&["create", "namespace", "many"]).await?;
    let maps: Api<ConfigMap> = Api::namespaced(site.plane.client(), "many");
    let changes = maps.watch(&WatchParams::default(), "0").await.context("watch the ConfigMaps")?;
    hub.apply(&application).await?;
    let arrivals = changes.try_filter(|change| {
        std::future::ready(matches!(change, WatchEvent::Added(map) if map.name_any().starts_with("map-")))
    });
    let enough = arrivals.take(ENOUGH).try_collect::<Vec<_>>();
    timeout(WAIT_DEADLINE, enough).await.context("the bundle does not arrive")??;
    site.agent.kill()?;
    let before = objects(site).await?;
    ensure!((ENOUGH..OBJECTS).contains(&before.len()), "killed too late: {} of {OBJECTS} are there", before.len());
    eprintln!("the agent was killed with {} of {OBJECTS} applied", before.len());

    site.agent.restart()?;
    hub.settled("many", &commit).await?;
    let after = objects(site).await?;
    ensure!(after.len() == OBJECTS, "{} of {OBJECTS} objects", after.len());
    for (name, (uid, _)) in &before {
        ensure!(after.get(name).is_some_and(|(now, _)| now == uid), "{name} was made twice");
    }
    Ok(())
}

/// The API server is away while the bundle comes, so that it is only on disk; then hub and agent die.
pub(super) async fn killed_between_checkpoint_and_apply(fleet: &mut Fleet) -> Result<()> {
    let repository = fleet.repository("stored")?;
    repository
        .write("settings.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {color: blue}\n")?;
    let commit = repository.commit_and_push("first")?;
    let application = fleet.application("stored", &repository, ".", automated(true, true))?;
    let Fleet { sites, hub, .. } = fleet;
    let site = sites.first_mut().context("a cluster")?;

    site.plane.stop_api_server()?;
    hub.apply(&application).await?;
    // Said after the bundle is on disk.
    site.agent.wait_for_line("assigned application=argocd/stored", WAIT_DEADLINE).await?;
    site.agent.kill()?;
    hub.process.kill()?;
    site.plane.start_api_server().await?;
    ensure!(site.look.find("configmaps", "stored", "settings").await?.is_none(), "applied before it was killed");

    site.agent.restart()?;
    site.look.until("configmaps", "stored", "settings", |_| Ok(())).await?;
    hub.restart().await?;
    hub.settled("stored", &commit).await.map(drop)
}

async fn objects(site: &Site) -> Result<BTreeMap<String, (String, String)>> {
    let all = site.look.list("configmaps", "many").await?;
    let named = all.iter().filter_map(|map| Some((map.pointer("/metadata/name")?.as_str()?.to_owned(), revision(map))));
    Ok(named.filter(|(name, _)| name.starts_with("map-")).collect())
}
