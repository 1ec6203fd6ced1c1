//! Chaos for Windlass, in two tiers: `sim`, a seeded simulation of a fleet, exact to the bit; and `cluster`, faults against real
//! processes.
//!
//! # Simulation
//!
//! The pure crates, driven by an event queue in virtual time. One seed decides everything: how many clusters, which faults, every delay. A run has a safety phase (workload and faults, all
//! invariants checked at each event) and a liveness phase (faults off, everything must converge). The same seed gives the same
//! trace, byte for byte; a failure prints the line that reproduces it.
//!
//! What is real: hub core (apply, planner, snapshots), sessions and codec, engine. What is modelled: Raft as a total order of
//! entries, QUIC as ordered streams of a connection that may end, disks, API servers, Git. Rendering is not under test.
//! The simulation reads no clock, no socket and no disk.
//!
//! # Cluster
//!
//! Hub binaries on loopback, killed, paused, cut off and restarted while clients record what they are told; see [`cluster`].
//! [`load`] puts thousands of agents on them and measures. [`shim`] is a disk that misbehaves; [`host`] holds what that and the end-to-end tests need of the machine.

pub mod cli;
pub mod cluster;
pub mod host;
mod invariants;
pub mod load;
pub mod plant;
pub mod shim;
pub mod sim;

pub use self::{
    plant::Plant,
    sim::{Coverage, Failure, Options, Outcome, simulate},
};
