//! The inside of a backup on its way through the cipher: chunks of 256 KiB, each sealed and numbered.
//!
//! The nonce is eleven bytes of counter and one that says whether the chunk is the last (STREAM, as cited in
//! [`windlass_protocol::backup`]); the key belongs to this one file, so no nonce is ever used twice under it.

use std::io::{self, Read, Write};

use ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use windlass_protocol::backup::{BackupError as Outside, CHUNK_BYTES, FrameReader, FrameWriter, Header, TAG_BYTES};

use super::BackupError;
use crate::sealing::Sealer;

/// Seals what is written to it.
pub(super) struct SealedWriter<W: Write> {
    frames: FrameWriter<W>,
    key: LessSafeKey,
    associated: [u8; 32],
    content: Vec<u8>,
    number: u64,
}

impl<W: Write> SealedWriter<W> {
    pub(super) fn start(out: W, header: &Header, sealer: &Sealer) -> Result<Self, BackupError> {
        let key = sealer.backup_key(&header.salt)?;
        let frames = FrameWriter::start(out, header)?;
        let associated = frames.associated().0;
        Ok(Self { frames, key, associated, content: Vec::with_capacity(CHUNK_BYTES + TAG_BYTES), number: 0 })
    }

    /// Seals what is left; gives the output back, and the bytes of the whole file.
    pub(super) fn finish(mut self) -> Result<(W, u64), BackupError> {
        self.seal(true)?;
        Ok(self.frames.finish()?)
    }

    fn seal(&mut self, last: bool) -> Result<(), BackupError> {
        let nonce = nonce(self.number, last);
        self.key
            .seal_in_place_append_tag(nonce, Aad::from(self.associated), &mut self.content)
            .map_err(|_| BackupError::Cipher)?;
        self.frames.chunk(&self.content, last)?;
        self.content.clear();
        self.number += 1;
        Ok(())
    }
}

impl<W: Write> Write for SealedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk waits until something follows: only then is it known not to be the last.
        if self.content.len() == CHUNK_BYTES && !bytes.is_empty() {
            self.seal(false).map_err(io::Error::other)?;
        }
        let room = CHUNK_BYTES - self.content.len();
        let (taken, _) = bytes.split_at(room.min(bytes.len()));
        self.content.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // Chunks do not depend on when somebody flushes.
        Ok(())
    }
}

/// Opens what a [`SealedWriter`] sealed.
pub(super) struct OpenedReader<R: Read> {
    frames: FrameReader<R>,
    key: LessSafeKey,
    associated: [u8; 32],
    chunk: Vec<u8>,
    content: usize,
    taken: usize,
    number: u64,
}

impl<R: Read> OpenedReader<R> {
    /// Reads the header and checks that the key is the right one.
    pub(super) fn start(input: R, sealer: &Sealer) -> Result<Self, BackupError> {
        let frames = FrameReader::start(input)?;
        let header = frames.header();
        let (found, given) = (header.key_id.clone(), sealer.key_id());
        if found != given {
            return Err(BackupError::WrongKey { found, given });
        }
        let (version, known) = (header.state_version, windlass_hub_core::STATE_VERSION);
        if version > known {
            let software = header.software.clone();
            return Err(BackupError::NewerState { version, known, software });
        }
        let (key, associated) = (sealer.backup_key(&header.salt)?, frames.associated().0);
        Ok(Self { frames, key, associated, chunk: Vec::new(), content: 0, taken: 0, number: 0 })
    }

    pub(super) const fn header(&self) -> &Header {
        self.frames.header()
    }

    /// Bytes of the file read so far.
    pub(super) const fn bytes(&self) -> u64 {
        self.frames.bytes()
    }

    /// After the content has been read: nothing may follow it, and the end of the file must be right.
    pub(super) fn finish(&mut self) -> Result<(), BackupError> {
        if self.read(&mut [0]).map_err(BackupError::from_io)? > 0 || !self.frames.ended() {
            return Err(BackupError::damaged("there is content after its end"));
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<bool, BackupError> {
        if !self.frames.next(&mut self.chunk)? {
            return Ok(false);
        }
        let nonce = nonce(self.number, self.frames.ended());
        // The hash over the file cannot tell who wrote it; this can.
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(self.associated), &mut self.chunk)
            .map_err(|_| BackupError::damaged("a chunk does not open: it was changed after it was sealed"))?;
        self.content = opened.len();
        self.taken = 0;
        self.number += 1;
        Ok(true)
    }
}

impl<R: Read> Read for OpenedReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.content {
            if !self.advance().map_err(io::Error::other)? {
                return Ok(0);
            }
        }
        let rest = self.chunk.get(self.taken..self.content).unwrap_or_default();
        let count = rest.len().min(out.len());
        for (to, from) in out.iter_mut().zip(rest) {
            *to = *from;
        }
        self.taken += count;
        Ok(count)
    }
}

fn nonce(number: u64, last: bool) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    let counter = number.to_be_bytes().into_iter().chain([u8::from(last)]);
    nonce.iter_mut().skip(NONCE_LEN - 9).zip(counter).for_each(|(to, from)| *to = from);
    Nonce::assume_unique_for_key(nonce)
}

impl BackupError {
    pub(super) fn damaged(reason: &str) -> Self {
        Self::Outside(Outside::Damaged { reason: reason.to_owned() })
    }

    /// Our own errors travel through `Read` and `Write` and come out as themselves.
    pub(super) fn from_io(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(inner) => inner,
            Err(error) => Self::Outside(Outside::Io(error)),
        }
    }
}
