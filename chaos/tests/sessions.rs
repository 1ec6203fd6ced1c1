//! Sessions between a real hub and real agents in one process: identities that change, run out or are replaced under them.
//!
//! The hub is driven through its replica, the agents work on simulated clusters. Waiting is for the state to change.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use windlass_agent::{Config as AgentConfig, cluster::EmbeddedCluster, config::Token, run_with_cluster};
use windlass_hub::{
    config::{Config, Flags},
    init::init,
    node::Node,
    replica::wall_clock,
    trust::{self, operator_key},
};
use windlass_hub_core::{Command, ObjectKey, State, command::Write, state::ClusterRecord, state::TrustRecord};
use windlass_protocol::{ids::Digest, resource::Kind, time::Millis};

const PATIENCE: Duration = Duration::from_secs(60);

/// A hub of one node, and where it keeps its data.
struct Hub {
    config: Config,
    node: Node,
    folder: tempfile::TempDir,
}

/// An agent that may be stopped and started again on its data.
struct Agent {
    name: String,
    config: AgentConfig,
    cluster: EmbeddedCluster,
    running: Option<(CancellationToken, JoinHandle<anyhow::Result<()>>)>,
}

impl Hub {
    async fn start(agent_certificate: Option<Duration>) -> Self {
        windlass_transport::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let flags = Flags {
            data: Some(folder.path().join("hub")),
            listen_agents: Some(any),
            listen_api: Some(any),
            listen_peers: Some(any),
            ..Flags::default()
        };
        let mut config = Config::load(&flags).unwrap();
        if let Some(life) = agent_certificate {
            config.agent_certificate = life;
        }
        init(&config).await.unwrap();
        let node = Node::start(&config).await.unwrap();
        // The same places after a restart.
        (config.listen_agents, config.listen_api) = (node.agents_address, node.api_address);
        Self { config, node, folder }
    }

    async fn propose(&self, command: Command) {
        self.node.replica.propose("user:test", "test", Vec::new(), command).await.unwrap();
    }

    /// Registers a cluster and starts its agent.
    async fn join(&self, name: &str) -> Agent {
        let body = json!({"apiVersion": "windlass.io/v1alpha1", "kind": "Cluster", "metadata": {"name": name}});
        let key = ObjectKey::new(Kind::Cluster, "", name);
        let uid = self.node.replica.new_uid().unwrap();
        let create = Write::Create { key, uid, body: body.to_string(), sealed: None };
        self.propose(Command::Write { writes: vec![create] }).await;
        let secret = format!("wlj_{name}");
        let hash = Digest::of(secret.as_bytes());
        let expires_at = wall_clock().plus(Millis::from_secs(600));
        self.propose(Command::AddToken { hash, cluster: name.to_owned(), expires_at }).await;
        let (data, hubs) = (self.folder.path().join(name), vec![self.node.agents_address.to_string()]);
        let config = AgentConfig::embedded(data, hubs, Some(Token::new(&secret)), Some(self.node.pin.to_string()));
        let mut agent = Agent { name: name.to_owned(), config, cluster: EmbeddedCluster::new(1), running: None };
        agent.start();
        self.wait("a session", |state| agent.record(state).session.is_some()).await;
        agent
    }

    /// Waits until the state satisfies a condition.
    async fn wait(&self, what: &str, condition: impl Fn(&State) -> bool) {
        let mut revision = self.node.replica.machine().revision();
        let waiting = async {
            while !condition(&self.node.replica.state()) {
                revision.changed().await.unwrap();
            }
        };
        assert!(timeout(PATIENCE, waiting).await.is_ok(), "waited in vain for {what}");
    }

    /// Proposes the next step of a rotation; gives the pin of the root that signs then.
    async fn rotate(&self, step: impl FnOnce(&TrustRecord) -> TrustRecord) -> String {
        let record = step(self.node.replica.state().trust());
        let roots = windlass_transport::identity::TrustBundle::from_pem(&record.roots).unwrap();
        self.propose(Command::SetTrust { trust: record }).await;
        roots.pins().unwrap()[0].to_string()
    }

    async fn begin_rotation(&self) -> String {
        let sealer = operator_key(&self.config, None).unwrap();
        let mut serial = 100;
        let serials = || {
            serial += 1;
            serial
        };
        self.rotate(|record| trust::begin(record, &sealer, wall_clock(), serials).unwrap()).await
    }

    async fn finish_rotation(&self) -> String {
        self.rotate(|record| trust::finish(record).unwrap()).await
    }
}

impl Agent {
    fn start(&mut self) {
        let shutdown = CancellationToken::new();
        let port = Arc::new(self.cluster.clone());
        let task = tokio::spawn(run_with_cluster(self.config.clone(), port, shutdown.clone()));
        self.running = Some((shutdown, task));
    }

    async fn stop(&mut self, hub: &Hub) {
        let (shutdown, task) = self.running.take().unwrap();
        shutdown.cancel();
        timeout(PATIENCE, task).await.unwrap().unwrap().unwrap();
        hub.wait("the end of a session", |state| self.record(state).session.is_none()).await;
    }

    fn record(&self, state: &State) -> ClusterRecord {
        (**state.cluster_named(&self.name).unwrap().1).clone()
    }

    /// What the agent says about its identity.
    fn trust(&self, state: &State) -> Value {
        let object = state.object(&ObjectKey::new(Kind::Cluster, "", self.name.as_str())).unwrap();
        object.value().pointer("/status/facts/trust").cloned().unwrap_or_default()
    }

    /// Connected, with a certificate below this root.
    fn is_below(&self, state: &State, pin: &str) -> bool {
        self.record(state).session.is_some() && self.trust(state)["issuedBelow"] == json!(pin)
    }

    fn data(&self) -> PathBuf {
        self.config.data.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_is_replaced_with_agents_connected_and_one_offline() {
    let hub = Hub::start(None).await;
    let (east, mut west) = (hub.join("east").await, hub.join("west").await);
    let old = hub.node.pin.to_string();
    hub.wait("facts", |state| east.is_below(state, &old) && west.is_below(state, &old)).await;
    west.stop(&hub).await;
    let before = east.record(&hub.node.replica.state());

    let new = hub.begin_rotation().await;
    assert_ne!(new, old);
    let told = trust::unready(&hub.node.replica.state()).unwrap();
    assert_eq!(told, (vec!["east".to_owned()], 1), "nobody can have renewed yet");
    hub.wait("a certificate below the new root", |state| east.is_below(state, &new)).await;
    let state = hub.node.replica.state();
    assert_eq!(east.trust(&state)["roots"], json!([new, old]));
    assert_eq!(east.record(&state).incarnation, before.incarnation);
    assert_ne!(east.record(&state).serial, before.serial);
    assert_eq!(trust::unready(&state).unwrap(), (Vec::new(), 0));

    // It knows the old root only: the cross-signed certificate lets it in.
    west.start();
    hub.wait("the one that was offline", |state| west.is_below(state, &new)).await;

    assert_eq!(hub.finish_rotation().await, new);
    hub.wait("one root", |state| {
        [&east, &west].iter().all(|agent| agent.is_below(state, &new) && agent.trust(state)["roots"] == json!([new]))
    })
    .await;
    // And everybody comes back.
    west.stop(&hub).await;
    west.start();
    hub.wait("a session below the new root", |state| west.is_below(state, &new)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_missed_a_whole_rotation_renews_as_a_stranger() {
    let hub = Hub::start(None).await;
    let mut agent = hub.join("edge").await;
    agent.stop(&hub).await;
    hub.begin_rotation().await;
    let new = hub.finish_rotation().await;
    let serial = agent.record(&hub.node.replica.state()).serial;
    agent.start();
    hub.wait("a session below the new root", |state| agent.is_below(state, &new)).await;
    assert_ne!(agent.record(&hub.node.replica.state()).serial, serial);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_certificate_has_run_out_may_only_renew() {
    let hub = Hub::start(Some(Duration::from_secs(2))).await;
    let agent = hub.join("edge").await;
    // Faster than the agent looks at its certificate: the hub ends the session, and no handshake succeeds any more.
    let first = agent.record(&hub.node.replica.state()).serial;
    hub.wait("a renewed certificate in use", |state| {
        let record = agent.record(state);
        record.serial != first && record.previous_serial.is_none() && record.session.is_some()
    })
    .await;
    assert!(agent.data().join("identity.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_restarts_sends_its_agents_away_and_gets_them_back() {
    let Hub { config, node, folder } = Hub::start(None).await;
    let hub = Hub { config, node, folder };
    let mut agent = hub.join("east").await;
    let Hub { config, node, folder } = hub;
    let begun = std::time::Instant::now();
    node.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "an agent that is sent away goes at once");
    let port = config.listen_agents;
    windlass_chaos::host::wait_until(PATIENCE, "the agents' port", async || Ok(Some(std::net::UdpSocket::bind(port)?)))
        .await
        .unwrap();
    let node = Node::start(&config).await.unwrap();
    let hub = Hub { config, node, folder };
    let mut status = hub.node.replica.raft().status();
    timeout(PATIENCE, status.wait_for(|status| status.leader.is_some())).await.unwrap().unwrap();
    hub.node.replica.read_barrier().await.unwrap();
    hub.wait("the agent's return", |state| agent.record(state).session.is_some()).await;
    agent.stop(&hub).await;
}
