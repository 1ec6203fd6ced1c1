//! The hub's end of connections: drives [`HubSession`], and moves frames over links that keep order and may break at any time.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};
use windlass_hub_core::{
    Effect,
    command::{ReceiptBatch, SessionChange},
    desired,
};
use windlass_protocol::{
    codec, handshake,
    ids::{Digest, Epoch, Generation, Incarnation, ReceiptSeq},
    message::{BlobReply, BundleIndex, CHUNK_BYTES, GoAway, HubControl, Receipt, Retry},
    session::{BLOB_BYTES_MAX, HubAction, HubSession},
    time::Millis,
};

use super::{
    World,
    event::{Event, Frame, Stream},
};
use crate::Plant;

/// Frames of the protocol (DESIGN.md section 10).
const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Between two looks of a hub at its sessions.
const REVIEW: Millis = Millis(3_000);

/// One connection, seen from the hub.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) hub: u64,
    pub(crate) agent: String,
    /// uid of the Cluster and serial, from the certificate.
    pub(crate) cluster: String,
    pub(crate) serial: [u8; 16],
    incarnation: Incarnation,
    session: HubSession,
    pub(crate) admitted: bool,
    /// What the agent last said to have.
    acknowledged: (Epoch, Generation),
    /// Frames pass; a hub may keep a session whose connection is gone.
    pub(crate) open: bool,
    /// When the last frame of each stream arrives: order is kept.
    last: BTreeMap<Stream, Millis>,
    /// Receipts that wait for the commit of those before them: an acknowledgement covers everything up to its number.
    uploads: VecDeque<Vec<(ReceiptSeq, Receipt)>>,
    committing: bool,
}

pub(crate) fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // Nothing that the simulation makes comes near the limit; an empty frame would be refused by the receiver.
    codec::to_bytes(message, FRAME_BYTES_MAX).unwrap_or_default()
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    codec::from_bytes(bytes, FRAME_BYTES_MAX).map_err(|error| error.to_string())
}

impl World {
    /// A connection of an agent to a hub; gives its id.
    pub(crate) fn connect(
        &mut self,
        agent: &str,
        hub: u64,
        (cluster, serial): (String, [u8; 16]),
        incarnation: Incarnation,
    ) -> Option<u64> {
        let node = self.hubs.get(&hub).filter(|node| node.up)?;
        let generation = node.state.cluster(&cluster).map(|record| record.generation).unwrap_or_default();
        let session = HubSession::new(handshake::hello("hub"), hub, node.state.meta().epoch, generation);
        self.next_link += 1;
        let link = Link {
            hub,
            agent: agent.to_owned(),
            cluster,
            serial,
            incarnation,
            session,
            admitted: false,
            acknowledged: (Epoch::ZERO, Generation::ZERO),
            open: true,
            last: BTreeMap::new(),
            uploads: VecDeque::new(),
            committing: false,
        };
        self.links.insert(self.next_link, link);
        Some(self.next_link)
    }

    /// Sends a frame; streams keep their order, each for itself.
    pub(crate) fn send(&mut self, id: u64, stream: Stream, bytes: Vec<u8>) {
        let delay = self.delay();
        let Some(link) = self.links.get_mut(&id).filter(|link| link.open) else { return };
        let earliest = link.last.get(&stream).copied().unwrap_or_default();
        let at = self.time.now.plus(delay).max(earliest);
        link.last.insert(stream, at);
        self.time.at(at, Event::Deliver { link: id, frame: Frame { stream, bytes } });
    }

    /// A connection is gone: the agent notices at once, the hub later.
    pub(crate) fn break_link(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id).filter(|link| link.open) else { return };
        link.open = false;
        let agent = link.agent.clone();
        let delay = if self.time.faults { self.time.random.below(4_000) } else { 10 };
        self.time.after(Millis(delay), Event::NoticeLoss(id));
        self.connection_lost(&agent, id);
    }

    /// The hub notices that a connection is gone.
    pub(crate) fn notice_loss(&mut self, id: u64) {
        let Some(link) = self.links.remove(&id) else { return };
        let Link { hub, cluster, incarnation, admitted, agent, open, .. } = link;
        if open {
            self.connection_lost(&agent, id);
        }
        // The agent may be back at this very hub.
        if admitted && self.links_of(hub, &cluster).is_empty() {
            self.session_change(hub, SessionChange::Disconnected { cluster, incarnation });
        }
    }

    /// What a hub says about its sessions may get lost: it looks at the state and says again what is not there.
    pub(crate) fn review_sessions(&mut self, hub: u64) {
        let Some(node) = self.hubs.get(&hub).filter(|node| node.up) else { return };
        // A session whose certificate was replaced twice behind its back is known to nobody: its agent has to come back.
        let current = |link: &Link| node.state.admit(&link.cluster, &link.serial, link.incarnation).is_ok();
        let is_stale = |link: &Link| link.hub == hub && link.admitted && link.open && !current(link);
        let caught_up = node.applied == self.log.len();
        let stale: Vec<u64> =
            self.links.iter().filter(|(_, link)| caught_up && is_stale(link)).map(|(id, _)| *id).collect();
        let mut changes = Vec::new();
        for (uid, record) in node.state.clusters() {
            let mut links = self.links.values().filter(|link| link.hub == hub && link.admitted && link.cluster == *uid);
            let cluster = uid.clone();
            match links.next_back() {
                Some(link) if record.session != Some(hub) && link.open => {
                    let (incarnation, serial) = (link.incarnation, link.serial);
                    changes.push(SessionChange::Connected { cluster, incarnation, serial });
                }
                Some(link) if link.acknowledged > (node.state.meta().epoch, record.acknowledged) => {
                    let (epoch, generation) = link.acknowledged;
                    changes.push(SessionChange::Acknowledged { cluster, epoch, generation });
                }
                None if record.session == Some(hub) => {
                    changes.push(SessionChange::Disconnected { cluster, incarnation: record.incarnation });
                }
                Some(_) | None => {}
            }
        }
        for change in changes {
            self.session_change(hub, change);
        }
        for link in stale {
            self.break_link(link);
        }
        self.time.after(REVIEW, Event::Review(hub));
    }

    /// A frame of the agent arrives at the hub.
    pub(crate) fn hub_receives(&mut self, id: u64, frame: &Frame) {
        let Some(link) = self.links.get_mut(&id).filter(|link| link.open) else { return };
        let session = &mut link.session;
        let handled = match frame.stream {
            Stream::AgentControl => decode(&frame.bytes)
                .and_then(|message| session.handle_control(message).map_err(|error| error.to_string())),
            Stream::AgentBlobs => decode(&frame.bytes)
                .and_then(|message| session.handle_blob_request(message).map_err(|error| error.to_string())),
            Stream::AgentReceipts => decode(&frame.bytes)
                .and_then(|message| session.handle_receipts(message).map_err(|error| error.to_string())),
            Stream::HubControl | Stream::HubBlobs | Stream::HubReceipts => return,
        };
        if let Err(error) = handled {
            self.fail("sessions follow the protocol", "DESIGN.md 6", format!("link {id}: the hub refuses: {error}"));
            return;
        }
        self.drive_hub(id);
    }

    /// Performs what a hub session wants.
    pub(crate) fn drive_hub(&mut self, id: u64) {
        // Bounded: each action comes from one input.
        for _ in 0..10_000 {
            let Some(link) = self.links.get_mut(&id) else { return };
            let (hub, cluster) = (link.hub, link.cluster.clone());
            let Some(action) = link.session.poll() else { return };
            match action {
                HubAction::Control(message) => self.send(id, Stream::HubControl, encode(&message)),
                HubAction::ReceiptReply(reply) => self.send(id, Stream::HubReceipts, encode(&reply)),
                HubAction::Admit { incarnation, .. } => self.admit(id, incarnation),
                HubAction::Acknowledged { epoch, generation } => {
                    link.acknowledged = (epoch, generation);
                    self.session_change(hub, SessionChange::Acknowledged { cluster, epoch, generation });
                }
                HubAction::Delta { epoch, generation } => {
                    let Some(node) = self.hubs.get(&hub) else { return };
                    let state = node.older.as_ref().unwrap_or(&node.state);
                    let mut parts = desired::delta(state, &cluster, epoch, generation);
                    if node.older.is_some() {
                        let newest = node.state.cluster(&cluster).map(|record| record.generation).unwrap_or_default();
                        parts.iter_mut().for_each(|part| part.to = newest);
                    }
                    if let Some(link) = self.links.get_mut(&id) {
                        link.session.handle_delta(parts);
                    }
                }
                HubAction::Serve(digests) => self.serve(id, hub, &cluster, digests),
                HubAction::Commit(receipts) => self.commit(id, receipts),
                HubAction::Facts(facts) => self.session_change(hub, SessionChange::Facts { cluster, facts }),
                HubAction::StoreDetail { .. } | HubAction::Renew(_) => {}
            }
        }
    }

    fn admit(&mut self, id: u64, incarnation: Incarnation) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(node) = self.hubs.get(&link.hub) else { return };
        let (hub, cluster, serial) = (link.hub, link.cluster.clone(), link.serial);
        match node.state.admit(&cluster, &serial, incarnation) {
            Ok(()) => {
                link.session.handle_admitted();
                link.admitted = true;
                self.session_change(hub, SessionChange::Connected { cluster, incarnation, serial });
            }
            Err(refusal) => {
                // "Never" is final for the agent, so it needs a linearizable read: a replica that is behind does not know yet
                // what another hub has signed.
                let is_behind = node.applied < self.log.len() && self.plant != Some(Plant::RefusesFromMemory);
                let retry = if is_behind { Retry::Later } else { refusal.retry() };
                let message = HubControl::Refused { reason: refusal.to_string(), retry };
                self.send(id, Stream::HubControl, encode(&message));
            }
        }
    }

    /// Sends content, only what the cluster's assignments reference.
    fn serve(&mut self, id: u64, hub: u64, cluster: &str, digests: Vec<Digest>) {
        let Some(node) = self.hubs.get(&hub) else { return };
        let mut allowed: Vec<Digest> = Vec::new();
        for (_, record) in node.state.assignments_of(cluster) {
            for bundle in record.bundles() {
                allowed.push(bundle.digest);
                allowed.extend(self.resources(bundle.digest).into_iter().map(|resource| resource.digest));
            }
        }
        for digest in digests {
            let content = self.blobs.get(&digest).filter(|_| allowed.contains(&digest)).map(Arc::clone);
            let Some(content) = content else {
                self.send(id, Stream::HubBlobs, encode(&BlobReply::Unavailable { digest }));
                continue;
            };
            let (total, mut offset) = (content.len() as u64, 0);
            for chunk in content.chunks(CHUNK_BYTES) {
                let reply = BlobReply::Chunk { digest, offset, total, content: chunk.to_vec() };
                offset += chunk.len() as u64;
                self.send(id, Stream::HubBlobs, encode(&reply));
            }
        }
    }

    /// The resources of a bundle that has been rendered.
    pub(crate) fn resources(&self, bundle: Digest) -> Vec<windlass_protocol::message::ResourceRef> {
        let index = self.blobs.get(&bundle).and_then(|index| codec::from_bytes(index, BLOB_BYTES_MAX).ok());
        index.map(|BundleIndex::V1 { resources }| resources).unwrap_or_default()
    }

    /// Receipts of one session are committed one batch after the other.
    fn commit(&mut self, id: u64, receipts: Vec<(ReceiptSeq, Receipt)>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if let Some((up_to, _)) = receipts.last().filter(|_| self.plant == Some(Plant::AcknowledgesEarly)) {
            link.session.handle_committed(*up_to);
        }
        link.uploads.push_back(receipts);
        self.commit_next(id);
    }

    fn commit_next(&mut self, id: u64) {
        let pipelined = self.plant == Some(Plant::PipelinesReceipts);
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.committing || pipelined) else { return };
        let Some(receipts) = link.uploads.pop_front() else { return };
        let Some(up_to) = receipts.last().map(|(seq, _)| *seq) else { return };
        link.committing = true;
        let (hub, cluster, incarnation) = (link.hub, link.cluster.clone(), link.incarnation);
        let receipts = receipts.into_iter().map(|(_, receipt)| receipt).collect();
        self.propose_receipts(hub, id, ReceiptBatch { cluster, incarnation, up_to, receipts });
    }

    pub(crate) fn receipts_answered(&mut self, id: u64, up_to: ReceiptSeq, is_taken: bool) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.committing = false;
        match is_taken {
            true => link.session.handle_committed(up_to),
            false if self.plant == Some(Plant::AcknowledgesEarly) => {}
            false if self.plant == Some(Plant::PipelinesReceipts) => link.session.handle_busy(),
            // Later receipts are on their way already, and committing them would acknowledge those that failed. Only a new
            // connection begins again with everything that waits.
            false => {
                self.break_link(id);
                return;
            }
        }
        self.drive_hub(id);
        self.commit_next(id);
    }

    /// What an apply asks of the shell of this hub.
    pub(crate) fn effect(&mut self, hub: u64, effect: Effect) {
        match effect {
            // Members, trust and hashes have no shell here.
            Effect::Object(_) | Effect::Hubs | Effect::Trust { .. } | Effect::Hashes(_) => {}
            Effect::Desired { cluster, epoch, generation } => {
                // Also where admission is still under way: the session began with the generation of that moment.
                let here = self.links.iter().filter(|(_, link)| link.hub == hub && link.cluster == cluster);
                let here: Vec<u64> = here.map(|(id, _)| *id).collect();
                for id in here {
                    if let Some(link) = self.links.get_mut(&id) {
                        link.session.handle_changed(epoch, generation);
                    }
                    self.drive_hub(id);
                }
            }
            Effect::Disconnect { cluster, keep_serial, reason } => {
                for id in self.links_of(hub, &cluster) {
                    if self.links.get(&id).is_some_and(|link| Some(link.serial) != keep_serial) {
                        self.time.note(format_args!("hub {hub} cuts off link {id}: {reason}"));
                        self.break_link(id);
                    }
                }
            }
            Effect::Refresh { cluster, application, hard } => {
                for id in self.links_of(hub, &cluster) {
                    let message = HubControl::Refresh { application: application.clone(), hard };
                    self.send(id, Stream::HubControl, encode(&message));
                }
            }
        }
    }

    /// A hub sends an agent away.
    pub(crate) fn send_away(&mut self, id: u64) {
        self.send(id, Stream::HubControl, encode(&HubControl::GoAway { reason: GoAway::Drain }));
    }

    fn links_of(&self, hub: u64, cluster: &str) -> Vec<u64> {
        let links = self.links.iter().filter(|(_, link)| link.hub == hub && link.admitted && link.cluster == cluster);
        links.map(|(id, _)| *id).collect()
    }
}
