//! The outside of a backup file: what can be checked without a key. What is inside is the hub's business.
//!
//! ```text
//! offset  size  field
//!      0     8  magic "WNDLBKUP"
//!      8     1  version of the format (1)
//!      9     4  length of the header in bytes, big endian, at most 64 KiB
//!     13     n  header: JSON (see Header); unknown fields are ignored
//!            1  chunk: 0 when more follow, 1 for the last one
//!            4  length of the sealed chunk in bytes, big endian
//!            n  sealed chunk: at most 256 KiB of content, and a tag of 16 bytes
//!               ... more chunks
//!           32  BLAKE3 of everything before
//! ```
//!
//! Mark, version and the hash at the end stay as they are in every later format, so that a damaged file is told from a newer
//! one. Chunks are sealed by the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár: "Online Authenticated-Encryption and
//! its Nonce-Reuse Misuse-Resistance", CRYPTO 2015), with [`FrameReader::associated`] as associated data: a chunk that is
//! missing, repeated, exchanged or moved to another file does not open.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::{
    ids::{Digest, Epoch, StateRevision},
    time::Millis,
};

/// Opens every backup.
pub const MAGIC: [u8; 8] = *b"WNDLBKUP";
/// Version of the format that this build writes, and the newest that it reads.
pub const VERSION: u8 = 1;
/// Content of one chunk in bytes: what a writer or a reader holds in memory.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// Bytes that sealing adds to a chunk.
pub const TAG_BYTES: usize = 16;
/// Ends the name of every backup.
pub const SUFFIX: &str = ".windlass-backup";
/// Bytes of a header; a real one has a few hundred.
const HEADER_BYTES_MAX: usize = 64 * 1024;
const SUM_BYTES: usize = 32;
const MORE: u8 = 0;
const LAST: u8 = 1;

/// What a backup says about itself, in clear: nothing that a name of a cluster in a certificate does not say too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Wall time at which it was begun.
    pub created_at: Millis,
    /// Id of the group.
    pub cluster_id: String,
    /// Trust domain of its certificates.
    pub trust_domain: String,
    /// Epoch of the state.
    pub epoch: Epoch,
    /// Revision of the state: the backup holds exactly what was true then.
    pub revision: StateRevision,
    /// Envelopes that had been applied.
    pub applied: u64,
    /// Version of the state's meaning.
    pub state_version: u32,
    /// Hash of the state.
    pub state_hash: Digest,
    /// Release that wrote it.
    pub software: String,
    /// Id of the operator key that opens it.
    pub key_id: String,
    /// With the operator key it makes this file's own key.
    pub salt: Digest,
    /// How the content was compressed before it was sealed.
    pub compression: Compression,
}

/// How the content of a backup is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// RFC 1951.
    Deflate,
}

/// Why a backup cannot be read. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something else.
    #[error("this is no backup of Windlass (it starts differently): name a file that `windlass admin backup` wrote")]
    NotABackup,
    /// The end is missing.
    #[error(
        "the backup is cut off after {bytes} bytes: the copy or upload was not finished; fetch it again, or take the one before"
    )]
    Cut {
        /// Bytes that are there.
        bytes: u64,
    },
    /// Some byte is not what was written.
    #[error("the backup is damaged ({reason}): fetch it again, or take the one before")]
    Damaged {
        /// What does not fit.
        reason: String,
    },
    /// Written by a later release.
    #[error(
        "the backup has format {found}, this release reads up to {VERSION}: use the release that wrote it, or a newer one"
    )]
    Newer {
        /// Its format.
        found: u8,
    },
    /// Reading or writing failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What a look from outside has found: the file is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    /// What it says about itself.
    pub header: Header,
    /// Bytes of the file.
    pub bytes: u64,
    /// Number of chunks.
    pub chunks: u64,
}

/// Checks mark, header, frames, and the hash over all of it. Needs no key.
///
/// # Errors
/// [`BackupError`]: what is wrong with it.
pub fn check(input: impl Read) -> Result<Outside, BackupError> {
    let mut frames = FrameReader::start(input)?;
    let (mut chunk, mut chunks) = (Vec::new(), 0);
    while frames.next(&mut chunk)? {
        chunks += 1;
    }
    Ok(Outside { bytes: frames.bytes(), header: frames.header, chunks })
}

/// `20260102-030405.windlass-backup`: the name of a backup that was begun at this time, in UTC.
#[must_use]
pub fn file_name(created_at: Millis) -> String {
    let digits: String = created_at.rfc3339().chars().filter(|char| char.is_ascii_digit() || *char == 'T').collect();
    format!("{}{SUFFIX}", digits.replace('T', "-"))
}

/// Whether a name is one of [`file_name`]: nothing else is ever removed.
#[must_use]
pub fn is_file_name(name: &str) -> bool {
    let Some(stamp) = name.strip_suffix(SUFFIX) else { return false };
    let form = |(at, byte): (usize, u8)| if at == 8 { byte == b'-' } else { byte.is_ascii_digit() };
    stamp.len() == 15 && stamp.bytes().enumerate().all(form)
}

/// Writes mark, header and chunks, and hashes what passes.
#[derive(Debug)]
pub struct FrameWriter<W: Write> {
    out: W,
    hasher: blake3::Hasher,
    bytes: u64,
    associated: Digest,
}

impl<W: Write> FrameWriter<W> {
    /// Writes mark and header.
    ///
    /// # Errors
    /// [`BackupError::Io`].
    pub fn start(out: W, header: &Header) -> Result<Self, BackupError> {
        let header = serde_json::to_vec(header).map_err(io::Error::other)?;
        let length = u32::try_from(header.len()).map_err(io::Error::other)?;
        let mut this = Self { out, hasher: blake3::Hasher::new(), bytes: 0, associated: Digest([0; 32]) };
        this.put(&MAGIC)?;
        this.put(&[VERSION])?;
        this.put(&length.to_be_bytes())?;
        this.put(&header)?;
        this.associated = Digest(*this.hasher.finalize().as_bytes());
        Ok(this)
    }

    /// What every chunk is bound to.
    #[must_use]
    pub const fn associated(&self) -> Digest {
        self.associated
    }

    /// Writes one sealed chunk.
    ///
    /// # Errors
    /// [`BackupError::Io`].
    pub fn chunk(&mut self, sealed: &[u8], last: bool) -> Result<(), BackupError> {
        let length = u32::try_from(sealed.len()).map_err(io::Error::other)?;
        self.put(&[if last { LAST } else { MORE }])?;
        self.put(&length.to_be_bytes())?;
        self.put(sealed)
    }

    /// Writes the hash; gives the output back, and the number of bytes.
    ///
    /// # Errors
    /// [`BackupError::Io`].
    pub fn finish(mut self) -> Result<(W, u64), BackupError> {
        let sum = self.hasher.finalize();
        self.put(sum.as_bytes())?;
        self.out.flush()?;
        Ok((self.out, self.bytes))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.hasher.update(bytes);
        self.out.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// Reads what a [`FrameWriter`] wrote, and trusts nothing.
#[derive(Debug)]
pub struct FrameReader<R: Read> {
    input: Counted<R>,
    header: Header,
    associated: Digest,
    ended: bool,
}

impl<R: Read> FrameReader<R> {
    /// Reads mark and header.
    ///
    /// # Errors
    /// [`BackupError`]: not a backup, of a newer format, cut, or damaged.
    pub fn start(input: R) -> Result<Self, BackupError> {
        let mut input = Counted { input, hasher: blake3::Hasher::new(), bytes: 0 };
        let mut magic = [0; MAGIC.len()];
        match input.fill(&mut magic) {
            Ok(()) if magic == MAGIC => {}
            Ok(()) => return Err(BackupError::NotABackup),
            // The beginning of a backup, or something short.
            Err(BackupError::Cut { bytes }) if bytes > 0 && magic.starts_with(&MAGIC[..1]) => {
                return Err(BackupError::Cut { bytes });
            }
            Err(BackupError::Cut { .. }) => return Err(BackupError::NotABackup),
            Err(error) => return Err(error),
        }
        let mut version = [0];
        input.fill(&mut version)?;
        if let [found] = version
            && found != VERSION
        {
            return Err(input.of_version(found));
        }
        let mut length = [0; 4];
        input.fill(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > HEADER_BYTES_MAX {
            return Err(damaged("the header is longer than any header"));
        }
        let mut header = vec![0; length];
        input.fill(&mut header)?;
        let header = serde_json::from_slice(&header).map_err(|error| damaged(&format!("its header: {error}")))?;
        let associated = Digest(*input.hasher.finalize().as_bytes());
        Ok(Self { input, header, associated, ended: false })
    }

    /// What the backup says about itself. Not proven before a chunk has been opened, or the end was reached.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// What every chunk is bound to.
    #[must_use]
    pub const fn associated(&self) -> Digest {
        self.associated
    }

    /// Bytes read so far.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.input.bytes
    }

    /// Whether the last chunk was read and the hash was right.
    #[must_use]
    pub const fn ended(&self) -> bool {
        self.ended
    }

    /// The next sealed chunk, `false` when there is none; after the last one the hash is checked.
    ///
    /// # Errors
    /// [`BackupError`]: cut or damaged.
    pub fn next(&mut self, sealed: &mut Vec<u8>) -> Result<bool, BackupError> {
        sealed.clear();
        if self.ended {
            return Ok(false);
        }
        let mut head = [0; 5];
        self.input.fill(&mut head)?;
        let [kind, length @ ..] = head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if !(TAG_BYTES..=CHUNK_BYTES + TAG_BYTES).contains(&length) {
            return Err(damaged("a chunk has a length that no chunk has"));
        }
        sealed.resize(length, 0);
        self.input.fill(sealed)?;
        match kind {
            MORE => Ok(true),
            LAST => self.end().map(|()| true),
            _ => Err(damaged("a chunk is of no known kind")),
        }
    }

    fn end(&mut self) -> Result<(), BackupError> {
        let expected = self.input.hasher.finalize();
        let mut sum = [0; SUM_BYTES];
        self.input.fill(&mut sum)?;
        if expected != blake3::Hash::from_bytes(sum) {
            return Err(damaged("its checksum does not match"));
        }
        if self.input.input.read(&mut [0])? > 0 {
            return Err(damaged("something follows its end"));
        }
        self.ended = true;
        Ok(())
    }
}

fn damaged(reason: &str) -> BackupError {
    BackupError::Damaged { reason: reason.to_owned() }
}

/// Counts and hashes what is read.
#[derive(Debug)]
struct Counted<R: Read> {
    input: R,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<R: Read> Counted<R> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), BackupError> {
        let mut rest = &mut *buffer;
        while !rest.is_empty() {
            match self.input.read(rest) {
                Ok(0) => return Err(BackupError::Cut { bytes: self.bytes }),
                Ok(count) => {
                    let count = count.min(rest.len());
                    rest = std::mem::take(&mut rest).split_at_mut(count).1;
                    self.bytes += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.hasher.update(buffer);
        Ok(())
    }

    /// A format that is not known: newer, unless the hash at the end says that a bit was flipped.
    fn of_version(&mut self, found: u8) -> BackupError {
        // The last bytes may be the hash, so they are held back.
        let (mut held, mut block) = (Vec::new(), vec![0; CHUNK_BYTES]);
        loop {
            match self.input.read(&mut block) {
                Ok(0) => break,
                Ok(count) => held.extend(block.iter().take(count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.into(),
            }
            let ready = held.len().saturating_sub(SUM_BYTES);
            self.hasher.update(held.get(..ready).unwrap_or_default());
            held.drain(..ready);
        }
        let sum = self.hasher.finalize();
        if held == sum.as_bytes() { BackupError::Newer { found } } else { damaged("its checksum does not match") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            created_at: Millis::from_secs(1_000),
            cluster_id: "c".to_owned(),
            trust_domain: "t".to_owned(),
            epoch: Epoch(1),
            revision: StateRevision(7),
            applied: 3,
            state_version: 2,
            state_hash: Digest([1; 32]),
            software: "0.1.0".to_owned(),
            key_id: "k".to_owned(),
            salt: Digest([2; 32]),
            compression: Compression::Deflate,
        }
    }

    fn file() -> Vec<u8> {
        let mut writer = FrameWriter::start(Vec::new(), &header()).unwrap();
        writer.chunk(&[3; 100], false).unwrap();
        writer.chunk(&[4; 20], true).unwrap();
        writer.finish().unwrap().0
    }

    #[test]
    fn what_was_written_is_whole() {
        let file = file();
        let outside = check(file.as_slice()).unwrap();
        assert_eq!((outside.header, outside.bytes, outside.chunks), (header(), file.len() as u64, 2));
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_found() {
        let file = file();
        for length in 0..file.len() {
            let error = check(&file[..length]).unwrap_err();
            let expected = if length == 0 { "no backup" } else { "cut off" };
            assert!(error.to_string().contains(expected), "{length}: {error}");
        }
        for at in 0..file.len() {
            let mut flipped = file.clone();
            flipped[at] ^= 0x10;
            let error = check(flipped.as_slice()).unwrap_err();
            let newer = matches!(error, BackupError::Newer { .. });
            assert!(!newer, "{at}: a flipped bit is not a newer release: {error}");
        }
        let mut longer = file;
        longer.push(0);
        assert!(check(longer.as_slice()).unwrap_err().to_string().contains("follows"));
    }

    #[test]
    fn a_newer_format_is_named_as_such() {
        let mut file = file();
        file[MAGIC.len()] = 9;
        file.truncate(file.len() - SUM_BYTES);
        let sum = blake3::hash(&file);
        file.extend_from_slice(sum.as_bytes());
        assert!(check(file.as_slice()).unwrap_err().to_string().contains("format 9"));
        assert!(matches!(check(&b"apiVersion: v1"[..]), Err(BackupError::NotABackup)));
    }

    #[test]
    fn only_our_names_are_ours() {
        let name = file_name(Millis::from_secs(1_767_323_045));
        assert_eq!(name, "20260102-030405.windlass-backup");
        assert!(is_file_name(&name));
        for other in ["20260102-030405.tar.gz", "x20260102-030405.windlass-backup", "2026010-0304056.windlass-backup"] {
            assert!(!is_file_name(other), "{other}");
        }
    }
}
