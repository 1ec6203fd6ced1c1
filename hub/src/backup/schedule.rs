//! When a backup is due. Pure: the time of the last one goes in, the time of the next one comes out.

use std::str::FromStr as _;

use chrono::{DateTime, Utc};
use croner::Cron;
use windlass_protocol::time::Millis;

/// When backups are made.
#[derive(Clone, Debug)]
pub enum Schedule {
    /// A pattern of five fields (six with seconds), in UTC.
    Cron(Box<Cron>),
    /// So long after the last one was begun.
    Every(Millis),
}

/// A schedule cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is no cron pattern ({reason}): write minute, hour, day, month and weekday, such as \"0 3 * * *\"")]
pub struct ScheduleError {
    pattern: String,
    reason: String,
}

impl Schedule {
    /// From a cron pattern.
    ///
    /// # Errors
    /// [`ScheduleError`] when it is none, or names no time that ever comes.
    pub fn cron(pattern: &str) -> Result<Self, ScheduleError> {
        let bad = |reason: String| ScheduleError { pattern: pattern.to_owned(), reason };
        let cron = Cron::from_str(pattern).map_err(|error| bad(error.to_string()))?;
        cron.find_next_occurrence(&DateTime::<Utc>::UNIX_EPOCH, false).map_err(|error| bad(error.to_string()))?;
        Ok(Self::Cron(Box::new(cron)))
    }

    /// When the next backup is due, the last good one having begun at `last`. Without one it is due at once: it proves that
    /// everything is configured well.
    #[must_use]
    pub fn due(&self, last: Option<Millis>) -> Millis {
        let Some(last) = last else { return Millis::default() };
        match self {
            Self::Every(period) => last.plus(*period),
            Self::Cron(cron) => {
                let never = Millis(u64::MAX);
                let Some(from) = i64::try_from(last.0).ok().and_then(DateTime::<Utc>::from_timestamp_millis) else {
                    return never;
                };
                let next = cron.find_next_occurrence(&from, false).ok();
                next.and_then(|next| u64::try_from(next.timestamp_millis()).ok()).map_or(never, Millis)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Millis {
        Millis::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn the_next_time_follows_from_the_last_one() {
        let nightly = Schedule::cron("0 3 * * *").unwrap();
        assert_eq!(nightly.due(None), Millis(0));
        assert_eq!(nightly.due(Some(at("2026-11-23T03:00:00Z"))), at("2026-11-24T03:00:00Z"));
        // Made late after an outage: the next one is in time again, the missed one is not made twice.
        assert_eq!(nightly.due(Some(at("2026-11-23T17:00:00Z"))), at("2026-11-24T03:00:00Z"));
        assert_eq!(Schedule::Every(Millis(5)).due(Some(Millis(7))), Millis(12));
    }

    #[test]
    fn nonsense_is_explained() {
        for pattern in ["", "daily at three", "61 3 * * *", "0 3 * *", "0 0 30 2 *"] {
            let error = Schedule::cron(pattern).unwrap_err().to_string();
            assert!(error.contains("0 3 * * *"), "{pattern}: {error}");
        }
    }
}
