//! The engine against the simulated cluster, in virtual time.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

mod driver;
mod health;
mod lifecycle;
mod operations;
mod random;
mod resume;
