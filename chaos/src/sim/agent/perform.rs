//! Requests of an agent at its API server: performed when they arrive, failed or answered into the void when a fault strikes,
//! and judged by the invariants before they change anything.

use std::sync::Arc;

use windlass_engine::{Action, ActionId, DryRun, Failure, FailureReason, Outcome, Work};
use windlass_protocol::{
    ids::Incarnation,
    manifest::{OWNER_LABEL, ResourceKey},
    time::Millis,
};

use super::Agent;
use crate::{
    Plant,
    invariants::{Deletions, Finding, Manual},
    sim::{
        World,
        event::{Event, Key},
        kubernetes,
    },
};

impl World {
    /// A request reaches the API server (or the disk).
    pub(crate) fn perform(&mut self, name: &str, incarnation: Incarnation, key: Key, action: Action) {
        let Some(agent) = self.agents.get_mut(name) else { return };
        let Action { id, work } = action;
        let is_request = !matches!(work, Work::Persist(_) | Work::RefreshKinds);
        // A request that left a process which has ended still arrives; what the process meant to write to its disk does not.
        let is_alive = agent.process(incarnation).is_some();
        if !is_alive && !is_request {
            return;
        }
        let profile = self.time.profile.clone();
        if is_request && self.time.fault(profile.api_error) {
            self.coverage.api_errors += 1;
            let failure = match self.time.random.below(8) {
                0 => Failure::new(FailureReason::Rejected, "admission webhook denied the request"),
                1 => Failure::new(FailureReason::Conflict, "the object has been modified"),
                _ => Failure::new(FailureReason::Unavailable, "the server is currently unable to handle the request"),
            };
            self.reply(name, incarnation, key, id, Outcome::Failed(failure));
            return;
        }
        let outcome = match work {
            Work::Persist(point) => {
                self.persist(name, &key, *point);
                Outcome::Done
            }
            Work::RefreshKinds => Outcome::Done,
            work => {
                let outcome = self.request(name, &key, is_alive, work);
                if self.time.fault(profile.api_reply_lost) {
                    Outcome::Failed(Failure::new(FailureReason::Unavailable, "connection reset by peer"))
                } else {
                    outcome
                }
            }
        };
        self.flush_cluster(name);
        self.reply(name, incarnation, key, id, outcome);
    }

    fn reply(&mut self, name: &str, incarnation: Incarnation, key: Key, action: ActionId, outcome: Outcome) {
        let delay = Millis(self.time.random.between(1, 40));
        let (agent, outcome) = (name.to_owned(), Box::new(outcome));
        self.time.after(delay, Event::Outcome { agent, incarnation, key, action, outcome });
    }

    fn persist(&mut self, name: &str, key: &Key, point: windlass_engine::ResumePoint) {
        if self.plant == Some(Plant::ForgetsOperations) && self.time.random.chance(500) {
            return;
        }
        let Some(agent) = self.agents.get_mut(name) else { return };
        let cluster = agent.cluster_uid().unwrap_or_default().to_owned();
        let finding = self.invariants.operations.persisted(&cluster, key, &point);
        agent.disk.resume.insert(key.clone(), point);
        self.judge(finding);
    }

    fn request(&mut self, name: &str, key: &Key, is_alive: bool, work: Work) -> Outcome {
        match work {
            Work::Observe { kind, keys, .. } => {
                let Some(agent) = self.agents.get_mut(name) else { return Outcome::Done };
                let application = tracking_name(agent, key);
                let wanted = |object: &ResourceKey, live: &serde_json::Value| {
                    let labelled = windlass_protocol::manifest::label(live, OWNER_LABEL) == Some(application.as_str());
                    windlass_engine::GroupKind::of(object) == kind && (labelled || keys.contains(object))
                };
                let found = agent.cluster.objects().filter(|(object, live)| wanted(object, live));
                Outcome::Observed(found.map(|(_, live)| Arc::new(live.clone())).collect())
            }
            Work::Apply(apply) => {
                let Some(agent) = self.agents.get_mut(name) else { return Outcome::Done };
                if apply.dry_run == DryRun::Server {
                    return Outcome::Applied(apply.manifest);
                }
                let finding = if is_alive { written(&self.history, agent, key) } else { Ok(()) };
                let live = agent.cluster.apply(&apply.manifest);
                self.coverage.applied += 1;
                self.time.note(format_args!("agent {name} applies {} for {}", apply.key, key.0));
                self.judge(finding);
                Outcome::Applied(Arc::new(live))
            }
            Work::Delete { key: object, uid, .. } => self.delete(name, key, &object, uid.as_deref()),
            Work::Untrack { key: object, uid } => {
                let Some(agent) = self.agents.get_mut(name) else { return Outcome::Done };
                let untracked = agent.cluster.untrack(&object, uid.as_deref());
                self.time.note(format_args!("agent {name} untracks {object} of {}", key.0));
                untracked.map_or(Outcome::Gone, |live| Outcome::Applied(Arc::new(live)))
            }
            Work::Persist(_) | Work::RefreshKinds => Outcome::Done,
        }
    }

    fn delete(&mut self, name: &str, key: &Key, object: &ResourceKey, uid: Option<&str>) -> Outcome {
        let Some(live) = self.agents.get(name).and_then(|agent| agent.cluster.get(object)) else {
            return Outcome::Gone;
        };
        if uid.is_some_and(|uid| uid != kubernetes::uid(live)) {
            return Outcome::Gone;
        }
        let names = |bundle, object: &ResourceKey| {
            self.resources(bundle).iter().any(|it| it.key.kind == object.kind && it.key.name == object.name)
        };
        let finding = Deletions::deleted(&self.history, key, object, live, names);
        self.judge(finding);
        let Some(agent) = self.agents.get_mut(name) else { return Outcome::Gone };
        let Some(uid) = agent.cluster.delete(object, uid) else { return Outcome::Gone };
        self.coverage.deleted += 1;
        self.time.note(format_args!("agent {name} deletes {object} of {}", key.0));
        let wait = Millis(self.time.random.between(5, 1_500));
        self.time.after(wait, Event::Vanish { agent: name.to_owned(), key: object.clone(), uid });
        Outcome::Deleting
    }

    /// The answer reaches the agent.
    pub(crate) fn outcome(&mut self, name: &str, incarnation: Incarnation, key: &Key, id: ActionId, outcome: Outcome) {
        let now = self.time.now;
        let Some(process) = self.agents.get_mut(name).and_then(|agent| agent.process(incarnation)) else { return };
        process.handle_outcome(key, id, outcome, now);
        self.pump(name);
    }
}

fn written(history: &crate::sim::History, agent: &Agent, key: &Key) -> Result<(), Finding> {
    Manual::written(history, key, agent.disk.resume.get(key))
}

fn tracking_name(agent: &Agent, key: &Key) -> String {
    let assignment = agent.process.as_ref().and_then(|process| process.assignment(key));
    let name = assignment.map_or(key.0.name.as_str(), |assignment| assignment.tracking_name.as_str());
    windlass_engine::prepare::owner_label(name)
}
