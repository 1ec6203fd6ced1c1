//! Members of the group: tokens, admission, announcement, removal; trust; comparison of replicas; restore.
//!
//! Raft's own membership follows these records: the leader's shell makes it so.

use std::sync::Arc;

use windlass_protocol::{
    ids::{Digest, Epoch, StateRevision},
    time::Millis,
};

use super::Transaction;
use crate::{
    command::{HubAnnouncement, Rejection, Reply},
    effect::Effect,
    state::{ClusterRecord, Hashes, HubRecord, HubTokenRecord, State, TrustRecord},
};

/// Hubs at a time; Raft's cost grows with each, and five survive two failures.
pub const HUBS_MAX: usize = 7;
/// Unexpired hub tokens at a time.
const HUB_TOKENS_MAX: usize = 16;
/// Bytes of an announced name, address or release.
const TEXT_BYTES_MAX: usize = 255;
/// Addresses that one hub may announce for agents.
const AGENT_ADDRESSES_MAX: usize = 8;
/// A restore moves the revision by this much: past anything that the lost group can have handed out since the backup.
pub const RESTORE_REVISIONS: u64 = 1_000_000_000;

impl State {
    /// The hubs that belong to the group.
    pub fn hubs(&self) -> impl Iterator<Item = (u64, &Arc<HubRecord>)> {
        self.hubs.iter().filter(|(_, record)| !record.removed).map(|(node, record)| (*node, record))
    }

    /// What is known of a node, removed ones included.
    #[must_use]
    pub fn hub(&self, node: u64) -> Option<&Arc<HubRecord>> {
        self.hubs.get(&node)
    }

    /// What everybody trusts; version 0 in a group that an earlier release has made.
    #[must_use]
    pub fn trust(&self) -> &TrustRecord {
        &self.trust
    }

    /// Where agents find the hubs, in the order of the nodes.
    #[must_use]
    pub fn hub_addresses(&self) -> Vec<String> {
        self.hubs().flat_map(|(_, record)| record.agents.iter().cloned()).collect()
    }

    /// The newest version of the state's meaning that every hub understands, where it is newer than the current one.
    #[must_use]
    pub fn next_version(&self) -> Option<u32> {
        let least = self.hubs().map(|(_, record)| record.state_version).min();
        let next = least.unwrap_or(crate::STATE_VERSION).min(crate::STATE_VERSION);
        (next > self.meta.version).then_some(next)
    }
}

impl Transaction {
    pub(super) fn add_hub_token(&mut self, hash: Digest, expires_at: Millis) -> Result<(), Rejection> {
        let wall = self.wall;
        let expired: Vec<Digest> =
            self.state.hub_tokens.iter().filter(|(_, token)| token.expires_at < wall).map(|(hash, _)| *hash).collect();
        for hash in expired {
            self.state.hub_tokens.remove_mut(&hash);
        }
        let count = self.state.hub_tokens.size();
        if count >= HUB_TOKENS_MAX {
            return Err(Rejection::Forbidden(format!(
                "there are {count} unexpired hub tokens; wait until some expire"
            )));
        }
        self.state.hub_tokens.insert_mut(hash, Arc::new(HubTokenRecord { expires_at, redeemed_by: None }));
        Ok(())
    }

    /// Answers with node id and cluster id.
    pub(super) fn admit_hub(
        &mut self,
        hash: &Digest,
        key: Digest,
        store: [u8; 16],
        announced: &HubAnnouncement,
    ) -> Result<Reply, Rejection> {
        // One sentence for every reason: a guesser learns nothing.
        let refused = || {
            Rejection::Identity(
                "the hub token is unknown, expired or used by another node: get a new one with `windlass hub token`"
                    .to_owned(),
            )
        };
        let token = self.state.hub_tokens.get(hash).cloned().ok_or_else(refused)?;
        if token.expires_at < self.wall {
            return Err(refused());
        }
        let node = match token.redeemed_by {
            Some((by, node)) if by == key && self.state.hub(node).is_some_and(|hub| !hub.removed) => node,
            Some(_) => return Err(refused()),
            None => self.new_hub(key, store, announced)?,
        };
        let redeemed = HubTokenRecord { redeemed_by: Some((key, node)), ..(*token).clone() };
        self.state.hub_tokens.insert_mut(*hash, Arc::new(redeemed));
        let cluster_id = self.state.meta.cluster_id.clone();
        Ok(Reply { cluster: Some((node.to_string(), cluster_id)), ..Reply::default() })
    }

    fn new_hub(&mut self, key: Digest, store: [u8; 16], announced: &HubAnnouncement) -> Result<u64, Rejection> {
        check(announced)?;
        let (theirs, ours) = (announced.state_version, self.state.meta.version);
        if theirs < ours {
            return Err(Rejection::Precondition(format!(
                "the group has state version {ours}, this release understands up to {theirs}: join with the release that the group runs"
            )));
        }
        let count = self.state.hubs().count();
        if count >= HUBS_MAX {
            return Err(Rejection::Forbidden(format!("the group has {count} hubs, the limit is {HUBS_MAX}")));
        }
        if let Some((node, _)) = self.state.hubs().find(|(_, hub)| hub.address == announced.address) {
            let address = &announced.address;
            return Err(Rejection::Precondition(format!(
                "{address} is the peer address of node {node}: remove that node first (`windlass hub remove {node}`), or advertise another address"
            )));
        }
        // The first hub is not admitted, it announces itself: its id must not be given away before it has.
        let Some(node) = self.state.hubs.iter().next_back().map(|(node, _)| node + 1) else {
            return Err(Rejection::Precondition(
                "the group's first hub has not announced itself yet: try again in a few seconds".to_owned(),
            ));
        };
        let record = member(store, key, announced, self.wall);
        self.put_hub(node, record);
        Ok(node)
    }

    /// A member says where it is and what it runs; the first member of a group is made known so.
    pub(super) fn announce_hub(
        &mut self,
        node: u64,
        store: [u8; 16],
        key: Digest,
        announced: &HubAnnouncement,
    ) -> Result<(), Rejection> {
        check(announced)?;
        let known = self.state.hub(node).cloned();
        let joined_at = match &known {
            None if self.state.hubs.is_empty() => self.wall,
            Some(hub) if !hub.removed && hub.store == store => hub.joined_at,
            _ => {
                return Err(Rejection::Identity(format!(
                    "node {node} with this store is no member of the group: empty its directory and join again with a new token"
                )));
            }
        };
        let record = member(store, key, announced, joined_at);
        if known.as_deref() != Some(&record) {
            self.put_hub(node, record);
        }
        Ok(())
    }

    pub(super) fn remove_hub(&mut self, node: u64) -> Result<(), Rejection> {
        let Some(hub) = self.state.hub(node).filter(|hub| !hub.removed).cloned() else {
            return Err(Rejection::NotFound { kind: "hubs".to_owned(), name: node.to_string() });
        };
        if self.state.hubs().count() == 1 {
            return Err(Rejection::Forbidden(format!("node {node} is the only hub of the group")));
        }
        self.put_hub(node, HubRecord { removed: true, ..(*hub).clone() });
        // Its sessions are gone with it.
        let held: Vec<(String, ClusterRecord)> = self
            .state
            .clusters()
            .filter(|(_, record)| record.session == Some(node))
            .map(|(uid, record)| (uid.clone(), ClusterRecord { session: None, ..(**record).clone() }))
            .collect();
        for (uid, record) in held {
            self.put_cluster(&uid, record);
        }
        Ok(())
    }

    pub(super) fn set_trust(&mut self, trust: &TrustRecord) -> Result<(), Rejection> {
        let current = self.state.trust.version;
        if trust.version != current + 1 {
            return Err(Rejection::Precondition(format!("the trust bundle is at version {current}: look again")));
        }
        self.state.trust = Arc::new(trust.clone());
        self.effects.push(Effect::Trust { version: trust.version });
        Ok(())
    }

    /// Kept for the newest point only: an older one has been compared, or the node that states it is far behind.
    pub(super) fn state_hash(&mut self, node: u64, applied: u64, hash: Digest) {
        let current = self.state.hashes.applied;
        if applied < current || self.state.hub(node).is_none_or(|hub| hub.removed) {
            return;
        }
        let mut hashes =
            if applied > current { Hashes { applied, ..Hashes::default() } } else { (*self.state.hashes).clone() };
        hashes.by_node.insert(node, hash);
        self.effects.push(Effect::Hashes(hashes.clone()));
        self.state.hashes = Arc::new(hashes);
    }

    /// A new group begins with the state of a backup: the epoch is raised, nothing is deleted.
    pub(super) fn restored(&mut self, cluster_id: &str, node: u64, hub: &HubRecord) -> Result<(), Rejection> {
        if cluster_id == self.state.meta.cluster_id {
            return Err(Rejection::Precondition(format!("the group {cluster_id} was restored already")));
        }
        let meta = &mut self.state.meta;
        cluster_id.clone_into(&mut meta.cluster_id);
        meta.epoch = Epoch(meta.epoch.0 + 1);
        meta.revision = StateRevision(meta.revision.0.saturating_add(RESTORE_REVISIONS));
        self.state.hubs = std::iter::once((node, Arc::new(hub.clone()))).collect();
        self.state.hub_tokens = std::iter::empty().collect();
        self.state.hashes = Arc::default();
        let clusters: Vec<(String, ClusterRecord)> =
            self.state.clusters().map(|(uid, record)| (uid.clone(), (**record).clone())).collect();
        for (uid, record) in clusters {
            // What agents renewed, acknowledged and sent since the backup is not known here.
            if record.key.is_some() {
                self.state.unproven.insert_mut(uid.clone(), Arc::new(()));
            }
            let acknowledged = windlass_protocol::ids::Generation::ZERO;
            let receipts = windlass_protocol::ids::ReceiptSeq::ZERO;
            self.put_cluster(&uid, ClusterRecord { session: None, acknowledged, receipts, ..record });
        }
        self.effects.push(Effect::Hubs);
        Ok(())
    }

    fn put_hub(&mut self, node: u64, record: HubRecord) {
        self.state.hubs.insert_mut(node, Arc::new(record));
        self.effects.push(Effect::Hubs);
    }
}

fn member(store: [u8; 16], key: Digest, announced: &HubAnnouncement, joined_at: Millis) -> HubRecord {
    HubRecord {
        store,
        name: announced.name.clone(),
        address: announced.address.clone(),
        agents: announced.agents.clone(),
        key,
        software: announced.software.clone(),
        state_version: announced.state_version,
        joined_at,
        removed: false,
    }
}

fn check(announced: &HubAnnouncement) -> Result<(), Rejection> {
    let texts = [&announced.name, &announced.address, &announced.software];
    let too_long = texts.into_iter().chain(&announced.agents).any(|text| text.len() > TEXT_BYTES_MAX);
    if too_long || announced.agents.len() > AGENT_ADDRESSES_MAX {
        return Err(Rejection::Invalid(format!(
            "a hub announces at most {AGENT_ADDRESSES_MAX} addresses, and names of at most {TEXT_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}
