//! Agents of a group: real agents in this process, each on a simulated cluster of its own, and something to deliver to them.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use windlass_agent::{Config, cluster::EmbeddedCluster, config::Token, run_with_cluster};
use windlass_protocol::{json, manifest::ResourceKey};

use super::group::Group;
use crate::host::{WAIT_DEADLINE, wait_until};

/// How long an agent gets to end.
const END_TIME_MAX: Duration = Duration::from_secs(20);

/// A cluster with its agent.
#[derive(Debug)]
pub struct Site {
    name: String,
    cluster: EmbeddedCluster,
    task: JoinHandle<Result<()>>,
    shutdown: DropGuard,
}

impl Site {
    /// Registers a cluster, starts its agent and waits until it is connected.
    ///
    /// # Errors
    /// When it does not connect.
    pub async fn join(group: &Group, name: &str) -> Result<Self> {
        let cluster = json!({
            "apiVersion": "windlass.io/v1alpha1", "kind": "Cluster", "metadata": {"name": name},
        });
        group.must(Method::POST, CLUSTERS, Some(&cluster)).await?;
        let token = group.must(Method::POST, &format!("{CLUSTERS}/{name}/token"), Some(&json!({}))).await?;
        let text = |pointer: &str| token.pointer(pointer).and_then(Value::as_str).context("a token without it");
        let (secret, pin) = (Token::new(text("/status/token")?), text("/status/rootPin")?.to_owned());
        let folder = group.folder().join(format!("agent-{name}"));
        let config = Config::embedded(folder, group.agents(), Some(secret), Some(pin));
        let (cluster, shutdown) = (EmbeddedCluster::new(group.size() as u64), CancellationToken::new());
        let task = tokio::spawn(run_with_cluster(config, Arc::new(cluster.clone()), shutdown.clone()));
        let site = Self { name: name.to_owned(), cluster, task, shutdown: shutdown.drop_guard() };
        site.connected(group, None).await?;
        Ok(site)
    }

    /// Waits until some hub serves the agent, but not the hub `other`; gives the hub, counted from 0.
    ///
    /// # Errors
    /// When none does in time.
    pub async fn connected(&self, group: &Group, other: Option<usize>) -> Result<usize> {
        wait_until(WAIT_DEADLINE, format!("a session of {}", self.name), async || {
            let hub = self.session(group, other).await?.context("no session")?;
            ensure!(Some(hub) != other, "still at hub {}", hub + 1);
            Ok(Some(hub))
        })
        .await
    }

    /// Whether the agent has a session now.
    ///
    /// # Errors
    /// When it has none.
    pub async fn is_connected(&self, group: &Group) -> Result<usize> {
        self.session(group, None).await?.with_context(|| format!("{} is not connected", self.name))
    }

    /// The hub that serves the agent, by the word of a hub other than `other`.
    async fn session(&self, group: &Group, other: Option<usize>) -> Result<Option<usize>> {
        let asked = (0..group.size()).find(|hub| Some(*hub) != other).unwrap_or_default();
        let cluster = group.api().get(asked, &format!("{CLUSTERS}/{}", self.name)).await?;
        let connected = json::text(&cluster, &["status", "phase"]) == "Connected";
        let hub = cluster.pointer("/status/hub").and_then(Value::as_u64).filter(|_| connected);
        Ok(hub.and_then(|hub| usize::try_from(hub).ok()).and_then(|hub| hub.checked_sub(1)))
    }

    /// Removes the cluster from the hubs.
    ///
    /// # Errors
    /// When no hub does it.
    pub async fn remove(&self, group: &Group, hub: usize) -> Result<()> {
        group.api().send(hub, Method::DELETE, &format!("{CLUSTERS}/{}", self.name), None).await.ok().map(drop)
    }

    /// `data.color` and `metadata.resourceVersion` of the delivered ConfigMap, as the cluster has it.
    #[must_use]
    pub fn settings(&self) -> Option<(String, String)> {
        let key = ResourceKey::of(&settings("any"));
        self.cluster.with(|cluster| {
            let object = cluster.get(&key)?;
            let text = |path: &[&str]| json::text(object, path).to_owned();
            Some((text(&["data", "color"]), text(&["metadata", "resourceVersion"])))
        })
    }

    /// Waits until the ConfigMap has a color.
    ///
    /// # Errors
    /// When it has not in time.
    pub async fn has_color(&self, color: &str) -> Result<()> {
        wait_until(WAIT_DEADLINE, format!("{}: color {color}", self.name), async || {
            let settings = self.settings();
            ensure!(settings.as_ref().is_some_and(|(seen, _)| seen == color), "{settings:?}");
            Ok(Some(()))
        })
        .await
    }

    /// The simulated cluster itself.
    #[must_use]
    pub const fn cluster(&self) -> &EmbeddedCluster {
        &self.cluster
    }

    /// Edits the ConfigMap by hand, and waits until the agent has undone it; gives the time that it took.
    ///
    /// # Errors
    /// When it is not undone.
    pub async fn heals(&self) -> Result<Duration> {
        let key = ResourceKey::of(&settings("any"));
        let (color, _) = self.settings().context("nothing is delivered yet")?;
        let edited = Instant::now();
        self.cluster.with(|cluster| cluster.patch(&key, &json!({"data": {"color": "drifted"}}), "kubectl"))?;
        self.has_color(&color).await?;
        Ok(edited.elapsed())
    }

    /// Ends the agent.
    ///
    /// # Errors
    /// When it does not end well.
    pub async fn stop(self) -> Result<()> {
        drop(self.shutdown);
        timeout(END_TIME_MAX, self.task).await.context("the agent does not stop")?.context("the agent ended badly")?
    }
}

/// A Git repository with one ConfigMap, and the Applications that deliver it.
#[derive(Debug)]
pub struct Delivery {
    repository: PathBuf,
}

impl Delivery {
    /// Makes the repository in the group's folder.
    ///
    /// # Errors
    /// Without `git`.
    pub fn new(group: &Group, color: &str) -> Result<Self> {
        let delivery = Self { repository: group.folder().join("repository") };
        std::fs::create_dir_all(&delivery.repository).context("make the repository")?;
        git(&delivery.repository, &["init", "--quiet", "--initial-branch=main"])?;
        delivery.commit(color)?;
        Ok(delivery)
    }

    /// Commits another color.
    ///
    /// # Errors
    /// When `git` refuses.
    pub fn commit(&self, color: &str) -> Result<()> {
        std::fs::write(self.repository.join("settings.yaml"), settings(color).to_string()).context("write the file")?;
        git(&self.repository, &["add", "."])?;
        git(&self.repository, &["commit", "--quiet", "--allow-empty", "-m", color])
    }

    /// Delivers to a site, and waits until it is there and Healthy.
    ///
    /// # Errors
    /// Where it got stuck.
    pub async fn deliver(&self, group: &Group, site: &Site, color: &str) -> Result<()> {
        let application = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
            "metadata": {"name": site.name, "namespace": "argocd"},
            "spec": {
                "project": "default",
                "source": {
                    "repoURL": format!("file://{}", self.repository.display()), "path": ".", "targetRevision": "main",
                },
                "destination": {"name": site.name, "namespace": "default"},
                "syncPolicy": {"automated": {"prune": true, "selfHeal": true}},
            },
        });
        group.must(Method::POST, APPLICATIONS, Some(&application)).await?;
        self.settled(group, site, color).await
    }

    /// Waits until a site has a color, and its Application is Synced and Healthy.
    ///
    /// # Errors
    /// Where it got stuck.
    pub async fn settled(&self, group: &Group, site: &Site, color: &str) -> Result<()> {
        site.has_color(color).await?;
        let path = format!("{APPLICATIONS}/{}", site.name);
        wait_until(WAIT_DEADLINE, format!("Application {}", site.name), async || {
            let application = group.must(Method::GET, &path, None).await?;
            let text = |path: &[&str]| json::text(&application, path).to_owned();
            let (sync, health) = (text(&["status", "sync", "status"]), text(&["status", "health", "status"]));
            ensure!(sync == "Synced" && health == "Healthy", "{sync}, {health}");
            Ok(Some(()))
        })
        .await
    }

    /// The rendered manifests of a site's Application, from the blobs of one hub.
    ///
    /// # Errors
    /// When that hub lacks one.
    pub async fn manifests(&self, group: &Group, site: &Site, hub: usize) -> Result<Value> {
        let list = group.api().get(hub, &format!("{APPLICATIONS}/{}/manifests", site.name)).await?;
        let items = list.get("items").cloned().unwrap_or_default();
        ensure!(items.as_array().is_some_and(|items| !items.is_empty()), "hub {} has no manifest", hub + 1);
        Ok(items)
    }
}

const CLUSTERS: &str = "/apis/windlass.io/v1alpha1/clusters";
const APPLICATIONS: &str = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications";

fn settings(color: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "default"},
        "data": {"color": color},
    })
}

fn git(folder: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(["-c", "user.name=chaos", "-c", "user.email=chaos@localhost"]).args(arguments);
    // What the user configured must not matter.
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    let output = command.output().context("run git")?;
    ensure!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
