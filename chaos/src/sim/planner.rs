//! The leader's loop: reads the replica it has, proposes, holds every proposal to what it saw. Two of them may run at once.

use windlass_hub_core::{
    Command, ObjectKey, ObjectRecord, Precondition, State,
    command::Write,
    generate::{GenerateLimits, SourceFile, SourceUnavailable, Sources, generate},
    planner::{self, Applications, Asked, Observed, Prepared},
};
use windlass_protocol::{
    ids::{NamespacedName, uuid_v4},
    resource::{ApplicationSetSpec, GitItem, Kind, RolloutCause, parse},
    time::Millis,
};

use super::{World, event::Event, hub::Waiter};

/// Between two passes.
const PERIOD: Millis = Millis(900);
const SUBJECT: &str = "hub:planner";

/// No generator of the simulation asks Git.
struct NoSources;

impl Sources for NoSources {
    fn files(&self, _: &str, _: &str, _: &[GitItem]) -> Result<Vec<SourceFile>, SourceUnavailable> {
        Ok(Vec::new())
    }

    fn directories(&self, _: &str, _: &str, _: &[GitItem]) -> Result<Vec<String>, SourceUnavailable> {
        Ok(Vec::new())
    }
}

impl World {
    /// One pass of a hub that believes to be leader.
    pub(crate) fn plan(&mut self, hub: u64) {
        let Some(node) = self.hubs.get_mut(&hub).filter(|node| node.up && node.leading) else { return };
        let pause = Millis(self.time.random.between(PERIOD.0 / 2, PERIOD.0 * 3 / 2));
        self.time.after(pause, Event::Plan(hub));
        let busy = node.waiters.values().any(|waiter| matches!(waiter, Waiter::Planner));
        if busy && self.time.random.chance(900) {
            return;
        }
        // Git may be out of reach for this hub.
        if !self.time.fault(200) {
            node.commit = self.git.head();
        }
        let (state, commit) = (node.state.clone(), node.commit);
        if state.meta().cluster_id.is_empty() {
            return;
        }
        let mut plans = self.plan_sets(hub, &state);
        let garbage = planner::garbage(&state)
            .into_iter()
            .map(|write| (Command::Write { writes: vec![write.clone()] }, seen(&state, &write)));
        plans.extend(garbage);
        plans.extend(plan_operations(&state));
        plans.extend(self.plan_targets(&state, commit));
        for (command, preconditions) in plans {
            self.propose(hub, (SUBJECT, command), preconditions, Waiter::Planner);
        }
    }

    fn plan_sets(&mut self, hub: u64, state: &State) -> Vec<(Command, Vec<Precondition>)> {
        let mut plans = Vec::new();
        let clusters = Applications::cluster_views(state);
        let wall = self.hubs.get(&hub).map(|node| node.wall(self.time.now)).unwrap_or_default();
        for (key, set) in state.objects(Kind::ApplicationSet, None).filter(|(_, set)| !set.deleting) {
            let value = set.value();
            let Ok(spec) = parse::<ApplicationSetSpec>("spec", &value.get("spec").cloned().unwrap_or_default()) else {
                continue;
            };
            let result = generate(&key.name, &spec.value, &clusters, &NoSources, &GenerateLimits::default());
            let random = &mut self.time.random;
            let plan = planner::sets::plan(state, key, set, &spec.value, &result, wall, || uuid_v4(random.bytes16()));
            // The list that a write follows from must still stand when the write is applied.
            let of_set = unchanged(key, set);
            for write in plan.writes {
                let mut preconditions = vec![of_set.clone()];
                preconditions.extend(seen(state, &write));
                plans.push((Command::Write { writes: vec![write] }, preconditions));
            }
            plans.extend(plan.status.map(|write| (Command::Write { writes: vec![write] }, vec![of_set])));
        }
        plans
    }

    fn plan_targets(&mut self, state: &State, commit: usize) -> Vec<(Command, Vec<Precondition>)> {
        let applications = Applications::new(state);
        let mut changes = Vec::new();
        for (key, record) in state.objects(Kind::Application, None).filter(|(_, record)| !record.deleting) {
            let change = match applications.prepare(&key.name, record) {
                Prepared::Blocked(change) => *change,
                Prepared::Render(render) => {
                    let rendered = self.git.render(commit, &render.source.path).map_err(|error| vec![error]);
                    let observed = rendered.map(|rendered| {
                        self.blobs.extend(rendered.blobs);
                        Observed {
                            bundle: rendered.bundle,
                            source_type: "Directory".to_owned(),
                            images: Vec::new(),
                            kinds: rendered.kinds,
                            warnings: Vec::new(),
                        }
                    });
                    render.finish(observed)
                }
            };
            if planner::is_news(state, &change) {
                changes.push(change);
            }
        }
        let random = &mut self.time.random;
        let commands = planner::commands(state, changes, RolloutCause::Commit, |owner| {
            let name = format!("{}-{:08x}", owner.name.name, random.below(u64::from(u32::MAX)));
            (NamespacedName::new(owner.name.namespace.as_str(), name), uuid_v4(random.bytes16()))
        });
        commands.into_iter().map(|command| (command.clone(), seen_by(state, &command))).collect()
    }
}

fn plan_operations(state: &State) -> Vec<(Command, Vec<Precondition>)> {
    let plans = planner::asked(state).into_iter().map(|asked| match asked {
        Asked::Operation { application, record, operation } => {
            let preconditions = vec![unchanged(&application_key(&application), &record)];
            let uid = record.uid.clone();
            let command = match operation {
                Ok(asked) => {
                    let operation = planner::operation(&asked, None);
                    Command::Operate { application, uid, operation }
                }
                Err(message) => Command::RefuseOperation { application, uid, message },
            };
            (command, preconditions)
        }
        Asked::Refresh { application, record, hard } => {
            let preconditions = vec![unchanged(&application_key(&application), &record)];
            (Command::Refreshed { application, uid: record.uid.clone(), hard }, preconditions)
        }
    });
    plans.collect()
}

fn application_key(name: &NamespacedName) -> ObjectKey {
    ObjectKey { kind: Kind::Application, name: name.clone() }
}

/// The object is still as it was seen.
fn unchanged(key: &ObjectKey, record: &ObjectRecord) -> Precondition {
    Precondition::Object { key: key.clone(), uid: record.uid.clone(), revision: Some(record.revision) }
}

/// What a write of an existing object relies on.
fn seen(state: &State, write: &Write) -> Vec<Precondition> {
    let (Write::Create { key, .. } | Write::Replace { key, .. } | Write::Delete { key }) = write;
    state.object(key).map(|record| unchanged(key, record)).into_iter().collect()
}

/// What targets rely on: each Application as it was, and each release.
fn seen_by(state: &State, command: &Command) -> Vec<Precondition> {
    let Command::Targets { changes, .. } = command else { return Vec::new() };
    let mut preconditions = Vec::new();
    for change in changes {
        let key = application_key(&change.application);
        preconditions.extend(state.object(&key).map(|record| unchanged(&key, record)));
        if let Some(record) = state.assignment(&change.application) {
            preconditions
                .push(Precondition::Release { application: change.application.clone(), release: record.release });
        }
    }
    preconditions
}
