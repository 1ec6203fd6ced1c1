//! Removes blobs that nothing references any longer. Runs on every node: each keeps its own blobs.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{blobs::Bundles, replica::Replica};

/// Between two collections.
const PERIOD: Duration = Duration::from_secs(600);

/// Collects until shutdown.
pub async fn collect_garbage(replica: Replica, bundles: Bundles, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        // Cut off from the group, this node does not know what was committed since: it may hold what others count on.
        if replica.raft().status().borrow().leader.is_none() {
            continue;
        }
        let (state, bundles) = (replica.state(), bundles.clone());
        match tokio::task::spawn_blocking(move || bundles.collect(&state)).await {
            Ok(Ok(collected)) => tracing::debug!(?collected, "blobs collected"),
            Ok(Err(error)) => tracing::warn!(%error, "blobs not collected"),
            Err(error) => tracing::warn!(%error, "the collection ended"),
        }
    }
}
