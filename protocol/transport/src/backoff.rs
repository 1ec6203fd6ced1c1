//! When to dial again: exponential backoff with jitter. Pure: randomness comes in, a delay comes out.
//!
//! The first retry is spread evenly over 0–3 s, so that a fleet that lost its hub in one instant does not come
//! back in one instant (DESIGN section 6). Each further ceiling doubles up to 30 s; delays are then drawn from the
//! upper half below the ceiling, so that they grow although they are random.

use std::time::Duration;

/// Bounds of a [`Backoff`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffLimits {
    /// Ceiling of the first delay.
    pub first: Duration,
    /// Ceiling of all delays.
    pub most: Duration,
}

impl Default for BackoffLimits {
    fn default() -> Self {
        Self { first: Duration::from_secs(3), most: Duration::from_secs(30) }
    }
}

/// Counts failures and gives the delay after each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    limits: BackoffLimits,
    failures: u32,
}

impl Backoff {
    /// No failure yet.
    #[must_use]
    pub fn new(limits: BackoffLimits) -> Self {
        Self { limits, failures: 0 }
    }

    /// The delay before the next attempt. `random` is any uniformly distributed number.
    pub fn next_delay(&mut self, random: u64) -> Duration {
        let doublings = self.failures.min(31);
        let ceiling = self.limits.first.saturating_mul(1_u32 << doublings).min(self.limits.most);
        let floor = if self.failures == 0 { Duration::ZERO } else { ceiling / 2 };
        self.failures = self.failures.saturating_add(1);
        floor.saturating_add(scaled(ceiling.saturating_sub(floor), random))
    }

    /// Failures since the last [`reset`](Self::reset).
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// To be called once the hub's hello arrived (not when the QUIC handshake is done).
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// `span * random / 2^64`, in whole microseconds.
fn scaled(span: Duration, random: u64) -> Duration {
    let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    let product = u128::from(micros) * u128::from(random);
    Duration::from_micros(u64::try_from(product >> 64).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(random: u64, count: usize) -> Vec<u128> {
        let mut backoff = Backoff::new(BackoffLimits::default());
        (0..count).map(|_| backoff.next_delay(random).as_millis()).collect()
    }

    #[test]
    fn delays_grow_from_jitter_to_the_ceiling() {
        assert_eq!(delays(0, 6), [0, 3_000, 6_000, 12_000, 15_000, 15_000]);
        assert_eq!(delays(u64::MAX, 6), [2_999, 5_999, 11_999, 23_999, 29_999, 29_999]);
        assert_eq!(delays(1 << 63, 3), [1_500, 4_500, 9_000]);
    }

    #[test]
    fn a_long_outage_does_not_overflow() {
        let mut backoff = Backoff::new(BackoffLimits { first: Duration::MAX, most: Duration::from_secs(30) });
        for _ in 0..100 {
            assert!(backoff.next_delay(u64::MAX) <= Duration::from_secs(30));
        }
        assert_eq!(backoff.failures(), 100);
        backoff.reset();
        assert_eq!(backoff.failures(), 0);
    }
}
