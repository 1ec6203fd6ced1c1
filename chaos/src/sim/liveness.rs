//! The liveness phase: faults end, one last commit changes everything, and within a bound all must be as asked for: in the state,
//! on the clusters, and on the disks.

use windlass_hub_core::{ObjectKey, ObjectRecord, State, status};
use windlass_protocol::{
    ids::{NamespacedName, RequestId},
    json,
    message::Assignment,
    resource::{ApplicationSpec, Kind, parse},
    status::{HealthStatus, SyncStatus},
    time::Millis,
};

use super::{World, event::Event, kubernetes, tracked_by};

/// Within this, everything converges: the longest backoff of the engine is 3 minutes, a heal waits up to 5.
const BOUND: Millis = Millis::from_secs(900);
/// Between two looks.
const LOOK: Millis = Millis::from_secs(5);
/// What people and planners have under way lands before the last commit.
const QUIET: Millis = Millis::from_secs(20);

impl World {
    /// Ends all faults and waits for everything to converge.
    pub(crate) fn liveness(&mut self) {
        self.time.faults = false;
        self.time.note(format_args!("faults end"));
        let quiet = self.time.now.plus(QUIET);
        self.heal_all();
        self.run_until(quiet);
        self.git.renew();
        self.time.note(format_args!("last commit {}", self.git.head()));
        let end = self.time.now.plus(BOUND);
        let mut problem = String::new();
        while self.failure.is_none() && self.time.now < end {
            let look = self.time.now.plus(LOOK);
            self.heal_all();
            self.run_until(look);
            match self.converged() {
                Ok(()) => {
                    self.time.note(format_args!("everything has converged"));
                    self.judge_end();
                    return;
                }
                Err(why) => problem = why,
            }
        }
        if self.failure.is_none() {
            self.fail("everything converges", "DESIGN.md 8: afterwards same state", problem);
        }
    }

    fn run_until(&mut self, end: Millis) {
        while self.failure.is_none() && self.time.now < end {
            self.step();
        }
    }

    /// Starts what is down, registers what is not, and keeps one leader.
    fn heal_all(&mut self) {
        let hubs: Vec<u64> = self.hubs.keys().copied().collect();
        for hub in hubs {
            self.start_hub(hub);
            self.apply_soon(hub);
        }
        let names: Vec<String> = self.agents.keys().cloned().collect();
        for name in names {
            if self.agents.get(&name).is_some_and(|agent| !agent.is_running()) {
                self.start_agent(&name);
            }
            let leader = self.leader;
            let known = self.hubs.get(&leader).is_some_and(|node| node.state.cluster_named(&name).is_some());
            if !known {
                self.add_cluster(leader, &name);
            }
        }
        self.invite();
    }

    /// At the very end replicas and log are compared once more, as a whole.
    fn judge_end(&mut self) {
        let requests: Vec<RequestId> = self.log.iter().map(|envelope| envelope.request).collect();
        let mut findings = vec![self.invariants.acknowledged.in_log(&requests)];
        for (id, node) in &self.hubs {
            findings.push(self.invariants.replicas.equal(*id, node.applied.saturating_sub(1), &node.state));
        }
        for finding in findings {
            self.judge(finding);
        }
        self.coverage.entries = self.log.len() as u64;
        self.coverage.acknowledged = self.invariants.acknowledged.len() as u64;
        self.coverage.operations_run = self.invariants.operations.count();
    }

    fn converged(&self) -> Result<(), String> {
        let Some(node) = self.hubs.get(&self.leader) else { return Err("no leader".to_owned()) };
        let behind = self.hubs.iter().find(|(_, node)| node.applied < self.log.len());
        if let Some((id, node)) = behind {
            return Err(format!("hub {id} has applied {} of {}", node.applied, self.log.len()));
        }
        let state = &node.state;
        for (name, agent) in &self.agents {
            let uid = agent.cluster_uid().unwrap_or_default();
            let Some(record) = state.cluster(uid) else { return Err(format!("{name} is not enrolled")) };
            if record.session.is_none() {
                return Err(format!("{name} has no session"));
            }
            if !record.tombstones.is_empty() {
                return Err(format!("{name} has not ended {:?}", record.tombstones.values().collect::<Vec<_>>()));
            }
            if record.acknowledged != record.generation || agent.disk.position.1 != record.generation {
                let (acknowledged, newest) = (record.acknowledged, record.generation);
                let disk = agent.disk.position.1;
                return Err(format!("{name} acknowledged {acknowledged} of {newest}, {disk} on its disk"));
            }
            self.cluster_converged(state, name, uid)?;
        }
        for (key, record) in state.objects(Kind::Application, None) {
            if record.deleting {
                return Err(format!("{key} is still being deleted"));
            }
            self.application_converged(state, key, record).map_err(|why| format!("{key}: {why}"))?;
        }
        Ok(())
    }

    fn application_converged(&self, state: &State, key: &ObjectKey, object: &ObjectRecord) -> Result<(), String> {
        let value = object.value();
        let spec = value.get("spec").cloned().unwrap_or_default();
        let spec = parse::<ApplicationSpec>("spec", &spec).map_err(|error| error.to_string())?.value;
        let path = spec.source.as_ref().map(|source| source.path.clone()).unwrap_or_default();
        let rendered = self.git.render(self.git.head(), &path)?;
        let record = state.assignment(&key.name).ok_or("no assignment")?;
        let digest = Some(rendered.bundle.digest);
        if record.target.as_ref().map(|target| target.digest) != digest {
            return Err("the target is not the newest commit".to_owned());
        }
        if record.released != record.target {
            return Err("the target is not released".to_owned());
        }
        let agent = self.agents.get(&spec.destination.name).ok_or("no such cluster")?;
        if agent.cluster_uid() != Some(&record.cluster) {
            return Err("assigned to another cluster".to_owned());
        }
        self.on_disk(
            agent.disk.assignments.get(&key.name).map(|(assignment, _)| assignment),
            &record.assignment(&key.name),
        )?;
        let sync = status::sync_status(record);
        let health = status::health_status(record);
        if json::text(&value, &["status", "sync", "status"]) != sync.as_str() {
            return Err("status.sync of the object is not what the receipts say".to_owned());
        }
        let Some(automated) = spec.automated() else {
            // An operation that was asked for while nothing could be rendered runs with the first bundle there is.
            let operation = record.receipt.as_ref().and_then(|receipt| receipt.operation.as_ref());
            let asked = operation.is_some_and(|it| it.id.is_some() && Some(it.bundle) == digest);
            let expected = sync == SyncStatus::OutOfSync || (sync == SyncStatus::Synced && asked);
            return if expected { Ok(()) } else { Err(format!("manual, but {sync:?}")) };
        };
        let tracked = agent.cluster.objects().filter(|(_, live)| tracked_by(live) == record.tracking_name);
        let leftover = tracked.count() > rendered.kinds.len();
        let expected = if leftover && !automated.prune { SyncStatus::OutOfSync } else { SyncStatus::Synced };
        if sync != expected || health != HealthStatus::Healthy {
            let receipt = &record.receipt;
            return Err(format!("{sync:?} and {health:?}, leftovers: {leftover}, last receipt {receipt:?}"));
        }
        if leftover && automated.prune {
            return Err("objects that are not desired were not pruned".to_owned());
        }
        self.objects_converged(&path, &record.namespace, &spec.destination.name)
    }

    fn on_disk(&self, disk: Option<&Assignment>, wanted: &Assignment) -> Result<(), String> {
        match disk {
            Some(disk) if disk == wanted => Ok(()),
            // What the agent need not hear of may be older on its disk.
            Some(disk) if Assignment { last_good: wanted.last_good.clone(), ..disk.clone() } == *wanted => Ok(()),
            Some(_) => Err("the assignment on the agent's disk is another one".to_owned()),
            None => Err("the assignment is not on the agent's disk".to_owned()),
        }
    }

    /// Every manifest of the newest commit holds in the cluster.
    fn objects_converged(&self, path: &str, namespace: &str, cluster: &str) -> Result<(), String> {
        let directory = self.git.tree(self.git.head()).and_then(|tree| tree.get(path)).ok_or("no directory")?;
        let agent = self.agents.get(cluster).ok_or("no such cluster")?;
        for manifest in directory.manifests.values() {
            let mut key = windlass_protocol::manifest::ResourceKey::of(manifest);
            namespace.clone_into(&mut key.namespace);
            let live = agent.cluster.get(&key).ok_or_else(|| format!("{key} is not on {cluster}"))?;
            if !kubernetes::holds(live, manifest) {
                return Err(format!("{key} on {cluster} is not as in the newest commit: {live}"));
            }
        }
        Ok(())
    }

    /// What is tracked on a cluster belongs to an Application that is assigned to it.
    fn cluster_converged(&self, state: &State, name: &str, uid: &str) -> Result<(), String> {
        let Some(agent) = self.agents.get(name) else { return Ok(()) };
        // A removed cluster keeps what it had, and so does one whose agent lost its inventory before a tombstone arrived.
        if self.forgetful.contains(name) {
            return Ok(());
        }
        for (object, live) in agent.cluster.objects() {
            let application = tracked_by(live);
            let owner = state.assignment(&NamespacedName::new("argocd", application));
            let assigned = owner.is_some_and(|record| record.cluster == uid);
            if !application.is_empty() && !assigned {
                return Err(format!("{object} on {name} is still tracked by {application}"));
            }
        }
        Ok(())
    }

    /// One event.
    pub(crate) fn step(&mut self) {
        let Some(event) = self.time.next() else {
            self.time.after(LOOK, Event::Tick);
            return;
        };
        self.coverage.events += 1;
        self.handle(event);
    }
}
