//! Brings every manifest that the state references to this disk. Runs on every node, learners too.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::blobs::Bundles;

/// Between two looks without a signal.
const PERIOD: Duration = Duration::from_secs(30);
/// Between two looks however many signals there are.
const PAUSE: Duration = Duration::from_secs(1);

/// Repairs at start, when a read has missed something, and on a period, until shutdown.
pub async fn repair_blobs(bundles: Bundles, shutdown: CancellationToken) {
    loop {
        match bundles.repair().await {
            Ok(repaired) => tracing::debug!(missing = repaired.missing.len(), "blobs looked at"),
            Err(error) => tracing::warn!(%error, "blobs not repaired"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
            () = bundles.wanted() => {}
        }
    }
}
