//! The bounded ring of recent changes that watches read: never the Raft log. Who asks for what has left it gets `Gone`.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use windlass_hub_core::Change;
use windlass_protocol::{ids::StateRevision, resource::Kind};

/// Changes kept per kind (DESIGN.md section 10).
pub const EVENTS_PER_KIND_MAX: usize = 100_000;
/// Bytes of bodies kept per kind (DESIGN.md section 10).
pub const EVENT_BYTES_PER_KIND_MAX: usize = 64 * 1024 * 1024;

/// Recent changes of every kind, by revision.
#[derive(Debug, Default)]
pub struct EventRing {
    kinds: BTreeMap<Kind, Ring>,
    /// Nothing is known of changes up to here.
    started: StateRevision,
}

#[derive(Debug, Default)]
struct Ring {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    /// Revision of the newest change that was dropped.
    dropped: StateRevision,
}

/// The asked revision is older than what the ring holds: list again (HTTP 410).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Gone {
    /// What was asked for.
    pub asked: StateRevision,
    /// The oldest revision to watch from.
    pub oldest: StateRevision,
}

impl EventRing {
    /// Adds a change.
    pub fn push(&mut self, change: Change) {
        let ring = self.kinds.entry(change.kind()).or_default();
        ring.bytes += size(&change);
        ring.changes.push_back(Arc::new(change));
        while ring.changes.len() > EVENTS_PER_KIND_MAX || ring.bytes > EVENT_BYTES_PER_KIND_MAX {
            let Some(oldest) = ring.changes.pop_front() else { break };
            ring.bytes -= size(&oldest);
            ring.dropped = oldest.revision;
        }
    }

    /// Forgets everything: the state was replaced by a snapshot at this revision.
    pub fn restart(&mut self, revision: StateRevision) {
        self.kinds.clear();
        self.started = revision;
    }

    /// Changes of a kind after a revision, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`Gone`] when some of them have left the ring.
    pub fn after(&self, kind: Kind, revision: StateRevision, limit: usize) -> Result<Vec<Arc<Change>>, Gone> {
        let oldest = self.kinds.get(&kind).map_or(self.started, |ring| ring.dropped.max(self.started));
        if revision < oldest {
            return Err(Gone { asked: revision, oldest });
        }
        let Some(ring) = self.kinds.get(&kind) else { return Ok(Vec::new()) };
        let from = ring.changes.partition_point(|change| change.revision <= revision);
        Ok(ring.changes.range(from..).take(limit).cloned().collect())
    }
}

fn size(change: &Change) -> usize {
    change.object.body.len() + change.previous.as_ref().map_or(0, |previous| previous.body.len()) + 256
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use windlass_hub_core::{ChangeType, ObjectKey, ObjectRecord};

    use super::*;

    fn change(revision: u64, bytes: usize) -> Change {
        let record = ObjectRecord {
            uid: String::new(),
            revision: StateRevision(revision),
            generation: 1,
            labels: BTreeMap::new(),
            owners: Vec::new(),
            deleting: false,
            body: "x".repeat(bytes),
            sealed: None,
        };
        Change {
            change: ChangeType::Added,
            key: ObjectKey::new(Kind::ConfigMap, "default", "a"),
            revision: StateRevision(revision),
            object: Arc::new(record),
            previous: None,
        }
    }

    #[test]
    fn changes_come_in_order_and_old_ones_are_gone() {
        let mut ring = EventRing::default();
        for revision in 1..=5 {
            ring.push(change(revision, EVENT_BYTES_PER_KIND_MAX / 3));
        }
        let after = |revision| ring.after(Kind::ConfigMap, StateRevision(revision), 10);
        assert_eq!(after(1), Err(Gone { asked: StateRevision(1), oldest: StateRevision(3) }));
        let revisions: Vec<u64> = after(3).unwrap().iter().map(|change| change.revision.0).collect();
        assert_eq!(revisions, [4, 5]);
        assert!(after(5).unwrap().is_empty());
    }

    #[test]
    fn a_restored_state_starts_a_new_ring() {
        let mut ring = EventRing::default();
        ring.push(change(1, 1));
        ring.restart(StateRevision(10));
        assert!(ring.after(Kind::ConfigMap, StateRevision(9), 1).is_err());
        assert!(ring.after(Kind::ConfigMap, StateRevision(10), 1).unwrap().is_empty());
    }
}
