//! The blocks of a snapshot file, written and read in one pass.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::SnapshotError;

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Header = 1,
    State = 2,
    End = 3,
}

/// Collects the state into blocks. Gives up between two blocks when it is told to stop.
pub(super) struct BlockWriter<'a, W: Write> {
    out: W,
    stop: &'a AtomicBool,
    chain: [u8; SUM_BYTES],
    pending: Vec<u8>,
    state_bytes: u64,
}

impl<'a, W: Write> BlockWriter<'a, W> {
    pub(super) fn start(mut out: W, stop: &'a AtomicBool) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        Ok(Self { out, stop, chain: [0; SUM_BYTES], pending: Vec::with_capacity(BLOCK_BYTES), state_bytes: 0 })
    }

    pub(super) fn block(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let mut head = [0; HEAD_BYTES];
        let (start, tail) = head.split_at_mut(2);
        start.copy_from_slice(&[kind as u8, VERSION]);
        tail.copy_from_slice(&length.to_be_bytes());
        self.chain = checksum(&self.chain, &head, payload);
        self.out.write_all(&head)?;
        self.out.write_all(payload)?;
        self.out.write_all(&self.chain)
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.write_pending()?;
        let total = self.state_bytes.to_be_bytes();
        self.block(Kind::End, &total)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn write_pending(&mut self) -> io::Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("this hub is shutting down"));
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.pending);
        self.block(Kind::State, &block)?;
        self.state_bytes += u64::try_from(block.len()).unwrap_or(u64::MAX);
        self.pending = block;
        self.pending.clear();
        Ok(())
    }
}

impl<W: Write> Write for BlockWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = BLOCK_BYTES - self.pending.len();
        let (taken, _) = bytes.split_at(room.min(bytes.len()));
        self.pending.extend_from_slice(taken);
        if self.pending.len() == BLOCK_BYTES {
            self.write_pending()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // Blocks do not depend on when the source flushes: equal states make equal files.
        Ok(())
    }
}

/// Yields the state, verifying block by block.
pub(super) struct BlockReader<R: Read> {
    input: R,
    path: PathBuf,
    chain: [u8; SUM_BYTES],
    block: Vec<u8>,
    taken: usize,
    state_bytes: u64,
    ended: bool,
}

impl<R: Read> BlockReader<R> {
    pub(super) fn start(mut input: R, path: &Path) -> Result<Self, SnapshotError> {
        let mut magic = [0; MAGIC.len()];
        let known = input.read_exact(&mut magic).is_ok() && &magic == MAGIC;
        let reader = Self {
            input,
            path: path.into(),
            chain: [0; SUM_BYTES],
            block: Vec::new(),
            taken: 0,
            state_bytes: 0,
            ended: false,
        };
        if known { Ok(reader) } else { Err(reader.damaged("it does not start like a snapshot")) }
    }

    pub(super) fn header(&mut self) -> Result<Vec<u8>, SnapshotError> {
        match self.next_block()? {
            (KIND_HEADER, payload) => Ok(payload),
            _ => Err(self.damaged("its header is missing")),
        }
    }

    fn next_block(&mut self) -> Result<(u8, Vec<u8>), SnapshotError> {
        let mut head = [0; HEAD_BYTES];
        self.fill(&mut head)?;
        let [kind, version, length @ ..] = head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > BLOCK_BYTES {
            return Err(self.damaged("a block is longer than any block"));
        }
        let mut payload = vec![0; length];
        self.fill(&mut payload)?;
        let mut sum = [0; SUM_BYTES];
        self.fill(&mut sum)?;
        self.chain = checksum(&self.chain, &head, &payload);
        if sum != self.chain {
            return Err(self.damaged("a checksum does not match"));
        }
        // The frame never changes, so that a flipped bit in the version is told from a newer release.
        if version != VERSION {
            return Err(SnapshotError::Newer { path: self.path.clone(), found: version, supported: VERSION });
        }
        Ok((kind, payload))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), SnapshotError> {
        match self.input.read_exact(buffer) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.damaged("it is cut")),
            Err(source) => Err(SnapshotError::Io { action: "read", path: self.path.clone(), source }),
        }
    }

    /// Takes the next block of state; at the end checks that all of it was there.
    fn advance(&mut self) -> Result<(), SnapshotError> {
        match self.next_block()? {
            (KIND_STATE, payload) => {
                self.state_bytes += u64::try_from(payload.len()).unwrap_or(u64::MAX);
                self.block = payload;
                self.taken = 0;
                Ok(())
            }
            (KIND_END, payload) if payload == self.state_bytes.to_be_bytes() => {
                let mut more = [0];
                if self.input.read(&mut more).is_ok_and(|count| count > 0) {
                    return Err(self.damaged("something follows its end"));
                }
                self.block.clear();
                self.taken = 0;
                self.ended = true;
                Ok(())
            }
            _ => Err(self.damaged("its blocks are out of order")),
        }
    }

    fn damaged(&self, reason: &str) -> SnapshotError {
        SnapshotError::Damaged { path: self.path.clone(), reason: reason.into() }
    }
}

impl<R: Read> Read for BlockReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.block.len() && !self.ended {
            self.advance().map_err(io::Error::other)?;
        }
        let rest = self.block.get(self.taken..).unwrap_or_default();
        let count = rest.len().min(out.len());
        for (to, from) in out.iter_mut().zip(rest) {
            *to = *from;
        }
        self.taken += count;
        Ok(count)
    }
}

fn checksum(before: &[u8; SUM_BYTES], head: &[u8; HEAD_BYTES], payload: &[u8]) -> [u8; SUM_BYTES] {
    let mut sum = [0; SUM_BYTES];
    blake3::Hasher::new().update(before).update(head).update(payload).finalize_xof().fill(&mut sum);
    sum
}

const MAGIC: &[u8; 8] = b"WNDLSNAP";
/// Format of blocks and of what they hold.
const VERSION: u8 = 1;
const KIND_HEADER: u8 = Kind::Header as u8;
const KIND_STATE: u8 = Kind::State as u8;
const KIND_END: u8 = Kind::End as u8;
const HEAD_BYTES: usize = 6;
const SUM_BYTES: usize = 16;
/// A block is what is in memory at a time.
const BLOCK_BYTES: usize = 256 << 10;
