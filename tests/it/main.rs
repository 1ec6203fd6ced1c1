//! The one integration binary: a module for each behaviour, all on the harness.

mod agent;
mod delivery;
mod fleet;
mod outage;
mod peers;
mod tidy;
