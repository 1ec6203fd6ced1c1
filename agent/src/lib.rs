//! The Windlass agent: one per cluster. Dials the hub, keeps what it assigns on its own disk, applies it, heals drift, and
//! reports.
//!
//! ```text
//!            uplink ──DesiredChange──► executor ──Action──► cluster port ──► API server
//!              │  ▲                      │  ▲                    │
//!              ▼  └────receipts── reporter◄─┘  └──────changes────┘
//!          checkpoint ◄──resume points───┘
//! ```
//!
//! What to do is decided by `windlass-engine`; this crate does it. It works the same whether a hub answers or not: the
//! executor starts from the checkpoint before the uplink has dialled.

mod agent;
mod checkpoint;
mod clock;
pub mod cluster;
pub mod config;
mod executor;
mod identity;
pub mod limits;
mod reporter;
pub mod telemetry;
mod uplink;

pub use self::{
    agent::{run, run_with_cluster},
    config::{Config, Flags},
};
