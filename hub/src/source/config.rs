//! Limits and periods of the sources; every value has a default and a reason.

use std::{path::PathBuf, time::Duration};

/// Whether repositories on the hub's own disk may be used (`file://` and absolute paths).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalAccess {
    /// Any path the hub process can read.
    Allowed,
    /// Refused with a message; choose this where tenants write their own Applications.
    Refused,
}

/// Settings of [`Sources`](super::Sources).
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// Mirrors live in `<data_dir>/git`.
    pub data_dir: PathBuf,
    /// Time between two polls of a reference; Argo CD's default is the same 120 s.
    pub poll_period: Duration,
    /// Up to this much is added to each period, so that pollers do not march in step.
    pub poll_jitter: Duration,
    /// First wait after a failed poll; doubles up to `poll_period`. Refused credentials wait a full period at once,
    /// because servers lock accounts after a few wrong tries.
    pub retry_delay: Duration,
    /// Remote operations (listing or fetching) that run at one time. More than a few only compete for disk and memory.
    pub max_concurrent: usize,
    /// One listing or fetch must end within this time.
    pub operation_timeout: Duration,
    /// Of each window of waiting on the network, at least `stall_min_bytes` must arrive. Git servers send a keep-alive
    /// every 5 s and progress text while they prepare a pack, so an honest server passes.
    pub stall_window: Duration,
    /// Bytes wanted per `stall_window`.
    pub stall_min_bytes: u64,
    /// A mirror on disk, and so one fetch, may not exceed this.
    pub max_repository_bytes: u64,
    /// A list of references may not exceed this on the wire.
    pub max_listing_bytes: u64,
    /// Largest single object that is decoded at all; protects memory against compressed bombs.
    pub max_object_bytes: u64,
    /// A mirror with more packs is cloned again: lookups slow down with each pack and gix does not repack.
    pub max_packs: usize,
    /// Largest file a [`CommitTree`](super::CommitTree) reads.
    pub max_file_bytes: u64,
    /// Largest number of entries a [`CommitTree`](super::CommitTree) lists.
    pub max_tree_entries: usize,
    /// References polled at one time.
    pub max_pollers: usize,
    /// A broken mirror is cloned again at most once in this time.
    pub rebuild_interval: Duration,
    /// A mirror that nobody used for this long is removed at the next start.
    pub unused_mirror_age: Duration,
    /// Repositories on the local disk.
    pub local: LocalAccess,
}

impl SourceConfig {
    /// The defaults, with mirrors below `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            poll_period: Duration::from_secs(120),
            poll_jitter: Duration::from_secs(60),
            retry_delay: Duration::from_secs(5),
            max_concurrent: 8,
            operation_timeout: Duration::from_secs(600),
            stall_window: Duration::from_secs(60),
            stall_min_bytes: 1024,
            max_repository_bytes: 4 << 30,
            max_listing_bytes: 64 << 20,
            max_object_bytes: 256 << 20,
            max_packs: 200,
            max_file_bytes: 16 << 20,
            max_tree_entries: 200_000,
            max_pollers: 20_000,
            rebuild_interval: Duration::from_secs(600),
            unused_mirror_age: Duration::from_secs(14 * 24 * 3600),
            local: LocalAccess::Allowed,
        }
    }
}
