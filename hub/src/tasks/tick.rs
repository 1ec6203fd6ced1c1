//! The group's clock: the leader proposes how much time has passed, from its monotonic clock. Time without a quorum does not
//! count.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use windlass_hub_core::Command;
use windlass_protocol::time::Millis;

use crate::replica::Replica;

/// Between two ticks: soaks and deadlines are as precise as this, and an idle group writes an entry as often.
const PERIOD: Duration = Duration::from_secs(2);

/// Ticks until shutdown.
pub async fn tick(replica: Replica, shutdown: CancellationToken) {
    let mut last = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        if !replica.leads() {
            last = None;
            continue;
        }
        let now = Instant::now();
        // The first tick of a leader only starts its watch: it cannot know what passed before.
        let elapsed = last.map_or(Duration::ZERO, |last| now.duration_since(last));
        last = Some(now);
        let elapsed = Millis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        if let Err(error) = replica.propose("hub", "tick", Vec::new(), Command::Tick { elapsed }).await {
            tracing::debug!(%error, "no tick");
            last = None;
        }
    }
}
