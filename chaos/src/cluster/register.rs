//! Registers in the hub's API: a ConfigMap each, replaced under its `resourceVersion`, made and deleted.
//!
//! A client does here what a careful real one does: it goes to another hub when one does not answer, repeats only what is
//! safe to repeat (a replacement or deletion that names the version it is about), and says so when it does not know whether
//! a write took effect.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    api::{Answer, Api},
    history::{Acknowledgement, Action, Operation, Outcome, Recorder},
};
use crate::sim::Random;

/// Attempts of one operation before its client gives up: with the longest pause below they outlast an election many times.
const ATTEMPTS_MAX: u32 = 40;
/// Pause before another hub is asked, growing to the second value.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// Label of every register.
pub const LABEL: &str = "chaos.windlass.io/register";

/// A register's content with the version that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it holds.
    pub value: u64,
    /// `metadata.resourceVersion`.
    pub version: String,
}

/// A client of registers: records everything that it does.
#[derive(Debug)]
pub struct RegisterClient {
    number: usize,
    api: Api,
    recorder: Arc<Recorder>,
    random: Random,
    hub: usize,
    values: u64,
}

/// How an operation ended, for its own client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It took effect, or was read; this is there now.
    Known(Option<Seen>),
    /// What is there is not what the client thought, or nobody knows: read again.
    Lost,
}

/// What a read at one hub is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The hub vouches for it.
    Linearizable,
    /// The hub says that it may be behind.
    Labelled,
    /// There was no answer.
    Nothing,
}

impl RegisterClient {
    /// The client `number`, which starts at a hub of its own.
    #[must_use]
    pub fn new(number: usize, api: Api, recorder: Arc<Recorder>, seed: u64) -> Self {
        let hub = number % api.hubs().max(1);
        Self { number, api, recorder, random: Random::new(seed ^ (number as u64) << 40), hub, values: 0 }
    }

    /// Chance of this client.
    pub(crate) fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// One `POST` to the hub that this client is at.
    pub(super) async fn post(&self, body: &Value) -> Answer {
        self.api.send(self.hub, Method::POST, COLLECTION, Some(body)).await
    }

    /// Reads a register; nothing is said when no hub gives a linearizable answer.
    pub async fn read(&mut self, key: &str) -> Ended {
        let path = path(key);
        for attempt in 0..ATTEMPTS_MAX {
            let sent = Instant::now();
            let seen = match self.api.send(self.hub, Method::GET, &path, None).await {
                Answer::Ok { label: Some(_), .. } | Answer::Refused { label: Some(_), .. } => {
                    self.recorder.labelled();
                    self.elsewhere(attempt).await;
                    continue;
                }
                Answer::Ok { body, label: None } => seen(&body),
                Answer::Refused { code: 404, .. } => None,
                Answer::Refused { .. } | Answer::NotDone(_) | Answer::Unknown(_) => {
                    self.elsewhere(attempt).await;
                    continue;
                }
            };
            let outcome = Outcome::Saw(seen.as_ref().map(|seen| seen.value));
            self.record(key, Action::Read, outcome, sent);
            return Ended::Known(seen);
        }
        self.recorder.abandon();
        Ended::Lost
    }

    /// Makes a register. Not repeated when the outcome is unknown: it could be made, deleted by another, and made again.
    pub async fn create(&mut self, key: &str) -> Ended {
        let value = self.fresh();
        let body = object(key, value, None);
        for attempt in 0..ATTEMPTS_MAX {
            let sent = Instant::now();
            match self.post(&body).await {
                Answer::Ok { body, .. } => return self.done(key, Action::Create(value), sent, sent, seen(&body)),
                Answer::Refused { reason, .. } if reason == "AlreadyExists" => {
                    self.record(key, Action::Create(value), Outcome::Refused, sent);
                    return Ended::Lost;
                }
                Answer::Unknown(_) => {
                    self.record(key, Action::Create(value), Outcome::Unknown, sent);
                    self.elsewhere(attempt).await;
                    return Ended::Lost;
                }
                Answer::NotDone(_) | Answer::Refused { .. } => self.elsewhere(attempt).await,
            }
        }
        self.recorder.abandon();
        Ended::Lost
    }

    /// Replaces the content of a register that was seen.
    pub async fn swap(&mut self, key: &str, expected: &Seen) -> Ended {
        let value = self.fresh();
        let body = object(key, value, Some(&expected.version));
        let action = Action::Swap { expected: expected.value, value };
        self.change(key, action, Method::PUT, &body).await
    }

    /// Deletes a register that was seen.
    pub async fn delete(&mut self, key: &str, expected: &Seen) -> Ended {
        let body = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"resourceVersion": expected.version},
        });
        self.change(key, Action::Delete(expected.value), Method::DELETE, &body).await
    }

    /// A change that names a version: repeating it is safe, since the version never comes back.
    async fn change(&mut self, key: &str, action: Action, method: Method, body: &Value) -> Ended {
        let (path, invoked) = (path(key), Instant::now());
        let mut open = false;
        for attempt in 0..ATTEMPTS_MAX {
            let sent = Instant::now();
            match self.api.send(self.hub, method.clone(), &path, Some(body)).await {
                Answer::Ok { body, .. } => {
                    let now = if method == Method::DELETE { None } else { seen(&body) };
                    return self.done(key, action, invoked, sent, now);
                }
                Answer::Refused { code: 404 | 409, .. } => {
                    // After an attempt without an answer the refusal may be about our own success.
                    let outcome = if open { Outcome::Unknown } else { Outcome::Refused };
                    self.record(key, action, outcome, invoked);
                    return Ended::Lost;
                }
                Answer::Unknown(_) => open = true,
                Answer::NotDone(_) | Answer::Refused { .. } => {}
            }
            self.elsewhere(attempt).await;
        }
        if open {
            self.record(key, action, Outcome::Unknown, invoked);
        }
        self.recorder.abandon();
        Ended::Lost
    }

    /// One read at one hub only; says whether it was linearizable. What it saw is part of the history then.
    pub async fn read_at(&mut self, hub: usize, key: &str) -> Trust {
        let sent = Instant::now();
        let seen = match self.api.send(hub, Method::GET, &path(key), None).await {
            Answer::Ok { label: Some(_), .. } | Answer::Refused { label: Some(_), .. } => {
                self.recorder.labelled();
                return Trust::Labelled;
            }
            Answer::Ok { body, label: None } => seen(&body),
            Answer::Refused { code: 404, .. } => None,
            Answer::Refused { .. } | Answer::NotDone(_) | Answer::Unknown(_) => return Trust::Nothing,
        };
        self.record(key, Action::Read, Outcome::Saw(seen.map(|seen| seen.value)), sent);
        Trust::Linearizable
    }

    /// One replacement sent to one hub only; recorded with its outcome.
    pub async fn swap_at(&mut self, hub: usize, key: &str, expected: &Seen) -> Outcome {
        let (sent, value) = (Instant::now(), self.fresh());
        let body = object(key, value, Some(&expected.version));
        let outcome = match self.api.send(hub, Method::PUT, &path(key), Some(&body)).await {
            Answer::Ok { .. } => Outcome::Done,
            Answer::Refused { code: 404 | 409, .. } => Outcome::Refused,
            Answer::Refused { .. } | Answer::NotDone(_) => return Outcome::Refused,
            Answer::Unknown(_) => Outcome::Unknown,
        };
        self.record(key, Action::Swap { expected: expected.value, value }, outcome, sent);
        outcome
    }

    fn done(&self, key: &str, action: Action, invoked: Instant, sent: Instant, now: Option<Seen>) -> Ended {
        self.record(key, action, Outcome::Done, invoked);
        self.recorder.acknowledge(Acknowledgement { sent, answered: Instant::now() });
        Ended::Known(now)
    }

    fn record(&self, key: &str, action: Action, outcome: Outcome, invoked: Instant) {
        let (invoked, returned) = (self.recorder.at(invoked), self.recorder.at(Instant::now()));
        self.recorder.record(key, Operation { client: self.number, action, outcome, invoked, returned });
    }

    /// The next hub, after a pause that grows and is never the same for two clients.
    pub(super) async fn elsewhere(&mut self, attempt: u32) {
        self.recorder.retry();
        self.hub = (self.hub + 1) % self.api.hubs().max(1);
        let most = PAUSE_MIN.saturating_mul(attempt.saturating_add(1)).min(PAUSE_MAX);
        let millis = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        tokio::time::sleep(Duration::from_millis(self.random.between(1, millis))).await;
    }

    /// A value that no other operation writes.
    fn fresh(&mut self) -> u64 {
        self.values += 1;
        (self.number as u64 + 1) << 32 | self.values
    }
}

pub(super) const COLLECTION: &str = "/api/v1/namespaces/default/configmaps";

fn path(key: &str) -> String {
    format!("{COLLECTION}/{key}")
}

fn object(key: &str, value: u64, version: Option<&str>) -> Value {
    let mut metadata = json!({"name": key, "labels": {LABEL: "true"}});
    if let (Some(version), Some(map)) = (version, metadata.as_object_mut()) {
        map.insert("resourceVersion".to_owned(), json!(version));
    }
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"value": value.to_string()}})
}

/// A register that is written once: its value and the object.
pub(super) fn ledger_entry(client: &mut RegisterClient, name: &str) -> (u64, Value) {
    let value = client.fresh();
    (value, object(name, value, None))
}

/// A register as an answer shows it.
#[must_use]
pub fn seen(object: &Value) -> Option<Seen> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    Some(Seen {
        value: text("/data/value").and_then(|value| value.parse().ok())?,
        version: text("/metadata/resourceVersion")?.to_owned(),
    })
}
