//! Self-heal: how often an object may be healed. The first heal is immediate; one that keeps drifting waits longer each time.

use std::collections::BTreeMap;

use windlass_protocol::{manifest::ResourceKey, time::Millis};

use crate::settings::Settings;

/// The recent heals of one assignment.
#[derive(Clone, Debug, Default)]
pub struct Heals {
    recent: BTreeMap<ResourceKey, Heal>,
}

#[derive(Clone, Copy, Debug)]
struct Heal {
    count: u32,
    last: Millis,
}

impl Heals {
    /// When an object may be healed.
    #[must_use]
    pub fn due(&self, key: &ResourceKey, settings: &Settings) -> Millis {
        let Some(heal) = self.recent.get(key) else { return Millis(0) };
        let doubled = settings.heal_initial.0.saturating_mul(1 << heal.count.saturating_sub(1).min(20));
        heal.last.plus(Millis(doubled.min(settings.heal_max.0)))
    }

    /// Notes a heal of these objects; forgets those that have been calm.
    pub fn note<'a>(&mut self, keys: impl IntoIterator<Item = &'a ResourceKey>, settings: &Settings, now: Millis) {
        self.recent.retain(|_, heal| now.since(heal.last) < settings.heal_cooldown);
        for key in keys {
            let heal = self.recent.entry(key.clone()).or_insert(Heal { count: 0, last: now });
            heal.count = heal.count.saturating_add(1);
            heal.last = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heals_that_come_back_wait_longer() {
        let (mut heals, settings, key) = (Heals::default(), Settings::default(), ResourceKey::default());
        assert_eq!(heals.due(&key, &settings), Millis(0));
        heals.note([&key], &settings, Millis(10_000));
        assert_eq!(heals.due(&key, &settings), Millis(12_000));
        heals.note([&key], &settings, Millis(12_000));
        assert_eq!(heals.due(&key, &settings), Millis(16_000));
        for _ in 0..50 {
            heals.note([&key], &settings, Millis(20_000));
        }
        assert_eq!(heals.due(&key, &settings), Millis(320_000));
        heals.note([&key], &settings, Millis(1_000_000));
        assert_eq!(heals.due(&key, &settings), Millis(1_002_000));
    }
}
