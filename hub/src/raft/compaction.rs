//! When to make a snapshot because of bytes, and how far to purge.
//!
//! The library makes snapshots by number of entries; this task adds the bound in bytes, and purges the log up to the
//! older of the two snapshots that are kept, so that a damaged newest snapshot costs a replay and not the node.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::log::LogStore;
use super::snapshot::SnapshotFolder;
use super::types::Raft;

pub(super) struct Compaction {
    pub(super) raft: Raft,
    pub(super) log: LogStore,
    pub(super) folder: Arc<SnapshotFolder>,
    pub(super) bytes_max: u64,
}

impl Compaction {
    /// Runs until `stop` or until the node ends. Level-triggered: every change of the node's metrics is a look at
    /// everything.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut metrics = self.raft.metrics();
        // What was asked for last: asking again before it happened changes nothing.
        let mut asked_after = None;
        let mut asked_purge = None;
        loop {
            let (applied, snapshot, purged) = {
                let metrics = metrics.borrow_and_update();
                let index = |id: &Option<super::types::LogId>| id.map(|id| id.index);
                (index(&metrics.last_applied), index(&metrics.snapshot), index(&metrics.purged))
            };
            let full = applied > snapshot && self.log.bytes_after(snapshot) >= self.bytes_max;
            if full && asked_after != Some(snapshot) {
                asked_after = Some(snapshot);
                tracing::debug!(applied, "the log is full, asking for a snapshot");
                if self.raft.trigger().snapshot().await.is_err() {
                    return;
                }
            }
            if let Some(upto) = self.folder.purgeable().map(|id| id.index)
                && Some(upto) > purged
                && Some(upto) > asked_purge
            {
                asked_purge = Some(upto);
                if self.raft.trigger().purge_log(upto).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = metrics.changed() => if changed.is_err() { return },
            }
        }
    }
}
