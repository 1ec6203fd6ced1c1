//! What the state knows of the hubs themselves: members, their join tokens, what everybody trusts, and the hashes by which
//! replicas are compared.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use windlass_protocol::{ids::Digest, time::Millis};

/// One hub node. Records of removed nodes stay: a node id is never given twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubRecord {
    /// Made with the node's store: tells a wiped or exchanged disk from the one that was admitted.
    pub store: [u8; 16],
    /// For people.
    pub name: String,
    /// `host:port` (UDP) that the other hubs dial.
    pub address: String,
    /// `host:port` that agents and users dial.
    pub agents: Vec<String>,
    /// Fingerprint of the issuing key's public key.
    pub key: Digest,
    /// Release that it runs.
    pub software: String,
    /// Newest state version that it understands.
    pub state_version: u32,
    /// Wall time of its admission.
    pub joined_at: Millis,
    /// Taken out of the group: its id, store and certificate are refused for ever.
    pub removed: bool,
}

/// A join token for a hub, kept as a hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubTokenRecord {
    /// Wall time after which it is refused.
    pub expires_at: Millis,
    /// The issuing key that redeemed it, and the node id that it got; only this key may use it again.
    pub redeemed_by: Option<(Digest, u64)>,
}

/// What everybody trusts. The root key is sealed with the operator key: only a hub that has that key can sign issuers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustRecord {
    /// Raised with each change.
    pub version: u64,
    /// Roots to trust (PEM), the signing one first.
    pub roots: String,
    /// Key of the first root, sealed.
    pub sealed_root_key: Vec<u8>,
    /// The first root signed by the one before it (PEM), while agents may know only that one; empty otherwise.
    pub cross: String,
}

/// The hashes that replicas have stated of the state at one point.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashes {
    /// Number of applied envelopes at that point.
    pub applied: u64,
    /// By node.
    pub by_node: BTreeMap<u64, Digest>,
}

impl Hashes {
    /// The hash of more than half of `voters`, if there is one.
    #[must_use]
    pub fn majority(&self, voters: &[u64]) -> Option<Digest> {
        let mut counts: BTreeMap<Digest, usize> = BTreeMap::new();
        for (_, hash) in self.by_node.iter().filter(|(node, _)| voters.contains(node)) {
            *counts.entry(*hash).or_default() += 1;
        }
        counts.into_iter().find(|(_, count)| *count * 2 > voters.len()).map(|(hash, _)| hash)
    }
}
