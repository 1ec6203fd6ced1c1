//! Seeded simulation of a Windlass fleet: the pure crates, driven by an event queue in virtual time.
//!
//! One seed decides everything: how many clusters, which faults, every delay. A run has a safety phase (workload and faults, all
//! invariants checked at each event) and a liveness phase (faults off, everything must converge). The same seed gives the same
//! trace, byte for byte; a failure prints the line that reproduces it.
//!
//! What is real: hub core (apply, planner, snapshots), sessions and codec, engine. What is modelled: Raft as a total order of
//! entries, QUIC as ordered streams of a connection that may end, disks, API servers, Git. Rendering is not under test.
//! Nothing of the simulation reads a clock, a socket or a disk; [`shim`] is for real processes.

pub mod cli;
mod invariants;
pub mod plant;
pub mod shim;
pub mod sim;

pub use self::{
    plant::Plant,
    sim::{Coverage, Failure, Options, Outcome, simulate},
};
