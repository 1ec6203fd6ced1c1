//! Frames over QUIC streams, with limits and deadlines.
//!
//! A stream is ordered and independent of all others: a stalled one never holds up another. Both halves survive a
//! cancelled call: a sender completes the frame that was cut short before the next one, a receiver keeps what it
//! has of a frame.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncReadExt, ReadBuf},
    time::{Instant, timeout_at},
};
use windlass_protocol::codec::{self, CodecError, FrameDecoder};

use crate::endpoint::{CloseCode, Closed, FrameLimits, Stranger};

/// Why a frame was not sent or not received. After any of these the stream is of no further use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The whole connection has ended.
    #[error("connection ended")]
    Connection(#[from] Closed),
    /// The peer gave up sending on this stream.
    #[error("stream reset by the peer with code {}", .code.0)]
    Reset {
        /// The peer's code.
        code: CloseCode,
    },
    /// The peer does not want more on this stream.
    #[error("stream stopped by the peer with code {}", .code.0)]
    Stopped {
        /// The peer's code.
        code: CloseCode,
    },
    /// Bytes that are not frames, or a value that makes none.
    #[error("frame refused")]
    Codec(#[from] CodecError),
    /// It took too long.
    #[error("{what} took longer than {after:?}")]
    Deadline {
        /// What was waited for.
        what: &'static str,
        /// The limit that passed.
        after: Duration,
    },
    /// This half was finished, reset or stopped by this side before.
    #[error("stream was ended by this side")]
    Ended,
    /// The content to send could not be read.
    #[error("cannot read what is to be sent: {reason}")]
    Content {
        /// The reader's words.
        reason: String,
    },
}

impl StreamError {
    pub(crate) fn deadline(what: &'static str, after: Duration) -> Self {
        Self::Deadline { what, after }
    }
}

/// The sending half of a stream. Dropping it finishes the stream; a frame cut short by a cancelled call is then
/// seen by the receiver as truncated.
#[derive(Debug)]
pub struct FrameSender {
    stream: quinn::SendStream,
    limits: FrameLimits,
    /// What is left of a frame whose sending was cancelled.
    pending: Bytes,
}

impl FrameSender {
    pub(crate) fn new(stream: quinn::SendStream, limits: FrameLimits) -> Self {
        Self { stream, limits, pending: Bytes::new() }
    }

    /// Sends one value as a frame. Returns when the connection has taken it over, which is not delivery.
    ///
    /// A value above the limit is refused before anything is sent, and the stream stays usable. When the peer
    /// takes nothing for [`FrameLimits::send_deadline`], the stream is reset. Cancelled, the frame may have been
    /// sent in part: the next call sends its rest first, so frames are never mixed, and it must not be repeated.
    pub async fn send<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), StreamError> {
        let frame = codec::encode(value, self.limits.frame)?;
        self.send_frame(frame.into()).await
    }

    /// Sends a payload that is encoded already; otherwise as [`send`](Self::send).
    pub async fn send_payload(&mut self, payload: &[u8]) -> Result<(), StreamError> {
        let frame = codec::frame_payload(payload, self.limits.frame)?;
        self.send_frame(frame.into()).await
    }

    /// Sends bytes that are a whole frame already, made once by [`codec::encode`] and sent to many.
    pub async fn send_frame(&mut self, frame: Bytes) -> Result<(), StreamError> {
        self.flush().await?;
        self.pending = frame;
        self.flush().await
    }

    /// Sends the rest of a frame whose sending was cancelled. Does nothing otherwise.
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let after = self.limits.send_deadline;
        let deadline = deadline_in(after);
        while !self.pending.is_empty() {
            match timeout_at(deadline, self.stream.write(&self.pending)).await {
                // Written and noted without an await between: a cancelled call repeats nothing.
                Ok(Ok(written)) => self.pending.advance(written),
                Ok(Err(error)) => {
                    self.pending = Bytes::new();
                    return Err(write_error(error));
                }
                Err(_) => {
                    self.reset(CloseCode::DEADLINE);
                    return Err(StreamError::deadline("sending a frame", after));
                }
            }
        }
        Ok(())
    }

    /// Sends all of `content` as raw bytes behind the frames sent so far, and finishes the stream; the peer reads it
    /// with [`FrameReceiver::content`]. Each piece has [`FrameLimits::send_deadline`]. After an error, and when
    /// cancelled, the stream must be [`reset`](Self::reset), lest the cut content look whole. Returns its bytes.
    pub async fn send_content(&mut self, content: &mut (dyn AsyncRead + Send + Unpin)) -> Result<u64, StreamError> {
        self.flush().await?;
        let mut chunk = vec![0; CONTENT_CHUNK];
        let mut sent = 0_u64;
        loop {
            let count =
                content.read(&mut chunk).await.map_err(|error| StreamError::Content { reason: error.to_string() })?;
            if count == 0 {
                self.finish().await?;
                return Ok(sent);
            }
            self.pending = Bytes::copy_from_slice(chunk.get(..count).unwrap_or_default());
            self.flush().await?;
            sent = sent.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        }
    }

    /// Says that no frame follows. The peer's `recv` then gives `None`.
    pub async fn finish(&mut self) -> Result<(), StreamError> {
        self.flush().await?;
        self.stream.finish().map_err(|_| StreamError::Ended)
    }

    /// Waits until the peer's side has acknowledged everything up to [`finish`](Self::finish), or stopped the
    /// stream. To be awaited before closing a connection whose last frame matters. Cancel-safe.
    pub async fn delivered(&mut self) -> Result<(), StreamError> {
        match self.stream.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(StreamError::Stopped { code: CloseCode::of(code) }),
            Err(quinn::StoppedError::ConnectionLost(error)) => Err(Closed::from(error).into()),
            Err(quinn::StoppedError::ZeroRttRejected) => Err(StreamError::Ended),
        }
    }

    /// Gives up: the peer sees [`StreamError::Reset`], and what was not delivered is dropped.
    pub fn reset(&mut self, code: CloseCode) {
        self.pending = Bytes::new();
        // An error says that the stream has ended already.
        let _ = self.stream.reset(code.varint());
    }

    /// Order among the streams of a connection that have something to send: higher first, 0 at the start.
    pub fn set_priority(&self, priority: i32) {
        // An error says that the stream has ended already.
        let _ = self.stream.set_priority(priority);
    }
}

/// The receiving half of a stream. Dropping it tells the peer to stop.
#[derive(Debug)]
pub struct FrameReceiver {
    stream: quinn::RecvStream,
    limits: FrameLimits,
    decoder: FrameDecoder,
    /// By when the frame that has begun must be complete.
    deadline: Option<Instant>,
    stranger: Option<Arc<Stranger>>,
}

impl FrameReceiver {
    pub(crate) fn new(stream: quinn::RecvStream, limits: FrameLimits, stranger: Option<Arc<Stranger>>) -> Self {
        Self { stream, limits, decoder: FrameDecoder::new(limits.frame), deadline: None, stranger }
    }

    /// The next value; `None` when the peer finished the stream between frames.
    ///
    /// Waits for a frame to begin as long as the connection lives; from its first byte it has
    /// [`FrameLimits::receive_deadline`]. Cancel-safe: what has arrived of a frame is kept. After an error the peer is
    /// told to stop sending.
    pub async fn recv<T: DeserializeOwned>(&mut self) -> Result<Option<T>, StreamError> {
        match self.recv_payload().await? {
            None => Ok(None),
            Some(payload) => match codec::decode_payload(&payload) {
                Ok(value) => Ok(Some(value)),
                Err(error) => {
                    self.stop(CloseCode::LIMIT);
                    Err(error.into())
                }
            },
        }
    }

    /// As [`recv`](Self::recv), with a deadline on the wait for the frame's beginning too. Cancel-safe; after the
    /// deadline the stream can still be used.
    pub async fn recv_within<T: DeserializeOwned>(&mut self, after: Duration) -> Result<Option<T>, StreamError> {
        timeout_at(deadline_in(after), self.recv())
            .await
            .unwrap_or_else(|_| Err(StreamError::deadline("waiting for a frame", after)))
    }

    /// The next payload without decoding it; otherwise as [`recv`](Self::recv).
    pub async fn recv_payload(&mut self) -> Result<Option<Vec<u8>>, StreamError> {
        match self.read_frame().await {
            Ok(frame) => Ok(frame),
            Err(error) => {
                let code = match error {
                    StreamError::Deadline { .. } => CloseCode::DEADLINE,
                    _ => CloseCode::LIMIT,
                };
                self.stop(code);
                Err(error)
            }
        }
    }

    /// What the peer sends behind the frames read so far, as raw bytes. Nothing of it has been read ahead. A stream
    /// that breaks is an error, never an end.
    pub fn content(&mut self) -> Content<'_> {
        Content { stream: &mut self.stream }
    }

    /// Tells the peer that nothing more is wanted; it sees [`StreamError::Stopped`].
    pub fn stop(&mut self, code: CloseCode) {
        // An error says that the stream has ended already.
        let _ = self.stream.stop(code.varint());
    }

    async fn read_frame(&mut self) -> Result<Option<Vec<u8>>, StreamError> {
        loop {
            if let Some(payload) = self.decoder.pop() {
                self.deadline = None;
                return Ok(Some(payload));
            }
            // Never asks for more than the current frame, so that nothing of the next one has to be kept.
            let read = self.stream.read_chunk(self.decoder.wanted(), true);
            let chunk = match self.deadline {
                None => read.await,
                Some(deadline) => timeout_at(deadline, read)
                    .await
                    .map_err(|_| StreamError::deadline("receiving a frame", self.limits.receive_deadline))?,
            };
            let Some(chunk) = chunk.map_err(read_error)? else {
                self.decoder.finish()?;
                return Ok(None);
            };
            if let Some(stranger) = &self.stranger {
                stranger.spend(chunk.bytes.len())?;
            }
            self.decoder.push(&chunk.bytes)?;
            if self.deadline.is_none() {
                self.deadline = Some(deadline_in(self.limits.receive_deadline));
            }
        }
    }
}

/// Raw bytes behind the frames of a stream.
#[derive(Debug)]
pub struct Content<'a> {
    stream: &'a mut quinn::RecvStream,
}

impl AsyncRead for Content<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut *self.stream), context, buffer)
    }
}

/// Bytes of raw content handed to the connection at once.
const CONTENT_CHUNK: usize = 256 * 1024;

fn deadline_in(after: Duration) -> Instant {
    let now = Instant::now();
    // A day is as good as never, and always representable.
    now.checked_add(after).unwrap_or_else(|| now + Duration::from_secs(24 * 60 * 60))
}

fn read_error(error: quinn::ReadError) -> StreamError {
    match error {
        quinn::ReadError::Reset(code) => StreamError::Reset { code: CloseCode::of(code) },
        quinn::ReadError::ConnectionLost(error) => Closed::from(error).into(),
        quinn::ReadError::ClosedStream | quinn::ReadError::IllegalOrderedRead | quinn::ReadError::ZeroRttRejected => {
            StreamError::Ended
        }
    }
}

fn write_error(error: quinn::WriteError) -> StreamError {
    match error {
        quinn::WriteError::Stopped(code) => StreamError::Stopped { code: CloseCode::of(code) },
        quinn::WriteError::ConnectionLost(error) => Closed::from(error).into(),
        quinn::WriteError::ClosedStream | quinn::WriteError::ZeroRttRejected => StreamError::Ended,
    }
}
