//! Nothing is deleted from a cluster without a tombstone that says so, or a prune under a policy or an operation that allows it.
//! Deletions by the simulation itself (drift) do not come here.

use serde_json::Value;
use windlass_protocol::{ids::Digest, manifest::ResourceKey};

use super::Finding;
use crate::sim::{History, Key, tracked_by};

/// Judges each deletion by an agent, with what the log says about the assignment.
#[derive(Debug)]
pub(crate) struct Deletions;

impl Deletions {
    /// An agent deletes a live object for an assignment. `names` says whether a bundle names an object.
    pub(crate) fn deleted(
        history: &History,
        key: &Key,
        object: &ResourceKey,
        live: &Value,
        names: impl Fn(Digest, &ResourceKey) -> bool,
    ) -> Result<(), Finding> {
        let (application, uid) = key;
        let finding = |why: &str| {
            let message = format!("{application} ({uid}) deletes {object}: {why}");
            let source = "DESIGN.md 4: absence is never deletion; prune by policy";
            Err(Finding { invariant: "deletions are asked for", source, message })
        };
        if tracked_by(live) != application.name {
            return finding("the object belongs to somebody else");
        }
        if history.may_cascade(uid) {
            return Ok(());
        }
        if history.prunable_bundles(uid).any(|bundle| !names(bundle, object)) {
            return Ok(());
        }
        finding("no tombstone ends the assignment, and no released bundle without it may prune")
    }
}
