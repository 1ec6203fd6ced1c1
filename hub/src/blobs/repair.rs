//! Everything that the state references is on this disk: looked at again and again, and fetched where it is not.
//!
//! A blob that every member says it does not have is *lost*: it holds up nothing, since waiting brings it back no more
//! than not waiting, and it is told in the log. Details are fetched, but nothing waits for them: an agent names them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::Duration;

use windlass_protocol::ids::Digest;

use super::{
    BundleError, Bundles, blocking,
    fetch::distinct,
    group::Group,
    wire::{Answer, Request},
};
use crate::{
    raft::{LinkError, NodeId},
    store::blobs::BlobDigest,
};

/// Bundles name resources, which may be missing in turn: two levels, and another try.
const LEVELS: usize = 3;
/// A question about completeness is answered within this time: it may look at every bundle.
const ASK: Duration = Duration::from_secs(30);

/// Whether a node holds what its state references.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completeness {
    /// Revision of the state that was looked at.
    pub revision: u64,
    /// Manifests and indexes that are not on its disk although some member may have them. A learner with any may not
    /// become a voter.
    pub missing: usize,
    /// Those that no member has.
    pub lost: usize,
}

/// What a repair left undone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Not here yet.
    pub missing: BTreeSet<Digest>,
    /// On no member.
    pub lost: BTreeSet<Digest>,
    /// Members that did not answer, and why.
    pub silent: BTreeMap<NodeId, String>,
}

impl Bundles {
    /// Looks at everything that this node's state references, and fetches what is missing from the other members.
    ///
    /// # Errors
    /// [`BundleError`] when this disk fails.
    pub async fn repair(&self) -> Result<Repaired, BundleError> {
        let Some(group) = self.group() else { return Ok(Repaired::default()) };
        let referenced = {
            let group = Group::clone(&group);
            blocking(move || Ok(group.referenced())).await?
        };
        let sources = distinct(group.members(), group.this());
        let bundles = referenced.bundles.clone();
        let repaired = self.bring(&group, referenced.bundles, referenced.details, &sources, true).await?;
        let mut whole = self.shared.whole.lock().unwrap_or_else(PoisonError::into_inner);
        whole.retain(|digest| bundles.contains(digest));
        drop(whole);
        if !repaired.missing.is_empty() || !repaired.lost.is_empty() {
            tracing::warn!(
                missing = repaired.missing.len(),
                lost = repaired.lost.len(),
                first = ?repaired.lost.iter().chain(&repaired.missing).next().map(ToString::to_string),
                silent = ?repaired.silent,
                "manifests that the state references are not on this disk"
            );
        }
        Ok(repaired)
    }

    /// Waits until a read or a question has missed something that a repair may bring.
    pub async fn wanted(&self) {
        self.shared.wanted.notified().await;
    }

    /// Whether this node holds what its state references.
    ///
    /// # Errors
    /// [`BundleError`] when this disk fails.
    pub async fn completeness(&self) -> Result<Completeness, BundleError> {
        let Some(group) = self.group() else { return Ok(Completeness { revision: 0, missing: 0, lost: 0 }) };
        let this = self.clone();
        blocking(move || {
            let referenced = group.referenced();
            let missing = this.absent(&referenced.bundles)?;
            let lost = this.shared.lost.lock().unwrap_or_else(PoisonError::into_inner);
            let (lost, missing): (Vec<_>, Vec<_>) = missing.into_iter().partition(|digest| lost.contains(digest));
            if !missing.is_empty() {
                // Who asks waits for it: a learner is promoted once nothing is missing.
                this.shared.wanted.notify_one();
            }
            Ok(Completeness { revision: referenced.revision, missing: missing.len(), lost: lost.len() })
        })
        .await
    }

    /// The same of another node; to be asked before a learner becomes a voter.
    ///
    /// # Errors
    /// [`LinkError`] when it does not answer.
    pub async fn completeness_of(&self, node: NodeId) -> Result<Completeness, LinkError> {
        let group = self.group().ok_or_else(|| LinkError::Unreachable("this hub is starting".to_owned()))?;
        match self.ask(&group, node, &Request::Complete, ASK).await? {
            Answer::Complete { revision, missing, lost } => {
                let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
                Ok(Completeness { revision, missing: count(missing), lost: count(lost) })
            }
            _ => Err(LinkError::Refused("it answered something else".to_owned())),
        }
    }

    /// Brings `bundles` with all that they name, and `details`. `all` says that the sources are all other members: what
    /// none of them has is lost.
    pub(super) async fn bring(
        &self,
        group: &Group,
        bundles: BTreeSet<Digest>,
        details: BTreeSet<Digest>,
        sources: &[NodeId],
        all: bool,
    ) -> Result<Repaired, BundleError> {
        let bundles = std::sync::Arc::new(bundles);
        let details: Vec<Digest> = details.into_iter().collect();
        let mut repaired = Repaired::default();
        for _ in 0..LEVELS {
            let (this, roots) = (self.clone(), std::sync::Arc::clone(&bundles));
            let absent = blocking(move || this.absent(&roots)).await?;
            repaired = Repaired::default();
            let wanted: Vec<Digest> = absent.iter().copied().chain(self.missing(&details)).collect();
            if wanted.is_empty() {
                break;
            }
            let count = wanted.len();
            let left = self.fetch_from_any(group, wanted, sources).await;
            for (digest, everywhere) in left.blobs.iter().filter(|(digest, _)| absent.contains(*digest)) {
                let set = if *everywhere && all { &mut repaired.lost } else { &mut repaired.missing };
                set.insert(*digest);
            }
            repaired.silent = left.silent;
            if left.blobs.len() == count {
                break;
            }
        }
        if all {
            *self.shared.lost.lock().unwrap_or_else(PoisonError::into_inner) = repaired.lost.clone();
        }
        Ok(repaired)
    }

    /// What is not here of these bundles: indexes, and what the indexes that are here name. Blocks.
    pub(super) fn absent(&self, bundles: &BTreeSet<Digest>) -> Result<BTreeSet<Digest>, BundleError> {
        let mut absent = BTreeSet::new();
        for bundle in bundles {
            if self.shared.whole.lock().unwrap_or_else(PoisonError::into_inner).contains(bundle) {
                continue;
            }
            // Read from the disk, not from the cache of decoded ones: it must be there.
            if !self.blobs.has(&BlobDigest(bundle.0)) {
                absent.insert(*bundle);
                continue;
            }
            let resources = match self.index(bundle) {
                Ok(Some(resources)) => resources,
                Ok(None) => {
                    absent.insert(*bundle);
                    continue;
                }
                Err(error @ BundleError::Content { .. }) => {
                    tracing::error!(%error, "an index cannot be read");
                    absent.insert(*bundle);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let named: Vec<Digest> = resources.iter().map(|resource| resource.digest).collect();
            let missing = self.missing(&named);
            if missing.is_empty() {
                self.shared.whole.lock().unwrap_or_else(PoisonError::into_inner).insert(*bundle);
            }
            absent.extend(missing);
        }
        Ok(absent)
    }

    /// Those of `digests` that are not here.
    pub(super) fn missing(&self, digests: &[Digest]) -> Vec<Digest> {
        let digests: Vec<BlobDigest> = digests.iter().map(|digest| BlobDigest(digest.0)).collect();
        self.blobs.missing(&digests).into_iter().map(|digest| Digest(digest.0)).collect()
    }
}
