//! The protocol of Windlass.

pub mod yaml;
