//! Clients that read and write without a pause while faults happen, and what must be true of all that they did.
//!
//! Two kinds of keys: a few registers that all clients fight over, whose history is checked for linearizability; and a ledger
//! of entries that are written once and must be there for ever once acknowledged.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::Method;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    api::{Access, Answer, Api},
    group::Group,
    history::{Acknowledgement, Recorder},
    linearizable,
    register::{COLLECTION, Ended, LABEL, RegisterClient, Seen, ledger_entry, seen},
};
use crate::host::{WAIT_DEADLINE, wait_until};

/// Registers that are fought over at a time: few enough that clients meet.
const REGISTERS: u64 = 4;
/// Of 1,000 steps so many write an entry of the ledger.
const LEDGER_PER_MILLE: u64 = 100;
/// Of 1,000 steps on a register so many read it although its content is known.
const READ_PER_MILLE: u64 = 450;
/// Of 1,000 changes so many delete.
const DELETE_PER_MILLE: u64 = 80;

/// Running clients. Dropping it ends them.
#[derive(Debug)]
pub struct Workload {
    shared: Arc<Shared>,
    clients: JoinSet<Result<()>>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    recorder: Arc<Recorder>,
    /// Registers are new in each: a history of bounded length is checked fast.
    generation: AtomicU64,
    /// Acknowledged entries of the ledger with their value.
    ledger: Mutex<BTreeMap<String, u64>>,
}

impl Workload {
    /// Starts so many clients.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn start(access: &Access, clients: usize, seed: u64) -> Result<Self> {
        let shared = Arc::new(Shared {
            recorder: Arc::new(Recorder::default()),
            generation: AtomicU64::new(0),
            ledger: Mutex::default(),
        });
        let (mut set, stop) = (JoinSet::new(), CancellationToken::new());
        for number in 0..clients {
            let register = RegisterClient::new(number, access.connect()?, Arc::clone(&shared.recorder), seed);
            set.spawn(run(register, number, Arc::clone(&shared), stop.clone()));
        }
        Ok(Self { shared, clients: set, stop })
    }

    /// What the clients did so far.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.shared.recorder
    }

    /// Another client of the same history, for what the running ones do not do.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn client(&self, access: &Access, number: usize) -> Result<RegisterClient> {
        Ok(RegisterClient::new(number, access.connect()?, Arc::clone(&self.shared.recorder), number as u64))
    }

    /// From now on other registers are fought over.
    pub fn next_generation(&self) {
        self.shared.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for an acknowledged write that was sent after a moment; gives the time from then to its answer.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn acknowledged_after(&self, moment: Instant) -> Result<Duration> {
        wait_until(WAIT_DEADLINE, "an acknowledged write", async || Ok(self.recorder().next_acknowledged(moment))).await
    }

    /// Lets the clients finish what they are at.
    ///
    /// # Errors
    /// When a client ended badly.
    pub async fn finish(&mut self) -> Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.context("a client ended badly")??;
        }
        Ok(())
    }

    /// Every linearity violation, as one error.
    ///
    /// # Errors
    /// When the history is not linearizable.
    pub fn check_history(&self) -> Result<usize> {
        let history = self.recorder().operations();
        let violations = linearizable::check(&history);
        let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
        ensure!(lines.is_empty(), "the history is not linearizable: {}", lines.join("\n"));
        Ok(history.values().map(Vec::len).sum())
    }

    /// Every acknowledged entry of the ledger is there, by a linearizable list of one hub.
    ///
    /// # Errors
    /// Which are lost.
    pub async fn check_ledger(&self, api: &Api, hub: usize) -> Result<usize> {
        // Taken before the list: what is acknowledged later may be missing in it.
        let wanted = self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let there = wait_until(WAIT_DEADLINE, "a linearizable list", async || list(api, hub).await.map(Some)).await?;
        let lost: Vec<&String> = wanted
            .iter()
            .filter(|(name, value)| there.get(*name).is_none_or(|seen| seen.value != **value))
            .map(|(name, _)| name)
            .collect();
        ensure!(lost.is_empty(), "{} of {} acknowledged entries are lost: {lost:?}", lost.len(), wanted.len());
        Ok(wanted.len())
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// All replicas of a group hold the same objects at the same revision, each by its own word. For a quiet group.
///
/// # Errors
/// Where they differ.
pub async fn same_everywhere(group: &Group) -> Result<usize> {
    wait_until(WAIT_DEADLINE, "equal replicas", async || {
        let mut all = Vec::new();
        for hub in 0..group.size() {
            // Version 0: whatever this hub has.
            let path = format!("{COLLECTION}?labelSelector={LABEL}&resourceVersion=0");
            let items = group.api().get(hub, &path).await?.get("items").cloned().unwrap_or_default();
            all.push(items);
        }
        let first = all.first().context("no hub")?;
        for (hub, items) in all.iter().enumerate() {
            ensure!(items == first, "hub {} differs from hub 1: {}", hub + 1, difference(first, items));
        }
        state_hashes(group).await?;
        Ok(Some(first.as_array().map_or(0, Vec::len)))
    })
    .await
}

/// The hubs' own hashes of their states, as far as two are of the same entry.
async fn state_hashes(group: &Group) -> Result<()> {
    let status = group.api().status(0).await?;
    let mut hashes: BTreeMap<u64, (u64, String)> = BTreeMap::new();
    for hub in status.get("hubs").and_then(Value::as_array).into_iter().flatten() {
        let hash = hub.pointer("/stateHash/hash").and_then(Value::as_str);
        let index = hub.pointer("/stateHash/applied").and_then(Value::as_u64);
        let node = hub.get("node").and_then(Value::as_u64).unwrap_or_default();
        if let (Some(hash), Some(index)) = (hash, index) {
            let (other, first) = hashes.entry(index).or_insert_with(|| (node, hash.to_owned()));
            ensure!(first == hash, "nodes {other} and {node} hash entry {index} differently");
        }
    }
    Ok(())
}

fn difference(first: &Value, other: &Value) -> String {
    let named = |items: &Value| -> BTreeMap<String, Option<Seen>> {
        let items = items.as_array().into_iter().flatten();
        items.map(|item| (name(item).to_owned(), seen(item))).collect()
    };
    let (first, other) = (named(first), named(other));
    let names = first.keys().chain(other.keys());
    let differing = names.filter(|name| first.get(*name) != other.get(*name)).take(5);
    let lines: Vec<String> =
        differing.map(|name| format!("{name}: {:?} and {:?}", first.get(name), other.get(name))).collect();
    lines.join("; ")
}

async fn list(api: &Api, hub: usize) -> Result<BTreeMap<String, Seen>> {
    let path = format!("{COLLECTION}?labelSelector={LABEL}");
    match api.send(hub, Method::GET, &path, None).await {
        Answer::Ok { label: Some(label), .. } => bail!("the list is labelled {label}"),
        Answer::Ok { body, label: None } => {
            let items = body.get("items").and_then(Value::as_array).context("a list without items")?;
            Ok(items.iter().filter_map(|item| Some((name(item).to_owned(), seen(item)?))).collect())
        }
        other => bail!("{other:?}"),
    }
}

fn name(object: &Value) -> &str {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

async fn run(mut client: RegisterClient, number: usize, shared: Arc<Shared>, stop: CancellationToken) -> Result<()> {
    let mut known: BTreeMap<String, Seen> = BTreeMap::new();
    let mut entries = 0_u64;
    while !stop.is_cancelled() {
        if client.random().chance(LEDGER_PER_MILLE) {
            entries += 1;
            write_entry(&mut client, &shared, format!("ledger-{number}-{entries}")).await?;
            continue;
        }
        let generation = shared.generation.load(Ordering::Relaxed);
        let key = format!("register-{generation}-{}", client.random().below(REGISTERS));
        let ended = match known.remove(&key) {
            Some(seen) if !client.random().chance(READ_PER_MILLE) => {
                if client.random().chance(DELETE_PER_MILLE) {
                    client.delete(&key, &seen).await
                } else {
                    client.swap(&key, &seen).await
                }
            }
            _ => match client.read(&key).await {
                Ended::Known(None) => client.create(&key).await,
                read => read,
            },
        };
        if let Ended::Known(Some(seen)) = ended {
            known.insert(key, seen);
        }
    }
    Ok(())
}

/// Writes an entry once; whoever gets no answer writes the next one.
async fn write_entry(client: &mut RegisterClient, shared: &Shared, name: String) -> Result<()> {
    let (value, body) = ledger_entry(client, &name);
    let sent = Instant::now();
    match client.post(&body).await {
        Answer::Ok { .. } => {
            shared.recorder.acknowledge(Acknowledgement { sent, answered: Instant::now() });
            shared.ledger.lock().unwrap_or_else(PoisonError::into_inner).insert(name, value);
        }
        Answer::Refused { code, reason, message, .. } => bail!("{name} refused with {code} {reason}: {message}"),
        Answer::NotDone(_) | Answer::Unknown(_) => client.elsewhere(0).await,
    }
    Ok(())
}
