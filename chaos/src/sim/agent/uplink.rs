//! The agent's end of a connection: drives [`AgentSession`], enrols, dials, and sends receipts until they are committed.

use std::collections::BTreeSet;

use windlass_hub_core::{Command, Rejection, Reply};
use windlass_protocol::{
    handshake,
    ids::{Incarnation, NamespacedName, ReceiptSeq},
    message::{ReceiptReply, ReceiptUpload, Retry},
    session::{AgentAction, AgentSession, DesiredChange},
    time::Millis,
};

use crate::{
    Plant,
    sim::{
        World,
        event::{Event, Frame, Stream},
        gateway::{decode, encode},
        hub::Waiter,
    },
};

/// One connection, seen from the agent.
#[derive(Debug)]
pub(super) struct Uplink {
    pub(super) link: u64,
    pub(super) session: AgentSession,
    connected: bool,
    cursor: ReceiptSeq,
}

impl World {
    /// Redeems the token that the agent was given, at any hub; tried again until it works.
    pub(crate) fn enrol(&mut self, name: &str) {
        let hubs: Vec<u64> = self.hubs.iter().filter(|(_, node)| node.up).map(|(id, _)| *id).collect();
        let again = Millis(self.time.random.between(500, 3_000));
        let Some(agent) = self.agents.get_mut(name) else { return };
        let Some(hash) = agent.token else { return };
        let (key, serial) = (agent.key, self.time.random.bytes16());
        let waiter = Waiter::Enrol { agent: name.to_owned(), serial };
        match self.time.random.pick(&hubs).copied() {
            Some(hub) => {
                let command = Command::RedeemToken { hash, key, serial };
                self.propose(hub, ("enrolment", command), Vec::new(), waiter);
            }
            None => self.time.after(again, Event::Enrol(name.to_owned())),
        }
    }

    pub(crate) fn enrolled(&mut self, name: &str, serial: [u8; 16], result: Option<Result<Reply, Rejection>>) {
        let again = Millis(self.time.random.between(500, 3_000));
        let Some(agent) = self.agents.get_mut(name) else { return };
        let uid = match result {
            Some(Ok(Reply { cluster: Some((_, uid)), .. })) => uid,
            Some(_) => {
                // A new token has to come from people.
                agent.token = None;
                return;
            }
            None => {
                self.time.after(again, Event::Enrol(name.to_owned()));
                return;
            }
        };
        agent.token = None;
        if agent.cluster_uid().is_some_and(|known| known != uid) {
            // Another registration of the cluster: its generations begin anew, so what the disk holds must not outrank them.
            agent.disk.position = Default::default();
        }
        agent.identity = Some((serial, uid.clone()));
        self.time.note(format_args!("agent {name} enrolled as {uid}"));
        let incarnation = agent.incarnation;
        if let Some(process) = &mut agent.process {
            process.refused = false;
        }
        self.time.after(Millis(5), Event::Dial { agent: name.to_owned(), incarnation });
    }

    /// Dials any hub that is up.
    pub(crate) fn dial(&mut self, name: &str, incarnation: Incarnation) {
        let hubs: Vec<u64> = self.hubs.iter().filter(|(_, node)| node.up).map(|(id, _)| *id).collect();
        let hub = self.time.random.pick(&hubs).copied();
        let again = Millis(self.time.random.between(200, 3_000));
        let Some(agent) = self.agents.get_mut(name) else { return };
        let (identity, position) = (agent.identity.clone(), agent.disk.position);
        let ready = agent.process(incarnation).is_some_and(|it| it.uplink.is_none() && !it.refused);
        if !ready {
            return;
        }
        let Some((serial, uid)) = identity else { return };
        let link = hub.and_then(|hub| self.connect(name, hub, (uid, serial), incarnation));
        let Some(link) = link else {
            self.time.after(again, Event::Dial { agent: name.to_owned(), incarnation });
            return;
        };
        self.time.note(format_args!("agent {name} dials hub {hub:?} on link {link}"));
        let session = AgentSession::new(handshake::hello("agent"), incarnation, position.0, position.1);
        let uplink = Uplink { link, session, connected: false, cursor: ReceiptSeq::ZERO };
        if let Some(process) = self.agents.get_mut(name).and_then(|agent| agent.process(incarnation)) {
            process.uplink = Some(uplink);
        }
        self.drive_agent(name);
    }

    /// The connection is gone; another hub is tried soon.
    pub(crate) fn connection_lost(&mut self, name: &str, link: u64) {
        let again = Millis(self.time.random.between(20, 2_000));
        let Some(process) = self.agents.get_mut(name).and_then(|agent| agent.process.as_mut()) else { return };
        if process.link() != Some(link) {
            return;
        }
        process.uplink = None;
        let incarnation = process.incarnation;
        self.time.after(again, Event::Dial { agent: name.to_owned(), incarnation });
    }

    /// A frame of the hub arrives at the agent.
    pub(crate) fn agent_receives(&mut self, name: &str, link: u64, frame: &Frame) {
        let Some(process) = self.agents.get_mut(name).and_then(|agent| agent.process.as_mut()) else { return };
        let Some(uplink) = process.uplink.as_mut().filter(|uplink| uplink.link == link) else { return };
        let session = &mut uplink.session;
        let handled = match frame.stream {
            Stream::HubControl => decode(&frame.bytes)
                .and_then(|message| session.handle_control(message).map_err(|error| error.to_string())),
            Stream::HubBlobs => {
                decode(&frame.bytes).and_then(|message| session.handle_blob(message).map_err(|error| error.to_string()))
            }
            Stream::HubReceipts => {
                decode::<ReceiptReply>(&frame.bytes).map(|reply| session.handle_receipt_reply(&reply))
            }
            Stream::AgentControl | Stream::AgentBlobs | Stream::AgentReceipts => return,
        };
        if let Err(error) = handled {
            self.fail(
                "sessions follow the protocol",
                "DESIGN.md 6",
                format!("link {link}: agent {name} refuses: {error}"),
            );
            return;
        }
        self.drive_agent(name);
        self.pump(name);
    }

    /// Performs what the agent's session wants.
    pub(crate) fn drive_agent(&mut self, name: &str) {
        let now = self.time.now;
        // Bounded: each action comes from one input.
        for _ in 0..10_000 {
            let Some(agent) = self.agents.get_mut(name) else { return };
            let Some(process) = agent.process.as_mut() else { return };
            let Some(uplink) = process.uplink.as_mut() else { return };
            let link = uplink.link;
            let Some(action) = uplink.session.poll() else { return };
            match action {
                AgentAction::Control(message) => self.send(link, Stream::AgentControl, encode(&message)),
                AgentAction::Blobs(request) => self.send(link, Stream::AgentBlobs, encode(&request)),
                AgentAction::Connected { .. } => uplink.connected = true,
                AgentAction::Load(digest) => {
                    let content = agent.disk.blob(digest).cloned();
                    let content = content.as_ref().map(|content| content.as_slice());
                    if let Err(error) = uplink.session.handle_loaded(digest, content) {
                        self.fail("content on disk is what it was", "DESIGN.md 7", error.to_string());
                        return;
                    }
                }
                AgentAction::Lookup(digests) => {
                    let missing = digests.into_iter().filter(|digest| agent.disk.blob(*digest).is_none()).collect();
                    uplink.session.handle_missing(missing);
                }
                AgentAction::Store { digest, content } => agent.disk.stage(digest, content),
                AgentAction::Checkpoint(change) => self.checkpoint(name, change),
                AgentAction::Refresh { application, .. } => process.refresh(&application, now),
                AgentAction::Committed(up_to) => {
                    for key in process.reports.committed(up_to) {
                        agent.disk.tombstones.remove(&key);
                    }
                }
                AgentAction::Busy => uplink.cursor = ReceiptSeq::ZERO,
                AgentAction::Leave(_) => {
                    self.break_link(link);
                    return;
                }
                AgentAction::Refused { reason, retry } => {
                    // A refusal of an identity that was replaced meanwhile says nothing.
                    let identity = agent.identity.as_ref().map(|(serial, uid)| (uid, serial));
                    let of_link = self.links.get(&link).map(|link| (&link.cluster, &link.serial));
                    process.refused = retry == Retry::Never && identity == of_link;
                    self.time.note(format_args!("agent {name} is refused: {reason}"));
                    self.break_link(link);
                    return;
                }
                AgentAction::Certificate(_) | AgentAction::Trust { .. } => {}
            }
        }
    }

    /// Disk first, then the machines, then the hub may know.
    fn checkpoint(&mut self, name: &str, change: DesiredChange) {
        let (now, plant) = (self.time.now, self.plant);
        let Some(agent) = self.agents.get_mut(name) else { return };
        let uid = agent.cluster_uid().unwrap_or_default().to_owned();
        if plant == Some(Plant::DiskRollsBack) {
            agent.older = Some(agent.disk.clone());
        }
        let orphaned = match agent.disk.accept(&change) {
            Ok(orphaned) => orphaned,
            Err(error) => {
                self.fail("content is durable before its checkpoint", "DESIGN.md 6", error);
                return;
            }
        };
        let position = (change.epoch, change.to);
        let mut findings = vec![self.invariants.generations.on_disk(&uid, position)];
        for assignment in change.assignments.values() {
            findings.push(self.invariants.releases.on_disk(&uid, &assignment.uid, assignment.release));
        }
        let Some(process) = agent.process.as_mut() else { return };
        let known: Option<BTreeSet<_>> = change.known.clone().filter(|_| plant == Some(Plant::AbsenceDeletes));
        let short = |name: &NamespacedName, uid: &str| format!("{}/{}", name.name, uid.get(..4).unwrap_or_default());
        let assigned: Vec<String> = change.assignments.values().map(|it| short(&it.application, &it.uid)).collect();
        let ends: Vec<String> = change.tombstones.iter().map(|it| short(&it.application, &it.uid)).collect();
        let (assigned, ends) = (assigned.join(" "), ends.join(" "));
        process.handle_desired(change, &orphaned, now);
        if let Some(known) = known {
            process.bury_absent(&known, now);
        }
        if let Some(uplink) = &mut process.uplink {
            uplink.session.handle_checkpointed();
        }
        self.coverage.checkpoints += 1;
        self.coverage.orphaned += orphaned.len() as u64;
        self.time.note(format_args!(
            "agent {name} has {} {} on disk: assigned [{assigned}], to end [{ends}], {} orphans",
            position.0,
            position.1,
            orphaned.len()
        ));
        for finding in findings {
            self.judge(finding);
        }
    }

    /// Sends the receipts that wait.
    pub(crate) fn upload(&mut self, name: &str) {
        let Some(process) = self.agents.get_mut(name).and_then(|agent| agent.process.as_mut()) else { return };
        let Some(uplink) = process.uplink.as_mut().filter(|uplink| uplink.connected) else { return };
        let receipts = process.reports.upload(&mut uplink.cursor);
        if !receipts.is_empty() {
            let link = uplink.link;
            self.send(link, Stream::AgentReceipts, encode(&ReceiptUpload::Receipts { receipts }));
        }
    }
}
