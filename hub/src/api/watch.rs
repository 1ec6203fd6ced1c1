//! Watches: a cursor over the event ring per client, read only as fast as the client reads.
//!
//! ```text
//! initial objects -> (bookmark) -> ring after the cursor -> wait for a revision, a bookmark's time or the end -> ...
//! ```
//!
//! Nothing is buffered per watch: a client that is so slow that its cursor leaves the ring gets 410 as an event and lists again.

use std::{collections::VecDeque, fmt::Write as _, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use windlass_hub_core::{Change, ChangeType, ObjectKey, ObjectRecord};
use windlass_protocol::ids::StateRevision;

use super::{
    entry::{ApiServer, Asked},
    error::ApiError,
    media,
    object::View,
    ports::ApiContext,
    read::blocking,
    route::Target,
    selector::Selector,
    table::{Header, Presentation},
};
use crate::{events::Gone, replica::wall_clock};

/// Changes that are written in one go.
const BATCH: usize = 100;
/// Initial objects that are written in one go.
const INITIAL_BATCH: usize = 500;
/// Shortest and longest time of a watch that names none: spread, so that clients do not come back together.
const DEFAULT_SECONDS: std::ops::Range<u64> = 1_800..3_600;

impl ApiServer {
    pub(super) async fn watch(&self, asked: Asked, target: &Target) -> Result<Response<Body>, ApiError> {
        let place = Arc::clone(&self.watches).try_acquire_owned().map_err(|_| {
            let limit = self.context.limits.watches;
            ApiError::too_many_requests(format!("too many watches (limit api.watches = {limit}), try again later"))
        })?;
        let query = &asked.query;
        let presentation = Presentation::new(target.kind, media::form(&asked.headers)?, query, wall_clock())?;
        let mut selector = Selector::parse(target.kind, query.get("labelSelector"), query.get("fieldSelector"))?;
        if let Some(name) = &target.name {
            selector.require_name(name);
        }
        let revision = query.revision()?.filter(|revision| *revision != StateRevision::ZERO);
        let initial = initial(&asked, revision)?;
        if let Some(revision) = revision {
            self.wait_for(revision).await?;
        }
        let limits = &self.context.limits;
        let seconds = DEFAULT_SECONDS.start + (DEFAULT_SECONDS.end - DEFAULT_SECONDS.start) * u64::from(spread()) / 256;
        let time = query.seconds("timeoutSeconds")?.filter(|time| !time.is_zero());
        let time = time.unwrap_or_else(|| Duration::from_secs(seconds)).min(limits.watch_time_max);
        let mut revisions = self.context.replica.machine().revision();
        revisions.mark_changed();
        let (state, _) = self.read_state(Some(revision.unwrap_or_default())).await?;
        let mut watch = Watch {
            context: self.context.clone(),
            presentation,
            selector,
            namespace: target.namespace.clone(),
            cursor: revision.unwrap_or_else(|| state.meta().revision),
            pending: VecDeque::new(),
            end_of_initial: false,
            header: Header::Present,
            bookmarks: query.flag("allowWatchBookmarks"),
            bookmarked_at: Instant::now(),
            revisions,
            deadline: Instant::now() + time,
            stopping: asked.stopping.clone(),
            finished: false,
            _place: place,
        };
        match initial {
            Initial::None => {}
            Initial::Objects | Initial::ObjectsAndBookmark => {
                let namespace = target.namespace.as_deref();
                let objects = state.objects(target.kind, namespace);
                let matching = objects.filter(|(key, record)| watch.selector.matches(key, record));
                watch.pending = matching.map(|(key, record)| (key.clone(), Arc::clone(record))).collect();
                watch.cursor = state.meta().revision;
                watch.end_of_initial = initial == Initial::ObjectsAndBookmark;
            }
        }
        let events = futures::stream::unfold(watch, |mut watch| async move {
            let chunk = watch.next().await?;
            Some((Ok::<Bytes, std::convert::Infallible>(chunk), watch))
        });
        let mut response = Response::new(Body::from_stream(events));
        *response.status_mut() = StatusCode::OK;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        Ok(response)
    }
}

/// What a watch begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Initial {
    /// Only what comes after a revision.
    None,
    /// Everything that is there.
    Objects,
    /// Everything that is there, and a bookmark that says so.
    ObjectsAndBookmark,
}

fn initial(asked: &Asked, revision: Option<StateRevision>) -> Result<Initial, ApiError> {
    let query = &asked.query;
    let matching = query.get("resourceVersionMatch");
    match query.get("sendInitialEvents") {
        Some("true" | "1") => {
            if matching != Some("NotOlderThan") {
                return Err(ApiError::bad_request(
                    "resourceVersionMatch: Required value: sendInitialEvents requires setting resourceVersionMatch to \
                     NotOlderThan",
                ));
            }
            if query.flag("allowWatchBookmarks") { Ok(Initial::ObjectsAndBookmark) } else { Ok(Initial::Objects) }
        }
        Some(_) => Ok(Initial::None),
        None if matching.is_some() => Err(ApiError::bad_request(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is \
             provided",
        )),
        None if revision.is_some() => Ok(Initial::None),
        None => Ok(Initial::Objects),
    }
}

/// One running watch.
struct Watch {
    context: ApiContext,
    presentation: Presentation,
    selector: Selector,
    namespace: Option<String>,
    /// Everything up to here was sent or does not concern this watch.
    cursor: StateRevision,
    /// Initial objects that are still to be sent.
    pending: VecDeque<(ObjectKey, Arc<ObjectRecord>)>,
    /// The bookmark after the initial objects is still to be sent.
    end_of_initial: bool,
    header: Header,
    bookmarks: bool,
    bookmarked_at: Instant,
    revisions: watch::Receiver<StateRevision>,
    deadline: Instant,
    stopping: CancellationToken,
    finished: bool,
    _place: OwnedSemaphorePermit,
}

/// An event before it is written.
struct Event {
    kind: &'static str,
    key: ObjectKey,
    record: Arc<ObjectRecord>,
}

impl Watch {
    /// The next lines; `None` ends the watch.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.finished {
                return None;
            }
            // Many changes may not concern this watch: others must get their turn meanwhile.
            tokio::task::consume_budget().await;
            match self.step().await {
                Ok(Some(chunk)) => return Some(chunk),
                Ok(None) => {}
                Err(error) => {
                    self.finished = true;
                    return Some(line("ERROR", &error.status().to_string()).into());
                }
            }
        }
    }

    async fn step(&mut self) -> Result<Option<Bytes>, ApiError> {
        if !self.pending.is_empty() {
            let count = self.pending.len().min(INITIAL_BATCH);
            let batch = self.pending.drain(..count).map(|(key, record)| Event { kind: "ADDED", key, record }).collect();
            return self.write(batch).await.map(Some);
        }
        if std::mem::take(&mut self.end_of_initial) {
            return Ok(Some(self.bookmark(&json!({"k8s.io/initial-events-end": "true"}))));
        }
        // Marked as seen before the ring is read: a change in between wakes the wait below at once.
        self.revisions.borrow_and_update();
        let (changes, now) = self.read_ring()?;
        if changes.is_empty() {
            self.cursor = self.cursor.max(now);
            return self.wait().await;
        }
        let last = changes.last().map_or(now, |change| change.revision);
        let events: Vec<Event> = changes.iter().filter_map(|change| self.event(change)).collect();
        let chunk = if events.is_empty() { None } else { Some(self.write(events).await?) };
        self.cursor = self.cursor.max(last);
        Ok(chunk)
    }

    /// Changes after the cursor, and the revision up to which that is everything if they are fewer than a batch.
    fn read_ring(&self) -> Result<(Vec<Arc<Change>>, StateRevision), ApiError> {
        let machine = self.context.replica.machine();
        let kind = self.presentation.kind;
        let read = machine.with_events(|ring| {
            // The state is swapped under the ring's lock, so both tell of the same moment.
            let now = machine.state().meta().revision;
            ring.after(kind, self.cursor, BATCH).map(|changes| (changes, now))
        });
        read.map_err(|gone: Gone| ApiError::expired(gone.to_string()))
    }

    /// What a change means to this watch: an object may come into view or leave it.
    fn event(&self, change: &Change) -> Option<Event> {
        if self.namespace.as_ref().is_some_and(|namespace| *namespace != change.key.name.namespace) {
            return None;
        }
        let matches = |record: &ObjectRecord| self.selector.matches(&change.key, record);
        let before = change.previous.as_ref().is_some_and(|previous| matches(previous));
        let after = change.change != ChangeType::Deleted && matches(&change.object);
        let kind = match (before, after) {
            (false, false) => return None,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        Some(Event { kind, key: change.key.clone(), record: Arc::clone(&change.object) })
    }

    /// Sleeps until there may be something; a bookmark where one is due.
    async fn wait(&mut self) -> Result<Option<Bytes>, ApiError> {
        let every = self.context.limits.bookmark_every;
        let bookmark_at = self.bookmarked_at + every;
        tokio::select! {
            changed = self.revisions.changed() => {
                self.finished = changed.is_err();
                Ok(None)
            }
            () = tokio::time::sleep_until(bookmark_at), if self.bookmarks => Ok(Some(self.bookmark(&Value::Null))),
            () = tokio::time::sleep_until(self.deadline) => {
                self.finished = true;
                // Whoever comes back begins where this watch ended.
                Ok(self.bookmarks.then(|| self.bookmark(&Value::Null)))
            }
            () = self.stopping.cancelled() => {
                self.finished = true;
                Ok(None)
            }
        }
    }

    async fn write(&mut self, events: Vec<Event>) -> Result<Bytes, ApiError> {
        let view = View {
            state: self.context.replica.state(),
            sealer: Arc::clone(&self.context.sealer),
            details: Arc::clone(&self.context.details),
        };
        let presentation = self.presentation.at(wall_clock());
        let mut header = std::mem::replace(&mut self.header, Header::Absent);
        let text = blocking(presentation.kind, move || {
            let mut text = String::new();
            for event in events {
                let object = presentation.object(&view, &event.key, &event.record, header)?;
                header = Header::Absent;
                text.push_str(&line(event.kind, &object));
            }
            Ok(text)
        });
        text.await.map(Bytes::from)
    }

    fn bookmark(&mut self, annotations: &Value) -> Bytes {
        self.bookmarked_at = Instant::now();
        let header = std::mem::replace(&mut self.header, Header::Absent);
        let object = self.presentation.bookmark(self.cursor, annotations, header);
        line("BOOKMARK", &object.to_string()).into()
    }
}

fn line(kind: &str, object: &str) -> String {
    let mut text = String::with_capacity(object.len() + 40);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{{\"type\":\"{kind}\",\"object\":{object}}}");
    text
}

/// A cheap number that differs between watches: the low bits of the clock.
fn spread() -> u8 {
    u8::try_from(wall_clock().0 % 256).unwrap_or_default()
}
