//! Join tokens, certificates and sessions of agents.

use std::sync::Arc;

use serde_json::json;
use windlass_protocol::{
    ids::{Digest, Incarnation},
    json,
    message::Retry,
    resource::{ClusterPhase, Kind},
    time::Millis,
};

use super::{Transaction, not_found};
use crate::{
    command::{Rejection, Reply, SessionChange},
    effect::Effect,
    state::{ClusterRecord, ObjectKey, State, TokenRecord},
};

/// Join tokens that one cluster may have at a time.
const TOKENS_PER_CLUSTER_MAX: usize = 16;
/// Facts of one cluster.
const FACTS_BYTES_MAX: usize = 16 * 1024;

/// Why an agent with a valid certificate is not admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// The Cluster is gone, or the certificate is not its current one.
    #[error("this identity was revoked: enrol again with a new token from `windlass cluster add`")]
    Revoked,
    /// Another process with this identity started later.
    #[error("incarnation {ours} of this agent was superseded by {newest}: another process runs with its identity")]
    Superseded {
        /// The one that asks.
        ours: Incarnation,
        /// The newest.
        newest: Incarnation,
    },
}

impl NotAdmitted {
    /// Neither can be mended by trying again.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        Retry::Never
    }
}

impl State {
    /// Whether an agent may hold a session: uid, serial and key are current and no newer process of it has been seen. After a
    /// restore the key alone decides until the agent's first session: its certificate may be newer than the backup.
    ///
    /// # Errors
    /// [`NotAdmitted`] with the sentence for the agent's log.
    pub fn admit_key(
        &self,
        cluster: &str,
        serial: &[u8; 16],
        key: &Digest,
        incarnation: Incarnation,
    ) -> Result<(), NotAdmitted> {
        if self.cluster(cluster).is_none_or(|record| record.key.as_ref() != Some(key)) {
            return Err(NotAdmitted::Revoked);
        }
        self.admit(cluster, serial, incarnation)
    }

    /// [`Self::admit_key`] for a certificate whose key the caller has checked.
    ///
    /// # Errors
    /// As there.
    pub fn admit(&self, cluster: &str, serial: &[u8; 16], incarnation: Incarnation) -> Result<(), NotAdmitted> {
        let record = self.cluster(cluster).ok_or(NotAdmitted::Revoked)?;
        let known = record.serial.as_ref() == Some(serial) || record.previous_serial.as_ref() == Some(serial);
        if !known && !self.unproven.contains_key(cluster) {
            return Err(NotAdmitted::Revoked);
        }
        if incarnation < record.incarnation {
            return Err(NotAdmitted::Superseded { ours: incarnation, newest: record.incarnation });
        }
        Ok(())
    }
}

impl Transaction {
    pub(super) fn add_token(&mut self, hash: Digest, cluster: &str, expires_at: Millis) -> Result<Reply, Rejection> {
        let key = ObjectKey::new(Kind::Cluster, "", cluster);
        let uid = self.state.object(&key).map(|record| record.uid.clone()).ok_or_else(|| not_found(&key))?;
        let wall = self.wall;
        let expired: Vec<Digest> =
            self.state.tokens.iter().filter(|(_, token)| token.expires_at < wall).map(|(hash, _)| *hash).collect();
        for hash in expired {
            self.state.tokens.remove_mut(&hash);
        }
        let count = self.state.tokens.iter().filter(|(_, token)| token.cluster == uid).count();
        if count >= TOKENS_PER_CLUSTER_MAX {
            return Err(Rejection::Forbidden(format!(
                "cluster {cluster:?} has {count} unexpired join tokens; wait until some expire"
            )));
        }
        let record = TokenRecord { cluster: uid.clone(), expires_at, redeemed_by: None };
        self.state.tokens.insert_mut(hash, Arc::new(record));
        Ok(Reply { cluster: Some((cluster.to_owned(), uid)), ..Reply::default() })
    }

    pub(super) fn redeem_token(&mut self, hash: &Digest, key: Digest, serial: [u8; 16]) -> Result<Reply, Rejection> {
        // One sentence for every reason: a guesser learns nothing.
        let refused = || {
            Rejection::Identity(
                "the join token is unknown, expired or used by another key: get a new one with `windlass cluster add`"
                    .to_owned(),
            )
        };
        let token = self.state.token(hash).cloned().ok_or_else(refused)?;
        let other_key = token.redeemed_by.is_some_and(|by| by != key);
        let record = self.state.cluster(&token.cluster).cloned().ok_or_else(refused)?;
        if token.expires_at < self.wall || other_key {
            return Err(refused());
        }
        let redeemed = TokenRecord { redeemed_by: Some(key), ..(*token).clone() };
        self.state.tokens.insert_mut(*hash, Arc::new(redeemed));
        let same_key = record.key == Some(key);
        let mut record = (*record).clone();
        record.previous_serial = if same_key { record.serial } else { None };
        record.key = Some(key);
        record.serial = Some(serial);
        if !same_key {
            // A new agent begins anew: what the old one had acknowledged says nothing about it.
            record.incarnation = Incarnation::ZERO;
            record.acknowledged = windlass_protocol::ids::Generation::ZERO;
            record.receipts = windlass_protocol::ids::ReceiptSeq::ZERO;
            self.effects.push(Effect::Disconnect {
                cluster: token.cluster.clone(),
                keep_serial: Some(serial),
                reason: "another agent enrolled for this cluster".to_owned(),
            });
        }
        let name = record.name.clone();
        self.put_cluster(&token.cluster, record);
        Ok(Reply { cluster: Some((name, token.cluster.clone())), ..Reply::default() })
    }

    pub(super) fn renew_certificate(
        &mut self,
        cluster: &str,
        key: Digest,
        serial: [u8; 16],
    ) -> Result<Reply, Rejection> {
        let revoked = || Rejection::Identity(NotAdmitted::Revoked.to_string());
        let record = self.state.cluster(cluster).cloned().ok_or_else(revoked)?;
        if record.key != Some(key) {
            return Err(revoked());
        }
        let mut record = (*record).clone();
        record.previous_serial = record.serial;
        record.serial = Some(serial);
        let name = record.name.clone();
        self.put_cluster(cluster, record);
        Ok(Reply { cluster: Some((name, cluster.to_owned())), ..Reply::default() })
    }

    pub(super) fn session(&mut self, hub: u64, change: &SessionChange) {
        match change {
            SessionChange::Connected { cluster, incarnation, serial } => {
                let Some(record) = self.state.cluster(cluster).cloned() else { return };
                if self.state.admit(cluster, serial, *incarnation).is_err() {
                    return;
                }
                let mut record = (*record).clone();
                if *incarnation > record.incarnation {
                    record.receipts = windlass_protocol::ids::ReceiptSeq::ZERO;
                }
                record.incarnation = *incarnation;
                record.session = Some(hub);
                if self.state.unproven.remove_mut(cluster) {
                    record.serial = Some(*serial);
                    record.previous_serial = None;
                }
                if record.serial.as_ref() == Some(serial) {
                    record.previous_serial = None;
                }
                self.put_cluster(cluster, record);
            }
            SessionChange::Disconnected { cluster, incarnation } => {
                let Some(record) = self.state.cluster(cluster).cloned() else { return };
                if record.session == Some(hub) && record.incarnation == *incarnation {
                    self.put_cluster(cluster, ClusterRecord { session: None, ..(*record).clone() });
                }
            }
            SessionChange::Acknowledged { cluster, epoch, generation } => {
                let Some(record) = self.state.cluster(cluster).cloned() else { return };
                if *epoch == self.state.meta.epoch
                    && *generation > record.acknowledged
                    && *generation <= record.generation
                {
                    self.put_cluster(cluster, ClusterRecord { acknowledged: *generation, ..(*record).clone() });
                }
            }
            SessionChange::Facts { cluster, facts } => {
                let Some(record) = self.state.cluster(cluster).cloned() else { return };
                if facts.to_string().len() <= FACTS_BYTES_MAX {
                    let key = ObjectKey::new(Kind::Cluster, "", record.name.as_str());
                    self.edit_status(&key, |status| json::set(status, &["facts"], facts.0.clone()));
                }
            }
        }
    }

    pub(super) fn put_cluster(&mut self, uid: &str, record: ClusterRecord) {
        self.state.clusters.insert_mut(uid.to_owned(), Arc::new(record));
        self.dirty_clusters.insert(uid.to_owned());
    }

    /// The Cluster object is gone: its agent is cut off, its assignments end without anything being deleted.
    pub(super) fn forget_cluster(&mut self, uid: &str) {
        if self.state.cluster(uid).is_none() {
            return;
        }
        self.effects.push(Effect::Disconnect {
            cluster: uid.to_owned(),
            keep_serial: None,
            reason: "the cluster was removed from the hub".to_owned(),
        });
        let tokens: Vec<Digest> =
            self.state.tokens.iter().filter(|(_, token)| token.cluster == uid).map(|(hash, _)| *hash).collect();
        for hash in tokens {
            self.state.tokens.remove_mut(&hash);
        }
        self.state.clusters.remove_mut(uid);
        let applications: Vec<_> = self.state.assignments_of(uid).map(|(name, _)| name.clone()).collect();
        for application in applications {
            self.state.assignments.remove_mut(&application);
            self.dirty_applications.insert(application);
        }
        // Deletions that waited for this cluster need not wait any longer.
        let waiting: Vec<_> = self
            .state
            .objects(Kind::Application, None)
            .filter(|(_, record)| record.deleting)
            .map(|(key, _)| key.name.clone())
            .collect();
        self.dirty_applications.extend(waiting);
    }

    pub(super) fn settle_cluster(&mut self, uid: &str) {
        let Some(record) = self.state.cluster(uid).cloned() else { return };
        let key = ObjectKey::new(Kind::Cluster, "", record.name.as_str());
        let assignments = self.state.assignments_of(uid).count();
        let phase = match (record.session, record.key) {
            (Some(_), _) => ClusterPhase::Connected,
            (None, Some(_)) => ClusterPhase::Disconnected,
            (None, None) => ClusterPhase::Pending,
        };
        let now = self.wall.rfc3339();
        self.edit_status(&key, |status| {
            if json::text(status, &["phase"]) != phase.as_str() {
                json::set(status, &["phase"], json!(phase.as_str()));
                json::set(status, &["lastTransitionTime"], json!(now));
            }
            json::set(status, &["generation"], json!(record.generation.0));
            json::set(status, &["acknowledgedGeneration"], json!(record.acknowledged.0));
            json::set(status, &["assignments"], json!(assignments));
            match record.session {
                Some(hub) => json::set(status, &["hub"], json!(hub)),
                None => drop(json::remove(status, &["hub"])),
            }
            let orphaned: Vec<String> = record.orphaned.keys().map(ToString::to_string).collect();
            if orphaned.is_empty() {
                json::remove(status, &["orphaned"]);
            } else {
                json::set(status, &["orphaned"], json!(orphaned));
            }
        });
    }

    /// Changes the `status` of an object, if it is there.
    pub(super) fn edit_status(&mut self, key: &ObjectKey, edit: impl FnOnce(&mut serde_json::Value)) {
        let Some(record) = self.state.object(key).cloned() else { return };
        let mut value = record.value();
        let mut status = value.get("status").cloned().unwrap_or_else(|| json!({}));
        edit(&mut status);
        json::set(&mut value, &["status"], status);
        self.put(key, value, record.sealed.clone());
    }
}
