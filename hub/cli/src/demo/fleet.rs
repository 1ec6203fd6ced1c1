//! The fleet of the demonstration: the hub and the agents of this process, driven through the hub's API like any other.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
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
use windlass_hub::{
    config::{Config as HubConfig, Flags},
    init::{init, kubeconfig},
    node::Node,
};

use super::screen::Row;

const NAMESPACE: &str = "argocd";
/// The repository is on this machine: asking it every second costs nothing.
const POLL: Duration = Duration::from_secs(1);
const ENVIRONMENTS: [&str; 3] = ["development", "staging", "production"];

/// A hub and its agents.
pub(super) struct Fleet {
    folder: PathBuf,
    repository: String,
    hub: Node,
    client: Client,
    kubeconfig: PathBuf,
    agents: TaskTracker,
    shutdown: CancellationToken,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("hub", &self.hub).finish_non_exhaustive()
    }
}

impl Fleet {
    /// Makes and starts the hub.
    pub(super) async fn start(folder: &Path, repository: String) -> anyhow::Result<Self> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let flags = Flags {
            data: Some(folder.join("hub")),
            listen_agents: Some(any),
            listen_api: Some(any),
            ..Flags::default()
        };
        let mut config = HubConfig::load(&flags)?;
        config.git_poll = POLL;
        config.git_jitter = Duration::ZERO;
        let made = init(&config).await?;
        let hub = Node::start(&config).await?;
        let server = format!("https://{}", hub.api_address);
        let text = kubeconfig(&server, &hub.roots, made.admin_token.expose());
        // `init` did not know the port yet.
        let kubeconfig = made.kubeconfig;
        std::fs::write(&kubeconfig, &text)?;
        let parsed = Kubeconfig::from_yaml(&text)?;
        let client = Client::try_from(Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await?)?;
        Ok(Self {
            folder: folder.to_owned(),
            repository,
            hub,
            client,
            kubeconfig,
            agents: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        })
    }

    /// Registers clusters and starts an agent for each.
    pub(super) async fn join(&self, count: u16) -> anyhow::Result<()> {
        let clusters: Api<DynamicObject> =
            Api::all_with(self.client.clone(), &resource("windlass.io", "Cluster", "clusters"));
        for (number, environment) in (1..=count).zip(ENVIRONMENTS.iter().cycle()) {
            let name = format!("cluster-{number}");
            let cluster: DynamicObject = serde_json::from_value(json!({
                "apiVersion": "windlass.io/v1alpha1", "kind": "Cluster",
                "metadata": {"name": name, "labels": {"environment": environment}},
                "spec": {},
            }))?;
            clusters.create(&PostParams::default(), &cluster).await?;
            let request = http::Request::post(format!("/apis/windlass.io/v1alpha1/clusters/{name}/token"))
                .header("content-type", "application/json")
                .body(b"{}".to_vec())?;
            let reply: Value = self.client.request(request).await?;
            let status = reply.get("status").context("the hub's join token has no status")?;
            let token = status.get("token").and_then(Value::as_str).context("the hub gave no join token")?;
            let config = AgentConfig {
                hubs: self.hub.hubs.clone(),
                token: Some(Token::new(token)),
                root_pin: Some(self.hub.pin.to_string()),
                data: self.folder.join(&name),
                cluster: ClusterConfig::Embedded,
                identity: IdentityStore::Folder,
                log_format: LogFormat::Text,
                limits: Limits::default(),
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
        let sets: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
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
        let applications: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), NAMESPACE, &resource);
        let list = applications.list(&ListParams::default()).await?;
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

    pub(super) fn server(&self) -> String {
        format!("https://{}", self.hub.api_address)
    }

    pub(super) fn agents_address(&self) -> String {
        format!("{}/udp", self.hub.agents_address)
    }

    pub(super) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Ends the agents, then the hub.
    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        self.agents.close();
        self.agents.wait().await;
        self.hub.stop().await;
    }
}

fn resource(group: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1alpha1", kind), plural)
}

/// Sends the logs of everything in this process to a file: the terminal belongs to the story.
pub(super) fn log_to(path: &Path) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,openraft=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(Arc::new(file))
        .try_init()
        .map_err(|error| anyhow::anyhow!("logs cannot be written: {error}"))
}
