//! An Application without `automated`: compared, never touched, until somebody asks.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::fleet::{Fleet, same};

const MANIFEST: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {color: blue}\n";

pub(super) async fn check(fleet: &Fleet) -> Result<()> {
    let repository = fleet.repository("manual")?;
    repository.write("settings.yaml", MANIFEST)?;
    let first = repository.commit_and_push("first")?;
    let policy = json!({"syncOptions": ["CreateNamespace=true"]});
    fleet.hub.apply(&fleet.application("manual", &repository, ".", policy)?).await?;
    let site = fleet.first()?;

    fleet
        .hub
        .until("manual", |application| {
            same(application, "/status/sync/status", "OutOfSync")?;
            same(application, "/status/health/status", "Missing")?;
            same(application, "/status/resources/0/status", "OutOfSync")
        })
        .await?;
    ensure!(site.look.find("namespaces", "", "manual").await?.is_none(), "a namespace without being asked");

    let operation = json!({"operation": {"sync": {"revision": first}, "initiatedBy": {"username": "tests"}}});
    fleet.hub.patch("manual", &operation).await?;
    let application = fleet.hub.settled("manual", &first).await?;
    same(&application, "/status/operationState/operation/initiatedBy/username", "tests")?;
    ensure!(application.get("operation").is_none(), "the operation stays in the object");
    same(&site.look.get("configmaps", "manual", "settings").await?, "/data/color", "blue")?;

    // The next commit waits again, and so does a drift.
    repository.write("settings.yaml", &MANIFEST.replace("blue", "green"))?;
    let second = repository.commit_and_push("second")?;
    fleet
        .hub
        .until("manual", |application| {
            same(application, "/status/sync/status", "OutOfSync")?;
            same(application, "/status/sync/revision", second.as_str())
        })
        .await?;
    same(&site.look.get("configmaps", "manual", "settings").await?, "/data/color", "blue")?;
    fleet.hub.patch("manual", &json!({"operation": {"sync": {}}})).await?;
    fleet.hub.settled("manual", &second).await?;
    same(&site.look.get("configmaps", "manual", "settings").await?, "/data/color", "green")
}
