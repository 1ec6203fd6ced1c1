//! Everything that crosses between separately deployed Windlass binaries, sans-io: identities, resource types, messages, framing
//! and the session state machines.
//!
//! # The conversation
//!
//! An agent without a certificate opens one stream, sends [`message::EnrolRequest`] and gets its identity. With it, it opens
//! three streams. On *control* both say hello; the agent says which desired state it *has* (epoch, generation), the hub answers
//! with a delta. On *blobs* the agent asks, by digest, only for content that it lacks. When everything of a delta is on its disk
//! it says what it has again: that is the acknowledgement. On *receipts* it sends numbered facts, which the hub acknowledges
//! after they are committed.
//!
//! This crate never opens a socket, reads a clock, draws a random number or touches a disk; a test enforces it.

pub mod backup;
pub mod codec;
pub mod glob;
pub mod handshake;
pub mod ids;
pub mod json;
pub mod manifest;
pub mod message;
pub mod permitted;
pub mod resource;
pub mod session;
pub mod status;
pub mod time;
pub mod yaml;
