//! (epoch, generation) of a cluster never goes back: neither in the state nor on the agent's disk.

use std::collections::BTreeMap;

use windlass_hub_core::State;
use windlass_protocol::ids::{Epoch, Generation};

use super::Finding;

/// The newest generation seen of each cluster, by uid.
#[derive(Debug, Default)]
pub(crate) struct Generations {
    disks: BTreeMap<String, (Epoch, Generation)>,
    state: BTreeMap<String, (Epoch, Generation)>,
}

impl Generations {
    /// The agent of this cluster uid has this on its disk.
    pub(crate) fn on_disk(&mut self, cluster: &str, position: (Epoch, Generation)) -> Result<(), Finding> {
        advance(&mut self.disks, cluster, position, "the agent's disk")
    }

    /// The disk is lost: the agent begins anew.
    pub(crate) fn disk_lost(&mut self, cluster: &str) {
        self.disks.remove(cluster);
    }

    /// An entry was applied for the first time.
    pub(crate) fn in_state(&mut self, state: &State) -> Result<(), Finding> {
        let epoch = state.meta().epoch;
        state
            .clusters()
            .try_for_each(|(uid, record)| advance(&mut self.state, uid, (epoch, record.generation), "the state"))
    }
}

fn advance(
    known: &mut BTreeMap<String, (Epoch, Generation)>,
    cluster: &str,
    position: (Epoch, Generation),
    place: &str,
) -> Result<(), Finding> {
    let newest = known.entry(cluster.to_owned()).or_insert(position);
    if position < *newest {
        let ((old_epoch, old), (epoch, new)) = (*newest, position);
        return Err(Finding {
            invariant: "generations never go back",
            source: "DESIGN.md 4: desired state is ordered by (epoch, generation)",
            message: format!("{place} of {cluster} goes from ({old_epoch}, {old}) to ({epoch}, {new})"),
        });
    }
    *newest = position;
    Ok(())
}
