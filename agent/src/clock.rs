//! The agent's one clock: wall time at the start plus monotonic time since, so that it never goes back and can be shown.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use windlass_protocol::time::Millis;

/// A running clock. Copies agree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    wall: Millis,
    start: Instant,
}

impl Clock {
    /// Starts now.
    pub(crate) fn start() -> Self {
        Self { wall: wall(), start: Instant::now() }
    }

    /// The time.
    pub(crate) fn now(&self) -> Millis {
        self.wall.plus(millis(self.start.elapsed()))
    }

    /// When this clock shows `at`; now when that has passed.
    pub(crate) fn instant(&self, at: Millis) -> Instant {
        self.start + Duration::from_millis(at.since(self.wall).0)
    }
}

/// Wall time, for what outlives the process (certificates, incarnations).
pub(crate) fn wall() -> Millis {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(duration: Duration) -> Millis {
    Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
