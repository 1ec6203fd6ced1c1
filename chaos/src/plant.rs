//! Bugs that can be planted on purpose: they prove that the invariants find what they are for.
//!
//! Always compiled, reachable only by the flag `--plant`. Each one is a mistake that somebody could make in a shell or a replica.

use clap::ValueEnum;

/// A mistake to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Plant {
    /// The agent ends every assignment that a whole delta does not name.
    AbsenceDeletes,
    /// The planner proposes without uids, revisions and releases to hold it to what it saw.
    NoPreconditions,
    /// A gateway computes deltas from an older state and calls them the newest.
    OlderGeneration,
    /// The agent's disk comes back as it was one checkpoint earlier.
    DiskRollsBack,
    /// A replica puts its own clock into what it applies.
    OwnTime,
    /// The agent says that a resume point is durable before it is.
    ForgetsOperations,
    /// The gateway acknowledges receipts before they are committed.
    AcknowledgesEarly,
    /// The gateway proposes receipts of one session side by side and says "busy" when a batch is lost: a later batch then
    /// acknowledges the lost one.
    PipelinesReceipts,
    /// A gateway refuses for good from a replica that is behind the log.
    RefusesFromMemory,
    /// A restarted replica skips one entry of its log.
    SkipsEntry,
    /// The agent prunes whatever it finds that is tracked and not desired, whatever the policy says.
    PrunesAlways,
}

impl Plant {
    /// Every plant.
    pub const ALL: [Self; 11] = [
        Self::AbsenceDeletes,
        Self::NoPreconditions,
        Self::OlderGeneration,
        Self::DiskRollsBack,
        Self::OwnTime,
        Self::ForgetsOperations,
        Self::AcknowledgesEarly,
        Self::PipelinesReceipts,
        Self::RefusesFromMemory,
        Self::SkipsEntry,
        Self::PrunesAlways,
    ];

    /// As on the command line.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}
