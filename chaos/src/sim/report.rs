//! What a run is given and what it gives back.

use std::fmt;

use windlass_protocol::time::Millis;

use crate::Plant;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides everything that happens.
    pub seed: u64,
    /// Events of the safety phase.
    pub steps: u64,
    /// A bug to plant.
    pub plant: Option<Plant>,
    /// Print every event.
    pub print: bool,
}

impl Options {
    /// Default of [`Self::steps`]: about a minute of virtual time, with all faults struck at least once in most seeds.
    pub const STEPS: u64 = 6_000;

    /// A seed with everything else as usual.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, steps: Self::STEPS, plant: None, print: false }
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What happened, in numbers.
    pub coverage: Coverage,
    /// Hash of the trace: equal for equal options.
    pub trace: u64,
    /// The first property that did not hold.
    pub failure: Option<Failure>,
}

/// A property that did not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub invariant: &'static str,
    /// Where it is asked for.
    pub source: &'static str,
    /// What was seen.
    pub message: String,
    /// Virtual time.
    pub at: Millis,
    /// The last lines of the trace.
    pub last: Vec<String>,
}

/// What a run covered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is a count of what its name says")]
pub struct Coverage {
    pub events: u64,
    pub entries: u64,
    pub rejected: u64,
    pub acknowledged: u64,
    pub commits: u64,
    pub hub_restarts: u64,
    pub elections: u64,
    pub agent_restarts: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub delayed: u64,
    pub drops: u64,
    pub drift: u64,
    pub api_errors: u64,
    pub disks_lost: u64,
    pub sets: u64,
    pub policies: u64,
    pub moves: u64,
    pub deletes: u64,
    pub clusters_removed: u64,
    pub operations_asked: u64,
    pub operations_run: u64,
    pub checkpoints: u64,
    pub orphaned: u64,
    pub applied: u64,
    pub deleted: u64,
    pub ended: u64,
    pub batched: u64,
    pub refused_parts: u64,
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} events, {} entries ({} rejected, {} acknowledged), proposals lost {} duplicated {} delayed {}, commits {}, \
             restarts hub {} agent {}, elections {}, drops {}, drift {}, API errors {}, disks lost {}, sets {}, policies {}, \
             moves {}, deletes {}, clusters removed {}, operations {} of {}, checkpoints {}, orphaned {}, objects applied {} \
             deleted {}, ended {}, batches of several agents {}, parts refused {}",
            self.events,
            self.entries,
            self.rejected,
            self.acknowledged,
            self.lost,
            self.duplicated,
            self.delayed,
            self.commits,
            self.hub_restarts,
            self.agent_restarts,
            self.elections,
            self.drops,
            self.drift,
            self.api_errors,
            self.disks_lost,
            self.sets,
            self.policies,
            self.moves,
            self.deletes,
            self.clusters_removed,
            self.operations_run,
            self.operations_asked,
            self.checkpoints,
            self.orphaned,
            self.applied,
            self.deleted,
            self.ended,
            self.batched,
            self.refused_parts,
        )
    }
}
