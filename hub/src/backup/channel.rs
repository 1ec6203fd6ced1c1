//! Between the threads that write and read backups and the tasks that move bytes: bounded channels with the face of a file.

use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use windlass_protocol::backup::CHUNK_BYTES;

/// Pieces on their way: with the pieces' size this bounds the memory.
const PIECES_MAX: usize = 4;

/// A writer for a blocking thread, and where its pieces come out.
pub(crate) fn writer() -> (PieceWriter, mpsc::Receiver<Bytes>) {
    let (pieces, receiver) = mpsc::channel(PIECES_MAX);
    (PieceWriter { pieces, pending: BytesMut::with_capacity(CHUNK_BYTES) }, receiver)
}

/// A reader for a blocking thread, and where its pieces go in.
pub(crate) fn reader() -> (mpsc::Sender<io::Result<Bytes>>, PieceReader) {
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    (sender, PieceReader { pieces, piece: Bytes::new() })
}

/// Hands over what is written in pieces; fails when nobody takes them any longer.
#[derive(Debug)]
pub(crate) struct PieceWriter {
    pieces: mpsc::Sender<Bytes>,
    pending: BytesMut,
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK_BYTES - self.pending.len();
        let (taken, _) = bytes.split_at(room.min(bytes.len()));
        self.pending.extend_from_slice(taken);
        if self.pending.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.pending, BytesMut::with_capacity(CHUNK_BYTES)).freeze();
        self.pieces.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Reads pieces as one stream; a piece that is an error ends it.
#[derive(Debug)]
pub(crate) struct PieceReader {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for PieceReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let taken = self.piece.split_to(out.len().min(self.piece.len()));
        for (to, from) in out.iter_mut().zip(&taken) {
            *to = *from;
        }
        Ok(taken.len())
    }
}
