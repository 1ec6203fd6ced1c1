//! The fleet of the demonstration: the hubs, and the agents of this process, driven through the hubs' API like any other.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{hubs::Hubs, screen::Row};
use anyhow::{Context as _, ensure};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams},
};
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing_subscriber::EnvFilter;
use windlass_agent::{
    Config as AgentConfig,
    cluster::EmbeddedCluster,
    config::{ClusterConfig, IdentityStore, LogFormat, Token},
    limits::Limits,
};

const NAMESPACE: &str = "argocd";
const ENVIRONMENTS: [&str; 3] = ["development", "staging", "production"];

/// The hubs and their agents.
pub(super) struct Fleet {
    folder: PathBuf,
    repository: String,
    pub(super) hubs: Hubs,
    agents: TaskTracker,
    shutdown: CancellationToken,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("hubs", &self.hubs).finish_non_exhaustive()
    }
}

impl Fleet {
    /// Makes and starts the hubs.
    pub(super) async fn start(folder: &Path, repository: String) -> anyhow::Result<Self> {
        Ok(Self {
            folder: folder.to_owned(),
            repository,
            hubs: Hubs::start(folder).await?,
            agents: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        })
    }

    fn client(&self) -> anyhow::Result<Client> {
        self.hubs.clients().next().cloned().context("no hub runs")
    }

    /// Registers clusters and starts an agent for each.
    pub(super) async fn join(&self, count: u16) -> anyhow::Result<()> {
        let clusters: Api<DynamicObject> =
            Api::all_with(self.client()?, &resource("windlass.io", "Cluster", "clusters"));
        for (number, environment) in (1..=count).zip(ENVIRONMENTS.iter().cycle()) {
            let name = format!("cluster-{number}");
            let cluster: DynamicObject = serde_json::from_value(json!({
                "apiVersion": "windlass.io/v1alpha1", "kind": "Cluster",
                "metadata": {"name": name, "labels": {"environment": environment}},
                "spec": {},
            }))?;
            clusters.create(&PostParams::default(), &cluster).await?;
            let path = format!("/apis/windlass.io/v1alpha1/clusters/{name}/token");
            let reply = self.hubs.request("POST", &path).await?;
            let status = reply.get("status").context("the hub's join token has no status")?;
            let token = status.get("token").and_then(Value::as_str).context("the hub gave no join token")?;
            let config = AgentConfig {
                hubs: self.hubs.addresses(),
                token: Some(Token::new(token)),
                root_pin: Some(self.hubs.pin().to_owned()),
                data: self.folder.join(&name),
                cluster: ClusterConfig::Embedded,
                identity: IdentityStore::Folder,
                log_format: LogFormat::Text,
                // A killed hub is noticed in seconds: this is to be watched.
                limits: Limits { keep_alive_seconds: 1, ..Limits::default() },
            };
            let (port, shutdown) = (Arc::new(EmbeddedCluster::new(u64::from(number))), self.shutdown.clone());
            self.agents.spawn(async move {
                if let Err(error) = windlass_agent::run_with_cluster(config, port, shutdown).await {
                    tracing::error!(cluster = name, error = format!("{error:#}"), "the agent ended");
                }
            });
        }
        Ok(())
    }

    /// Deploys the application to every cluster with one ApplicationSet.
    pub(super) async fn deploy(&self) -> anyhow::Result<()> {
        let namespace = NAMESPACE;
        let resource = resource("argoproj.io", "ApplicationSet", "applicationsets");
        let sets: Api<DynamicObject> = Api::namespaced_with(self.client()?, namespace, &resource);
        let set: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "ApplicationSet",
            "metadata": {"name": "shop", "namespace": namespace},
            "spec": {
                "generators": [{"clusters": {}}],
                "template": {
                    "metadata": {"name": "shop-{{name}}", "labels": {"environment": "{{metadata.labels.environment}}"}},
                    "spec": {
                        "project": "default",
                        "source": {
                            "repoURL": self.repository, "targetRevision": "main",
                            "path": "overlays/{{metadata.labels.environment}}",
                        },
                        "destination": {"name": "{{name}}", "namespace": "shop"},
                        "syncPolicy": {
                            "automated": {"prune": true, "selfHeal": true},
                            "syncOptions": ["CreateNamespace=true"],
                        },
                    },
                },
            },
        }))?;
        sets.create(&PostParams::default(), &set).await?;
        Ok(())
    }

    /// The Applications as they are now.
    pub(super) async fn look(&self) -> anyhow::Result<Vec<Row>> {
        ensure!(!self.agents.is_closed(), "the fleet is stopped");
        let resource = resource("argoproj.io", "Application", "applications");
        let mut list = None;
        // A hub that is being killed does not answer; the others do.
        for client in self.hubs.clients() {
            let applications: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &resource);
            if let Ok(found) = applications.list(&ListParams::default()).await {
                list = Some(found);
                break;
            }
        }
        let list = list.context("no hub answers")?;
        let row = |application: DynamicObject| {
            let text =
                |path: &str| application.data.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
            Row {
                cluster: text("/spec/destination/name"),
                revision: text("/status/sync/revision"),
                sync: text("/status/sync/status"),
                health: text("/status/health/status"),
                name: application.metadata.name.unwrap_or_default(),
            }
        };
        Ok(list.items.into_iter().map(row).collect())
    }

    /// Ends the agents, then the hubs.
    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        self.agents.close();
        self.agents.wait().await;
        self.hubs.stop().await;
    }
}

fn resource(group: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1alpha1", kind), plural)
}

/// Sends the logs of everything in this process to a file: the terminal belongs to the story.
pub(super) fn log_to(path: &Path) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,openraft=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(Arc::new(file))
        .try_init()
        .map_err(|error| anyhow::anyhow!("logs cannot be written: {error}"))
}
