//! The one thread that writes: group commit.
//!
//! It takes what is queued, writes it in order as one frame of the journal, syncs it, moves the acknowledgement marker,
//! and only then completes the callers.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use super::journal::Journal;
use super::marker::Marker;
use super::{Completion, StoreError, SyncHook};

/// Writes that are applied together and in order. A crash keeps a prefix of them: order them so that every prefix is
/// sound.
#[derive(Debug, Default)]
pub struct Batch {
    operations: Vec<Operation>,
    bytes: usize,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes `content` under `key`, replacing what is there.
    pub fn put(&mut self, tree: &'static str, key: &[u8], content: Vec<u8>) {
        self.bytes += key.len() + content.len();
        self.operations.push(Operation { tree, key: key.to_vec(), content: Some(content) });
    }

    /// What a record may not be is found before it is queued: a refused batch must not stop the store.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        for operation in &self.operations {
            let size = operation.content.as_deref().unwrap_or_default().len();
            check_size("the name of a tree", operation.tree.len(), "store.tree_bytes", TREE_MAX)?;
            check_size("the key of a record", operation.key.len(), "store.key_bytes", KEY_MAX)?;
            check_size("a record", size, "store.record_bytes", RECORD_MAX)?;
        }
        check_size("a batch", self.bytes, "store.batch_bytes", BATCH_MAX)
    }

    pub(super) fn into_operations(self) -> Vec<Operation> {
        self.operations
    }

    /// Removes `key`.
    pub fn remove(&mut self, tree: &'static str, key: &[u8]) {
        self.bytes += key.len();
        self.operations.push(Operation { tree, key: key.to_vec(), content: None });
    }
}

/// When a commit counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On disk.
    Synced,
    /// Applied in order, readable, and on disk no later than the next synced commit.
    Ordered,
}

/// One write or removal.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) tree: &'static str,
    pub(super) key: Vec<u8>,
    pub(super) content: Option<Vec<u8>>,
}

pub(super) struct Request {
    batch: Batch,
    durability: Durability,
    done: Completion,
}

impl Request {
    pub(super) fn new(batch: Batch, durability: Durability, done: Completion) -> Self {
        Self { batch, durability, done }
    }
}

enum Message {
    Commit(Request),
    Stop,
}

pub(super) struct Committer {
    queue: mpsc::Sender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Committer {
    pub(super) fn start(
        directory: &Path,
        journal: Journal,
        marker: Marker,
        before_sync: Option<SyncHook>,
        queue_commits: usize,
    ) -> Result<Self, StoreError> {
        let (queue, requests) = mpsc::channel(queue_commits.max(1));
        let writer = Writer { journal, marker, before_sync, failure: None };
        let thread = std::thread::Builder::new()
            .name("store-committer".into())
            .spawn(move || writer.run(requests))
            .map_err(StoreError::io("start the committer of", directory))?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }

    pub(super) async fn submit(&self, request: Request) -> Result<(), StoreError> {
        self.queue.send(Message::Commit(request)).await.map_err(|_| StoreError::Closed)
    }

    pub(super) fn submit_blocking(&self, request: Request) -> Result<(), StoreError> {
        // Not `blocking_send`, which panics inside of a runtime: a short commit there is slow, not fatal.
        let mut message = Message::Commit(request);
        loop {
            match self.queue.try_send(message) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(StoreError::Closed),
                Err(mpsc::error::TrySendError::Full(back)) => message = back,
            }
            std::thread::yield_now();
        }
    }

    pub(super) fn stop(&self) {
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let mut message = Message::Stop;
        while let Err(mpsc::error::TrySendError::Full(back)) = self.queue.try_send(message) {
            message = back;
            std::thread::yield_now();
        }
        // A completion may hold the last handle of the store; the thread must not wait for itself.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!("store committer panicked");
        }
    }
}

struct Writer {
    journal: Journal,
    marker: Marker,
    before_sync: Option<SyncHook>,
    failure: Option<String>,
}

impl Writer {
    fn run(mut self, mut requests: mpsc::Receiver<Message>) {
        let mut stop = false;
        while !stop {
            let Some(first) = requests.blocking_recv() else {
                break;
            };
            let mut group = VecDeque::new();
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(message) = next.take() {
                match message {
                    Message::Commit(request) => {
                        bytes += request.batch.bytes;
                        group.push_back(request);
                    }
                    Message::Stop => {
                        stop = true;
                        requests.close();
                    }
                }
                if group.len() < GROUP_COMMITS && bytes < GROUP_BYTES {
                    next = requests.try_recv().ok();
                }
            }
            self.commit_group(group);
        }
        if self.failure.is_none() && self.journal.has_waiting() {
            self.commit_group(VecDeque::from([Request::new(Batch::new(), Durability::Synced, Box::new(|_| ()))]));
        }
        if let Err(error) = self.marker.sync() {
            tracing::error!(error = &error as &dyn std::error::Error, "the last sync of the store failed");
        }
    }

    fn commit_group(&mut self, group: VecDeque<Request>) {
        if let Some(reason) = &self.failure {
            for request in group {
                (request.done)(Err(StoreError::Stopped { reason: reason.clone() }));
            }
            return;
        }
        let synced = group.iter().any(|request| request.durability == Durability::Synced);
        let mut operations = Vec::new();
        let mut waiting = Vec::new();
        for request in group {
            operations.extend(request.batch.into_operations());
            waiting.push(request.done);
        }
        match self.write(operations, synced) {
            Ok(()) => waiting.into_iter().for_each(|done| done(Ok(()))),
            Err(error) => {
                let reason = describe(&error);
                tracing::error!(reason, "the store stops: a write failed");
                self.failure = Some(reason.clone());
                for done in waiting {
                    done(Err(StoreError::Stopped { reason: reason.clone() }));
                }
            }
        }
    }

    fn write(&mut self, operations: Vec<Operation>, synced: bool) -> Result<(), StoreError> {
        if !synced {
            self.journal.apply(operations);
            return Ok(());
        }
        self.journal.commit(operations, self.before_sync.as_ref())?;
        self.marker.write(self.journal.sequence())
    }
}

fn describe(error: &StoreError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn check_size(what: &'static str, size: usize, limit: &'static str, maximum: usize) -> Result<(), StoreError> {
    if size > maximum {
        return Err(StoreError::TooLarge { what, size, limit, maximum });
    }
    Ok(())
}

const TREE_MAX: usize = 64;
const KEY_MAX: usize = 256;
/// A log entry (1 MiB) with room for its frame.
const RECORD_MAX: usize = 2 << 20;
/// Batches share frames, and a frame is written at once.
const BATCH_MAX: usize = 64 << 20;
/// Most commits in one group. Beyond a few hundred the sync is no longer what costs.
const GROUP_COMMITS: usize = 256;
/// Most bytes in one group: bounds how long the first caller waits for the last.
const GROUP_BYTES: usize = 8 << 20;
