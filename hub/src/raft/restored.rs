//! The first member of a group that begins with a state instead of an empty log: a snapshot, and nothing else.
//!
//! The snapshot stands where the first entry of a new group would: at index 0 of term 0, with this node as the only voter. A
//! node that finds it and no log elects itself and goes on behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::machine::SnapshotSource;
use super::snapshot::{SnapshotError, SnapshotFolder};
use super::types::{LogId, Membership, NodeId, Peer, SnapshotMeta, StoredMembership};

/// Writes the snapshot of a new group of one into an empty folder. Blocks.
///
/// # Errors
/// [`SnapshotError`] when it cannot be written.
pub(crate) fn found_from(
    snapshots: &Path,
    node: NodeId,
    peer: Peer,
    state: Box<dyn SnapshotSource>,
) -> Result<(), SnapshotError> {
    let first = LogId::default();
    let membership = Membership::new(vec![BTreeSet::from([node])], BTreeMap::from([(node, peer)]));
    let meta = SnapshotMeta {
        last_log_id: Some(first),
        last_membership: StoredMembership::new(Some(first), membership),
        snapshot_id: format!("restored-{node}"),
    };
    SnapshotFolder::open(snapshots)?.write(meta, state).map(drop)
}
