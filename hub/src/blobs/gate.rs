//! A snapshot counts as installed only when this node holds every manifest that its state references.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, sleep};
use windlass_protocol::ids::Digest;

use super::{Bundles, blocking, fetch::distinct};
use crate::{
    machine,
    raft::{NodeId, OpenSnapshot, SnapshotGate},
};

/// A gate gives up after this time; the snapshot stays on disk, and the next attempt goes on from what is here.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at members that did not answer.
const PAUSE: Duration = Duration::from_secs(1);

impl SnapshotGate for Bundles {
    fn before_install(
        &self,
        from: NodeId,
        members: BTreeSet<NodeId>,
        open: OpenSnapshot,
    ) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let Some(group) = self.group() else { return Err("this hub is starting; try again".to_owned()) };
            let bundles: BTreeSet<Digest> = blocking(move || {
                let mut state = open().map_err(|error| super::BundleError::Worker(error.to_string()))?;
                machine::bundles_of_snapshot(&mut state).map_err(|error| super::BundleError::Worker(error.to_string()))
            })
            .await
            .map_err(|error| error.to_string())?;
            // The sender first: it references them all.
            let sources = distinct(std::iter::once(from).chain(members), group.this());
            let deadline = Instant::now() + LIMIT;
            loop {
                let brought = self.bring(&group, bundles.clone(), BTreeSet::new(), &sources, true).await;
                let brought = brought.map_err(|error| error.to_string())?;
                if brought.missing.is_empty() {
                    if !brought.lost.is_empty() {
                        tracing::error!(lost = brought.lost.len(), "no member has manifests that the state references");
                    }
                    return Ok(());
                }
                if Instant::now() >= deadline {
                    let silent: Vec<String> =
                        brought.silent.iter().map(|(node, reason)| format!("node {node}: {reason}")).collect();
                    let (count, silent) = (brought.missing.len(), silent.join("; "));
                    return Err(format!("{count} manifests that the snapshot references are not here yet ({silent})"));
                }
                sleep(PAUSE).await;
            }
        })
    }
}
