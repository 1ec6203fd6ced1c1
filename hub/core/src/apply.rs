//! `State::apply`: the only way in which the state changes. Total and deterministic: it never panics on input, it returns a
//! [`Rejection`] and changes nothing, or it changes everything that the command says and tells the effects.
//!
//! An envelope is applied to a cheap clone that replaces the state only on success. What follows from a change (status of an
//! Application, progress of a Rollout) is computed once, at the end of the envelope.

mod assignments;
mod bootstrap;
pub mod hubs;
mod identity;
mod objects;
mod receipts;
mod rollouts;

use std::{collections::BTreeSet, sync::Arc};

use windlass_protocol::{ids::NamespacedName, resource::Kind, time::Millis};

use crate::{
    command::{
        Command, ENVELOPE_OBJECTS_MAX, Envelope, Precondition, REQUEST_MEMORY, REQUESTS_MAX, ReceiptBatch, Rejection,
        Reply, SessionChange,
    },
    effect::Effect,
    state::{ObjectKey, RequestRecord, State},
};

/// A tick moves `state.now` by at most this much, whatever a leader believes: a paused leader cannot end a soak early.
pub const TICK_MAX: Millis = Millis::from_secs(10);

/// What an envelope has brought about.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The answer for the proposer.
    pub result: Result<Reply, Rejection>,
    /// What shells may be asked to do; empty after a rejection or a repetition.
    pub effects: Vec<Effect>,
}

impl State {
    /// Applies one committed envelope.
    pub fn apply(&mut self, envelope: &Envelope) -> Applied {
        if let Some(known) = self.requests.get(&envelope.request) {
            return Applied { result: known.result.clone(), effects: Vec::new() };
        }
        let mut transaction = Transaction::new(self, envelope.proposed_at);
        let result = transaction.run(envelope);
        let effects = match &result {
            Ok(_) => {
                *self = transaction.state;
                transaction.effects
            }
            Err(_) => Vec::new(),
        };
        self.meta.applied += 1;
        // Ticks are idempotent enough: remembering them would fill the memory with what nobody repeats.
        if !matches!(envelope.command, Command::Tick { .. }) {
            self.remember(envelope, &result);
        }
        Applied { result, effects }
    }

    fn remember(&mut self, envelope: &Envelope, result: &Result<Reply, Rejection>) {
        let at = self.meta.now;
        self.requests.insert_mut(envelope.request, Arc::new(RequestRecord { at, result: result.clone() }));
        self.requests_by_time.insert_mut((at, envelope.request), Arc::new(()));
        let forget_before = Millis(at.0.saturating_sub(REQUEST_MEMORY.0));
        while let Some(((time, request), _)) = self.requests_by_time.first() {
            if *time >= forget_before && self.requests_by_time.size() <= REQUESTS_MAX {
                break;
            }
            let (time, request) = (*time, *request);
            self.requests.remove_mut(&request);
            self.requests_by_time.remove_mut(&(time, request));
        }
    }
}

/// One envelope in the making.
#[derive(Debug)]
struct Transaction {
    state: State,
    effects: Vec<Effect>,
    /// Wall time for timestamps: the proposer's, but never before what an earlier proposer said.
    wall: Millis,
    /// Applications whose status must be computed again.
    dirty_applications: BTreeSet<NamespacedName>,
    /// Clusters whose status must be computed again, by uid.
    dirty_clusters: BTreeSet<String>,
    /// Rollouts whose object must be written again.
    dirty_rollouts: BTreeSet<NamespacedName>,
}

impl Transaction {
    fn new(state: &State, proposed_at: Millis) -> Self {
        let mut state = state.clone();
        state.meta.wall = state.meta.wall.max(proposed_at);
        let wall = state.meta.wall;
        Self {
            state,
            effects: Vec::new(),
            wall,
            dirty_applications: BTreeSet::new(),
            dirty_clusters: BTreeSet::new(),
            dirty_rollouts: BTreeSet::new(),
        }
    }

    fn run(&mut self, envelope: &Envelope) -> Result<Reply, Rejection> {
        let (since, now) = (envelope.command.since_version(), self.state.meta.version);
        // An empty state has no version yet: its first entry sets it.
        if since > now && now > 0 {
            return Err(Rejection::Precondition(format!(
                "this needs state version {since}, the group has {now}: upgrade every hub first"
            )));
        }
        for precondition in &envelope.preconditions {
            self.check(precondition)?;
        }
        let mut reply = self.command(&envelope.command, &envelope.subject)?;
        self.settle();
        reply.revision = self.state.meta.revision;
        Ok(reply)
    }

    fn command(&mut self, command: &Command, subject: &str) -> Result<Reply, Rejection> {
        let done = |()| Reply::default();
        match command {
            Command::Bootstrap { cluster_id, trust_domain, uids } => {
                self.bootstrap(cluster_id, trust_domain, uids).map(done)
            }
            Command::Tick { elapsed } => {
                let elapsed = (*elapsed).min(TICK_MAX);
                self.state.meta.now = self.state.meta.now.plus(elapsed);
                Ok(Reply::default())
            }
            Command::RaiseVersion { version } => self.raise_version(*version).map(done),
            Command::Write { writes } => {
                if writes.len() > ENVELOPE_OBJECTS_MAX {
                    let count = writes.len();
                    return Err(Rejection::Invalid(format!(
                        "{count} writes in one command; the limit is {ENVELOPE_OBJECTS_MAX}"
                    )));
                }
                self.write_all(writes)
            }
            Command::AddToken { hash, cluster, expires_at } => self.add_token(*hash, cluster, *expires_at),
            Command::RedeemToken { hash, key, serial } => self.redeem_token(hash, *key, *serial),
            Command::RenewCertificate { cluster, key, serial } => self.renew_certificate(cluster, *key, *serial),
            Command::Sessions { hub, changes } => {
                for change in changes {
                    self.session(*hub, change);
                }
                Ok(Reply::default())
            }
            Command::Targets { rollout, rollout_uid, owner, cause, changes } => {
                self.targets(rollout, rollout_uid, owner, *cause, changes).map(done)
            }
            Command::Operate { application, uid, operation } => {
                self.operate(application, uid, operation, subject).map(done)
            }
            Command::RefuseOperation { application, uid, message } => {
                self.refuse_operation(application, uid, message).map(done)
            }
            Command::Refreshed { application, uid, hard } => self.refreshed(application, uid, *hard).map(done),
            Command::Receipts { cluster, incarnation, up_to, receipts } => {
                self.receipts(cluster, *incarnation, *up_to, receipts).map(done)
            }
            hubs => self.hub_command(hubs),
        }
    }

    fn hub_command(&mut self, command: &Command) -> Result<Reply, Rejection> {
        let done = |()| Reply::default();
        match command {
            Command::AddHubToken { hash, expires_at } => self.add_hub_token(*hash, *expires_at).map(done),
            Command::AdmitHub { hash, key, store, hub } => self.admit_hub(hash, *key, *store, hub),
            Command::AnnounceHub { node, store, key, hub } => self.announce_hub(*node, *store, *key, hub).map(done),
            Command::RemoveHub { node } => self.remove_hub(*node).map(done),
            Command::SetTrust { trust } => self.set_trust(trust).map(done),
            Command::StateHash { node, applied, hash } => {
                self.state_hash(*node, *applied, *hash);
                Ok(Reply::default())
            }
            Command::Restored { cluster_id, node, hub } => self.restored(cluster_id, *node, hub).map(done),
            Command::Batch { hub, sessions, receipts } => self.batch(*hub, sessions, receipts).map(done),
            // Those above this match.
            _ => Err(Rejection::Invalid("not a command of hubs".to_owned())),
        }
    }

    /// Each part stands alone: a refused one (an agent that was superseded meanwhile) changes nothing and holds up nobody.
    fn batch(&mut self, hub: u64, sessions: &[SessionChange], receipts: &[ReceiptBatch]) -> Result<(), Rejection> {
        let count = sessions.len() + receipts.iter().map(|batch| batch.receipts.len()).sum::<usize>();
        if count > ENVELOPE_OBJECTS_MAX {
            return Err(Rejection::Invalid(format!(
                "{count} changes in one batch; the limit is {ENVELOPE_OBJECTS_MAX}"
            )));
        }
        for change in sessions {
            self.session(hub, change);
        }
        for batch in receipts {
            // The state before stays where a part is refused: receipts check before they change.
            let _ = self.receipts(&batch.cluster, batch.incarnation, batch.up_to, &batch.receipts);
        }
        Ok(())
    }

    fn check(&self, precondition: &Precondition) -> Result<(), Rejection> {
        match precondition {
            Precondition::Object { key, uid, revision } => {
                let record = self.state.object(key).ok_or_else(|| not_found(key))?;
                if !uid.is_empty() && *uid != record.uid {
                    let message =
                        format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", record.uid);
                    return Err(conflict(key, message));
                }
                if revision.is_some_and(|revision| revision != record.revision) {
                    return Err(conflict(key, MODIFIED.to_owned()));
                }
                Ok(())
            }
            Precondition::Epoch(epoch) if *epoch == self.state.meta.epoch => Ok(()),
            Precondition::Epoch(epoch) => {
                let now = self.state.meta.epoch;
                Err(Rejection::Precondition(format!("proposed in epoch {epoch}, it is {now}: plan again")))
            }
            Precondition::Release { application, release } => {
                let now = self.state.assignment(application).map(|record| record.release);
                if now == Some(*release) {
                    return Ok(());
                }
                Err(Rejection::Precondition(format!(
                    "assignment {application} is not at release {release}: plan again"
                )))
            }
            Precondition::RolloutStep { rollout, step } => {
                let now = self.state.rollout(rollout).map(|record| record.step as u64);
                if now == Some(u64::from(*step)) {
                    return Ok(());
                }
                Err(Rejection::Precondition(format!("rollout {rollout} is not at step {step}: plan again")))
            }
        }
    }

    /// Computes what follows from the changes of this envelope, each once.
    fn settle(&mut self) {
        for application in std::mem::take(&mut self.dirty_applications) {
            self.settle_application(&application);
        }
        for rollout in std::mem::take(&mut self.dirty_rollouts) {
            self.settle_rollout(&rollout);
        }
        for cluster in std::mem::take(&mut self.dirty_clusters) {
            self.settle_cluster(&cluster);
        }
    }

    fn raise_version(&mut self, version: u32) -> Result<(), Rejection> {
        if let Some((node, hub)) = self.state.hubs().find(|(_, hub)| hub.state_version < version) {
            let theirs = hub.state_version;
            return Err(Rejection::Precondition(format!(
                "node {node} understands state version {theirs} only, not {version}: upgrade it first"
            )));
        }
        if version > crate::STATE_VERSION {
            let ours = crate::STATE_VERSION;
            return Err(Rejection::Precondition(format!("state version {version} is newer than this build's {ours}")));
        }
        self.state.meta.version = self.state.meta.version.max(version);
        Ok(())
    }
}

/// Kubernetes' sentence for a lost race.
const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";

/// `applications.argoproj.io`, as Kubernetes names kinds in errors.
fn plural(kind: Kind) -> String {
    let info = kind.info();
    if info.group.is_empty() { info.plural.to_owned() } else { format!("{}.{}", info.plural, info.group) }
}

fn not_found(key: &ObjectKey) -> Rejection {
    Rejection::NotFound { kind: plural(key.kind), name: key.name.name.clone() }
}

fn conflict(key: &ObjectKey, message: String) -> Rejection {
    Rejection::Conflict { kind: plural(key.kind), name: key.name.name.clone(), message }
}

#[cfg(test)]
mod tests;
