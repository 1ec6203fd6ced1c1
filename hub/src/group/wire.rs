//! Requests between hubs beside Raft, as bytes. Append only: a peer of another release answers that it cannot read what is
//! newer, and the caller treats that as "not now".

use serde::{Deserialize, Serialize};
use windlass_hub_core::command::{ENVELOPE_BYTES_MAX, HubAnnouncement};
use windlass_protocol::codec;

/// A forwarded envelope, with room for the frame around it.
const ASK_BYTES_MAX: usize = ENVELOPE_BYTES_MAX + 1_024;
/// Answers carry the bodies of written objects.
const TOLD_BYTES_MAX: usize = 4 * ENVELOPE_BYTES_MAX - 1_024;

/// What a hub asks another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Propose this encoded envelope; for the leader.
    Propose(Vec<u8>),
    /// Up to which index must a read see the log; for the leader.
    ReadIndex,
    /// Stand for election.
    Campaign,
    /// Let another member lead; for the leader.
    Yield {
        /// Which; any that is up to date when not given.
        to: Option<u64>,
    },
    /// What do you say about yourself?
    Status,
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// The encoded answer of the state machine.
    Answer(Vec<u8>),
    /// A read must see everything up to here.
    Index(u64),
    /// Done.
    Done,
    /// Not the leader, or cannot prove it; nothing was done.
    NotLeader,
    /// Too much is waiting; nothing was done.
    Overloaded,
    /// The command is too large; nothing was done.
    TooLarge {
        /// Its bytes.
        size: u64,
        /// The most allowed.
        maximum: u64,
    },
    /// It may or may not take effect.
    Unknown(String),
    /// See the variants' fields.
    Status(MemberStatus),
    /// Not done, and why.
    Failed(String),
}

/// What a hub says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Newest entry in its log.
    pub last_log: Option<u64>,
    /// Newest entry in its state.
    pub applied: Option<u64>,
    /// Newest entry in a snapshot.
    pub snapshot: Option<u64>,
    /// Sessions of agents.
    pub sessions: u64,
    /// Release.
    pub software: String,
    /// Newest point at which its state was hashed (applied envelopes), and the hash.
    pub hash: Option<(u64, windlass_protocol::ids::Digest)>,
}

/// A hub that wants to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinRequest {
    /// First form.
    V1 {
        /// The secret of the hub token.
        token: String,
        /// For its issuing key (PKCS #10, DER).
        signing_request: Vec<u8>,
        /// Id of its store.
        store: [u8; 16],
        /// Where it is and what it runs.
        hub: HubAnnouncement,
        /// Which operator key it has.
        operator_key: String,
    },
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinAnswer {
    /// Welcome.
    V1 {
        /// Its node id.
        node: u64,
        /// The group.
        cluster: [u8; 16],
        /// The trust domain.
        trust_domain: String,
        /// Certificates of its issuing key, leaf first (PEM).
        issuer: String,
        /// Roots to trust (PEM).
        roots: String,
    },
    /// Not admitted.
    Refused {
        /// A sentence that says what to do.
        reason: String,
        /// Whether asking again can help.
        later: bool,
    },
}

/// Bytes of a message.
///
/// # Errors
/// A text when it is too large.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, String> {
    codec::to_bytes(message, TOLD_BYTES_MAX).map_err(|error| error.to_string())
}

/// A request from bytes.
///
/// # Errors
/// A text when they are none, or of a newer release.
pub fn decode_ask(bytes: &[u8]) -> Result<Ask, String> {
    codec::from_bytes(bytes, ASK_BYTES_MAX).map_err(|error| error.to_string())
}

/// Any other message from bytes.
///
/// # Errors
/// A text when they are none, or of a newer release.
pub fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    codec::from_bytes(bytes, TOLD_BYTES_MAX).map_err(|error| error.to_string())
}
