//! Who is who: said by both sides of a connection before anything else, and checked by both (pure).
//!
//! Certificates prove the node; the hello adds what they cannot know: which cluster and which disk. A node whose disk was
//! wiped must not come back under its old number: it would deny votes and entries that it has acknowledged.

use serde::{Deserialize, Serialize};

use super::service::Expected;
use crate::raft::NodeId;
use crate::store::{Identity, StoreId};

/// Oldest and newest protocol between hubs that this build speaks.
const VERSIONS: (u16, u16) = (1, 1);

/// Longest name of a build that is believed.
const SOFTWARE_BYTES: usize = 64;

/// What a side says of itself. Append-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Hello {
    V1 { versions: (u16, u16), cluster: [u8; 16], node: NodeId, store: [u8; 16], software: String },
}

/// The listener's answer. Append-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The same about the listener; the dialler checks it in turn.
    Welcome(Hello),
    /// A sentence why not.
    Refused(String),
}

/// A peer that may stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Greeted {
    pub(super) software: String,
}

impl Hello {
    pub(super) fn new(identity: &Identity, software: &str) -> Self {
        Self::V1 {
            versions: VERSIONS,
            cluster: *identity.cluster.as_bytes(),
            node: identity.node,
            store: *identity.store.as_bytes(),
            software: software.chars().take(SOFTWARE_BYTES).collect(),
        }
    }

    /// Checks what the holder of the certificate of node `certified` says of itself. The sentence is for both sides.
    pub(super) fn check(
        &self,
        own: &Identity,
        own_software: &str,
        certified: NodeId,
        expected: Expected,
    ) -> Result<Greeted, String> {
        let Self::V1 { versions: (oldest, newest), cluster, node, store, software } = self;
        let software: String = software.chars().filter(|c| !c.is_control()).take(SOFTWARE_BYTES).collect();
        if *newest < VERSIONS.0 || *oldest > VERSIONS.1 {
            return Err(format!(
                "node {node} ({software}) speaks versions {oldest} to {newest} of the protocol between hubs, node {} \
                 ({own_software}) speaks {} to {}; upgrade the older one",
                own.node, VERSIONS.0, VERSIONS.1
            ));
        }
        if cluster != own.cluster.as_bytes() {
            return Err(format!(
                "node {node} belongs to cluster {}, node {} to cluster {}; check the peer addresses",
                StoreId::from_bytes(*cluster),
                own.node,
                own.cluster
            ));
        }
        if *node != certified {
            return Err(format!(
                "the hub says it is node {node}, its certificate is that of node {certified}; its data directory or \
                 its certificate belongs to another node"
            ));
        }
        if *node == own.node {
            return Err(format!(
                "another hub says it is node {node}, as this one does; a data directory was copied, or a peer address \
                 leads back here: stop one of the two, or correct the address"
            ));
        }
        match expected {
            Expected::Known(known) if known.as_bytes() != store => Err(format!(
                "node {node} answers with another store ({}, known is {known}): its disk was wiped or replaced; remove \
                 it with `windlass hub remove {node}` and let it join again",
                StoreId::from_bytes(*store)
            )),
            Expected::Removed => Err(removed(*node)),
            Expected::Known(_) | Expected::Unknown => Ok(Greeted { software }),
        }
    }
}

/// What a removed node is told.
pub(super) fn removed(node: NodeId) -> String {
    format!(
        "node {node} was removed from this cluster; it comes back only with an empty data directory and a new token \
         (`windlass hub token`)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(cluster: u8, node: NodeId, store: u8) -> Identity {
        let id = |byte| StoreId::from_bytes([byte; 16]);
        Identity { cluster: id(cluster), node, store: id(store) }
    }

    fn refusal(their: &Hello, certified: NodeId, expected: Expected) -> String {
        their.check(&identity(1, 1, 1), "windlass-hub 2", certified, expected).unwrap_err()
    }

    #[test]
    fn every_mismatch_has_its_own_sentence() {
        let known = Expected::Known(StoreId::from_bytes([2; 16]));
        let sound = Hello::new(&identity(1, 2, 2), "windlass-hub 1");
        let own = identity(1, 1, 1);
        for expected in [known, Expected::Unknown] {
            assert_eq!(sound.check(&own, "x", 2, expected).unwrap().software, "windlass-hub 1");
        }
        let cases = [
            (refusal(&Hello::new(&identity(9, 2, 2), "s"), 2, known), "belongs to cluster 0909"),
            (refusal(&sound, 3, known), "its certificate is that of node 3"),
            (refusal(&Hello::new(&identity(1, 1, 2), "s"), 1, known), "a data directory was copied"),
            (refusal(&Hello::new(&identity(1, 2, 7), "s"), 2, known), "`windlass hub remove 2`"),
            (refusal(&sound, 2, Expected::Removed), "was removed from this cluster"),
        ];
        for (said, expected) in cases {
            assert!(said.contains(expected), "{said}");
        }
        let Hello::V1 { cluster, node, store, software, .. } = sound;
        let newer = Hello::V1 { versions: (2, 3), cluster, node, store, software };
        assert!(refusal(&newer, 2, known).contains("speaks versions 2 to 3"));
    }
}
