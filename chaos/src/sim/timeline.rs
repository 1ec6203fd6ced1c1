//! Virtual time: the queue of events, the one random generator, and the trace that is hashed and remembered.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use windlass_protocol::time::Millis;

use super::{event::Event, profile::Profile, random::Random};

/// Lines of the trace that a failure shows.
const REMEMBERED: usize = 60;

/// Time, chance and trace of a run.
#[derive(Debug)]
pub(crate) struct Timeline {
    pub(crate) now: Millis,
    pub(crate) random: Random,
    pub(crate) profile: Profile,
    /// Whether faults are injected: not in the liveness phase.
    pub(crate) faults: bool,
    queue: BTreeMap<(Millis, u64), Event>,
    order: u64,
    trace: u64,
    last: VecDeque<String>,
    print: bool,
}

impl Timeline {
    pub(crate) fn new(seed: u64, print: bool) -> Self {
        let mut random = Random::new(seed);
        let profile = Profile::new(&mut random);
        Self {
            now: Millis(0),
            random,
            profile,
            faults: true,
            queue: BTreeMap::new(),
            order: 0,
            // FNV-1a, 64 bits: offset basis.
            trace: 0xcbf2_9ce4_8422_2325,
            last: VecDeque::new(),
            print,
        }
    }

    /// Something will happen after a delay; events of one instant keep their order.
    pub(crate) fn after(&mut self, delay: Millis, event: Event) {
        self.at(self.now.plus(delay), event);
    }

    /// Something will happen at a time, or now if that is past.
    pub(crate) fn at(&mut self, time: Millis, event: Event) {
        self.order += 1;
        self.queue.insert((time.max(self.now), self.order), event);
    }

    /// The next event; time moves to it.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let ((time, _), event) = self.queue.pop_first()?;
        self.now = time;
        Some(event)
    }

    /// Whether a fault with this chance strikes.
    pub(crate) fn fault(&mut self, per_mille: u64) -> bool {
        self.faults && self.random.chance(per_mille)
    }

    /// Between zero and twice the mean.
    pub(crate) fn around(&mut self, mean: Millis) -> Millis {
        Millis(self.random.below(mean.0.saturating_mul(2).saturating_add(1)))
    }

    /// Notes a line of the trace.
    pub(crate) fn note(&mut self, line: fmt::Arguments<'_>) {
        let line = format!("{:>7} {line}", self.now.0);
        for byte in line.bytes().chain([b'\n']) {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if self.print {
            show(&line);
        }
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    /// Hash of everything that was noted.
    pub(crate) const fn trace(&self) -> u64 {
        self.trace
    }

    pub(crate) fn last(&self) -> Vec<String> {
        self.last.iter().cloned().collect()
    }
}

/// Printing events is what `-v` asks for.
#[allow(clippy::print_stdout, reason = "output of the program's -v")]
fn show(line: &str) {
    println!("{line}");
}
