//! Following Applications: the newest version of each whenever one changes.
//!
//! A watch is the signal and a period the safety net, so that a watch that breaks, or that a hub cuts off, costs seconds
//! and no answer. A hub that restarts in between is waited for; a token that is refused is not.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    time::Duration,
};

use anyhow::Result;
use futures::{Stream, StreamExt as _, stream::SelectAll};
use kube::{
    api::DynamicObject,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};
use serde_json::Value;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use windlass_protocol::resource::Kind;

use crate::{
    client::{ApiError, Client, Query, path},
    output::Output,
};

/// Namespace and name.
pub(crate) type Key = (String, String);

/// Follows objects of one kind.
pub(crate) struct Follow {
    client: Client,
    kind: Kind,
    keys: BTreeSet<Key>,
    events: SelectAll<Pin<Box<dyn Stream<Item = Signal> + Send>>>,
    period: Interval,
    failing_since: Option<Instant>,
    complained: bool,
}

/// Something happened.
struct Signal {
    namespace: String,
    event: Result<Event<DynamicObject>, watcher::Error>,
}

/// What is known now: `None` for an object that is gone.
pub(crate) type News = BTreeMap<Key, Option<Value>>;

impl Follow {
    /// Begins to follow. The first [`Follow::next`] gives every object.
    pub(crate) fn new(client: &Client, kind: Kind, keys: BTreeSet<Key>) -> Self {
        let mut names: BTreeMap<&String, Vec<&String>> = BTreeMap::new();
        for (namespace, name) in &keys {
            names.entry(namespace).or_default().push(name);
        }
        let mut events = SelectAll::new();
        for (namespace, names) in names {
            let mut config = watcher::Config::default();
            if let [only] = names.as_slice() {
                config = config.fields(&format!("metadata.name={only}"));
            }
            let stream = watcher::watcher(client.api(kind, namespace), config).default_backoff();
            let namespace = namespace.clone();
            let stream = stream.map(move |event| Signal { namespace: namespace.clone(), event });
            events.push(Box::pin(stream) as Pin<Box<dyn Stream<Item = Signal> + Send>>);
        }
        let mut period = tokio::time::interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { client: client.clone(), kind, keys, events, period, failing_since: None, complained: false }
    }

    /// Waits for news.
    ///
    /// # Errors
    /// The hub refuses, or could not be reached for [`PATIENCE`].
    pub(crate) async fn next(&mut self, output: &mut Output) -> Result<News> {
        loop {
            tokio::select! {
                _ = self.period.tick() => match self.read().await {
                    Ok(news) => {
                        self.failing_since = None;
                        return Ok(news);
                    }
                    Err(error) => self.bear(error, output)?,
                },
                Some(signal) = self.events.next() => {
                    let news = self.digest(signal);
                    if !news.is_empty() {
                        return Ok(news);
                    }
                }
            }
        }
    }

    async fn read(&self) -> Result<News, ApiError> {
        let mut news = News::new();
        if self.keys.len() <= GETS {
            for (namespace, name) in &self.keys {
                let found = self.client.find(&path(self.kind, Some(namespace), Some(name))).await?;
                news.insert((namespace.clone(), name.clone()), found);
            }
            return Ok(news);
        }
        let namespaces: BTreeSet<&String> = self.keys.iter().map(|(namespace, _)| namespace).collect();
        for namespace in namespaces {
            for object in self.client.list(self.kind, Some(namespace), &Query::default()).await? {
                let name = windlass_protocol::json::text(&object, &["metadata", "name"]).to_owned();
                news.insert((namespace.clone(), name), Some(object));
            }
        }
        news.retain(|key, _| self.keys.contains(key));
        for key in &self.keys {
            news.entry(key.clone()).or_insert(None);
        }
        Ok(news)
    }

    fn digest(&self, signal: Signal) -> News {
        let (object, gone) = match signal.event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => (object, false),
            Ok(Event::Delete(object)) => (object, true),
            Ok(Event::Init | Event::InitDone) => return News::new(),
            // The period reads what the watch misses, and tells when the hub does not answer at all.
            Err(_) => return News::new(),
        };
        let key = (signal.namespace, object.metadata.name.clone().unwrap_or_default());
        if !self.keys.contains(&key) {
            return News::new();
        }
        let value = if gone { None } else { serde_json::to_value(object).ok() };
        News::from([(key, value)])
    }

    fn bear(&mut self, error: ApiError, output: &mut Output) -> Result<()> {
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if !error.is_passing() || since.elapsed() > PATIENCE {
            return Err(error.into());
        }
        self.complain(&format!("{error}; trying again"), output);
        self.period.reset_after(AGAIN);
        Ok(())
    }

    fn complain(&mut self, text: &str, output: &mut Output) {
        if !std::mem::replace(&mut self.complained, true) {
            output.say(format!("Warning: {text}"));
        }
    }
}

impl std::fmt::Debug for Follow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follow").field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// How often everything is read afresh.
const PERIOD: Duration = Duration::from_secs(5);
/// How soon it is tried again when the hub does not answer.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a hub may be away: longer than an election and a restart.
const PATIENCE: Duration = Duration::from_secs(90);
/// More objects than this are listed instead of fetched one by one.
const GETS: usize = 8;
