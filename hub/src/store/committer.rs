//! The one thread that writes: group commit.
//!
//! It takes what is queued, applies it in order, flushes the database, syncs the database file through a handle of its
//! own (the flush is not a sync), moves the acknowledgement marker, and only then completes the callers. The
//! database's own asynchronous flush is never used: it deadlocks under load.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use super::marker::Marker;
use super::{Completion, DATABASE, META, Opened, StoreError, disk, record};

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
        self.operations
            .iter()
            .try_for_each(|operation| record::check(&operation.key, operation.content.as_deref().unwrap_or_default()))
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

#[derive(Debug)]
struct Operation {
    tree: &'static str,
    key: Vec<u8>,
    content: Option<Vec<u8>>,
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
    directory: PathBuf,
    /// Newest acknowledged commit by the marker, and newest commit in the database, both when it was opened.
    at_open: (u64, u64),
}

impl Committer {
    pub(super) fn start(
        directory: &Path,
        opened: Arc<RwLock<Option<Opened>>>,
        queue_commits: usize,
    ) -> Result<Self, StoreError> {
        let marker = Marker::open(directory)?;
        let commit = read_commit(&opened)?;
        let at_open = (marker.last(), commit);
        let database = directory.join(DATABASE);
        let path = database.join("db");
        let file = File::options().read(true).write(true).open(&path).map_err(StoreError::io("open", &path))?;
        let (queue, requests) = mpsc::channel(queue_commits.max(1));
        let writer = Writer { opened, file, path, overflow: database.join("blobs"), marker, commit, failure: None };
        let thread = std::thread::Builder::new()
            .name("store-committer".into())
            .spawn(move || writer.run(requests))
            .map_err(StoreError::io("start the committer of", directory))?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)), directory: directory.into(), at_open })
    }

    pub(super) fn check_marker(&self) -> Result<(), StoreError> {
        let (acknowledged, found) = self.at_open;
        if found < acknowledged {
            return Err(StoreError::LostCommits { directory: self.directory.clone(), found, acknowledged });
        }
        Ok(())
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
    opened: Arc<RwLock<Option<Opened>>>,
    file: File,
    path: PathBuf,
    overflow: PathBuf,
    marker: Marker,
    commit: u64,
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
        if let Err(error) = self.flush().and_then(|()| self.marker.sync()) {
            tracing::error!(error = &error as &dyn std::error::Error, "the last flush of the store failed");
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
        match self.write(&group, synced) {
            Ok(()) => group.into_iter().for_each(|request| (request.done)(Ok(()))),
            Err(error) => {
                let reason = describe(&error);
                tracing::error!(reason, "the store stops: a write failed");
                self.failure = Some(reason.clone());
                for request in group {
                    (request.done)(Err(StoreError::Stopped { reason: reason.clone() }));
                }
            }
        }
    }

    fn write(&mut self, group: &VecDeque<Request>, synced: bool) -> Result<(), StoreError> {
        {
            let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
            let db = &opened.as_ref().ok_or(StoreError::Closed)?.db;
            for operation in group.iter().flat_map(|request| &request.batch.operations) {
                match &operation.content {
                    Some(content) => record::put(db, operation.tree, &operation.key, content)?,
                    None => record::remove(db, operation.tree, &operation.key)?,
                }
            }
            if synced {
                record::put(db, META, COMMIT, &(self.commit + 1).to_be_bytes())?;
            }
        }
        if synced {
            self.flush()?;
            self.commit += 1;
            self.marker.write(self.commit)?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        {
            let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
            let db = &opened.as_ref().ok_or(StoreError::Closed)?.db;
            db.flush().map_err(|error| StoreError::from_database(&self.path, error))?;
        }
        self.file.sync_data().map_err(StoreError::io("sync", &self.path))?;
        self.sync_overflow()
    }

    /// No page should ever be large enough to land in a file of its own. Should one all the same, that file is synced
    /// before anything is acknowledged, and said so.
    fn sync_overflow(&self) -> Result<(), StoreError> {
        let mut entries = match std::fs::read_dir(&self.overflow) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(StoreError::io("list", &self.overflow)(error)),
        };
        if entries.next().is_some() {
            let files = disk::sync_files(&self.overflow)?;
            tracing::warn!(files, "the database wrote pages beside its file; they were synced");
        }
        Ok(())
    }
}

fn read_commit(opened: &RwLock<Option<Opened>>) -> Result<u64, StoreError> {
    let opened = opened.read().unwrap_or_else(PoisonError::into_inner);
    let db = &opened.as_ref().ok_or(StoreError::Closed)?.db;
    match record::get(db, META, COMMIT)? {
        Some(bytes) => {
            let bytes = <[u8; 8]>::try_from(bytes)
                .map_err(|_| StoreError::Damaged { what: "the commit number of the store".into() })?;
            Ok(u64::from_be_bytes(bytes))
        }
        None => Ok(0),
    }
}

fn describe(error: &StoreError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

const COMMIT: &[u8] = b"commit";
/// Most commits in one group. Beyond a few hundred the sync is no longer what costs.
const GROUP_COMMITS: usize = 256;
/// Most bytes in one group: bounds how long the first caller waits for the last.
const GROUP_BYTES: usize = 8 << 20;
