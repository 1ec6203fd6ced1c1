//! The protocol of Windlass.

pub mod codec;
pub mod yaml;
