//! Measured times, as median, 99th percentile and count.

use std::{fmt, time::Duration};

/// A set of measured times.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Adds one.
    pub fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that so many of 100 do not exceed (nearest rank); nothing of nothing.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = sorted.len().saturating_mul(percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied()
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.percentile(50), self.percentile(99), self.percentile(100)) {
            (Some(median), Some(p99), Some(most)) => write!(
                f,
                "median {} ms, P99 {} ms, most {} ms, n {}",
                median.as_millis(),
                p99.as_millis(),
                most.as_millis(),
                self.count()
            ),
            _ => write!(f, "n 0"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_by_nearest_rank() {
        let mut times = Times::default();
        assert_eq!((times.percentile(50), times.to_string()), (None, "n 0".to_owned()));
        for millis in (1..=100).rev() {
            times.push(Duration::from_millis(millis));
        }
        assert_eq!(times.to_string(), "median 50 ms, P99 99 ms, most 100 ms, n 100");
        assert_eq!(times.percentile(0), Some(Duration::from_millis(1)));
    }
}
