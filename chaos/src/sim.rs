//! A run: the world, its events one after the other, and what came of it.
//!
//! | file | models |
//! |---|---|
//! | `timeline`, `random`, `profile`, `event` | virtual time, chance, parameters, what can happen |
//! | `hub`, `planner`, `gateway`, `outbox` | replicas on the log, leaders, the hub's end of sessions, their batches |
//! | `agent` and below, `kubernetes` | the agent's process, disk and end of sessions; its API server |
//! | `client`, `git`, `fault` | people, commits, breakage |
//! | `history`, `liveness` | the truth to judge by; the phase in which all must converge |

mod agent;
mod client;
pub(crate) mod event;
mod fault;
mod gateway;
mod git;
mod history;
mod hub;
mod kubernetes;
mod liveness;
mod outbox;
mod planner;
mod profile;
mod random;
mod report;
mod timeline;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use windlass_hub_core::{Command, Envelope};
use windlass_protocol::{
    ids::{Digest, uuid_v4},
    time::Millis,
};

pub use self::report::{Coverage, Failure, Options, Outcome};
use self::{
    agent::Agent,
    event::Event,
    gateway::Link,
    git::Git,
    hub::{Hub, Waiter},
    outbox::Outbox,
    timeline::Timeline,
};
pub(crate) use self::{event::Key, history::History, kubernetes::tracked_by, random::Random};
use crate::{
    Plant,
    invariants::{Finding, Invariants},
};

/// Everything that exists in a run.
#[derive(Debug)]
pub(crate) struct World {
    time: Timeline,
    plant: Option<Plant>,
    log: Vec<Arc<Envelope>>,
    hubs: BTreeMap<u64, Hub>,
    /// Who was elected last.
    leader: u64,
    /// Entries that at least one replica has applied.
    first_applied: usize,
    git: Git,
    /// On a quorum before a digest is proposed; never lost here.
    blobs: BTreeMap<Digest, Arc<Vec<u8>>>,
    /// By name of their Cluster.
    agents: BTreeMap<String, Agent>,
    links: BTreeMap<u64, Link>,
    next_link: u64,
    outboxes: BTreeMap<u64, Outbox>,
    /// Clusters that were removed from the hub at some time, or whose agent lost its disk: what they still hold is nobody's.
    forgetful: BTreeSet<String>,
    history: History,
    invariants: Invariants,
    coverage: Coverage,
    failure: Option<Failure>,
}

/// Runs one seed: safety phase, then liveness phase.
#[must_use]
pub fn simulate(options: &Options) -> Outcome {
    let mut world = World::new(options);
    world.begin();
    for _ in 0..options.steps {
        if world.failure.is_some() {
            break;
        }
        world.step();
    }
    if world.failure.is_none() {
        world.liveness();
    }
    Outcome { coverage: world.coverage, trace: world.time.trace(), failure: world.failure }
}

impl World {
    fn new(options: &Options) -> Self {
        let time = Timeline::new(options.seed, options.print);
        Self {
            time,
            plant: options.plant,
            log: Vec::new(),
            hubs: BTreeMap::new(),
            leader: 1,
            first_applied: 0,
            git: Git::new(),
            blobs: BTreeMap::new(),
            agents: BTreeMap::new(),
            links: BTreeMap::new(),
            next_link: 0,
            outboxes: BTreeMap::new(),
            forgetful: BTreeSet::new(),
            history: History::default(),
            invariants: Invariants::default(),
            coverage: Coverage::default(),
            failure: None,
        }
    }

    /// The first events; the group is bootstrapped without faults.
    fn begin(&mut self) {
        let profile = self.time.profile.clone();
        self.time.note(format_args!("{profile:?}"));
        for id in 1..=profile.hubs {
            let skew = self.time.random.below(120_000);
            self.hubs.insert(id, Hub::new(skew));
            self.time.after(Millis(3_000), Event::Review(id));
        }
        for index in 0..profile.clusters {
            let name = format!("c{index}");
            self.agents.insert(name.clone(), Agent::new(&name));
            self.time.after(Millis(50), Event::StartAgent(name));
        }
        let uids = (0..3).map(|_| uuid_v4(self.time.random.bytes16())).collect();
        let command = Command::Bootstrap { cluster_id: "sim".to_owned(), trust_domain: "sim".to_owned(), uids };
        self.time.faults = false;
        self.elect();
        self.propose(self.leader, ("hub", command), Vec::new(), Waiter::Gateway);
        let names: Vec<String> = self.agents.keys().cloned().collect();
        while self.log.is_empty() {
            self.step();
        }
        for name in names {
            self.add_cluster(self.leader, &name);
        }
        self.time.faults = true;
        for event in [Event::Tick, Event::Client, Event::Fault] {
            self.time.after(Millis(100), event);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Append(envelope) => self.append(envelope),
            Event::Apply(hub) => self.apply(hub),
            Event::GiveUp { hub, request } => self.give_up(hub, request),
            Event::Plan(hub) => self.plan(hub),
            Event::Review(hub) => self.review_sessions(hub),
            Event::Flush(hub) => self.flush(hub),
            Event::Tick => {
                self.tick();
                self.invite();
            }
            Event::StepDown(hub) => self.step_down(hub),
            Event::StartHub(hub) => self.start_hub(hub),
            Event::Client => self.client(),
            Event::Fault => self.fault(),
            Event::StartAgent(agent) => self.start_agent(&agent),
            Event::Enrol(agent) => self.enrol(&agent),
            Event::Dial { agent, incarnation } => self.dial(&agent, incarnation),
            Event::Wake { agent, incarnation } => self.wake(&agent, incarnation),
            Event::Deliver { link, frame } => {
                let Some(agent) = self.links.get(&link).filter(|link| link.open).map(|link| link.agent.clone()) else {
                    return;
                };
                self.hub_receives(link, &frame);
                self.agent_receives(&agent, link, &frame);
            }
            Event::NoticeLoss(link) => self.notice_loss(link),
            Event::Perform { agent, incarnation, key, action } => self.perform(&agent, incarnation, key, *action),
            Event::Outcome { agent, incarnation, key, action, outcome } => {
                self.outcome(&agent, incarnation, &key, action, *outcome);
            }
            Event::Watch { agent, incarnation, change } => self.watch(&agent, incarnation, &change),
            Event::Settle { agent, key } => {
                if let Some(agent) = self.agents.get_mut(&agent) {
                    agent.cluster.settle(&key);
                }
                self.flush_cluster(&agent);
            }
            Event::Vanish { agent, key, uid } => {
                if let Some(agent) = self.agents.get_mut(&agent) {
                    agent.cluster.vanish(&key, &uid);
                }
                self.flush_cluster(&agent);
            }
        }
    }

    /// Takes a verdict in; the first failure ends the run.
    fn judge(&mut self, verdict: Result<(), Finding>) {
        if let Err(Finding { invariant, source, message }) = verdict {
            self.fail(invariant, source, message);
        }
    }

    fn fail(&mut self, invariant: &'static str, source: &'static str, message: String) {
        if self.failure.is_none() {
            let (at, last) = (self.time.now, self.time.last());
            self.failure = Some(Failure { invariant, source, message, at, last });
        }
    }
}
