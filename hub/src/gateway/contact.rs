//! Whether this hub belongs to a group that works: without a leader for five seconds it must not hold on to agents, since
//! nothing that is revoked or released would reach them. Pure but for its `Instant`s.

use std::time::Duration;

use tokio::time::Instant;

/// Without contact for this long, a hub sends its agents away (DESIGN.md section 6).
pub(super) const CONTACT_LOST: Duration = Duration::from_secs(5);

/// What is known of the leader.
#[derive(Debug)]
pub(super) struct Contact {
    last: Instant,
    is_lost: bool,
}

/// What a look has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Lost,
    Found,
}

impl Contact {
    /// A hub that starts has its five seconds to find the group.
    pub(super) const fn new(now: Instant) -> Self {
        Self { last: now, is_lost: false }
    }

    /// `age`: how long ago a leader that works was last heard of, `None` when none is known.
    pub(super) fn look(&mut self, now: Instant, age: Option<Duration>) -> Option<Turn> {
        if let Some(heard) = age.and_then(|age| now.checked_sub(age)) {
            self.last = self.last.max(heard);
        }
        let is_lost = now.saturating_duration_since(self.last) >= CONTACT_LOST;
        let turned = is_lost != self.is_lost;
        self.is_lost = is_lost;
        turned.then_some(if is_lost { Turn::Lost } else { Turn::Found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn contact_is_lost_after_five_seconds_and_found_at_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut contact = Contact::new(start);
        assert_eq!(contact.look(at(1), Some(Duration::ZERO)), None);
        assert_eq!(contact.look(at(4), None), None);
        // A leader that is cut off itself says how old its quorum is.
        assert_eq!(contact.look(at(5), Some(Duration::from_secs(4))), None);
        assert_eq!(contact.look(at(6), Some(Duration::from_secs(5))), Some(Turn::Lost));
        assert_eq!(contact.look(at(7), None), None);
        assert_eq!(contact.look(at(8), Some(Duration::from_millis(100))), Some(Turn::Found));
        assert_eq!(contact.look(at(12), None), None);
        assert_eq!(contact.look(at(13), None), Some(Turn::Lost));
    }
}
