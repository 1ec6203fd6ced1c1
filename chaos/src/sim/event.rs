//! Everything that can happen in the simulation: a closed list.

use std::sync::Arc;

use windlass_engine::{Action, ActionId, LiveChange, Outcome};
use windlass_hub_core::Envelope;
use windlass_protocol::{
    ids::{Incarnation, NamespacedName, RequestId},
    manifest::ResourceKey,
};

/// Names an assignment in an agent: Application and uid.
pub(crate) type Key = (NamespacedName, String);

/// One event.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A proposal reaches the log.
    Append(Arc<Envelope>),
    /// A replica applies what it has of the log.
    Apply(u64),
    /// Nobody has heard what became of a proposal.
    GiveUp { hub: u64, request: RequestId },
    /// A planner looks.
    Plan(u64),
    /// A hub compares its sessions with the state.
    Review(u64),
    /// A hub proposes what its sessions want.
    Flush(u64),
    /// The leader measures time.
    Tick,
    /// A former leader learns that it is one no more.
    StepDown(u64),
    /// A hub starts again.
    StartHub(u64),
    /// People do something.
    Client,
    /// Something breaks.
    Fault,
    /// An agent starts.
    StartAgent(String),
    /// An agent without identity redeems its token.
    Enrol(String),
    /// An agent dials a hub.
    Dial { agent: String, incarnation: Incarnation },
    /// An agent's timers.
    Wake { agent: String, incarnation: Incarnation },
    /// A frame arrives.
    Deliver { link: u64, frame: Frame },
    /// A hub notices that a connection is gone.
    NoticeLoss(u64),
    /// A request of an agent reaches its API server.
    Perform { agent: String, incarnation: Incarnation, key: Key, action: Box<Action> },
    /// The answer reaches the agent.
    Outcome { agent: String, incarnation: Incarnation, key: Key, action: ActionId, outcome: Box<Outcome> },
    /// A change of a watched object reaches the agent.
    Watch { agent: String, incarnation: Incarnation, change: Box<LiveChange> },
    /// Controllers of a cluster do their work on an object.
    Settle { agent: String, key: ResourceKey },
    /// A deleted object is really gone.
    Vanish { agent: String, key: ResourceKey, uid: String },
}

/// Bytes on one stream of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) stream: Stream,
    pub(crate) bytes: Vec<u8>,
}

/// A stream in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stream {
    AgentControl,
    AgentBlobs,
    AgentReceipts,
    HubControl,
    HubBlobs,
    HubReceipts,
}
