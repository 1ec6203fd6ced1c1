//! What must hold at every event, one property a file, each with its source. They look at what really happened (log, disks,
//! clusters), never at what a part of the system believes.

mod acknowledged;
mod deletions;
mod generations;
mod manual;
mod operations;
mod plans;
mod releases;
mod replicas;
mod requests;
mod rollouts;

pub(crate) use self::{
    acknowledged::Acknowledged, deletions::Deletions, generations::Generations, manual::Manual, operations::Operations,
    plans::Plans, releases::Releases, replicas::Replicas, requests::Requests, rollouts::Rollouts,
};

/// A property does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Which property.
    pub(crate) invariant: &'static str,
    /// Where it is asked for.
    pub(crate) source: &'static str,
    /// What was seen.
    pub(crate) message: String,
}

/// All properties with what they remember.
#[derive(Debug, Default)]
pub(crate) struct Invariants {
    pub(crate) acknowledged: Acknowledged,
    pub(crate) generations: Generations,
    pub(crate) operations: Operations,
    pub(crate) releases: Releases,
    pub(crate) replicas: Replicas,
    pub(crate) requests: Requests,
}
