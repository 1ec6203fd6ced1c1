//! Whole agents on simulated clusters: what dies in between, and what goes wrong.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use windlass_agent::{Config, cluster::EmbeddedCluster, config::Token, run_with_cluster};
use windlass_engine::Propagation;
use windlass_protocol::{
    manifest::{self, ResourceKey, TRACKING_ANNOTATION},
    message::Cascade,
    status::{HealthStatus, OperationPhase, SyncStatus},
};
use windlass_tests::{WAIT_DEADLINE, Workdir, scenario, wait_until};

use super::{
    hub::{FakeHub, TOKEN, World},
    life::{automated, config_map, deployment},
};

struct Agent {
    task: JoinHandle<Result<()>>,
    shutdown: CancellationToken,
}

impl Agent {
    fn start(hub: &FakeHub, data: &Path, cluster: &EmbeddedCluster) -> Self {
        Self::start_with(hub, data, cluster, TOKEN)
    }

    fn start_with(hub: &FakeHub, data: &Path, cluster: &EmbeddedCluster, token: &str) -> Self {
        let hubs = vec![hub.address.to_string()];
        let config = Config::embedded(data.to_owned(), hubs, Some(Token::new(token)), Some(hub.pin.clone()));
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run_with_cluster(config, Arc::new(cluster.clone()), shutdown.clone()));
        Self { task, shutdown }
    }

    async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        timeout(Duration::from_secs(20), self.task).await.context("the agent does not stop")??
    }

    /// Ends it between two instructions.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

fn key_of(name: &str) -> ResourceKey {
    ResourceKey::of(&config_map(name, ""))
}

fn value_of(cluster: &EmbeddedCluster, name: &str) -> Option<String> {
    let key = key_of(name);
    cluster.with(|cluster| {
        cluster.get(&key).map(|object| windlass_protocol::json::text(object, &["data", "key"]).to_owned())
    })
}

async fn has_value(cluster: &EmbeddedCluster, name: &str, expected: &str) -> Result<()> {
    wait_until(WAIT_DEADLINE, format!("{name} holds {expected}"), async || {
        let value = value_of(cluster, name);
        ensure!(value.as_deref() == Some(expected), "{name} holds {value:?}");
        Ok(Some(()))
    })
    .await
}

#[test]
fn one_killed_between_checkpoint_and_apply_resumes_without_a_hub() -> Result<()> {
    scenario(async {
        let folder = Workdir::new("agent-killed")?;
        let cluster = EmbeddedCluster::new(7);
        let world = World::new()?;
        let hub = FakeHub::start(&world)?;
        let first = world.assign("shop", &[config_map("one", "a")], automated());
        let agent = Agent::start(&hub, folder.path(), &cluster);
        world.receipt("shop", "the first sync", |receipt| receipt.applied == Some(first.digest)).await?;

        // What is accepted now cannot be applied before the agent dies.
        cluster.with(|cluster| cluster.faults.down = Some("connection refused".to_owned()));
        let generation = world.generation() + 1;
        world.assign("shop", &[config_map("one", "b"), config_map("two", "b")], automated());
        world.acknowledged(generation).await?;
        agent.kill().await;
        let address = hub.address;
        drop(hub);
        cluster.with(|cluster| cluster.faults.down = None);
        ensure!(value_of(&cluster, "one").as_deref() == Some("a"));

        let nobody = FakeHub::start(&World::new()?)?;
        let mut silent = nobody;
        silent.address = address;
        let agent = Agent::start(&silent, folder.path(), &cluster);
        has_value(&cluster, "one", "b").await?;
        has_value(&cluster, "two", "b").await?;
        agent.stop().await
    })
}

#[test]
fn an_api_server_that_is_away_is_waited_for() -> Result<()> {
    scenario(async {
        let folder = Workdir::new("agent-away")?;
        let cluster = EmbeddedCluster::new(8);
        cluster.with(|cluster| cluster.faults.down = Some("connection refused".to_owned()));
        let world = World::new()?;
        let hub = FakeHub::start(&world)?;
        let bundle = world.assign("shop", &[config_map("one", "a"), deployment("example.org/web:1")], automated());
        let agent = Agent::start(&hub, folder.path(), &cluster);
        world.receipt("shop", "the exact error", |receipt| receipt.message.contains("connection refused")).await?;
        cluster.with(|cluster| cluster.faults.down = None);
        world
            .receipt("shop", "a healthy shop", |receipt| {
                receipt.applied == Some(bundle.digest) && receipt.health == HealthStatus::Healthy
            })
            .await?;
        // Drift that happens while the watch is interrupted is seen when it is back.
        cluster.with(|cluster| {
            cluster.faults.down = Some("connection refused".to_owned());
            cluster.patch(&key_of("one"), &json!({"data": {"key": "x"}}), "kubectl")
        })?;
        cluster.with(|cluster| cluster.faults.down = None);
        has_value(&cluster, "one", "a").await?;
        agent.stop().await
    })
}

#[test]
fn drift_of_every_form_is_healed() -> Result<()> {
    scenario(async {
        let folder = Workdir::new("agent-drift")?;
        let cluster = EmbeddedCluster::new(9);
        let world = World::new()?;
        let hub = FakeHub::start(&world)?;
        let bundle = world.assign("shop", &[config_map("one", "a")], automated());
        let agent = Agent::start(&hub, folder.path(), &cluster);
        world.receipt("shop", "the first sync", |receipt| receipt.applied == Some(bundle.digest)).await?;

        let edits: [(&str, Value); 2] = [
            ("a value", json!({"data": {"key": "x"}})),
            (
                "label and tracking",
                json!({"metadata": {"labels": {"windlass.io/owner": null}, "annotations": {TRACKING_ANNOTATION: null}}}),
            ),
        ];
        for (what, patch) in edits {
            cluster.with(|cluster| cluster.patch(&key_of("one"), &patch, "kubectl"))?;
            wait_until(WAIT_DEADLINE, what, async || {
                let live = cluster.with(|cluster| cluster.get(&key_of("one")).cloned()).context("it is gone")?;
                let tracked = manifest::annotation(&live, TRACKING_ANNOTATION) == Some("shop:/ConfigMap:default/one");
                let labelled = manifest::label(&live, "windlass.io/owner") == Some("shop");
                let value = windlass_protocol::json::text(&live, &["data", "key"]) == "a";
                ensure!(tracked && labelled && value, "{live}");
                Ok(Some(()))
            })
            .await?;
        }
        cluster.with(|cluster| cluster.delete(&key_of("one"), None, Propagation::Background))?;
        has_value(&cluster, "one", "a").await?;
        agent.stop().await
    })
}

#[test]
fn tombstones_end_orphan_or_delete_and_survive_restarts() -> Result<()> {
    scenario(async {
        let folder = Workdir::new("agent-tombstones")?;
        let cluster = EmbeddedCluster::new(10);
        let world = World::new()?;
        let hub = FakeHub::start(&world)?;
        let kept = world.assign("kept", &[config_map("kept", "a")], automated());
        let lost = world.assign("lost", &[config_map("lost", "a")], automated());
        let agent = Agent::start(&hub, folder.path(), &cluster);
        world.receipt("kept", "kept", |receipt| receipt.applied == Some(kept.digest)).await?;
        world.receipt("lost", "lost", |receipt| receipt.applied == Some(lost.digest)).await?;
        agent.stop().await?;

        world.end("kept", Cascade::Orphan);
        world.end("lost", Cascade::Background);
        let agent = Agent::start(&hub, folder.path(), &cluster);
        world.ended("kept").await?;
        world.ended("lost").await?;
        ensure!(value_of(&cluster, "lost").is_none(), "it is deleted");
        let orphan = cluster.with(|cluster| cluster.get(&key_of("kept")).cloned()).context("the orphan stays")?;
        ensure!(manifest::annotation(&orphan, TRACKING_ANNOTATION).is_none(), "without tracking: {orphan}");
        agent.stop().await
    })
}

#[test]
fn a_rejected_object_is_reported_and_others_go_on() -> Result<()> {
    scenario(async {
        let folder = Workdir::new("agent-rejected")?;
        let cluster = EmbeddedCluster::new(11);
        cluster.with(|cluster| cluster.faults.reject("ConfigMap", "bad", "admission webhook \"x\" denied the request"));
        let world = World::new()?;
        let hub = FakeHub::start(&world)?;
        world.assign("shop", &[config_map("bad", "a"), config_map("good", "a")], automated());
        world.assign("other", &[config_map("other", "a")], automated());
        let agent = Agent::start(&hub, folder.path(), &cluster);
        let receipt = world
            .receipt("shop", "the failure", |receipt| {
                receipt.operation.as_ref().is_some_and(|operation| operation.message.contains("denied"))
            })
            .await?;
        ensure!(receipt.sync == SyncStatus::OutOfSync);
        let detail = serde_json::to_string(&world.detail(&receipt).await?)?;
        ensure!(detail.contains("denied the request"), "{detail}");
        world
            .receipt("other", "the other application", |receipt| {
                receipt.operation.as_ref().is_some_and(|operation| operation.phase == OperationPhase::Succeeded)
            })
            .await?;
        agent.stop().await
    })
}

#[test]
fn a_wrong_token_is_refused_and_never_stored_as_an_identity() -> Result<()> {
    scenario(async {
        let folder = Workdir::new("agent-token")?;
        let cluster = EmbeddedCluster::new(12);
        let world = World::new()?;
        let hub = FakeHub::start(&world)?;
        world.assign("shop", &[config_map("one", "a")], automated());
        let agent = Agent::start_with(&hub, folder.path(), &cluster, "wrong");
        world.refused().await?;
        agent.stop().await?;
        let agent = Agent::start(&hub, folder.path(), &cluster);
        has_value(&cluster, "one", "a").await?;
        ensure!(world.enrolments() == 1);
        agent.stop().await
    })
}
