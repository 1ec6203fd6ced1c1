//! The one integration binary: a module for each behaviour, all on the harness.

mod agent;
mod peers;
mod tidy;
