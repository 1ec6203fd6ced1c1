//! What hubs ask each other about blobs (append-only enums).

use serde::{Deserialize, Serialize};
use windlass_protocol::ids::Digest;

/// A request to another hub.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// Have these on disk and keep them for a while; fetch what is missing from the one who asks.
    Hold { digests: Vec<Digest> },
    /// As much of these as fits into one answer, in their order, the first from `offset` on.
    Get { digests: Vec<Digest>, offset: u64 },
    /// Whether everything that your state references is on your disk.
    Complete,
}

/// Its answer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    Held,
    /// For the first of the digests asked for; all but the last are whole.
    Pieces(Vec<Piece>),
    Complete {
        revision: u64,
        missing: u64,
        lost: u64,
    },
}

/// A blob, or a part of it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Piece {
    /// Not here, or damaged.
    Absent,
    Part {
        /// Bytes of the whole blob.
        total: u64,
        #[serde(with = "windlass_protocol::codec::as_bytes")]
        content: Vec<u8>,
    },
}

/// Content in one answer: bounds what a slow link holds up, and what both sides hold in memory.
pub(super) const PIECES_BYTES: usize = 1 << 20;
/// Digests in one request to get.
pub(super) const GET_DIGESTS_MAX: usize = 1_024;
/// Digests in one request to hold.
pub(super) const HOLD_DIGESTS_MAX: usize = 4_096;
/// Largest encoded request or answer.
pub(super) const MESSAGE_BYTES_MAX: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use windlass_protocol::codec;

    use super::*;

    #[test]
    fn encodings_hold_still() {
        let digest = Digest([7; 32]);
        let seven = [7; 32];
        let encode = |request: &Request| codec::to_bytes(request, MESSAGE_BYTES_MAX).unwrap();
        assert_eq!(encode(&Request::Hold { digests: vec![digest] }), [&[0, 1], seven.as_slice()].concat());
        let get = Request::Get { digests: vec![digest], offset: 5 };
        assert_eq!(encode(&get), [&[1, 1], seven.as_slice(), &[5]].concat());
        assert_eq!(encode(&Request::Complete), [2]);
        let encode = |answer: &Answer| codec::to_bytes(answer, MESSAGE_BYTES_MAX).unwrap();
        assert_eq!(encode(&Answer::Held), [0]);
        let pieces = Answer::Pieces(vec![Piece::Absent, Piece::Part { total: 9, content: vec![1, 2] }]);
        assert_eq!(encode(&pieces), [1, 2, 0, 1, 9, 2, 1, 2]);
        assert_eq!(encode(&Answer::Complete { revision: 1, missing: 2, lost: 3 }), [2, 1, 2, 3]);
    }
}
