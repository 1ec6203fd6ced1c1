//! What a seed decides before the first event: sizes and how often each fault strikes.

use windlass_protocol::time::Millis;

use super::random::Random;

/// Parameters of one run. Chances are per mille.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) hubs: u64,
    pub(crate) clusters: u64,
    /// Applications that people make by hand, at most.
    pub(crate) applications: u64,
    /// Between two actions of people, on average.
    pub(crate) client_pause: Millis,
    /// Between two faults, on average.
    pub(crate) fault_pause: Millis,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) delayed: u64,
    pub(crate) api_error: u64,
    pub(crate) api_reply_lost: u64,
    /// Longest delay of a delayed proposal or frame.
    pub(crate) delay_max: Millis,
}

impl Profile {
    pub(crate) fn new(random: &mut Random) -> Self {
        // A third of the seeds is calm in one respect: bugs hide behind faults that mask each other.
        let mut some = |high: u64| if random.chance(300) { 0 } else { random.between(1, high) };
        let (lost, duplicated, delayed) = (some(120), some(120), some(200));
        let (api_error, api_reply_lost) = (some(60), some(30));
        Self {
            hubs: 3,
            clusters: random.between(2, 4),
            applications: random.between(3, 6),
            client_pause: Millis(random.between(300, 1_500)),
            fault_pause: Millis(random.between(500, 4_000)),
            lost,
            duplicated,
            delayed,
            api_error,
            api_reply_lost,
            delay_max: Millis(random.between(500, 6_000)),
        }
    }
}
