//! An agent: its cluster, its disk, and the process that may end at any time. The process drives the engine's machines and the
//! agent's half of the session as the real shell does; what is not on the disk is gone with it.

mod disk;
mod perform;
mod process;
mod reports;
mod uplink;

use std::sync::Arc;

use windlass_engine::{Environment, LiveChange};
use windlass_protocol::{
    ids::{Digest, Incarnation},
    time::Millis,
};

pub(crate) use self::disk::Disk;
use self::process::Process;
use super::{World, event::Event, kubernetes::Cluster};

/// One agent and where it runs.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) cluster: Cluster,
    pub(crate) disk: Disk,
    /// The disk as it was one checkpoint earlier, for [`crate::Plant::DiskRollsBack`].
    pub(crate) older: Option<Disk>,
    /// `None` while it is down.
    process: Option<Process>,
    /// uid of the Cluster and serial of the certificate; survives a restart.
    pub(crate) identity: Option<([u8; 16], String)>,
    /// Secret of the token to redeem.
    pub(crate) token: Option<Digest>,
    /// Fingerprint of its key.
    key: Digest,
    incarnation: Incarnation,
    /// A change of a watched object is delivered after the one before.
    watch_at: Millis,
}

impl Agent {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            cluster: Cluster::new(name),
            disk: Disk::default(),
            older: None,
            process: None,
            identity: None,
            token: None,
            key: Digest::of(name.as_bytes()),
            incarnation: Incarnation::ZERO,
            watch_at: Millis(0),
        }
    }

    /// uid of its Cluster, once it has enrolled.
    pub(crate) fn cluster_uid(&self) -> Option<&str> {
        self.identity.as_ref().map(|(_, uid)| uid.as_str())
    }

    pub(crate) const fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// The disk is gone, with key and certificate.
    pub(crate) fn forget_everything(&mut self, uid: &str, chance: &[u8; 16]) {
        self.disk = Disk::default();
        self.older = None;
        self.identity = None;
        self.token = None;
        self.key = Digest::of(&[uid.as_bytes(), chance].concat());
        self.incarnation = Incarnation(self.incarnation.0 + 1);
    }

    /// The process, if it is still this one.
    fn process(&mut self, incarnation: Incarnation) -> Option<&mut Process> {
        self.process.as_mut().filter(|process| process.incarnation == incarnation)
    }
}

impl World {
    /// Starts the process from what is on the disk.
    pub(crate) fn start_agent(&mut self, name: &str) {
        let now = self.time.now;
        let Some(agent) = self.agents.get_mut(name).filter(|agent| agent.process.is_none()) else { return };
        agent.incarnation = Incarnation(agent.incarnation.0 + 1);
        let incarnation = agent.incarnation;
        if self.plant == Some(crate::Plant::DiskRollsBack)
            && let Some(older) = agent.older.take()
        {
            agent.disk = older;
        }
        let mut process = Process::new(incarnation, Arc::new(Environment::default()));
        process.restore(&agent.disk, now);
        let position = agent.disk.position;
        agent.process = Some(process);
        self.time.note(format_args!("agent {name} starts as {incarnation} at {} {}", position.0, position.1));
        if let Some(uid) = agent.cluster_uid().map(ToOwned::to_owned) {
            let finding = self.invariants.generations.on_disk(&uid, position);
            self.judge(finding);
        }
        let agent = name.to_owned();
        self.time.after(Millis(5), Event::Dial { agent, incarnation });
        self.pump(name);
    }

    /// Ends the process: memory and everything not durable are gone.
    pub(crate) fn stop_agent(&mut self, name: &str, downtime: Millis) {
        let Some(agent) = self.agents.get_mut(name) else { return };
        let Some(process) = agent.process.take() else { return };
        agent.disk.lose_staged();
        self.coverage.agent_restarts += 1;
        self.time.note(format_args!("agent {name} stops"));
        if let Some(link) = process.link() {
            self.break_link(link);
        }
        self.time.after(downtime, Event::StartAgent(name.to_owned()));
    }

    /// Delivers what changed in a cluster to its agent's watches, in order.
    pub(crate) fn flush_cluster(&mut self, name: &str) {
        let delay = Millis(self.time.random.between(1, 15));
        let slow = self.time.fault(20);
        let Some(agent) = self.agents.get_mut(name) else { return };
        let changes = agent.cluster.take_changes();
        let incarnation = agent.incarnation;
        let running = agent.process.is_some();
        for change in changes {
            if let LiveChange::Present(object) = &change {
                let key = windlass_protocol::manifest::ResourceKey::of(object);
                let pending = windlass_protocol::json::at(object, &["status", "observedGeneration"])
                    != windlass_protocol::json::at(object, &["metadata", "generation"]);
                if key.kind == "Deployment" && pending {
                    let wait = Millis(self.time.random.between(100, 2_500));
                    self.time.after(wait, Event::Settle { agent: name.to_owned(), key });
                }
            }
            if running {
                let wait = if slow { Millis(delay.0 * 100) } else { delay };
                agent.watch_at = agent.watch_at.max(self.time.now.plus(wait));
                let event = Event::Watch { agent: name.to_owned(), incarnation, change: Box::new(change) };
                self.time.at(agent.watch_at, event);
            }
        }
    }

    /// A change of a watched object reaches the agent.
    pub(crate) fn watch(&mut self, name: &str, incarnation: Incarnation, change: &LiveChange) {
        let now = self.time.now;
        let Some(process) = self.agents.get_mut(name).and_then(|agent| agent.process(incarnation)) else { return };
        process.observe_change(change, now);
        self.pump(name);
    }
}
