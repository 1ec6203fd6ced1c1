//! Loops that run on the leader, on a signal and on a period; each reads everything afresh and takes no input.

mod collect;
mod plan;
mod repair;
mod tick;

pub use self::{collect::collect_garbage, plan::Planner, repair::repair_blobs, tick::tick};
