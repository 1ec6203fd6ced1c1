//! Frames and records: the only file that names bincode.
//!
//! A *frame* is what travels on a stream: a fixed header, then one bincode value. A *record* is the same bincode
//! value without a header, for the log and for stores, which keep a checksum of their own.
//!
//! ```text
//! offset  size  field
//!      0     4  magic "WNDL"
//!      4     2  version, little endian (1)
//!      6     4  payload length in bytes, little endian
//!     10     8  checksum: first 8 bytes of BLAKE3 over bytes 0..10 and the payload
//!     18     n  payload
//! ```
//!
//! Integers inside a payload are bincode varints (a variant tag of an enum is one byte): receipts are many and
//! small. bincode is not self-describing, so every type that passes here is an append-only, versioned enum; golden
//! bytes in the tests of those types hold them still. Nothing here trusts a length before it is checked, and
//! nothing here panics on input. Message types must not be recursive: bincode has no depth limit.

use bincode::Options;
use serde::{Serialize, de::DeserializeOwned};

/// Opens every frame. A peer that speaks something else is found out by its first byte.
pub const MAGIC: [u8; 4] = *b"WNDL";

/// Version of the frame layout (not of the messages inside, which version themselves).
pub const FRAME_VERSION: u16 = 1;

/// Bytes before the payload.
pub const HEADER_LEN: usize = 18;

/// Default limit of a payload in bytes (DESIGN section 10, "frame"). A larger value would let one peer pin that
/// much memory per stream; blobs are cut into chunks far below it.
pub const MAX_FRAME: usize = 1024 * 1024;

/// Bytes of the header that the checksum covers, besides the payload.
const CHECKED_HEADER: usize = 10;

/// First allocation for a payload: a length is only a claim until its bytes have arrived.
const FIRST_RESERVE: usize = 64 * 1024;

/// Why bytes were refused, or a value could not become bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The stream does not carry frames of Windlass.
    #[error("not a frame: starts with {found:02x?} instead of {MAGIC:02x?}")]
    WrongMagic {
        /// The bytes seen, at most four.
        found: Vec<u8>,
    },
    /// The frame layout is of another version.
    #[error("frame version {found} is not supported (this side speaks {FRAME_VERSION})")]
    UnsupportedVersion {
        /// The version announced by the frame.
        found: u16,
    },
    /// The payload would exceed the limit `frame`.
    #[error("payload of {length} bytes exceeds the frame limit of {limit} bytes")]
    TooLong {
        /// Announced or actual payload length in bytes.
        length: u64,
        /// The limit in bytes.
        limit: usize,
    },
    /// Header and payload do not match their checksum.
    #[error("frame checksum does not match its content")]
    Checksum,
    /// The input ended inside a frame.
    #[error("input ended inside a frame: {missing} more bytes expected")]
    Truncated {
        /// Bytes that were still missing; a lower bound when the header itself was cut.
        missing: usize,
    },
    /// The payload is not a value of the expected type, or has bytes left over.
    #[error("payload is not a valid {type_name}: {reason}")]
    Malformed {
        /// The Rust type that was expected.
        type_name: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// The value cannot be written.
    #[error("{type_name} cannot be encoded: {reason}")]
    Unencodable {
        /// The Rust type that was to be written.
        type_name: &'static str,
        /// What the encoder said.
        reason: String,
    },
}

/// Encodes `value` as one whole frame. `limit` bounds the payload in bytes; see [`MAX_FRAME`].
pub fn encode<T: Serialize + ?Sized>(value: &T, limit: usize) -> Result<Vec<u8>, CodecError> {
    let mut frame = Vec::new();
    encode_behind(&mut frame, HEADER_LEN, value, limit)?;
    fill_header(frame, limit)
}

/// Puts a header before a payload that is already encoded.
pub fn frame_payload(payload: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
    if payload.len() > limit {
        return Err(too_long(payload.len(), limit));
    }
    let mut frame = Vec::with_capacity(HEADER_LEN.saturating_add(payload.len()));
    frame.resize(HEADER_LEN, 0);
    frame.extend_from_slice(payload);
    fill_header(frame, limit)
}

/// Decodes the payload of one frame; left-over bytes are an error.
pub fn decode_payload<T: DeserializeOwned>(payload: &[u8]) -> Result<T, CodecError> {
    from_bytes(payload, payload.len())
}

/// Encodes a record for the log or a store. Fails with [`CodecError::TooLong`] above `limit` bytes.
pub fn to_bytes<T: Serialize + ?Sized>(value: &T, limit: usize) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    encode_behind(&mut bytes, 0, value, limit)?;
    Ok(bytes)
}

/// Decodes a record written by [`to_bytes`]. More than `limit` bytes, or bytes left over, are an error.
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, CodecError> {
    if bytes.len() > limit {
        return Err(too_long(bytes.len(), limit));
    }
    encoding()
        .with_limit(u64::try_from(limit).unwrap_or(u64::MAX))
        .deserialize(bytes)
        .map_err(|error| CodecError::Malformed { type_name: std::any::type_name::<T>(), reason: error.to_string() })
}

/// Cuts a byte stream into payloads. Holds at most one frame, whatever is pushed.
///
/// Call [`push`](Self::push) with what arrived, and [`pop`](Self::pop) whenever it stops short of the end of its
/// input. After an error the decoder stays failed: a stream that lost its framing cannot be picked up again.
#[derive(Debug)]
pub struct FrameDecoder {
    limit: usize,
    header: Vec<u8>,
    /// Payload length, once the header is complete and accepted.
    length: Option<usize>,
    payload: Vec<u8>,
    failed: Option<CodecError>,
}

impl FrameDecoder {
    /// A decoder that refuses payloads above `limit` bytes as soon as their header is seen.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, header: Vec::with_capacity(HEADER_LEN), length: None, payload: Vec::new(), failed: None }
    }

    /// Takes bytes up to the end of the current frame and returns how many were taken.
    ///
    /// Fewer than given means: a frame is complete, [`pop`](Self::pop) it and push the rest. Refuses a wrong magic
    /// at its first wrong byte and a long payload before storing any of it.
    pub fn push(&mut self, input: &[u8]) -> Result<usize, CodecError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.take(input).inspect_err(|error| {
            self.failed = Some(error.clone());
            self.payload = Vec::new();
        })
    }

    /// The payload of the completed frame, or `None` while bytes are missing.
    pub fn pop(&mut self) -> Option<Vec<u8>> {
        if self.failed.is_some() || self.length != Some(self.payload.len()) {
            return None;
        }
        self.length = None;
        self.header.clear();
        Some(std::mem::take(&mut self.payload))
    }

    /// Bytes wanted before the next step (header or frame) is complete; 0 when a frame waits in
    /// [`pop`](Self::pop). Reading no more than this never takes bytes of the next frame.
    #[must_use]
    pub fn wanted(&self) -> usize {
        match self.length {
            None => HEADER_LEN.saturating_sub(self.header.len()),
            Some(length) => length.saturating_sub(self.payload.len()),
        }
    }

    /// True between the first byte of a frame and its `pop`.
    #[must_use]
    pub fn mid_frame(&self) -> bool {
        !self.header.is_empty()
    }

    /// To be called at the end of the input: an error if it came inside a frame.
    pub fn finish(&self) -> Result<(), CodecError> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None if self.mid_frame() => Err(CodecError::Truncated { missing: self.wanted() }),
            None => Ok(()),
        }
    }

    fn take(&mut self, input: &[u8]) -> Result<usize, CodecError> {
        let mut rest = input;
        if self.length.is_none() {
            let wanted = self.wanted().min(rest.len());
            let (head, tail) = rest.split_at(wanted);
            self.header.extend_from_slice(head);
            rest = tail;
            self.check_magic()?;
            if self.header.len() < HEADER_LEN {
                return Ok(input.len());
            }
            let length = self.check_header()?;
            self.payload.reserve_exact(length.min(FIRST_RESERVE));
            self.length = Some(length);
        }
        let wanted = self.wanted();
        if wanted > 0 || self.payload.is_empty() {
            let (body, tail) = rest.split_at(wanted.min(rest.len()));
            self.payload.extend_from_slice(body);
            rest = tail;
            if self.wanted() == 0 {
                self.check_sum()?;
            }
        }
        Ok(input.len().saturating_sub(rest.len()))
    }

    fn check_magic(&self) -> Result<(), CodecError> {
        let seen = self.header.get(..MAGIC.len()).unwrap_or(&self.header);
        if MAGIC.starts_with(seen) {
            return Ok(());
        }
        Err(CodecError::WrongMagic { found: seen.to_vec() })
    }

    fn check_header(&self) -> Result<usize, CodecError> {
        let version = u16::from_le_bytes(field(&self.header, 4));
        if version != FRAME_VERSION {
            return Err(CodecError::UnsupportedVersion { found: version });
        }
        let announced = u32::from_le_bytes(field(&self.header, 6));
        usize::try_from(announced)
            .ok()
            .filter(|length| *length <= self.limit)
            .ok_or_else(|| CodecError::TooLong { length: u64::from(announced), limit: self.limit })
    }

    fn check_sum(&self) -> Result<(), CodecError> {
        let covered = self.header.get(..CHECKED_HEADER).unwrap_or_default();
        let announced: [u8; 8] = field(&self.header, CHECKED_HEADER);
        if checksum(covered, &self.payload) == announced { Ok(()) } else { Err(CodecError::Checksum) }
    }
}

/// Serialises a `Vec<u8>` field as one run of bytes: `#[serde(with = "windlass_protocol::codec::as_bytes")]`.
///
/// What is written is the same as without it; serde alone passes every byte as an element, which is slow for blobs
/// and manifests.
pub mod as_bytes {
    use std::fmt;

    use serde::{Deserializer, Serializer, de};

    /// Writes the length and the bytes.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    /// Reads what [`serialize`] wrote.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_byte_buf(Bytes)
    }

    struct Bytes;

    impl de::Visitor<'_> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }
    }
}

/// Encodes `value` into the empty `out`, behind `gap` zero bytes.
fn encode_behind<T: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    gap: usize,
    value: &T,
    limit: usize,
) -> Result<(), CodecError> {
    let unencodable = |error: bincode::Error| CodecError::Unencodable {
        type_name: std::any::type_name::<T>(),
        reason: error.to_string(),
    };
    // The size is counted first, so that a value over the limit costs no allocation and is named with its size.
    let length = encoding().serialized_size(value).map_err(unencodable)?;
    let size =
        usize::try_from(length).ok().filter(|size| *size <= limit).ok_or(CodecError::TooLong { length, limit })?;
    out.reserve_exact(gap.saturating_add(size));
    out.resize(gap, 0);
    encoding().serialize_into(out, value).map_err(unencodable)
}

/// Writes the header into the first [`HEADER_LEN`] bytes of `frame`; the payload stands behind them.
fn fill_header(mut frame: Vec<u8>, limit: usize) -> Result<Vec<u8>, CodecError> {
    let payload = frame.get(HEADER_LEN..).unwrap_or_default();
    let length = u32::try_from(payload.len()).map_err(|_| too_long(payload.len(), limit))?;
    let mut header = Vec::with_capacity(HEADER_LEN);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&FRAME_VERSION.to_le_bytes());
    header.extend_from_slice(&length.to_le_bytes());
    let sum = checksum(&header, payload);
    header.extend_from_slice(&sum);
    for (to, from) in frame.iter_mut().zip(header) {
        *to = from;
    }
    Ok(frame)
}

fn encoding() -> impl Options {
    bincode::DefaultOptions::new().with_varint_encoding().with_little_endian().reject_trailing_bytes()
}

fn too_long(length: usize, limit: usize) -> CodecError {
    CodecError::TooLong { length: u64::try_from(length).unwrap_or(u64::MAX), limit }
}

fn checksum(header: &[u8], payload: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header);
    hasher.update(payload);
    field(hasher.finalize().as_bytes(), 0)
}

/// `N` bytes at `offset`; zeros where the input is too short, which no caller lets happen.
fn field<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(bytes.iter().skip(offset)) {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests;
