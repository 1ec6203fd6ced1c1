//! The agent's cluster port against a real API server: what the simulated cluster promises must hold there.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};
use windlass_agent::{
    cluster::{
        Change, ClusterError, ClusterPort, DeleteOptions, Deletion, Freshness, Target, Write, WriteOptions, connect,
    },
    config::ClusterConfig,
    limits::Limits,
};
use windlass_engine::{GroupKind, Propagation, Scope};
use windlass_protocol::json;
use windlass_tests::{ControlPlane, scenario};

const PATIENCE: Duration = Duration::from_secs(30);

async fn port(plane: &ControlPlane) -> Result<Arc<dyn ClusterPort>> {
    let limits = Limits { list_page: 10, ..Limits::default() };
    let cluster = ClusterConfig::Kubeconfig { path: Some(plane.kubeconfig()), context: None };
    Ok(Arc::new(connect(&cluster, &limits).await?))
}

async fn target(port: &dyn ClusterPort, group: &str, kind: &str, name: &str) -> Result<Target> {
    let discovery = port.discovery(Freshness::Cached).await?;
    let resource = discovery.find(group, kind, None)?.clone();
    let namespace = if resource.namespaced { "default" } else { "" };
    Ok(Target { resource, namespace: namespace.to_owned(), name: name.to_owned() })
}

fn config_map(name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "labels": {"windlass.io/owner": "shop"}},
        "data": {"key": value},
    })
}

/// The next change that is not of an object which the plane itself keeps.
async fn next(changes: &mut mpsc::Receiver<Change>) -> Result<Change> {
    timeout(PATIENCE, changes.recv()).await.context("no change came")?.context("the watch has ended")
}

#[test]
fn the_port_writes_watches_and_deletes() -> Result<()> {
    scenario(async {
        let plane = ControlPlane::start("port").await?;
        let port = port(&plane).await?;
        let map = target(&*port, "", "ConfigMap", "one").await?;
        let (sender, mut changes) = mpsc::channel(64);
        let _watch = port.watch(&map.resource, sender);
        ensure!(matches!(next(&mut changes).await?, Change::Complete { .. }), "an empty list is complete");

        let dry = WriteOptions { dry_run: true, strict: true };
        port.write(&map, Write::Apply(&config_map("one", "a")), dry).await?;
        ensure!(port.get(&map).await?.is_none(), "a dry run stores nothing");

        let strict = WriteOptions { dry_run: false, strict: true };
        let applied = port.write(&map, Write::Apply(&config_map("one", "a")), strict).await?;
        ensure!(json::text(&applied, &["data", "key"]) == "a");
        let Change::Present { object, .. } = next(&mut changes).await? else { bail!("the creation is seen") };
        ensure!(json::text(&object, &["kind"]) == "ConfigMap", "objects say what they are: {object}");

        plane.kubectl(&["patch", "configmap", "one", "--type=merge", "--patch", r#"{"data":{"key":"b"}}"#]).await?;
        let Change::Present { object, .. } = next(&mut changes).await? else { bail!("the drift is seen") };
        ensure!(json::text(&object, &["data", "key"]) == "b");

        plane.kubectl(&["label", "configmap", "one", "windlass.io/owner-"]).await?;
        let Change::Present { object, .. } = next(&mut changes).await? else { bail!("a lost label is no deletion") };
        ensure!(json::at(&object, &["metadata", "labels"]).is_none(), "{object}");
        let healed = port.write(&map, Write::Apply(&config_map("one", "a")), strict).await?;
        ensure!(json::text(&healed, &["data", "key"]) == "a", "conflicting fields are taken back");
        ensure!(matches!(next(&mut changes).await?, Change::Present { .. }));

        let uid = json::text(&healed, &["metadata", "uid"]).to_owned();
        let wrong = DeleteOptions { propagation: Propagation::Background, uid: Some("other".to_owned()) };
        ensure!(port.delete(&map, &wrong).await? == Deletion::NotThere, "another uid is another object");
        let right = DeleteOptions { propagation: Propagation::Foreground, uid: Some(uid.clone()) };
        ensure!(port.delete(&map, &right).await? == Deletion::Accepted);
        loop {
            match next(&mut changes).await? {
                Change::Gone { uid: gone, .. } => {
                    ensure!(gone == uid);
                    break;
                }
                // A foreground deletion first marks the object.
                Change::Present { .. } => {}
                other => bail!("unexpected {other:?}"),
            }
        }
        ensure!(port.delete(&map, &right).await? == Deletion::NotThere);
        Ok(())
    })
}

#[test]
fn the_port_says_exactly_what_the_server_refuses() -> Result<()> {
    scenario(async {
        let plane = ControlPlane::start("refusals").await?;
        let port = port(&plane).await?;
        let discovery = port.discovery(Freshness::Cached).await?;
        ensure!(discovery.kinds().scope(&GroupKind::new("", "Namespace")) == Some(Scope::Cluster));
        ensure!(discovery.kinds().serves(&GroupKind::new("apps", "Deployment"), "v1"));
        ensure!(matches!(discovery.find("example.com", "Widget", Some("v1")), Err(ClusterError::NoKind { .. })));

        let map = target(&*port, "", "ConfigMap", "bad").await?;
        let mut unknown = config_map("bad", "a");
        json::set(&mut unknown, &["dada"], json!({}));
        let strict = WriteOptions { dry_run: true, strict: true };
        let error = port.write(&map, Write::Apply(&unknown), strict).await.unwrap_err();
        ensure!(error.to_string().contains("dada"), "{error}");
        let nowhere = Target { namespace: "nowhere".to_owned(), ..map.clone() };
        let mut elsewhere = config_map("bad", "a");
        json::set(&mut elsewhere, &["metadata", "namespace"], json!("nowhere"));
        let error = port.write(&nowhere, Write::Apply(&elsewhere), WriteOptions::default()).await.unwrap_err();
        ensure!(error.is_not_found() && error.to_string().contains("nowhere"), "{error}");

        for number in 0..25 {
            let name = format!("page-{number}");
            let one = Target { name: name.clone(), ..map.clone() };
            port.write(&one, Write::Apply(&config_map(&name, "x")), WriteOptions::default()).await?;
        }
        let listed = port.list(&map.resource, "", "windlass.io/owner=shop").await?;
        ensure!(listed.len() == 25, "three pages make 25 objects, not {}", listed.len());
        ensure!(listed.iter().all(|object| json::text(object, &["apiVersion"]) == "v1"));
        Ok(())
    })
}

#[test]
fn watches_outlive_the_api_server() -> Result<()> {
    scenario(async {
        let mut plane = ControlPlane::start("outlive").await?;
        let port = port(&plane).await?;
        let map = target(&*port, "", "ConfigMap", "one").await?;
        port.write(&map, Write::Apply(&config_map("one", "a")), WriteOptions::default()).await?;
        let (sender, mut changes) = mpsc::channel(64);
        let _watch = port.watch(&map.resource, sender);
        ensure!(matches!(next(&mut changes).await?, Change::Present { .. }));
        ensure!(matches!(next(&mut changes).await?, Change::Complete { .. }));

        plane.stop_api_server()?;
        let error = port.get(&map).await.unwrap_err();
        ensure!(error.is_unreachable(), "{error}");
        plane.start_api_server().await?;
        port.write(&map, Write::Apply(&config_map("one", "b")), WriteOptions::default()).await?;
        let seen = async {
            loop {
                if let Change::Present { object, .. } = next(&mut changes).await?
                    && json::text(&object, &["data", "key"]) == "b"
                {
                    return anyhow::Ok(());
                }
            }
        };
        timeout(PATIENCE * 2, seen).await.context("the watch never came back")?
    })
}

/// What `windlass cluster add --manifest` prints has to be what an API server takes.
#[test]
fn the_manifests_of_the_agent_are_accepted() -> Result<()> {
    scenario(async {
        let plane = ControlPlane::start("manifests").await?;
        let folder = windlass_tests::workspace_root().join("deploy/agent");
        let filled = |name: &str| -> Result<String> {
            let mut text = std::fs::read_to_string(folder.join(name)).with_context(|| name.to_owned())?;
            let pin = format!("sha256:{}", "0".repeat(64));
            let values =
                [("CLUSTER", "east"), ("TOKEN", "a.b"), ("ROOT_PIN", &pin), ("HUBS", "hub:7443"), ("IMAGE", "i:1")];
            for (placeholder, value) in values {
                text = text.replace(&format!("${{{placeholder}}}"), value);
            }
            ensure!(!text.lines().any(|line| !line.starts_with('#') && line.contains("${")), "a placeholder is left");
            Ok(text)
        };
        plane.apply(&filled("agent.yaml")?).await?;
        plane.apply(&filled("restricted.yaml")?).await?;

        let account = "system:serviceaccount:windlass-system:windlass-agent";
        for question in [["patch", "deployments.apps"], ["create", "customresourcedefinitions.apiextensions.k8s.io"]] {
            let answer = plane
                .kubectl(&["auth", "can-i", question[0], question[1], "--as", account, "--all-namespaces"])
                .await
                .with_context(|| question.join(" "))?;
            ensure!(answer.trim() == "yes", "{question:?}: {answer}");
        }
        Ok(())
    })
}
