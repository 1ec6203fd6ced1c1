//! Every blob that a state names: what a backup holds.

use std::collections::BTreeSet;

use windlass_hub_core::State;
use windlass_protocol::ids::Digest;

use super::{BundleError, Bundles, Referenced};
use crate::store::blobs::{BlobDigest, BlobLease, BlobStore};

/// The blobs that a state names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Indexes of bundles, and what they list.
    pub needed: BTreeSet<Digest>,
    /// What agents have reported: nice to have.
    pub details: BTreeSet<Digest>,
}

impl Bundles {
    /// Every blob that a state names, as far as the indexes are here. Blocks.
    ///
    /// # Errors
    /// [`BundleError`] when the store fails, or an index cannot be read.
    pub fn contents(&self, state: &State) -> Result<Contents, BundleError> {
        let Referenced { bundles, details, .. } = Referenced::of(state);
        let mut needed = bundles.clone();
        for bundle in &bundles {
            if let Some(resources) = self.index(bundle)? {
                needed.extend(resources.iter().map(|resource| resource.digest));
            }
        }
        let details = details.difference(&needed).copied().collect();
        Ok(Contents { needed, details })
    }

    /// Keeps blobs, present or not, from being collected.
    pub fn lease_contents(&self, contents: &Contents) -> BlobLease {
        let digests = contents.needed.union(&contents.details);
        self.blobs.lease(digests.map(|digest| BlobDigest(digest.0)).collect())
    }

    /// The blobs as they are stored.
    #[must_use]
    pub const fn blobs(&self) -> &BlobStore {
        &self.blobs
    }
}
