//! How many handshakes may start per second (pure; the caller brings the time).
//!
//! A generic cell rate: admissions are spaced by 1/rate, and up to a burst of them may come early. It never
//! queues: it says how long to wait.

use std::time::Duration;

/// Bounds the rate of admissions.
#[derive(Debug)]
pub(crate) struct Rate {
    interval: Duration,
    tolerance: Duration,
    /// When the next admission would be due if all came evenly spaced.
    due: Duration,
}

impl Rate {
    /// `per_second` admissions, after a rest up to `burst` at once. Zero is taken as one.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, tolerance: interval.saturating_mul(burst.max(1).saturating_sub(1)), due: Duration::ZERO }
    }

    /// How long until the next admission; zero when one may start at `now` (time since any fixed start).
    pub(crate) fn wait(&self, now: Duration) -> Duration {
        self.due.saturating_sub(self.tolerance).saturating_sub(now)
    }

    /// Notes an admission at `now`.
    pub(crate) fn admitted(&mut self, now: Duration) {
        self.due = self.due.max(now).saturating_add(self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_an_even_rate() {
        let mut rate = Rate::new(10, 3);
        let now = Duration::from_secs(5);
        for _ in 0..3 {
            assert_eq!(rate.wait(now), Duration::ZERO);
            rate.admitted(now);
        }
        assert_eq!(rate.wait(now), Duration::from_millis(100));
        let later = now + Duration::from_millis(100);
        assert_eq!(rate.wait(later), Duration::ZERO);
        rate.admitted(later);
        assert_eq!(rate.wait(later), Duration::from_millis(100));
    }
}
