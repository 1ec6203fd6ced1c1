//! Bytes of log entries, votes, memberships and peer messages.
//!
//! Written by hand, big-endian, each top-level value behind a version byte: what lies in the log must outlive the
//! library's types. Decoding checks every length against what is left and every count against a limit, and never
//! panics on input. Fields are only ever appended, under a new version.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use openraft::{CommittedLeaderId, EntryPayload};

use super::types::{Commands, Entry, LogId, Membership, NodeId, Peer, StoredMembership, Vote};

/// The bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// Appends values to a buffer.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn versioned(version: u8) -> Self {
        Self(vec![version])
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Lengths and counts. All are far below the limit of 32 bits; one that is not makes a value that cannot be read.
    pub(super) fn count(&mut self, count: usize) {
        self.0.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
    }

    pub(super) fn log_id(&mut self, id: &LogId) {
        self.u64(id.leader_id.term);
        self.u64(id.leader_id.node_id);
        self.u64(id.index);
    }

    pub(super) fn optional_log_id(&mut self, id: Option<&LogId>) {
        self.u8(u8::from(id.is_some()));
        if let Some(id) = id {
            self.log_id(id);
        }
    }

    pub(super) fn vote(&mut self, vote: &Vote) {
        self.u64(vote.leader_id.term);
        self.u64(vote.leader_id.node_id);
        self.u8(u8::from(vote.committed));
    }

    pub(super) fn membership(&mut self, membership: &Membership) {
        let configs = membership.get_joint_config();
        self.count(configs.len());
        for config in configs {
            self.count(config.len());
            config.iter().for_each(|node| self.u64(*node));
        }
        self.count(membership.nodes().count());
        for (node, peer) in membership.nodes() {
            self.u64(*node);
            self.bytes(peer.name.as_bytes());
            self.bytes(peer.address.as_bytes());
        }
    }

    pub(super) fn stored_membership(&mut self, stored: &StoredMembership) {
        self.optional_log_id(stored.log_id().as_ref());
        self.membership(stored.membership());
    }

    pub(super) fn entry(&mut self, entry: &Entry) {
        self.log_id(&entry.log_id);
        match &entry.payload {
            EntryPayload::Blank => self.u8(PAYLOAD_BLANK),
            EntryPayload::Normal(Commands(commands)) => {
                self.u8(PAYLOAD_COMMANDS);
                self.count(commands.len());
                commands.iter().for_each(|command| self.bytes(command));
            }
            EntryPayload::Membership(membership) => {
                self.u8(PAYLOAD_MEMBERSHIP);
                self.membership(membership);
            }
        }
    }
}

/// Takes values from a buffer.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// Reads the version byte and refuses one that is not `version`.
    pub(super) fn versioned(bytes: &'a [u8], version: u8, what: &'static str) -> Result<Self, Malformed> {
        let mut reader = Self::new(bytes, what);
        if reader.u8()? != version {
            return Err(reader.malformed());
        }
        Ok(reader)
    }

    pub(super) fn malformed(&self) -> Malformed {
        Malformed(self.what)
    }

    /// Ends the reading: nothing may be left.
    pub(super) fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed()) }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(super) fn boolean(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.malformed()),
        }
    }

    /// A count of things that take at least `least` bytes each, so that a lie cannot ask for memory.
    pub(super) fn count(&mut self, least: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| self.malformed())?;
        if count.checked_mul(least).is_none_or(|bytes| bytes > self.rest.len()) {
            return Err(self.malformed());
        }
        Ok(count)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.count(1)?;
        let (head, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn text(&mut self) -> Result<String, Malformed> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.malformed())
    }

    pub(super) fn log_id(&mut self) -> Result<LogId, Malformed> {
        let leader = CommittedLeaderId::new(self.u64()?, self.u64()?);
        Ok(LogId::new(leader, self.u64()?))
    }

    pub(super) fn optional_log_id(&mut self) -> Result<Option<LogId>, Malformed> {
        if self.boolean()? { self.log_id().map(Some) } else { Ok(None) }
    }

    pub(super) fn vote(&mut self) -> Result<Vote, Malformed> {
        let (term, node) = (self.u64()?, self.u64()?);
        Ok(if self.boolean()? { Vote::new_committed(term, node) } else { Vote::new(term, node) })
    }

    pub(super) fn membership(&mut self) -> Result<Membership, Malformed> {
        let configs = self.count(4)?;
        let configs = (0..configs)
            .map(|_| {
                let voters = self.count(8)?;
                (0..voters).map(|_| self.u64()).collect::<Result<BTreeSet<NodeId>, _>>()
            })
            .collect::<Result<Vec<_>, _>>()?;
        let nodes = self.count(16)?;
        let nodes = (0..nodes)
            .map(|_| Ok((self.u64()?, Peer { name: self.text()?, address: self.text()? })))
            .collect::<Result<BTreeMap<NodeId, Peer>, Malformed>>()?;
        // The library asserts that every voter has a node.
        if !configs.iter().flatten().all(|voter| nodes.contains_key(voter)) {
            return Err(self.malformed());
        }
        Ok(Membership::new(configs, nodes))
    }

    pub(super) fn stored_membership(&mut self) -> Result<StoredMembership, Malformed> {
        Ok(StoredMembership::new(self.optional_log_id()?, self.membership()?))
    }

    pub(super) fn entry(&mut self) -> Result<Entry, Malformed> {
        let log_id = self.log_id()?;
        let payload = match self.u8()? {
            PAYLOAD_BLANK => EntryPayload::Blank,
            PAYLOAD_COMMANDS => {
                let count = self.count(4)?;
                let commands =
                    (0..count).map(|_| Ok(Arc::from(self.bytes()?))).collect::<Result<Vec<Arc<[u8]>>, Malformed>>()?;
                EntryPayload::Normal(Commands(commands))
            }
            PAYLOAD_MEMBERSHIP => EntryPayload::Membership(self.membership()?),
            _ => return Err(self.malformed()),
        };
        Ok(Entry { log_id, payload })
    }
}

/// An entry as it lies in the log.
pub(super) fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut writer = Writer::versioned(ENTRY_VERSION);
    writer.entry(entry);
    writer.0
}

pub(super) fn decode_entry(bytes: &[u8]) -> Result<Entry, Malformed> {
    let mut reader = Reader::versioned(bytes, ENTRY_VERSION, "log entry")?;
    let entry = reader.entry()?;
    reader.end()?;
    Ok(entry)
}

pub(super) fn encode_vote(vote: &Vote) -> Vec<u8> {
    let mut writer = Writer::versioned(META_VERSION);
    writer.vote(vote);
    writer.0
}

pub(super) fn decode_vote(bytes: &[u8]) -> Result<Vote, Malformed> {
    let mut reader = Reader::versioned(bytes, META_VERSION, "vote")?;
    let vote = reader.vote()?;
    reader.end()?;
    Ok(vote)
}

pub(super) fn encode_log_id(id: Option<&LogId>) -> Vec<u8> {
    let mut writer = Writer::versioned(META_VERSION);
    writer.optional_log_id(id);
    writer.0
}

pub(super) fn decode_log_id(bytes: &[u8]) -> Result<Option<LogId>, Malformed> {
    let mut reader = Reader::versioned(bytes, META_VERSION, "log id")?;
    let id = reader.optional_log_id()?;
    reader.end()?;
    Ok(id)
}

const ENTRY_VERSION: u8 = 1;
const META_VERSION: u8 = 1;
const PAYLOAD_BLANK: u8 = 0;
const PAYLOAD_COMMANDS: u8 = 1;
const PAYLOAD_MEMBERSHIP: u8 = 2;
