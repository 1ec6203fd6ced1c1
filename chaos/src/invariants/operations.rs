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
}

impl Operations {
    /// An agent writes what it is doing to its disk.
    pub(crate) fn persisted(&mut self, cluster: &str, key: &Key, point: &ResumePoint) -> Result<(), Finding> {
        let Some(running) = &point.running else { return Ok(()) };
        let Cause::Asked(operation) = &running.cause else { return Ok(()) };
        let id = operation.id;
        let first = self.runs.entry((cluster.to_owned(), key.clone(), id)).or_insert(running.sequence);
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
    pub(crate) fn len(&self) -> usize {
        self.runs.len()
    }

    /// The disk is lost: what ran before cannot be known.
    pub(crate) fn disk_lost(&mut self, cluster: &str) {
        self.runs.retain(|(on, _, _), _| on != cluster);
    }
}
