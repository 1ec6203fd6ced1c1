//! What is inside of a backup once it is opened: a sequence of records, compressed as one stream.
//!
//! ```text
//! size  field
//!    1  kind: 1 trust (once, first), 2 a record of the state, 3 a blob, 4 end (once, last)
//!    4  length, little endian
//!    n  trust: JSON of Trust; state: as in a snapshot; blob: 32 bytes of name, then the content; end: JSON of End
//! ```
//!
//! Kinds are append only; a new one raises the version of the format. Records of the state come before the blobs.

use std::io::{self, Read, Write};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use serde::{Deserialize, Serialize};
use windlass_protocol::{backup::Header, ids::Digest};

use super::{
    BackupError,
    stream::{OpenedReader, SealedWriter},
};
use crate::sealing::Sealer;

const TRUST: u8 = 1;
const STATE: u8 = 2;
const BLOB: u8 = 3;
const END: u8 = 4;
/// Bytes of one record: the largest blob that a hub can be configured to keep, with room.
pub(super) const RECORD_BYTES_MAX: usize = 256 << 20;
/// First allocation for a record: grows as its bytes arrive.
const FIRST_RESERVE: usize = 64 << 10;

/// What a new hub needs to go on with the trust domain.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrustMaterial {
    /// Roots (PEM), the signing one first.
    pub roots: String,
    /// Key of the first root (PEM). Sealed only by the backup itself.
    pub root_key: String,
}

impl std::fmt::Debug for TrustMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrustMaterial").field("roots", &self.roots).finish_non_exhaustive()
    }
}

/// The last record: what came before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct End {
    /// Records of the state.
    pub(super) records: u64,
    /// Blobs.
    pub(super) blobs: u64,
    /// Their bytes.
    pub(super) blob_bytes: u64,
    /// Blobs that the state names and that were not on the node that wrote this.
    pub(super) missing: u64,
}

/// One record.
#[derive(Debug)]
pub(super) enum Record {
    Trust(TrustMaterial),
    State(Vec<u8>),
    Blob(Digest, Vec<u8>),
    End(End),
}

/// Writes records.
pub(super) struct RecordWriter<W: Write> {
    out: DeflateEncoder<SealedWriter<W>>,
}

impl<W: Write> RecordWriter<W> {
    pub(super) fn start(out: W, header: &Header, sealer: &Sealer) -> Result<Self, BackupError> {
        let sealed = SealedWriter::start(out, header, sealer)?;
        Ok(Self { out: DeflateEncoder::new(sealed, Compression::fast()) })
    }

    pub(super) fn trust(&mut self, trust: &TrustMaterial) -> Result<(), BackupError> {
        self.put(TRUST, &[&json(trust)?])
    }

    pub(super) fn state(&mut self, record: &[u8]) -> Result<(), BackupError> {
        self.put(STATE, &[record])
    }

    pub(super) fn blob(&mut self, digest: &Digest, content: &[u8]) -> Result<(), BackupError> {
        self.put(BLOB, &[&digest.0, content])
    }

    /// Gives the output back, and the bytes of the whole file.
    pub(super) fn finish(mut self, end: &End) -> Result<(W, u64), BackupError> {
        self.put(END, &[&json(end)?])?;
        self.out.finish().map_err(BackupError::from_io)?.finish()
    }

    fn put(&mut self, kind: u8, parts: &[&[u8]]) -> Result<(), BackupError> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length > RECORD_BYTES_MAX {
            return Err(BackupError::Record { bytes: length, maximum: RECORD_BYTES_MAX });
        }
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let mut write = |bytes: &[u8]| self.out.write_all(bytes).map_err(BackupError::from_io);
        write(&[kind])?;
        write(&length.to_le_bytes())?;
        parts.iter().try_for_each(|part| write(part))
    }
}

/// Reads records.
pub(super) struct RecordReader<R: Read> {
    input: DeflateDecoder<OpenedReader<R>>,
}

impl<R: Read> RecordReader<R> {
    pub(super) fn start(input: R, sealer: &Sealer) -> Result<Self, BackupError> {
        Ok(Self { input: DeflateDecoder::new(OpenedReader::start(input, sealer)?) })
    }

    pub(super) fn header(&self) -> &Header {
        self.input.get_ref().header()
    }

    /// Bytes of the file read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.input.get_ref().bytes()
    }

    pub(super) fn next(&mut self) -> Result<Record, BackupError> {
        let mut head = [0; 5];
        self.fill(&mut head)?;
        let [kind, length @ ..] = head;
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > RECORD_BYTES_MAX {
            return Err(BackupError::damaged("a record is longer than any record"));
        }
        let mut content = Vec::with_capacity(length.min(FIRST_RESERVE));
        let read = (&mut self.input).take(length as u64).read_to_end(&mut content).map_err(BackupError::from_io)?;
        if read != length {
            return Err(BackupError::damaged("a record is cut off"));
        }
        match kind {
            TRUST => Ok(Record::Trust(parse(&content)?)),
            STATE => Ok(Record::State(content)),
            BLOB => {
                let name = content.get(..32).and_then(|name| <[u8; 32]>::try_from(name).ok());
                let name = name.ok_or_else(|| BackupError::damaged("a blob has no name"))?;
                content.drain(..32);
                Ok(Record::Blob(Digest(name), content))
            }
            END => {
                let end = parse(&content)?;
                self.end()?;
                Ok(Record::End(end))
            }
            _ => Err(BackupError::damaged("a record is of no known kind")),
        }
    }

    fn end(&mut self) -> Result<(), BackupError> {
        if self.input.read(&mut [0]).map_err(BackupError::from_io)? > 0 {
            return Err(BackupError::damaged("there is a record after the last one"));
        }
        self.input.get_mut().finish()
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), BackupError> {
        self.input.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => BackupError::damaged("its last record is missing"),
            _ => BackupError::from_io(error),
        })
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, BackupError> {
    serde_json::to_vec(value).map_err(|error| BackupError::from_io(io::Error::other(error)))
}

fn parse<T: serde::de::DeserializeOwned>(content: &[u8]) -> Result<T, BackupError> {
    serde_json::from_slice(content).map_err(|error| BackupError::damaged(&format!("a record: {error}")))
}
