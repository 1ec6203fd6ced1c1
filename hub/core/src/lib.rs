//! The pure, replicated brain of the hub: state, commands, planning and rollouts.
//!
//! Every node applies the same [`Envelope`]s in the same order to the same [`State`] and gets the same bytes. A planner on the
//! leader reads the state and what the shell has observed, and proposes commands; `apply` checks every precondition and safety
//! rule itself, so a wrong planner on a wrong leader can only be refused. Effects say what shells may be asked to do.
//!
//! This crate never reads a clock, a socket, a disk or a random number: times, names, uids and nonces arrive in the envelope.

pub mod apply;
pub mod command;
pub mod desired;
pub mod effect;
pub mod generate;
pub mod planner;
pub mod policy;
pub mod snapshot;
pub mod state;
pub mod status;
pub mod validate;

pub use self::{
    command::{Command, Envelope, Precondition, Rejection, Reply},
    effect::{Change, ChangeType, Effect},
    state::{ObjectKey, ObjectRecord, State},
};

/// Version of the state's meaning; raised by command once every member announces it.
///
/// 1: one hub. 2: members, trust, comparison of replicas, batches of sessions and receipts.
pub const STATE_VERSION: u32 = 2;
