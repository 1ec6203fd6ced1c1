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
    by_command_line(fleet, &second).await?;
    same(&site.look.get("configmaps", "manual", "settings").await?, "/data/color", "green")?;

    let (code, _) = fleet.hub.windlass(&["app", "delete", "manual", "--yes"]).await?;
    ensure!(code == 0, "windlass app delete ends with {code}");
    fleet.hub.look.until_gone("applications", "argocd", "manual").await
}

/// The same with `windlass`: it waits, and its exit codes and tables say how it went.
async fn by_command_line(fleet: &Fleet, revision: &str) -> Result<()> {
    let run = async |arguments: &[&str], expected: i32, words: &[&str]| {
        let (code, printed) = fleet.hub.windlass(arguments).await?;
        ensure!(code == expected, "windlass {} ends with {code}: {printed}", arguments.join(" "));
        for word in words {
            ensure!(printed.contains(word), "windlass {} prints no {word:?}: {printed}", arguments.join(" "));
        }
        anyhow::Ok(())
    };
    run(&["app", "list"], 0, &["NAME", "SYNCPOLICY", "manual", "OutOfSync", "Manual"]).await?;
    run(&["app", "wait", "manual", "--sync", "--timeout", "1"], 1, &[]).await?;
    run(&["app", "sync", "manual"], 0, &["ConfigMap", "settings", "Synced"]).await?;
    fleet.hub.settled("manual", revision).await?;
    run(&["app", "wait", "manual", "--sync", "--health", "--timeout", "30"], 0, &[]).await?;
    run(&["app", "list", "-o", "name"], 0, &["argocd/manual"]).await?;
    run(&["app", "get", "manual"], 0, &["Synced", revision.get(..7).unwrap_or(revision)]).await?;
    run(&["app", "resources", "manual"], 0, &["settings"]).await?;
    run(&["app", "manifests", "manual"], 0, &["kind: ConfigMap", "color: green"]).await?;
    run(&["app", "get", "unheard-of"], 1, &[]).await?;
    run(&["cluster", "list"], 0, &["east", "west", "Connected"]).await?;
    run(&["hub", "status"], 0, &["Leader"]).await
}
