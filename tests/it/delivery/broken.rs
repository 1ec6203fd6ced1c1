//! Manifests that the API server refuses: its own words are reported, and the rest is applied.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::fleet::{Fleet, automated, same};

const GOOD: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\ndata: {color: blue}\n";

const BROKEN: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: other}}
    spec: {containers: [{name: web, image: 'example.org/web:1'}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 99999}]}
";

pub(super) async fn check(fleet: &Fleet) -> Result<()> {
    let repository = fleet.repository("broken")?;
    repository.write("good.yaml", GOOD)?;
    repository.write("broken.yaml", BROKEN)?;
    let commit = repository.commit_and_push("first")?;
    fleet.hub.apply(&fleet.application("broken", &repository, ".", automated(true, true))?).await?;
    let site = fleet.first()?;
    let application = fleet
        .hub
        .until("broken", |application| {
            same(application, "/status/sync/revision", commit.as_str())?;
            let phase = application.pointer("/status/operationState/phase");
            ensure!(application.pointer("/status/operationState/syncResult/resources/0").is_some(), "no results");
            ensure!(phase.is_some_and(|phase| phase == "Failed" || phase == "Running"), "the phase is {phase:?}");
            same(&result(application, "Deployment")?, "/status", "SyncFailed")?;
            same(&result(application, "Service")?, "/status", "SyncFailed")
        })
        .await?;

    // The very sentences of this API server.
    for (kind, words) in [
        ("Deployment", "`selector` does not match template `labels`"),
        ("Service", "spec.ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive"),
    ] {
        let result = result(&application, kind)?;
        let message = result["message"].as_str().unwrap_or_default();
        let said = server_says(site, kind, "broken").await?;
        ensure!(message.contains(words), "{kind}: {message:?} lacks {words:?}");
        ensure!(said.contains(words), "the API server itself says {said:?}");
    }
    same(&application, "/status/sync/status", "OutOfSync")?;

    // The rest of the bundle does not wait for the repair.
    same(&site.look.until("configmaps", "broken", "good", |_| Ok(())).await?, "/data/color", "blue")?;

    repository.write("broken.yaml", &BROKEN.replace("app: other", "app: web").replace("99999", "80"))?;
    let repaired = repository.commit_and_push("repair")?;
    fleet.hub.settled("broken", &repaired).await.map(drop)
}

fn result(application: &Value, kind: &str) -> Result<Value> {
    let results = application.pointer("/status/operationState/syncResult/resources").and_then(Value::as_array);
    let result = results.into_iter().flatten().find(|result| result["kind"] == kind);
    result.cloned().with_context(|| format!("no result for the {kind}"))
}

/// What kubectl is told for the same manifest.
async fn server_says(site: &crate::fleet::Site, kind: &str, namespace: &str) -> Result<String> {
    let document = BROKEN.split("---").find(|text| text.contains(kind)).context("the manifest")?;
    let arguments = ["-n", namespace, "apply", "--server-side", "--dry-run=server", "-f", "-"];
    match site.plane.kubectl_with_input(&arguments, document).await {
        Ok(_) => anyhow::bail!("the API server takes the {kind}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}
