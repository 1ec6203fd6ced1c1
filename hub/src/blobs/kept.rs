//! Blobs that other hubs count on, before anything references them here.

use std::{collections::VecDeque, sync::PoisonError};

use tokio::time::Instant;
use windlass_protocol::ids::Digest;

use super::Bundles;
use crate::store::blobs::{BlobDigest, BlobLease};

/// Digests kept in this way; beyond, the oldest are given up before their time.
const KEPT_DIGESTS_MAX: usize = 1 << 20;

/// Leases in the order in which they end.
#[derive(Debug, Default)]
pub(super) struct Kept {
    leases: VecDeque<(Instant, BlobLease)>,
    digests: usize,
}

impl Bundles {
    /// Keeps blobs from collection for a while, present or not.
    pub(super) fn keep(&self, digests: &[Digest]) {
        self.keep_lease(self.blobs.lease(digests.iter().map(|digest| BlobDigest(digest.0)).collect()));
    }

    pub(super) fn keep_lease(&self, lease: BlobLease) {
        self.expire_kept();
        let mut given_up = Vec::new();
        let mut kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.digests += lease.digests().len();
        kept.leases.push_back((Instant::now() + self.shared.timing.kept, lease));
        while kept.digests > KEPT_DIGESTS_MAX
            && let Some((_, oldest)) = kept.leases.pop_front()
        {
            kept.digests = kept.digests.saturating_sub(oldest.digests().len());
            given_up.push(oldest);
        }
        drop(kept);
        if !given_up.is_empty() {
            tracing::warn!(limit = KEPT_DIGESTS_MAX, "too many blobs are held for other hubs; the oldest are let go");
        }
    }

    pub(super) fn expire_kept(&self) {
        let now = Instant::now();
        let mut expired = Vec::new();
        let mut kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.leases.front().is_some_and(|(end, _)| *end <= now) {
            if let Some((_, lease)) = kept.leases.pop_front() {
                kept.digests = kept.digests.saturating_sub(lease.digests().len());
                // Dropped without the lock.
                expired.push(lease);
            }
        }
    }
}
