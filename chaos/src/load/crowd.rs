//! Many agents, and what they have seen together.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet};
use windlass_transport::endpoint::{Connection, Dialer, Tuning};

use super::agent::Agent;
use crate::cluster::group::Group;

/// Requests and enrolments at a time: a hub admits 256 strangers.
const AT_A_TIME: usize = 48;
/// Agents behind one socket: its buffers hold a storm of so many.
const AGENTS_PER_SOCKET: usize = 250;
const CLUSTERS: &str = "/apis/windlass.io/v1alpha1/clusters";

/// What all agents of a crowd have seen. Clones share it.
#[derive(Clone, Debug)]
pub struct Seen {
    connected: Arc<watch::Sender<usize>>,
    /// Since [`Seen::begin`], by agent: a later session replaces an earlier one.
    connections: Arc<Mutex<BTreeMap<u64, Connection>>>,
    failures: Arc<AtomicU64>,
    last_failure: Arc<Mutex<String>>,
}

/// A session; over when it is dropped.
#[derive(Debug)]
pub struct Present {
    connected: Arc<watch::Sender<usize>>,
}

impl Drop for Present {
    fn drop(&mut self) {
        self.connected.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            connected: Arc::new(watch::Sender::new(0)),
            connections: Arc::default(),
            failures: Arc::default(),
            last_failure: Arc::default(),
        }
    }
}

impl Seen {
    /// The hub has said hello to an agent on this connection.
    #[must_use]
    pub fn connected(&self, agent: u64, connection: &Connection) -> Present {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).insert(agent, connection.clone());
        self.connected.send_modify(|count| *count += 1);
        Present { connected: Arc::clone(&self.connected) }
    }

    /// An attempt or a session failed.
    pub fn failed(&self, error: &anyhow::Error) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = format!("{error:#}");
    }

    /// Attempts and sessions that failed, and the last reason.
    #[must_use]
    pub fn failures(&self) -> (u64, String) {
        let last = self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.failures.load(Ordering::Relaxed), last)
    }

    /// Waits until so many agents have had a session since [`Self::begin`], and so many sessions are up.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn wait(&self, count: usize, within: Duration) -> Result<()> {
        let mut connected = self.connected.subscribe();
        let agents = || self.connections.lock().unwrap_or_else(PoisonError::into_inner).len();
        let waiting = connected.wait_for(|connected| *connected >= count && agents() >= count);
        let waited = tokio::time::timeout(within, waiting).await.map(|found| found.is_ok());
        if waited == Ok(true) {
            return Ok(());
        }
        let (failures, last) = self.failures();
        bail!(
            "{} of {count} sessions, {} agents; {failures} failures, the last: {last}",
            *self.connected.borrow(),
            agents()
        )
    }

    /// Forgets connections; what follows is counted anew.
    pub fn begin(&self) {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.failures.store(0, Ordering::Relaxed);
    }

    /// Bytes that agents sent and received on the connections since [`Self::begin`], UDP payload.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.values().map(Connection::traffic).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

/// Enrolled agents; run by [`Crowd::start`].
#[derive(Debug)]
pub struct Crowd {
    agents: Vec<Agent>,
    dialers: Vec<Dialer>,
}

impl Crowd {
    /// Registers clusters and enrols an agent for each.
    ///
    /// # Errors
    /// When the hubs do not take one.
    pub async fn enrol(group: &Group, count: usize) -> Result<Self> {
        let sockets = count.div_ceil(AGENTS_PER_SOCKET).max(1);
        let dialers = (0..sockets).map(|_| Ok(Dialer::bind(Tuning::default())?)).collect::<Result<Vec<_>>>()?;
        let agents = stream::iter(0..count)
            .map(|number| {
                let dialer = dialers.get(number / AGENTS_PER_SOCKET).cloned();
                async move { enrol(group, dialer.context("a socket for each agent")?, number).await }
            })
            .buffered(AT_A_TIME)
            .try_collect()
            .await?;
        Ok(Self { agents, dialers })
    }

    /// Runs all agents until the result is dropped.
    #[must_use]
    pub fn start(self, seen: &Seen) -> JoinSet<()> {
        let mut running = JoinSet::new();
        for (number, agent) in self.agents.into_iter().enumerate() {
            if let Some(dialer) = self.dialers.get(number / AGENTS_PER_SOCKET) {
                running.spawn(agent.run(dialer.clone(), seen.clone()));
            }
        }
        running
    }
}

async fn enrol(group: &Group, dialer: Dialer, number: usize) -> Result<Agent> {
    let name = format!("load-{number}");
    let cluster = json!({"apiVersion": "windlass.io/v1alpha1", "kind": "Cluster", "metadata": {"name": name}});
    group.must(Method::POST, CLUSTERS, Some(&cluster)).await?;
    let token = group.must(Method::POST, &format!("{CLUSTERS}/{name}/token"), Some(&json!({}))).await?;
    let text = |pointer: &str| token.pointer(pointer).and_then(Value::as_str).context("a token without it");
    let pin = text("/status/rootPin")?.parse()?;
    let number = u64::try_from(number).unwrap_or(u64::MAX);
    Agent::enrol(&dialer, group.agents(), text("/status/token")?, pin, number).await
}
