//! Messages between peers as bytes.
//!
//! Every request starts with version, cluster, sender and receiver; what does not match is refused before it reaches
//! openraft, which takes a message from a wrong group for a fact.

use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};

use super::codec::{Malformed, Reader, Writer};
use super::snapshot::{decode_meta, encode_meta};
use super::types::{Config, NodeId, SnapshotMeta, Vote};

/// Who talks to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) cluster: [u8; 16],
    pub(super) from: NodeId,
    pub(super) to: NodeId,
}

/// A snapshot that a leader wants to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) vote: Vote,
    pub(super) meta: SnapshotMeta,
    pub(super) length: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Request {
    Append(AppendEntriesRequest<Config>),
    Vote(VoteRequest<NodeId>),
    /// Asks from which byte a snapshot is needed.
    Offer(Offer),
    /// Header of a stream with the bytes of a snapshot from `from` on.
    Stream {
        offer: Offer,
        from: u64,
    },
}

#[derive(Debug)]
pub(super) enum Response {
    Append(AppendEntriesResponse<NodeId>),
    Vote(VoteResponse<NodeId>),
    Offered {
        vote: Vote,
        from: u64,
    },
    Installed(Vote),
    /// The peer is there, but cannot do it.
    Failed(String),
}

impl Request {
    pub(super) fn encode(&self, envelope: &Envelope) -> Vec<u8> {
        let mut writer = Writer::versioned(VERSION);
        writer.raw(&envelope.cluster);
        writer.u64(envelope.from);
        writer.u64(envelope.to);
        match self {
            Self::Append(request) => {
                writer.u8(APPEND);
                writer.vote(&request.vote);
                writer.optional_log_id(request.prev_log_id.as_ref());
                writer.optional_log_id(request.leader_commit.as_ref());
                writer.count(request.entries.len());
                request.entries.iter().for_each(|entry| writer.entry(entry));
            }
            Self::Vote(request) => {
                writer.u8(VOTE);
                writer.vote(&request.vote);
                writer.optional_log_id(request.last_log_id.as_ref());
            }
            Self::Offer(offer) => {
                writer.u8(OFFER);
                write_offer(&mut writer, offer);
            }
            Self::Stream { offer, from } => {
                writer.u8(STREAM);
                write_offer(&mut writer, offer);
                writer.u64(*from);
            }
        }
        writer.0
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<(Envelope, Self), Malformed> {
        let mut reader = Reader::versioned(bytes, VERSION, "peer request")?;
        let envelope = Envelope { cluster: reader.array()?, from: reader.u64()?, to: reader.u64()? };
        let request = match reader.u8()? {
            APPEND => {
                let vote = reader.vote()?;
                let prev_log_id = reader.optional_log_id()?;
                let leader_commit = reader.optional_log_id()?;
                let count = reader.count(ENTRY_BYTES_MIN)?;
                let entries = (0..count).map(|_| reader.entry()).collect::<Result<Vec<_>, _>>()?;
                Self::Append(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
            }
            VOTE => Self::Vote(VoteRequest { vote: reader.vote()?, last_log_id: reader.optional_log_id()? }),
            OFFER => Self::Offer(read_offer(&mut reader)?),
            STREAM => Self::Stream { offer: read_offer(&mut reader)?, from: reader.u64()? },
            _ => return Err(reader.malformed()),
        };
        reader.end()?;
        Ok((envelope, request))
    }
}

impl Response {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::versioned(VERSION);
        match self {
            Self::Append(response) => {
                writer.u8(APPEND);
                match response {
                    AppendEntriesResponse::Success => writer.u8(0),
                    AppendEntriesResponse::PartialSuccess(matching) => {
                        writer.u8(1);
                        writer.optional_log_id(matching.as_ref());
                    }
                    AppendEntriesResponse::Conflict => writer.u8(2),
                    AppendEntriesResponse::HigherVote(vote) => {
                        writer.u8(3);
                        writer.vote(vote);
                    }
                }
            }
            Self::Vote(response) => {
                writer.u8(VOTE);
                writer.vote(&response.vote);
                writer.u8(u8::from(response.vote_granted));
                writer.optional_log_id(response.last_log_id.as_ref());
            }
            Self::Offered { vote, from } => {
                writer.u8(OFFER);
                writer.vote(vote);
                writer.u64(*from);
            }
            Self::Installed(vote) => {
                writer.u8(STREAM);
                writer.vote(vote);
            }
            Self::Failed(reason) => {
                writer.u8(FAILED);
                writer.bytes(reason.as_bytes());
            }
        }
        writer.0
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::versioned(bytes, VERSION, "peer response")?;
        let response = match reader.u8()? {
            APPEND => Self::Append(match reader.u8()? {
                0 => AppendEntriesResponse::Success,
                1 => AppendEntriesResponse::PartialSuccess(reader.optional_log_id()?),
                2 => AppendEntriesResponse::Conflict,
                3 => AppendEntriesResponse::HigherVote(reader.vote()?),
                _ => return Err(reader.malformed()),
            }),
            VOTE => {
                let (vote, granted) = (reader.vote()?, reader.boolean()?);
                Self::Vote(VoteResponse::new(vote, reader.optional_log_id()?, granted))
            }
            OFFER => Self::Offered { vote: reader.vote()?, from: reader.u64()? },
            STREAM => Self::Installed(reader.vote()?),
            FAILED => Self::Failed(reader.text()?),
            _ => return Err(reader.malformed()),
        };
        reader.end()?;
        Ok(response)
    }
}

fn write_offer(writer: &mut Writer, offer: &Offer) {
    writer.vote(&offer.vote);
    writer.bytes(&encode_meta(&offer.meta));
    writer.u64(offer.length);
}

fn read_offer(reader: &mut Reader<'_>) -> Result<Offer, Malformed> {
    Ok(Offer { vote: reader.vote()?, meta: decode_meta(reader.bytes()?)?, length: reader.u64()? })
}

const VERSION: u8 = 1;
const APPEND: u8 = 1;
const VOTE: u8 = 2;
const OFFER: u8 = 3;
const STREAM: u8 = 4;
const FAILED: u8 = 5;
/// A blank entry: log id and kind.
const ENTRY_BYTES_MIN: usize = 25;
