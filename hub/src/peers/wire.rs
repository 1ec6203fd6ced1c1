//! What goes over a stream between hubs: one request, then one answer (append-only enums).

use serde::{Deserialize, Serialize};
use windlass_protocol::codec::as_bytes;

/// Opens a stream, as it is read.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Request {
    Raft(#[serde(with = "as_bytes")] Vec<u8>),
    Service(#[serde(with = "as_bytes")] Vec<u8>),
    Bulk(#[serde(with = "as_bytes")] Vec<u8>),
    /// The header; the content follows as raw bytes up to the end of the stream.
    Snapshot(#[serde(with = "as_bytes")] Vec<u8>),
}

/// The same, as it is written: without a copy of the bytes.
#[derive(Debug, Serialize)]
pub(super) enum RequestRef<'a> {
    Raft(#[serde(with = "as_bytes")] &'a [u8]),
    Service(#[serde(with = "as_bytes")] &'a [u8]),
    Bulk(#[serde(with = "as_bytes")] &'a [u8]),
    Snapshot(#[serde(with = "as_bytes")] &'a [u8]),
}

/// Answers a request, as it is read.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Answer {
    Done(#[serde(with = "as_bytes")] Vec<u8>),
    /// A sentence why not.
    Refused(String),
    /// No answer yet; more frames follow.
    Working,
}

/// The same, as it is written.
#[derive(Debug, Serialize)]
pub(super) enum AnswerRef<'a> {
    Done(#[serde(with = "as_bytes")] &'a [u8]),
    Refused(&'a str),
    Working,
}

/// Classes of streams, each with its own bound and rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Raft,
    Service,
    Bulk,
    Snapshot,
}

impl Class {
    pub(super) fn request(self, bytes: &[u8]) -> RequestRef<'_> {
        match self {
            Self::Raft => RequestRef::Raft(bytes),
            Self::Service => RequestRef::Service(bytes),
            Self::Bulk => RequestRef::Bulk(bytes),
            Self::Snapshot => RequestRef::Snapshot(bytes),
        }
    }

    /// Among streams with something to send, the higher goes first.
    pub(super) fn priority(self) -> i32 {
        match self {
            Self::Raft => 3,
            Self::Service => 2,
            Self::Bulk => 1,
            Self::Snapshot => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use windlass_protocol::codec;

    use super::*;

    #[test]
    fn written_and_read_forms_are_the_same_and_hold_still() {
        let request = |class: Class| codec::to_bytes(&class.request(b"ab"), 100).unwrap();
        for (class, read, golden) in [
            (Class::Raft, Request::Raft(b"ab".to_vec()), [0, 2, b'a', b'b']),
            (Class::Service, Request::Service(b"ab".to_vec()), [1, 2, b'a', b'b']),
            (Class::Bulk, Request::Bulk(b"ab".to_vec()), [2, 2, b'a', b'b']),
            (Class::Snapshot, Request::Snapshot(b"ab".to_vec()), [3, 2, b'a', b'b']),
        ] {
            assert_eq!(request(class), golden);
            assert_eq!(codec::from_bytes::<Request>(&golden, 100).unwrap(), read);
        }
        for (written, read, golden) in [
            (AnswerRef::Done(b"a"), Answer::Done(b"a".to_vec()), &[0, 1, b'a'][..]),
            (AnswerRef::Refused("a"), Answer::Refused("a".into()), &[1, 1, b'a']),
            (AnswerRef::Working, Answer::Working, &[2]),
        ] {
            assert_eq!(codec::to_bytes(&written, 100).unwrap(), golden);
            assert_eq!(codec::from_bytes::<Answer>(golden, 100).unwrap(), read);
        }
    }
}
