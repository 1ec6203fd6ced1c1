//! Reconciliation of one cluster as pure code on JSON objects: pairing, comparison, health, order, pruning, and the state machine
//! that turns an assignment into actions.
//!
//! The shell (the agent, the hub for its own API, the simulator) performs [`Action`]s and brings back outcomes and changes of
//! live objects; this crate decides. It never opens a socket, reads a clock, draws a random number or touches a disk.
//!
//! ```text
//! assignment, bundles, kinds, live objects, outcomes  --handle_*-->  Reconciler  --poll_action-->  Action
//!                                                                        |
//!                                                                        +--status--> StatusView (receipt, detail)
//! ```

pub mod action;
pub mod diff;
pub mod discovery;
pub mod drift;
pub mod extension;
pub mod glob;
pub mod health;
pub mod hook;
pub mod normalize;
pub mod options;
pub mod order;
pub mod pair;
pub mod prepare;
pub mod prune;
pub mod quantity;
pub mod resume;
pub mod scope;
pub mod settings;
pub mod sim;
pub mod status;
pub mod sync;

pub use self::{
    action::{
        Action, ActionId, Apply, ApplyMode, DryRun, Failure, FailureReason, LiveChange, Outcome, Propagation, Work,
    },
    discovery::{GroupKind, Kinds, Scope},
    extension::{Extension, NoExtension},
    resume::ResumePoint,
    settings::{Environment, Settings},
    status::{End, StatusView},
    sync::Reconciler,
};
