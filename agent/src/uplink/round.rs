//! In which order the hubs are tried. Pure: randomness comes in.

use std::time::Duration;

use tokio::time::Instant;

/// Sent away again within this time, the agent waits before it dials: hubs that pass it around must not make a storm.
const CALM: Duration = Duration::from_secs(10);

/// Every hub once, in random order; `prefer` first, `avoid` last.
pub(super) fn round(hubs: &[String], mut random: u64, prefer: Option<&str>, avoid: Option<&str>) -> Vec<String> {
    let mut left: Vec<&String> = hubs.iter().collect();
    let mut order = Vec::with_capacity(left.len());
    while !left.is_empty() {
        // xorshift64*: enough to spread agents, and the same in every test.
        random = (random | 1) ^ (random << 13);
        random ^= random >> 7;
        random ^= random << 17;
        let count = u64::try_from(left.len()).unwrap_or(1);
        let index = usize::try_from(random % count).unwrap_or_default();
        order.push(left.swap_remove(index).clone());
    }
    order.sort_by_key(|hub| match () {
        () if prefer == Some(hub) => 0,
        () if avoid == Some(hub) => 2,
        () => 1,
    });
    order
}

/// How often hubs send this agent away.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    last: Option<Instant>,
}

impl Leaving {
    /// A hub has sent the agent away; whether the next may be dialled at once.
    pub(super) fn is_calm(&mut self, now: Instant) -> bool {
        let last = self.last.replace(now);
        last.is_none_or(|last| now.saturating_duration_since(last) >= CALM)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn hubs() -> Vec<String> {
        ["a", "b", "c"].map(str::to_owned).to_vec()
    }

    #[test]
    fn every_hub_comes_once_and_any_may_be_the_first() {
        let mut firsts = BTreeSet::new();
        for random in 0..200 {
            let order = round(&hubs(), 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(random), None, None);
            assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 3);
            firsts.insert(order[0].clone());
        }
        assert_eq!(firsts.len(), 3);
    }

    #[test]
    fn a_hub_that_sends_us_away_comes_last() {
        for random in 0..50 {
            assert_eq!(round(&hubs(), random << 20, None, Some("b"))[2], "b");
            assert_eq!(round(&hubs(), random << 20, Some("c"), None)[0], "c");
        }
        assert_eq!(round(&["b".to_owned()], 1, None, Some("b")), ["b"]);
    }

    #[tokio::test]
    async fn an_agent_that_is_passed_around_waits() {
        let start = Instant::now();
        let mut leaving = Leaving::default();
        assert!(leaving.is_calm(start));
        assert!(!leaving.is_calm(start + Duration::from_secs(2)));
        assert!(leaving.is_calm(start + Duration::from_secs(13)));
    }
}
