//! An operation runs at most once per assignment: its number is bound to one run, also over restarts.

use std::collections::BTreeMap;

use windlass_engine::resume::{Cause, ResumePoint};
use windlass_protocol::ids::OperationId;

use super::Finding;
use crate::sim::Key;

/// The run that each operation has had, by cluster, assignment and number.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    runs: BTreeMap<(String, Key, OperationId), u64>,
    count: u64,
}

impl Operations {
    /// An agent writes what it is doing to its disk.
    pub(crate) fn persisted(&mut self, cluster: &str, key: &Key, point: &ResumePoint) -> Result<(), Finding> {
        let Some(running) = &point.running else { return Ok(()) };
        let Cause::Asked(operation) = &running.cause else { return Ok(()) };
        let id = operation.id;
        let place = (cluster.to_owned(), key.clone(), id);
        let Some(first) = self.runs.get(&place) else {
            self.runs.insert(place, running.sequence);
            self.count += 1;
            return Ok(());
        };
        if *first == running.sequence {
            return Ok(());
        }
        Err(Finding {
            invariant: "operations run once",
            source: "DESIGN.md 8: no operation is repeated",
            message: format!("{}: operation {id} ran as {first} and runs again as {}", key.0, running.sequence),
        })
    }

    /// How many operations ran.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// The assignment ended on the cluster: should its Application come back, its operations are numbered anew.
    pub(crate) fn ended(&mut self, cluster: &str, key: &Key) {
        self.runs.retain(|(on, other, _), _| on != cluster || other != key);
    }

    /// The disk is lost: what ran before cannot be known.
    pub(crate) fn disk_lost(&mut self, cluster: &str) {
        self.runs.retain(|(on, _, _), _| on != cluster);
    }
}
