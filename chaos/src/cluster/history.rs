//! What clients did and saw: one record per operation, with the time it was sent and the time its answer came.
//!
//! Each key is a register that is absent or holds one value. Every value is written by one operation only, so that a value
//! stands for the version that the API calls `resourceVersion`, and a compare-and-swap names what it expects by value.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What an operation asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A linearizable read.
    Read,
    /// Makes the register, which must be absent.
    Create(u64),
    /// Replaces a value by another one.
    Swap {
        /// What must be there.
        expected: u64,
        /// What comes in its place.
        value: u64,
    },
    /// Removes the register, which must hold this value.
    Delete(u64),
}

/// What the client learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The content at the time of a read.
    Saw(Option<u64>),
    /// A write took effect.
    Done,
    /// A write was refused because the register did not hold what it needs; nothing changed.
    Refused,
    /// No answer, or one that leaves it open: the write took effect, will, or never does.
    Unknown,
}

/// One operation on one key. Times are nanoseconds since the start of the recorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who.
    pub client: usize,
    /// What was asked.
    pub action: Action,
    /// What was learnt.
    pub outcome: Outcome,
    /// When it was sent.
    pub invoked: u64,
    /// When the answer came; without meaning when the outcome is unknown.
    pub returned: u64,
}

/// An acknowledged write: when the attempt that succeeded was sent, and when its answer came.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledgement {
    /// Sent.
    pub sent: Instant,
    /// Answered.
    pub answered: Instant,
}

/// Everything that the clients of one run did. Shared by them.
#[derive(Debug)]
pub struct Recorder {
    start: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    operations: BTreeMap<String, Vec<Operation>>,
    acknowledgements: Vec<Acknowledgement>,
    counts: Counts,
}

/// How many operations ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Linearizable reads.
    pub reads: u64,
    /// Acknowledged writes.
    pub writes: u64,
    /// Writes refused for the content that they met.
    pub refused: u64,
    /// Writes whose outcome the client does not know.
    pub unknown: u64,
    /// Reads that the hub labelled as possibly behind; no part of the history.
    pub labelled: u64,
    /// Attempts that failed and were made again.
    pub retries: u64,
    /// Operations given up: an error for the user.
    pub abandoned: u64,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { start: Instant::now(), inner: Mutex::default() }
    }
}

impl Recorder {
    /// A time as recorded.
    #[must_use]
    pub fn at(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Keeps an operation.
    pub fn record(&self, key: &str, operation: Operation) {
        let mut inner = self.lock();
        let counts = &mut inner.counts;
        match operation.outcome {
            Outcome::Saw(_) => counts.reads += 1,
            Outcome::Done => counts.writes += 1,
            Outcome::Refused => counts.refused += 1,
            Outcome::Unknown => counts.unknown += 1,
        }
        inner.operations.entry(key.to_owned()).or_default().push(operation);
    }

    /// Keeps when a write was acknowledged.
    pub fn acknowledge(&self, acknowledgement: Acknowledgement) {
        self.lock().acknowledgements.push(acknowledgement);
    }

    /// A read that says of itself that it may be behind.
    pub fn labelled(&self) {
        self.lock().counts.labelled += 1;
    }

    /// An attempt is made again.
    pub fn retry(&self) {
        self.lock().counts.retries += 1;
    }

    /// An operation is given up.
    pub fn abandon(&self) {
        self.lock().counts.abandoned += 1;
    }

    /// Counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Each key with what happened to it.
    #[must_use]
    pub fn operations(&self) -> BTreeMap<String, Vec<Operation>> {
        self.lock().operations.clone()
    }

    /// From a moment to the next acknowledgement of a write that was sent after it.
    #[must_use]
    pub fn next_acknowledged(&self, moment: Instant) -> Option<Duration> {
        let inner = self.lock();
        let later = inner.acknowledgements.iter().rev().take_while(|one| one.answered >= moment);
        later.filter(|one| one.sent >= moment).map(|one| one.answered.saturating_duration_since(moment)).min()
    }

    /// The longest time without an acknowledgement between two moments.
    #[must_use]
    pub fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let inner = self.lock();
        let answered = inner.acknowledgements.iter().map(|one| one.answered);
        let mut times: Vec<Instant> = answered.filter(|time| (from..to).contains(time)).collect();
        times.extend([from, to]);
        times.sort();
        let gaps = times.iter().zip(times.iter().skip(1)).map(|(one, next)| next.saturating_duration_since(*one));
        gaps.max().unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
