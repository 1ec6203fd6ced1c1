//! The session between one agent and one hub as two sans-io state machines: [`AgentSession`] and [`HubSession`].
//!
//! Each machine takes what arrived (`handle_*`) and hands out what to do next (`poll`), until `None`. The shell owns streams,
//! disks and clocks; a machine owns the order of things and every limit. Call order: construct, then after each `handle_*` poll
//! until `None`.
//!
//! ```text
//! agent                                   hub
//!   Hello(incarnation) ------------------>  admitted? Hello or Refused
//!   Have(epoch, generation) ------------->
//!   <------------------------- Desired(delta, parts)     one delta in flight; the next after the next Have
//!   Want(digests) ----------------------->  only what the assignments reference
//!   <---------------------------- Chunk*
//!   [checkpoint on disk]
//!   Have(epoch, generation) ------------->  the acknowledgement
//!   Receipts(seq..) --------------------->  commit
//!   <---------------------- Committed(seq)
//! ```

mod agent;
mod assembly;
mod hub;

pub use self::{
    agent::{AgentAction, AgentSession, DesiredChange},
    assembly::BLOB_BYTES_MAX,
    hub::{HubAction, HubSession},
};
use crate::{handshake::Incompatible, ids::Digest, message::Hello};

/// Capability by which an agent says which roots and hubs it has, so that a hub does not send them again.
const TRUST_CAPABILITY: &str = "trust=";

/// Names a set of roots (PEM) and hub addresses.
#[must_use]
pub fn trust_digest(roots: &str, hubs: &[String]) -> Digest {
    let mut text = roots.trim().to_owned();
    for hub in hubs {
        text.push('\n');
        text.push_str(hub);
    }
    Digest::of(text.as_bytes())
}

/// The capability of an agent that has these roots and hubs. Hubs that do not know it ignore it.
#[must_use]
pub fn trust_capability(roots: &str, hubs: &[String]) -> String {
    format!("{TRUST_CAPABILITY}{}", trust_digest(roots, hubs))
}

fn known_trust(hello: &Hello) -> Option<Digest> {
    hello.capabilities.iter().find_map(|capability| capability.strip_prefix(TRUST_CAPABILITY)?.parse().ok())
}

/// The peer broke the protocol; the connection is closed with this reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// A message came where it has no meaning.
    #[error("unexpected {message} while {phase}")]
    Unexpected {
        /// Which message.
        message: &'static str,
        /// What was expected instead.
        phase: &'static str,
    },
    /// No common version.
    #[error(transparent)]
    Incompatible(#[from] Incompatible),
    /// Content does not have the address under which it came.
    #[error("content does not match its address {0}")]
    WrongContent(Digest),
    /// Something is larger than its limit.
    #[error("{what} of {size} exceeds the limit {limit}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How large.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// Parts of a blob or a delta do not follow each other.
    #[error("part of {what} out of order")]
    OutOfOrder {
        /// Of what.
        what: &'static str,
    },
    /// An index of a bundle cannot be read.
    #[error("index {digest}: {message}")]
    BadIndex {
        /// Which one.
        digest: Digest,
        /// Why not.
        message: String,
    },
}

#[cfg(test)]
mod tests;
