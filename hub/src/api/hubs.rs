//! The hubs through the API: status of the group, join tokens for hubs, removal, transfer of leadership.

use std::{collections::BTreeMap, time::Duration};

use axum::body::Body;
use futures::{StreamExt as _, stream::FuturesUnordered};
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use windlass_hub_core::Command;
use windlass_protocol::time::Millis;

use super::{
    answer, body,
    entry::{ApiServer, Asked, require_admin},
    error::ApiError,
    extras::{only, token_seconds},
    route::HubAction,
};
use crate::{
    group::{join::new_token, members, wire::MemberStatus},
    peers::PeerStatus,
    raft::{Role, Status},
    replica::wall_clock,
};

impl ApiServer {
    /// `GET .../hubstatus`
    pub(super) async fn hub_status(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        only(asked, &Method::GET)?;
        require_admin(asked, "hubstatus.windlass.io")?;
        let status = self.context.replica.raft().status().borrow().clone();
        let hubs = self.hubs(&status).await;
        let state = self.context.replica.state();
        let meta = state.meta();
        let members = |voters: bool| -> Vec<&Value> {
            let kind = if voters { "voter" } else { "learner" };
            hubs.iter().filter(|hub| hub.get("kind").and_then(Value::as_str) == Some(kind)).collect()
        };
        let age = status.quorum_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let answer = json!({
            "apiVersion": "windlass.io/v1alpha1", "kind": "HubStatus", "metadata": {},
            "status": {
                "clusterId": meta.cluster_id, "trustDomain": meta.trust_domain, "version": env!("CARGO_PKG_VERSION"),
                "node": status.node, "role": role(status.role), "leader": status.leader, "term": status.term,
                "lastLog": status.last_log, "applied": status.applied, "snapshot": status.snapshot,
                "purged": status.purged, "voters": members(true), "learners": members(false), "hubs": hubs,
                "quorumAgeMilliseconds": age, "failure": status.failure,
                "revision": meta.revision, "epoch": meta.epoch, "stateVersion": meta.version,
                "trustVersion": state.trust().version,
                "sessions": self.context.presence.sessions(),
                "keyId": self.context.sealer.key_id(),
            },
        });
        Ok(answer::json(StatusCode::OK, &answer))
    }

    /// Every hub that the state or Raft knows, with what it says about itself.
    async fn hubs(&self, status: &Status) -> Vec<Value> {
        let replica = &self.context.replica;
        let state = replica.state();
        let mut nodes: BTreeMap<u64, &str> = state.hubs().map(|(node, _)| (node, "joining")).collect();
        nodes.extend(status.voters.keys().map(|node| (*node, "voter")));
        nodes.extend(status.learners.keys().map(|node| (*node, "learner")));
        let asking = nodes.keys().filter(|node| **node != status.node).copied();
        let asking: FuturesUnordered<_> =
            asking.map(|node| async move { (node, members::status_of(replica, node).await) }).collect();
        let mut said: BTreeMap<u64, MemberStatus> =
            asking.filter_map(|(node, said)| async move { Some((node, said?)) }).collect().await;
        said.insert(status.node, self.own_status(status));
        let peers = replica.peers().map(crate::peers::Peers::status).unwrap_or_default();
        let entry = |(node, kind): (u64, &str)| {
            let link = peers.iter().find(|peer| peer.node == node);
            let record = state.hub(node);
            let known = status.voters.get(&node).or_else(|| status.learners.get(&node));
            let name = record.map(|hub| hub.name.clone()).or_else(|| known.map(|peer| peer.name.clone()));
            let address = record.map(|hub| hub.address.clone()).or_else(|| known.map(|peer| peer.address.clone()));
            let mut value = json!({
                "node": node, "kind": kind, "name": name, "address": address,
                "leader": status.leader == Some(node),
                "agents": record.map(|hub| hub.agents.clone()), "stateVersion": record.map(|hub| hub.state_version),
                "joinedAt": record.map(|hub| hub.joined_at.rfc3339()),
            });
            describe(&mut value, said.get(&node), link);
            value
        };
        nodes.into_iter().map(entry).collect()
    }

    fn own_status(&self, status: &Status) -> MemberStatus {
        MemberStatus {
            last_log: status.last_log,
            applied: status.applied,
            snapshot: status.snapshot,
            sessions: u64::try_from(self.context.presence.sessions()).unwrap_or(u64::MAX),
            software: crate::group::announce::SOFTWARE.to_owned(),
            hash: self.context.replica.machine().hashed(),
        }
    }

    /// `POST .../hubtokens`
    pub(super) async fn hub_token(&self, asked: &Asked, body: Body) -> Result<Response<Body>, ApiError> {
        only(asked, &Method::POST)?;
        require_admin(asked, "hubtokens.windlass.io")?;
        let bytes = self.read_body(body).await?;
        let seconds = token_seconds(&body::optional_object(&asked.headers, &bytes)?)?;
        let replica = &self.context.replica;
        let (token, hash) = new_token(replica, self.context.presence.pin())?;
        let lifetime = u64::try_from(Duration::from_secs(seconds).as_millis()).unwrap_or(u64::MAX);
        let expires_at = wall_clock().plus(Millis(lifetime));
        let command = Command::AddHubToken { hash, expires_at };
        replica.propose(&asked.subject, &asked.source, Vec::new(), command).await?;
        let state = replica.state();
        let addresses: Vec<&str> = state.hubs().map(|(_, hub)| hub.address.as_str()).collect();
        let answer = json!({
            "apiVersion": "windlass.io/v1alpha1", "kind": "HubToken", "metadata": {},
            "status": {"token": token, "expirationTimestamp": expires_at.rfc3339(), "hubs": addresses},
        });
        Ok(answer::json(StatusCode::CREATED, &answer))
    }

    /// `POST .../hubs/NODE/remove` and `.../lead`
    pub(super) async fn hub_action(
        &self,
        asked: &Asked,
        node: &str,
        action: HubAction,
    ) -> Result<Response<Body>, ApiError> {
        only(asked, &Method::POST)?;
        require_admin(asked, "hubs.windlass.io")?;
        let node: u64 = node.parse().map_err(|_| ApiError::bad_request(format!("{node:?} is no node id")))?;
        let replica = &self.context.replica;
        match action {
            HubAction::Remove => {
                let command = Command::RemoveHub { node };
                replica.propose(&asked.subject, &asked.source, Vec::new(), command).await?;
            }
            HubAction::Lead => {
                members::transfer(replica, Some(node)).await.map_err(ApiError::unavailable)?;
            }
        }
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 200});
        Ok(answer::json(StatusCode::OK, &status))
    }
}

fn describe(value: &mut Value, said: Option<&MemberStatus>, link: Option<&PeerStatus>) {
    let Some(entry) = value.as_object_mut() else { return };
    entry.insert("up".to_owned(), json!(said.is_some()));
    if let Some(said) = said {
        let hash = said.hash.map(|(applied, hash)| json!({"applied": applied, "hash": hash.to_string()}));
        entry.extend([
            ("version".to_owned(), json!(said.software)),
            ("applied".to_owned(), json!(said.applied)),
            ("lastLog".to_owned(), json!(said.last_log)),
            ("snapshot".to_owned(), json!(said.snapshot)),
            ("sessions".to_owned(), json!(said.sessions)),
            ("stateHash".to_owned(), json!(hash)),
        ]);
    }
    if let Some(link) = link {
        let rtt = link.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX));
        entry.insert("rttMicroseconds".to_owned(), json!(rtt));
        entry.insert("problem".to_owned(), json!(link.problem));
    }
}

const fn role(role: Role) -> &'static str {
    match role {
        Role::Learner => "Learner",
        Role::Follower => "Follower",
        Role::Candidate => "Candidate",
        Role::Leader => "Leader",
        Role::Stopped => "Stopped",
    }
}
