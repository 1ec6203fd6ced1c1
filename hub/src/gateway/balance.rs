//! How many agents this hub should send to others. Pure.
//!
//! A hub whose share is far above the average sends a few agents a second away until it is near it. Two things keep agents from
//! going in circles: it starts only beyond a wide margin and stops before it is below the average, and a hub that holds no
//! agent counts only after a probe: a few agents are sent away, and if none of them arrives there, that hub is taken for dead
//! for [`DEAD`]. Nobody needs to ask it.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

/// Agents that leave in one turn, a second.
const STEP: usize = 5;
/// Agents of a probe.
const PROBE: usize = 5;
/// After a probe: agents need a moment to dial, and their arrival to be recorded.
const PROBE_TIME: Duration = Duration::from_secs(15);
/// A hub that took nobody is left out for this long.
const DEAD: Duration = Duration::from_secs(600);

/// What this hub remembers between two turns.
#[derive(Debug, Default)]
pub(super) struct Balance {
    /// Even in the course of evening out.
    is_moving: bool,
    probe_until: Option<Instant>,
    dead_until: BTreeMap<u64, Instant>,
}

impl Balance {
    /// Agents to send away now. `sessions`: of every member, as recorded; called once a second.
    pub(super) fn turn(&mut self, now: Instant, me: u64, sessions: &BTreeMap<u64, usize>) -> usize {
        let mine = sessions.get(&me).copied().unwrap_or_default();
        let total: usize = sessions.values().sum();
        self.dead_until.retain(|node, until| *until > now && sessions.get(node) == Some(&0));
        let empty: Vec<u64> =
            sessions.iter().filter(|(node, count)| **count == 0 && **node != me).map(|(node, _)| *node).collect();
        if let Some(until) = self.probe_until {
            if now < until {
                return 0;
            }
            self.probe_until = None;
            self.dead_until.extend(empty.iter().map(|node| (*node, now + DEAD)));
        }
        let serving = sessions.keys().filter(|node| !self.dead_until.contains_key(node)).count().max(1);
        let average = total / serving;
        let begins = mine > average + average / 5 + 10;
        self.is_moving = serving > 1 && (begins || (self.is_moving && mine > average + average / 20 + 3));
        if !self.is_moving {
            return 0;
        }
        let surplus = mine.saturating_sub(average);
        if empty.iter().any(|node| !self.dead_until.contains_key(node)) {
            self.probe_until = Some(now + PROBE_TIME);
            return surplus.min(PROBE);
        }
        surplus.min(STEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hubs of a group; agents that are sent away go to another living hub, one after the other.
    struct Group {
        sessions: BTreeMap<u64, usize>,
        living: Vec<u64>,
        balances: BTreeMap<u64, Balance>,
        random: u64,
        moved: usize,
    }

    impl Group {
        fn new(sessions: &[usize], living: &[u64]) -> Self {
            let sessions: BTreeMap<u64, usize> = (1..).zip(sessions.iter().copied()).collect();
            let balances = living.iter().map(|node| (*node, Balance::default())).collect();
            Self { sessions, living: living.to_vec(), balances, random: 7, moved: 0 }
        }

        fn run(&mut self, seconds: u64, start: Instant) {
            for second in 0..seconds {
                let now = start + Duration::from_secs(second);
                for node in self.living.clone() {
                    let leaving = self.balances.get_mut(&node).unwrap().turn(now, node, &self.sessions);
                    self.moved += leaving;
                    let others: Vec<u64> = self.living.iter().copied().filter(|other| *other != node).collect();
                    for _ in 0..leaving {
                        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let to = others[usize::try_from(self.random >> 33).unwrap() % others.len()];
                        *self.sessions.get_mut(&node).unwrap() -= 1;
                        *self.sessions.get_mut(&to).unwrap() += 1;
                    }
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn agents_even_out_and_then_stay() {
        for sessions in [[1_000, 0, 0], [500, 500, 0], [700, 200, 100], [40, 0, 0], [10_000, 0, 5_000]] {
            let mut group = Group::new(&sessions, &[1, 2, 3]);
            group.run(6_000, Instant::now());
            let average = sessions.iter().sum::<usize>() / 3;
            assert!(group.sessions.values().all(|count| *count <= average + average / 5 + 10), "{:?}", group.sessions);
            let (moved, before) = (group.moved, group.sessions.clone());
            group.run(6_000, Instant::now() + Duration::from_secs(6_000));
            assert_eq!((group.moved, group.sessions), (moved, before), "{sessions:?}: agents keep moving");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_hub_is_no_reason_to_move() {
        let mut group = Group::new(&[500, 500, 0], &[1, 2]);
        group.run(3_600, Instant::now());
        // Two hubs probe every ten minutes with five agents each.
        assert!(group.moved <= 6 * 2 * PROBE + 2 * PROBE, "{} agents moved in an hour", group.moved);
        assert!(group.sessions.values().all(|count| *count == 0 || (450..550).contains(count)), "{:?}", group.sessions);
    }

    #[tokio::test(start_paused = true)]
    async fn one_hub_and_small_groups_keep_their_agents() {
        for (sessions, living) in
            [(vec![1_000], vec![1]), (vec![14, 0, 0], vec![1, 2, 3]), (vec![0, 0, 0], vec![1, 2, 3])]
        {
            let mut group = Group::new(&sessions, &living);
            group.run(100, Instant::now());
            assert_eq!(group.moved, 0, "{sessions:?}");
        }
    }
}
