//! The one integration binary: a module for each behaviour, all on the harness.

#![allow(clippy::indexing_slicing, clippy::print_stdout, reason = "a test fails by panicking and prints its figures")]

mod agent;
mod delivery;
mod fleet;
mod outage;
mod peers;
mod tidy;
