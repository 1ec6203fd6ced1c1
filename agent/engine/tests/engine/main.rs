//! The engine against the simulated cluster, in virtual time.

mod driver;
mod health;
mod lifecycle;
mod operations;
mod random;
mod resume;
