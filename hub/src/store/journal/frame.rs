//! Bytes of the journal: the head of a segment, and frames.
//!
//! ```text
//! segment  magic 8 | version 4 | number 8 | store id 16 | sum 16 | frames
//! frame    magic 4 | length 4 | sequence 8 | sum of the frame before 16 | sum 16 | operations
//! operation  kind 1 | tree length 1 | key length 2 | content length 4 | tree | key | content
//! ```
//!
//! Integers are big-endian. The sum of a frame covers all of it and is keyed with store and segment: a frame that turns
//! up elsewhere, or that a user wrote into a record, is no frame. Each frame names the sum of the one before it, so that
//! a missing, repeated or exchanged frame is found.

use std::ops::Range;

use super::super::StoreId;

/// Length of a checksum.
pub(super) const SUM_BYTES: usize = 16;
pub(super) type Sum = [u8; SUM_BYTES];

/// What a frame does, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation<'a> {
    Put {
        tree: &'a str,
        key: &'a [u8],
        content: &'a [u8],
    },
    Remove {
        tree: &'a str,
        key: &'a [u8],
    },
    /// Segments below this number hold nothing any more.
    Base(u64),
}

/// Who writes: part of every sum.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seal {
    pub(super) store: StoreId,
    pub(super) segment: u64,
}

impl Seal {
    fn hasher(self) -> blake3::Hasher {
        let mut key = [0; 32];
        let (store, rest) = key.split_at_mut(16);
        store.copy_from_slice(self.store.as_bytes());
        let (segment, _) = rest.split_at_mut(8);
        segment.copy_from_slice(&self.segment.to_be_bytes());
        blake3::Hasher::new_keyed(&key)
    }
}

/// The head of a segment.
pub(super) fn segment_head(seal: Seal) -> Vec<u8> {
    let mut head = [SEGMENT_MAGIC.as_slice(), &VERSION.to_be_bytes(), &seal.segment.to_be_bytes()].concat();
    head.extend_from_slice(seal.store.as_bytes());
    let sum = sum_of(&head);
    head.extend_from_slice(&sum);
    head
}

/// What the head of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SegmentHead {
    Whole,
    /// Cut or changed.
    Broken,
    /// Written by a later release.
    Newer(u32),
    /// Whole, but of another store or another place.
    Other(StoreId),
}

pub(super) fn read_segment_head(bytes: &[u8], seal: Seal) -> SegmentHead {
    let parsed = || {
        let head = bytes.get(..SEGMENT_HEAD_BYTES)?;
        let (body, sum) = head.split_at_checked(SEGMENT_HEAD_BYTES - SUM_BYTES)?;
        let (magic, rest) = body.split_first_chunk::<8>()?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (store, _) = rest.split_first_chunk::<16>()?;
        let whole = sum == sum_of(body) && magic == SEGMENT_MAGIC;
        whole.then(|| (u32::from_be_bytes(*version), u64::from_be_bytes(*number), StoreId::from_bytes(*store)))
    };
    match parsed() {
        None => SegmentHead::Broken,
        Some((version, _, _)) if version > VERSION => SegmentHead::Newer(version),
        Some((_, number, store)) if store != seal.store || number != seal.segment => SegmentHead::Other(store),
        Some(_) => SegmentHead::Whole,
    }
}

/// Puts a frame together.
#[derive(Debug, Default)]
pub(super) struct FrameWriter {
    bytes: Vec<u8>,
}

impl FrameWriter {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; FRAME_HEAD_BYTES] }
    }

    /// Adds an operation whose sizes were checked; gives the place of its content within the frame.
    pub(super) fn add(&mut self, operation: &Operation<'_>) -> Range<usize> {
        let number;
        let (kind, tree, key, content) = match operation {
            Operation::Put { tree, key, content } => (KIND_PUT, *tree, *key, *content),
            Operation::Remove { tree, key } => (KIND_REMOVE, *tree, *key, [].as_slice()),
            Operation::Base(segment) => {
                number = segment.to_be_bytes();
                (KIND_BASE, "", [].as_slice(), number.as_slice())
            }
        };
        self.bytes.push(kind);
        self.bytes.push(u8::try_from(tree.len()).unwrap_or(u8::MAX));
        self.bytes.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
        self.bytes.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.bytes.extend_from_slice(tree.as_bytes());
        self.bytes.extend_from_slice(key);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(content);
        start..self.bytes.len()
    }

    /// The bytes of the frame, and its sum.
    pub(super) fn finish(mut self, seal: Seal, sequence: u64, previous: &Sum) -> (Vec<u8>, Sum) {
        let length = u32::try_from(self.bytes.len() - FRAME_HEAD_BYTES).unwrap_or(u32::MAX);
        let head = [FRAME_MAGIC.as_slice(), &length.to_be_bytes(), &sequence.to_be_bytes(), previous].concat();
        let operations = self.bytes.get(FRAME_HEAD_BYTES..).unwrap_or_default();
        let sum = frame_sum(seal, &head, operations);
        for (to, from) in self.bytes.iter_mut().zip(head.iter().chain(&sum)) {
            *to = *from;
        }
        (self.bytes, sum)
    }
}

/// A frame that was found whole.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) sequence: u64,
    pub(super) previous: Sum,
    pub(super) sum: Sum,
    /// Each with the place of its content within the segment.
    pub(super) operations: Vec<(Operation<'a>, Range<usize>)>,
    /// Where it ends in the segment.
    pub(super) end: usize,
}

/// The frame at `start` of a segment, when there is a whole one.
pub(super) fn read_frame(segment: &[u8], start: usize, seal: Seal) -> Option<Frame<'_>> {
    let head = segment.get(start..start.checked_add(FRAME_HEAD_BYTES)?)?;
    let (body, sum) = head.split_last_chunk::<SUM_BYTES>()?;
    let (magic, rest) = body.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (previous, _) = rest.split_first_chunk::<SUM_BYTES>()?;
    if magic != FRAME_MAGIC {
        return None;
    }
    let from = start + FRAME_HEAD_BYTES;
    let end = from.checked_add(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    let bytes = segment.get(from..end)?;
    if frame_sum(seal, body, bytes) != *sum {
        return None;
    }
    let mut operations = Vec::new();
    let mut at = from;
    while at < end {
        let (operation, place) = read_operation(segment, at, end)?;
        at = place.end;
        operations.push((operation, place));
    }
    Some(Frame { sequence: u64::from_be_bytes(*sequence), previous: *previous, sum: *sum, operations, end })
}

/// Whether a whole frame newer than `sequence` lies anywhere behind `start`.
pub(super) fn is_followed(segment: &[u8], start: usize, sequence: u64, seal: Seal) -> bool {
    let mut at = start;
    while let Some(found) = segment.get(at..).and_then(|rest| find(rest, FRAME_MAGIC)) {
        if read_frame(segment, at + found, seal).is_some_and(|frame| frame.sequence > sequence) {
            return true;
        }
        at += found + 1;
    }
    false
}

fn find(bytes: &[u8], magic: &[u8; 4]) -> Option<usize> {
    bytes.windows(magic.len()).position(|window| window == magic)
}

fn read_operation(segment: &[u8], at: usize, end: usize) -> Option<(Operation<'_>, Range<usize>)> {
    let ([kind, tree_length], rest) = segment.get(at..end)?.split_first_chunk::<2>()?;
    let (key_length, rest) = rest.split_first_chunk::<2>()?;
    let (content_length, rest) = rest.split_first_chunk::<4>()?;
    let (tree, rest) = rest.split_at_checked(usize::from(*tree_length))?;
    let (key, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*key_length)))?;
    let (content, _) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*content_length)).ok()?)?;
    let tree = std::str::from_utf8(tree).ok()?;
    let operation = match *kind {
        KIND_PUT => Operation::Put { tree, key, content },
        KIND_REMOVE => Operation::Remove { tree, key },
        KIND_BASE => Operation::Base(u64::from_be_bytes(content.try_into().ok()?)),
        _ => return None,
    };
    let start = at + 8 + tree.len() + key.len();
    Some((operation, start..start + content.len()))
}

fn frame_sum(seal: Seal, head: &[u8], operations: &[u8]) -> Sum {
    let mut sum = [0; SUM_BYTES];
    seal.hasher().update(head).update(operations).finalize_xof().fill(&mut sum);
    sum
}

/// The sum of a record's content.
pub(super) fn sum_of(bytes: &[u8]) -> Sum {
    let mut sum = [0; SUM_BYTES];
    blake3::Hasher::new().update(bytes).finalize_xof().fill(&mut sum);
    sum
}

const SEGMENT_MAGIC: &[u8; 8] = b"WNDLJRNL";
const FRAME_MAGIC: &[u8; 4] = b"\xf7WJ\x1e";
const VERSION: u32 = 1;
/// Newest version of segments that this release reads.
pub(super) const SUPPORTED: u32 = VERSION;
pub(super) const SEGMENT_HEAD_BYTES: usize = 8 + 4 + 8 + 16 + SUM_BYTES;
const FRAME_HEAD_BYTES: usize = 4 + 4 + 8 + SUM_BYTES + SUM_BYTES;
const KIND_PUT: u8 = 1;
const KIND_REMOVE: u8 = 2;
const KIND_BASE: u8 = 3;
