//! The one integration binary: a module for each behaviour, all on the harness.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that panics fails where it stands, and what it measures it prints"
)]

mod agent;
mod backup;
mod cluster;
mod delivery;
mod fleet;
mod group;
mod outage;
mod peers;
mod power;
mod tidy;
