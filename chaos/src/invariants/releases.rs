//! The release of an assignment never goes back, in the state and on disks, and what is released was a target before.

use std::collections::BTreeMap;

use windlass_hub_core::State;
use windlass_protocol::ids::Release;

use super::Finding;
use crate::sim::History;

/// The newest release of each assignment, by uids of Application and cluster.
#[derive(Debug, Default)]
pub(crate) struct Releases {
    state: BTreeMap<(String, String), Release>,
    disks: BTreeMap<(String, String), Release>,
}

impl Releases {
    /// An entry was applied for the first time.
    pub(crate) fn in_state(&mut self, state: &State, history: &History) -> Result<(), Finding> {
        let mut now = BTreeMap::new();
        for (name, record) in state.assignments() {
            let key = (record.uid.clone(), record.cluster.clone());
            if let Some(newest) = self.state.get(&key).filter(|newest| record.release < **newest) {
                return Err(finding(format!("{name}: the state goes from release {newest} to {}", record.release)));
            }
            now.insert(key, record.release);
            let Some(released) = &record.released else { continue };
            if !history.was_target(&record.uid, released.digest) {
                let digest = released.digest.short();
                return Err(finding(format!("{name}: {digest} is released and was never a target")));
            }
        }
        // An assignment that ended begins anew when its Application comes back to the cluster.
        self.state = now;
        Ok(())
    }

    /// The agent of a cluster has this release of an Application uid on its disk.
    pub(crate) fn on_disk(&mut self, cluster: &str, application: &str, release: Release) -> Result<(), Finding> {
        let newest = self.disks.entry((application.to_owned(), cluster.to_owned())).or_default();
        if release < *newest {
            return Err(finding(format!("{application} on {cluster}: the disk goes from {newest} to {release}")));
        }
        *newest = release;
        Ok(())
    }

    /// The assignment ended on the cluster, or its disk is lost.
    pub(crate) fn forget(&mut self, cluster: &str, application: Option<&str>) {
        self.disks.retain(|(uid, on), _| on != cluster || application.is_some_and(|application| uid != application));
    }
}

const fn finding(message: String) -> Finding {
    let source = "DESIGN.md 2 and 4: release is raised at each change; apply enforces released digests";
    Finding { invariant: "releases only advance, to targets", source, message }
}
