//! Manifests that leave Git: pruned, kept where `prune` is off, kept where the object says so.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::fleet::{Fleet, automated, same};

pub(super) async fn check(fleet: &Fleet) -> Result<()> {
    let repository = fleet.repository("prune")?;
    for name in ["stays", "leaves"] {
        repository.write(&format!("{name}.yaml"), &config_map(name, ""))?;
    }
    let guard = "annotations: {argocd.argoproj.io/sync-options: Prune=false}";
    repository.write("guarded.yaml", &config_map("guarded", guard))?;
    let first = repository.commit_and_push("first")?;
    fleet.hub.apply(&fleet.application("pruned", &repository, ".", automated(true, true))?).await?;
    fleet.hub.apply(&fleet.application("kept", &repository, ".", automated(false, true))?).await?;
    fleet.hub.settled("pruned", &first).await?;
    fleet.hub.settled("kept", &first).await?;

    repository.remove("leaves.yaml")?;
    repository.remove("guarded.yaml")?;
    let second = repository.commit_and_push("second")?;
    let site = fleet.first()?;
    site.look.until_gone("configmaps", "pruned", "leaves").await?;
    let pruned = fleet.hub.until("pruned", |application| waits_for_prune(application, &second, &["guarded"])).await?;
    same(&pruned, "/status/operationState/phase", "Succeeded")?;
    fleet.hub.until("kept", |application| waits_for_prune(application, &second, &["guarded", "leaves"])).await?;
    for (namespace, name) in [("pruned", "stays"), ("pruned", "guarded"), ("kept", "leaves"), ("kept", "guarded")] {
        site.look.get("configmaps", namespace, name).await.context("pruned although it should stay")?;
    }
    // What the API server makes by itself in each namespace belongs to nobody.
    site.look.get("configmaps", "pruned", "kube-root-ca.crt").await.map(drop)
}

fn waits_for_prune(application: &Value, revision: &str, names: &[&str]) -> Result<()> {
    same(application, "/status/sync/revision", revision)?;
    same(application, "/status/sync/status", "OutOfSync")?;
    let resources = application["status"]["resources"].as_array().cloned().unwrap_or_default();
    let mut found: Vec<&str> = resources
        .iter()
        .filter(|resource| resource["requiresPruning"] == true)
        .filter_map(|resource| resource["name"].as_str())
        .collect();
    found.sort_unstable();
    ensure!(found == names, "to be pruned: {found:?}, expected {names:?}");
    Ok(())
}

fn config_map(name: &str, metadata: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  {metadata}\ndata: {{color: blue}}\n")
}
