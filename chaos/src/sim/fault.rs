//! What breaks besides messages: processes, connections, disks, leadership, and live objects that somebody edits.

use serde_json::json;
use windlass_protocol::{
    ids::{Epoch, Generation},
    manifest::ResourceKey,
    time::Millis,
};

use super::{World, event::Event};

impl World {
    /// One fault, and the next one later.
    pub(crate) fn fault(&mut self) {
        let mean = self.time.profile.fault_pause;
        let pause = self.time.around(mean);
        if !self.time.faults {
            return;
        }
        self.time.after(pause, Event::Fault);
        let names: Vec<String> = self.agents.keys().cloned().collect();
        let Some(agent) = self.time.random.pick(&names).cloned() else { return };
        let Some(hub) = self.any_hub() else { return };
        let downtime = Millis(self.time.random.between(50, 6_000));
        match self.time.random.below(20) {
            0..=4 => self.stop_agent(&agent, downtime),
            5..=8 => self.drop_some_link(),
            9..=13 => self.drift(&agent),
            14 => self.take_snapshot(hub),
            15..=16 => self.stop_one_hub(hub, downtime),
            17..=18 => self.elect(),
            _ => self.lose_disk(&agent, downtime),
        }
    }

    fn drop_some_link(&mut self) {
        let open: Vec<u64> =
            self.links.iter().filter(|(_, link)| link.open && link.admitted).map(|(id, _)| *id).collect();
        let Some(link) = self.time.random.pick(&open).copied() else { return };
        self.coverage.drops += 1;
        if self.time.random.chance(300) {
            self.send_away(link);
        } else {
            self.time.note(format_args!("link {link} breaks"));
            self.break_link(link);
        }
    }

    /// A majority stays, as without one nothing is appended.
    fn stop_one_hub(&mut self, hub: u64, downtime: Millis) {
        if self.hubs.values().filter(|node| node.up).count() * 2 > self.hubs.len() + 1 {
            self.stop_hub(hub, downtime);
            if self.leader == hub {
                self.elect();
            }
        }
    }

    /// Somebody edits or deletes an object behind the agent's back.
    fn drift(&mut self, name: &str) {
        let dice = self.time.random.below(10);
        let Some(agent) = self.agents.get_mut(name) else { return };
        let keys: Vec<ResourceKey> = agent.cluster.objects().map(|(key, _)| key.clone()).collect();
        let Some(key) = self.time.random.pick(&keys).cloned() else { return };
        self.coverage.drift += 1;
        self.time.note(format_args!("somebody changes {key} on {name} ({dice})"));
        if dice < 3 {
            if let Some(uid) = agent.cluster.delete(&key, None) {
                let wait = Millis(self.time.random.between(1, 500));
                self.time.after(wait, Event::Vanish { agent: name.to_owned(), key, uid });
            }
        } else {
            let patch = if key.kind == "Deployment" {
                json!({"spec": {"replicas": 7}})
            } else {
                json!({"data": {"commit": "edited", "by": "somebody"}})
            };
            agent.cluster.edit(&key, &patch);
        }
        self.flush_cluster(name);
    }

    /// The agent comes back without anything it knew, its key included: it needs a new token.
    fn lose_disk(&mut self, name: &str, downtime: Millis) {
        if !self.time.random.chance(300) {
            return;
        }
        self.stop_agent(name, downtime);
        let Some(agent) = self.agents.get_mut(name) else { return };
        let Some(uid) = agent.cluster_uid().map(ToOwned::to_owned) else { return };
        agent.forget_everything(&uid, &self.time.random.bytes16());
        self.coverage.disks_lost += 1;
        self.forgetful.insert(name.to_owned());
        self.time.note(format_args!("agent {name} loses its disk"));
        self.invariants.generations.disk_lost(&uid);
        self.invariants.operations.disk_lost(&uid);
        self.invariants.releases.forget(&uid, None);
        debug_assert_eq!(agent.disk.position, (Epoch::ZERO, Generation::ZERO));
    }
}
