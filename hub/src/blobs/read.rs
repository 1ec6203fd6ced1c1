//! Reads for agents and for the API: what is not on this disk, or damaged on it, is fetched from another hub at once.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use serde_json::Value;
use windlass_hub_core::State;
use windlass_protocol::ids::Digest;

use super::{BundleError, Bundles, blocking, fetch::distinct};
use crate::store::blobs::BlobDigest;

/// A read that misses something fetches it, then what that names, then reads.
const READ_ATTEMPTS: usize = 3;

/// What was found, and what was not although it is referenced.
type Served = (BTreeMap<Digest, Arc<Vec<u8>>>, Vec<Digest>);

impl Bundles {
    /// Reads a detail; `None` when it is not here (then it is sent for) or no JSON.
    #[must_use]
    pub fn detail(&self, digest: &Digest) -> Option<Value> {
        let Some(content) = self.read(&BlobDigest(digest.0)).ok()? else {
            self.shared.wanted.notify_one();
            return None;
        };
        serde_json::from_slice(&content).ok()
    }

    /// The manifests of a bundle, Secrets in clear. What is not here is fetched.
    ///
    /// # Errors
    /// [`BundleError`] when a manifest is missing everywhere.
    pub async fn manifests(&self, index: &Digest) -> Result<Vec<Value>, BundleError> {
        let index = *index;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let this = self.clone();
            let missed = match blocking(move || this.manifests_here(&index)).await? {
                Ok(manifests) => return Ok(manifests),
                Err(missed) => missed,
            };
            let first = missed.first().copied().unwrap_or(index);
            if attempts >= READ_ATTEMPTS || !self.recover(missed).await {
                return Err(BundleError::Content { digest: first, message: "no hub that answers has it".to_owned() });
            }
        }
    }

    /// The blobs that an agent asked for, `None` for those that its assignments do not reference or that no hub has.
    ///
    /// # Errors
    /// [`BundleError`] when the store fails.
    pub async fn serve(
        self,
        state: Arc<State>,
        cluster: String,
        digests: Vec<Digest>,
    ) -> Result<Vec<(Digest, Option<Arc<Vec<u8>>>)>, BundleError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (this, state, cluster, wanted) = (self.clone(), Arc::clone(&state), cluster.clone(), digests.clone());
            let (found, missed) = blocking(move || this.serve_here(&state, &cluster, &wanted)).await?;
            if missed.is_empty() || attempts >= READ_ATTEMPTS || !self.recover(missed).await {
                return Ok(digests.into_iter().map(|digest| (digest, found.get(&digest).cloned())).collect());
            }
        }
    }

    /// Fetches what a read has missed; says whether another read is worth it.
    async fn recover(&self, missed: Vec<Digest>) -> bool {
        // Whatever comes of this, what else is missing shall be looked for.
        self.shared.wanted.notify_one();
        let Some(group) = self.group() else { return false };
        let (count, sources) = (missed.len(), distinct(group.members(), group.this()));
        let left = self.fetch_from_any(&group, missed, &sources).await;
        left.blobs.len() < count
    }

    /// The manifests, or what of them is not here.
    pub(super) fn manifests_here(&self, index: &Digest) -> Result<Result<Vec<Value>, Vec<Digest>>, BundleError> {
        let Some(resources) = self.index(index)? else { return Ok(Err(vec![*index])) };
        let (mut manifests, mut missed) = (Vec::with_capacity(resources.len()), Vec::new());
        for resource in resources.iter() {
            let Some(content) = self.content(resource)? else {
                missed.push(resource.digest);
                continue;
            };
            manifests.push(
                serde_json::from_slice(&content)
                    .map_err(|error| BundleError::Content { digest: resource.digest, message: error.to_string() })?,
            );
        }
        if missed.is_empty() { Ok(Ok(manifests)) } else { Ok(Err(missed)) }
    }

    fn serve_here(&self, state: &State, cluster: &str, digests: &[Digest]) -> Result<Served, BundleError> {
        let wanted: BTreeSet<Digest> = digests.iter().copied().collect();
        let (mut found, mut missed, mut unread) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        for (_, assignment) in state.assignments_of(cluster) {
            for bundle in assignment.bundles() {
                if wanted.contains(&bundle.digest) && !found.contains_key(&bundle.digest) {
                    match self.read(&BlobDigest(bundle.digest.0))? {
                        Some(content) => drop(found.insert(bundle.digest, Arc::new(content.to_vec()))),
                        None => drop(missed.insert(bundle.digest)),
                    }
                }
                let Some(resources) = self.index(&bundle.digest)? else {
                    unread.insert(bundle.digest);
                    continue;
                };
                for resource in resources.iter().filter(|resource| wanted.contains(&resource.digest)) {
                    if let Entry::Vacant(place) = found.entry(resource.digest) {
                        match self.content(resource)? {
                            Some(content) => drop(place.insert(Arc::new(content))),
                            None => drop(missed.insert(resource.digest)),
                        }
                    }
                }
            }
        }
        // An index that is not here may name what was not found.
        if wanted.iter().any(|digest| !found.contains_key(digest)) {
            missed.append(&mut unread);
        }
        Ok((found, missed.into_iter().collect()))
    }
}
