//! Settings of a Raft node, with their defaults and why.

use std::path::PathBuf;
use std::time::Duration;

/// How a node takes part. All limits are per node.
#[derive(Debug, Clone)]
pub struct RaftConfig {
    /// Folder of the snapshots; made when missing.
    pub snapshots: PathBuf,
    /// The leader says that it lives this often, 100 ms: a lost leader is noticed by three missed beats.
    pub heartbeat: Duration,
    /// A follower without a leader for this long, plus a random part up to `election_max`, stands for election. 300 ms
    /// leaves room for a slow sync and for three lost beats.
    pub election_min: Duration,
    /// 600 ms: the spread makes split votes rare.
    pub election_max: Duration,
    /// A snapshot is made after so many entries, 20,000: bounds the replay at start to seconds.
    pub compact_entries: u64,
    /// A snapshot is made after so many bytes of log, 64 MiB, whichever is first. The log since the snapshot before
    /// the newest one is kept, so that one damaged snapshot can be survived: expect twice this on disk.
    pub compact_bytes: u64,
    /// Largest command, 1 MiB.
    pub command_bytes_max: usize,
    /// Commands proposed here that have no answer yet, 4,096; more are refused as overload.
    pub in_flight_max: usize,
    /// Their bytes, 64 MiB.
    pub in_flight_bytes_max: usize,
    /// A proposal or read without an answer for this long ends as a timeout, 10 s.
    pub answer_timeout: Duration,
    /// A snapshot stream without progress on the receiver's side ends after this long, 60 s; the next one resumes.
    pub snapshot_timeout: Duration,
}

impl RaftConfig {
    /// The defaults, with snapshots in `snapshots`.
    #[must_use]
    pub fn new(snapshots: PathBuf) -> Self {
        Self {
            snapshots,
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(600),
            compact_entries: 20_000,
            compact_bytes: 64 << 20,
            command_bytes_max: 1 << 20,
            in_flight_max: 4_096,
            in_flight_bytes_max: 64 << 20,
            answer_timeout: Duration::from_secs(10),
            snapshot_timeout: Duration::from_secs(60),
        }
    }

    pub(super) fn to_openraft(&self) -> Result<openraft::Config, String> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        openraft::Config {
            cluster_name: "windlass".into(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: millis(self.election_max),
            install_snapshot_timeout: millis(self.snapshot_timeout),
            // Our own bound is bytes (see the log store); this many small entries are one round trip.
            max_payload_entries: 1_024,
            // Must exceed the distance between two snapshots, else a snapshot may not cure the lag that asked for it.
            replication_lag_threshold: self.compact_entries.saturating_mul(2).saturating_add(1_000),
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.compact_entries),
            // The compaction task purges: up to the snapshot before the newest, which the library cannot express.
            max_in_snapshot_log_to_keep: u64::MAX,
            ..openraft::Config::default()
        }
        .validate()
        .map_err(|error| error.to_string())
    }
}
