//! Time as a value: milliseconds since the Unix epoch, and its RFC 3339 text. Never reads a clock.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z; where a component's own time is meant (`state.now`), since that component's zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// From whole seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Later by a duration; saturates.
    #[must_use]
    pub const fn plus(self, duration: Self) -> Self {
        Self(self.0.saturating_add(duration.0))
    }

    /// How long since an earlier time; zero if it is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }

    /// Whole seconds, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// `2026-01-02T03:04:05Z`, as Kubernetes prints `metav1.Time`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let seconds = self.as_secs();
        let (year, month, day) = civil(seconds / 86_400);
        let rest = seconds % 86_400;
        format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
    }

    /// Reads a duration as Go prints it: `1h30m`, `5s`, `1.5m`, `250ms`; a bare number is seconds, as in Argo CD.
    #[must_use]
    pub fn parse_duration(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(seconds) = text.parse::<u64>() {
            return Some(Self::from_secs(seconds));
        }
        let mut rest = text;
        let mut total = 0_u64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|at| *at > 0)?;
            let (number, tail) = rest.split_at(digits);
            let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            let scale = match unit {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                _ => return None,
            };
            let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
            let whole = whole.parse::<u64>().ok()?.checked_mul(scale)?;
            let part = fraction.chars().take(3).try_fold((0_u64, scale), |(sum, unit), digit| {
                let unit = unit / 10;
                Some((sum + u64::from(digit.to_digit(10)?) * unit, unit))
            })?;
            total = total.checked_add(whole)?.checked_add(part.0)?;
            rest = tail;
        }
        (!text.is_empty()).then_some(Self(total))
    }

    /// Reads what [`Self::rfc3339`] prints; fractions of a second are dropped and only `Z` is known as a zone.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let text = text.strip_suffix('Z')?;
        let (date, time) = text.split_once('T')?;
        let mut date = date.splitn(3, '-').map(str::parse::<u64>);
        let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
        let time = time.split('.').next()?;
        let mut time = time.splitn(3, ':').map(str::parse::<u64>);
        let (hour, minute, second) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
        if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let days = days_from_civil(year, month, day)?;
        Some(Self::from_secs(days * 86_400 + hour * 3600 + minute * 60 + second))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

/// Year, month and day of a day number since 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
const fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

/// The inverse of [`civil`]; `None` before 1970.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let year_of_era = year % 400;
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_prints_them() {
        for (text, expect) in [("5s", 5_000), ("3m", 180_000), ("1h30m", 5_400_000), ("1.5s", 1_500), ("20", 20_000)] {
            assert_eq!(Millis::parse_duration(text), Some(Millis(expect)), "{text}");
        }
        for bad in ["", "s", "5x", "-5s", "5 s"] {
            assert_eq!(Millis::parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_round_trip() {
        for text in ["1970-01-01T00:00:00Z", "2000-02-29T23:59:59Z", "2026-11-23T18:09:00Z", "2100-03-01T00:00:00Z"] {
            assert_eq!(Millis::parse_rfc3339(text).map(|time| time.to_string()).as_deref(), Some(text));
        }
        assert_eq!(Millis::from_secs(1_000_000_000).rfc3339(), "2001-09-09T01:46:40Z");
        assert_eq!(Millis::parse_rfc3339("2026-11-23 18:09:00"), None);
        assert_eq!(Millis::parse_rfc3339("2026-13-23T18:09:00Z"), None);
    }
}
