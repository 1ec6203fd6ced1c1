//! A whole agent beside a real API server: joins, applies, heals, prunes, and goes on without its hub.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use windlass_agent::{
    Config,
    config::{ClusterConfig, Token},
    run,
};
use windlass_protocol::{
    ids::OperationId,
    message::{AssignmentPolicy, Automated, Cascade, KindPattern, Operation, Permitted},
    status::{HealthStatus, OperationPhase, SyncStatus},
};
use windlass_tests::{ControlPlane, WAIT_DEADLINE, Workdir, scenario, wait_until};

use super::hub::{FakeHub, TOKEN, World};

/// An agent in this process.
struct Agent {
    task: JoinHandle<Result<()>>,
    shutdown: CancellationToken,
}

impl Agent {
    fn start(hub: &FakeHub, data: &Path, plane: &ControlPlane) -> Self {
        let pin = Some(hub.pin.clone());
        let mut config = Config::embedded(data.to_owned(), vec![hub.address.to_string()], Some(Token::new(TOKEN)), pin);
        config.cluster = ClusterConfig::Kubeconfig { path: Some(plane.kubeconfig()), context: None };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run(config, shutdown.clone()));
        Self { task, shutdown }
    }

    async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        timeout(Duration::from_secs(20), self.task).await.context("the agent does not stop")??
    }
}

pub(super) fn automated() -> AssignmentPolicy {
    let automated = Automated { prune: true, self_heal: true, allow_empty: false };
    AssignmentPolicy { automated: Some(automated), ..manual() }
}

pub(super) fn manual() -> AssignmentPolicy {
    let all = vec![KindPattern { group: "*".to_owned(), kind: "*".to_owned() }];
    let permitted = Permitted {
        project: "default".to_owned(),
        cluster_allow: all,
        namespaces: vec!["*".to_owned()],
        ..Permitted::default()
    };
    AssignmentPolicy { permitted, ..AssignmentPolicy::default() }
}

pub(super) fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"},
        "data": {"key": value}})
}

pub(super) fn deployment(image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": image}]},
            },
        },
    })
}

async fn value_of(plane: &ControlPlane, name: &str) -> Result<String> {
    plane.kubectl(&["get", "configmap", name, "--output=jsonpath={.data.key}"]).await
}

async fn has_value(plane: &ControlPlane, name: &str, expected: &str) -> Result<()> {
    wait_until(WAIT_DEADLINE, format!("{name} holds {expected}"), async || {
        let value = value_of(plane, name).await?;
        ensure!(value == expected, "{name} holds {value:?}");
        Ok(Some(()))
    })
    .await
}

#[test]
fn an_agent_joins_applies_heals_and_prunes() -> Result<()> {
    scenario(async {
        let plane = ControlPlane::start("life").await?;
        let folder = Workdir::new("agent-life")?;
        let world = World::new()?;
        let hub = FakeHub::start(&world)?;
        world.assign(
            "shop",
            &[config_map("one", "a"), config_map("two", "b"), deployment("example.org/web:1")],
            automated(),
        );
        let agent = Agent::start(&hub, folder.path(), &plane);

        let receipt = world
            .receipt("shop", "a healthy shop", |receipt| {
                receipt.sync == SyncStatus::Synced && receipt.health == HealthStatus::Healthy
            })
            .await?;
        ensure!(receipt.operation.as_ref().is_some_and(|operation| operation.phase == OperationPhase::Succeeded));
        ensure!(world.detail(&receipt).await?.resources.len() == 3, "{:?}", world.detail(&receipt).await?);
        ensure!(hub.world().facts().await?.get("kubernetesVersion").is_some());
        has_value(&plane, "one", "a").await?;

        // Drift is undone.
        let started = std::time::Instant::now();
        plane.kubectl(&["patch", "configmap", "one", "--type=merge", "--patch", r#"{"data":{"key":"x"}}"#]).await?;
        has_value(&plane, "one", "a").await?;
        eprintln!("healed within {:?}", started.elapsed());
        plane.kubectl(&["delete", "configmap", "two"]).await?;
        has_value(&plane, "two", "b").await?;

        // A change arrives, with only what is new; what is gone is pruned.
        let served = world.served();
        let bundle = world.assign("shop", &[config_map("one", "c"), deployment("example.org/web:1")], automated());
        world.receipt("shop", "the change", |receipt| receipt.applied == Some(bundle.digest)).await?;
        ensure!(world.served() - served == 2, "an index and one manifest are new, not {}", world.served() - served);
        ensure!(value_of(&plane, "one").await? == "c");
        ensure!(value_of(&plane, "two").await.is_err(), "two is pruned");

        world.end("shop", Cascade::Foreground);
        world.ended("shop").await?;
        ensure!(value_of(&plane, "one").await.is_err(), "nothing is left");
        ensure!(world.enrolments() == 1);
        agent.stop().await
    })
}

#[test]
fn an_agent_heals_without_its_hub_and_after_a_restart() -> Result<()> {
    scenario(async {
        let plane = ControlPlane::start("alone").await?;
        let folder = Workdir::new("agent-alone")?;
        let world = World::new()?;
        let hub = FakeHub::start(&world)?;
        let address = hub.address;
        let bundle = world.assign("shop", &[config_map("one", "a")], automated());
        let agent = Agent::start(&hub, folder.path(), &plane);
        world.receipt("shop", "the first sync", |receipt| receipt.applied == Some(bundle.digest)).await?;
        agent.stop().await?;
        drop(hub);

        // Nobody answers at the hub's address any more.
        let gone = FakeHub::start(&world)?;
        let mut silent = FakeHub::start(&World::new()?)?;
        silent.address = address;
        drop(gone);
        plane.kubectl(&["delete", "configmap", "one"]).await?;
        let agent = Agent::start(&silent, folder.path(), &plane);
        has_value(&plane, "one", "a").await?;
        plane.kubectl(&["patch", "configmap", "one", "--type=merge", "--patch", r#"{"data":{"key":"x"}}"#]).await?;
        has_value(&plane, "one", "a").await?;

        // The hub comes back with a change: only the difference travels.
        let served = world.served();
        let hub = FakeHub::start_at(&world, address)?;
        let bundle = world.assign("shop", &[config_map("one", "b")], automated());
        world.receipt("shop", "the change after the outage", |receipt| receipt.applied == Some(bundle.digest)).await?;
        ensure!(world.served() - served == 2, "{}", world.served() - served);
        ensure!(world.enrolments() == 1, "the identity is kept");
        has_value(&plane, "one", "b").await?;
        agent.stop().await?;
        drop(hub);
        Ok(())
    })
}

#[test]
fn a_manual_assignment_waits_for_its_operation() -> Result<()> {
    scenario(async {
        let plane = ControlPlane::start("manual").await?;
        let folder = Workdir::new("agent-manual")?;
        let world: Arc<World> = World::new()?;
        let hub = FakeHub::start(&world)?;
        world.assign("shop", &[config_map("one", "a")], manual());
        let agent = Agent::start(&hub, folder.path(), &plane);
        world.receipt("shop", "out of sync", |receipt| receipt.sync == SyncStatus::OutOfSync).await?;
        ensure!(value_of(&plane, "one").await.is_err(), "nothing is applied");
        world.change("shop", |assignment| {
            assignment.operation = Some(Operation {
                id: OperationId(1),
                bundle: None,
                prune: false,
                dry_run: false,
                force: false,
                resources: Vec::new(),
                sync_options: Vec::new(),
                terminate: false,
                initiated_by: "test".to_owned(),
            });
        });
        world
            .receipt("shop", "the operation", |receipt| {
                receipt.operation.as_ref().is_some_and(|operation| {
                    operation.id == Some(OperationId(1)) && operation.phase == OperationPhase::Succeeded
                })
            })
            .await?;
        ensure!(value_of(&plane, "one").await? == "a");
        // Without selfHeal drift stays and is reported.
        plane.kubectl(&["patch", "configmap", "one", "--type=merge", "--patch", r#"{"data":{"key":"x"}}"#]).await?;
        world.receipt("shop", "the drift", |receipt| receipt.sync == SyncStatus::OutOfSync).await?;
        ensure!(value_of(&plane, "one").await? == "x");
        agent.stop().await?;
        drop(hub);
        Ok(())
    })
}

#[test]
fn one_refused_object_does_not_hold_the_others() -> Result<()> {
    scenario(async {
        let plane = ControlPlane::start("refused").await?;
        let folder = Workdir::new("agent-refused")?;
        let world = World::new()?;
        let hub = FakeHub::start(&world)?;
        let mut broken = config_map("broken", "a");
        windlass_protocol::json::set(&mut broken, &["data"], json!({"not a key!": "x"}));
        world.assign("shop", &[config_map("one", "a"), broken], automated());
        let agent = Agent::start(&hub, folder.path(), &plane);
        let receipt = world
            .receipt("shop", "the failure", |receipt| {
                receipt.operation.as_ref().is_some_and(|operation| operation.phase == OperationPhase::Failed)
                    || receipt.operation.as_ref().is_some_and(|operation| operation.retries > 0)
            })
            .await?;
        ensure!(receipt.sync != SyncStatus::Synced, "a refused object is not in sync");
        world.told("shop", "not a key!").await?;
        agent.stop().await?;
        drop(hub);
        Ok(())
    })
}
