//! What an agent lacks: the change of a cluster's desired state since the generation that its agent has on its disk.

use windlass_protocol::{
    ids::{Epoch, Generation},
    message::Delta,
};

use crate::state::State;

/// Assignments of one part of a delta: far below the frame limit with every field at its usual size.
const PART_ASSIGNMENTS_MAX: usize = 50;

/// The parts of the delta from (epoch, generation) to now, the last one complete; empty when the cluster is not known.
///
/// A whole delta lists everything that the epoch knows, so that an agent can tell what is `Orphaned`; it is sent when the agent
/// has nothing, comes from another epoch, or claims more than the state has.
#[must_use]
pub fn delta(state: &State, cluster: &str, epoch: Epoch, generation: Generation) -> Vec<Delta> {
    let Some(record) = state.cluster(cluster) else { return Vec::new() };
    let whole = generation == Generation::ZERO || epoch != state.meta().epoch || generation > record.generation;
    let from = if whole { Generation::ZERO } else { generation };
    let mut changed: Vec<_> =
        state.assignments_of(cluster).filter(|(_, assignment)| whole || assignment.changed_at > from).collect();
    changed.sort_by_key(|(_, assignment)| assignment.changed_at);
    let part = || Delta { epoch: state.meta().epoch, from, to: record.generation, ..Delta::default() };
    let mut parts = Vec::new();
    for chunk in changed.chunks(PART_ASSIGNMENTS_MAX) {
        let assignments = chunk.iter().map(|(name, assignment)| assignment.assignment(name)).collect();
        parts.push(Delta { assignments, ..part() });
    }
    let mut last = parts.pop().unwrap_or_else(part);
    // A tombstone is repeated until it is carried out: ending what has ended is nothing.
    let tombstones = record.tombstones.iter().filter(|(ended_at, _)| whole || **ended_at > from);
    last.tombstones = tombstones.map(|(_, tombstone)| tombstone.clone()).collect();
    if whole {
        last.known = Some(state.assignments_of(cluster).map(|(name, _)| name.clone()).collect());
    }
    last.complete = true;
    parts.push(last);
    parts
}
