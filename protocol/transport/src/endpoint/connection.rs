//! One connection, to a peer that is known or a stranger.
//!
//! Streams come as frame senders and receivers. A connection closes when its last handle and last stream are
//! dropped, or by [`Connection::close`].

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use quinn::VarInt;
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use super::{CloseCode, Closed, FrameLimits, Tuning, UnauthenticatedLimits};
use crate::{
    identity::{IdentityError, PeerIdentity},
    stream::{FrameReceiver, FrameSender, StreamError},
};

/// Who is at the other end, as proved by the TLS handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Nobody known: one stream, few bytes, a few seconds.
    Unauthenticated,
    /// The holder of a valid certificate. Whether it is still current (uid, serial) is for the caller to check.
    Authenticated(PeerIdentity),
}

/// A QUIC connection. Clones share it.
#[derive(Debug, Clone)]
pub struct Connection {
    inner: quinn::Connection,
    peer: Arc<Peer>,
    /// Limits of frames that are received, and of those that are sent.
    frames: FrameLimits,
    answers: FrameLimits,
    stranger: Option<Arc<Stranger>>,
}

/// What is left to a peer without a certificate.
#[derive(Debug)]
pub(crate) struct Stranger {
    connection: quinn::Connection,
    stream_used: AtomicBool,
    bytes_left: AtomicU64,
}

impl Connection {
    /// The other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Where the peer's packets come from now; may change by migration.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        let address = self.inner.remote_address();
        SocketAddr::new(address.ip().to_canonical(), address.port())
    }

    /// Current estimate of the round trip.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.inner.rtt()
    }

    /// UDP bytes sent and received so far.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        let stats = self.inner.stats();
        (stats.udp_tx.bytes, stats.udp_rx.bytes)
    }

    /// Opens a stream both ways. The peer learns of it with the first frame. Fails with
    /// [`StreamError::Deadline`] when the peer allows no further stream for [`FrameLimits::open_deadline`].
    pub async fn open_bi(&self) -> Result<(FrameSender, FrameReceiver), StreamError> {
        let after = self.frames.open_deadline;
        let (send, receive) = timeout(after, self.inner.open_bi())
            .await
            .map_err(|_| StreamError::deadline("opening a stream", after))?
            .map_err(Closed::from)?;
        Ok((self.sender(send), self.receiver(receive)))
    }

    /// Opens a stream towards the peer; otherwise as [`open_bi`](Self::open_bi).
    pub async fn open_uni(&self) -> Result<FrameSender, StreamError> {
        let after = self.frames.open_deadline;
        let send = timeout(after, self.inner.open_uni())
            .await
            .map_err(|_| StreamError::deadline("opening a stream", after))?
            .map_err(Closed::from)?;
        Ok(self.sender(send))
    }

    /// Waits for a stream that the peer opens. Cancel-safe. From an unauthenticated peer there is one; the second
    /// call waits until the connection ends.
    pub async fn accept_bi(&self) -> Result<(FrameSender, FrameReceiver), StreamError> {
        let (send, receive) = self.inner.accept_bi().await.map_err(Closed::from)?;
        if let Some(stranger) = &self.stranger {
            // QUIC would grant a new stream for each one that ends; "one" means one.
            self.inner.set_max_concurrent_bi_streams(VarInt::from_u32(0));
            if stranger.stream_used.swap(true, Ordering::AcqRel) {
                stranger.close("one stream without a certificate");
                return Err(StreamError::Connection(Closed::Local));
            }
        }
        Ok((self.sender(send), self.receiver(receive)))
    }

    /// Waits for a one-way stream that the peer opens. Cancel-safe. Never comes from an unauthenticated peer.
    pub async fn accept_uni(&self) -> Result<FrameReceiver, StreamError> {
        let receive = self.inner.accept_uni().await.map_err(Closed::from)?;
        Ok(self.receiver(receive))
    }

    /// Closes now. What was not yet delivered is lost: see [`FrameSender::delivered`].
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.inner.close(code.varint(), reason.as_bytes());
    }

    /// Waits until the connection has ended, and says how. Cancel-safe.
    pub async fn closed(&self) -> Closed {
        self.inner.closed().await.into()
    }

    /// How the connection ended, if it has.
    #[must_use]
    pub fn close_reason(&self) -> Option<Closed> {
        self.inner.close_reason().map(Closed::from)
    }

    /// A connection whose handshake is done, from the listener's side: gives a known peer its full limits.
    pub(super) fn accepted(
        inner: quinn::Connection,
        tuning: &Tuning,
        strangers: &UnauthenticatedLimits,
    ) -> Result<Self, IdentityError> {
        let Some(identity) = identity_of(&inner)? else {
            let stranger = Stranger {
                connection: inner.clone(),
                stream_used: AtomicBool::new(false),
                bytes_left: AtomicU64::new(u64::from(strangers.bytes)),
            };
            let (mut frames, mut answers) = (tuning.frames, tuning.frames);
            frames.frame = frames.frame.min(usize::try_from(strangers.bytes).unwrap_or(usize::MAX));
            answers.frame = answers.frame.min(strangers.answer);
            return Ok(Self {
                inner,
                peer: Arc::new(Peer::Unauthenticated),
                frames,
                answers,
                stranger: Some(Arc::new(stranger)),
            });
        };
        inner.set_max_concurrent_bi_streams(VarInt::from_u32(tuning.bidirectional_streams));
        inner.set_max_concurrent_uni_streams(VarInt::from_u32(tuning.unidirectional_streams));
        inner.set_receive_window(VarInt::from_u32(tuning.connection_window));
        Ok(Self::known(inner, Peer::Authenticated(identity), tuning))
    }

    /// A connection whose handshake is done, from the dialer's side: the peer is a hub that was verified.
    pub(super) fn dialed(inner: quinn::Connection, tuning: &Tuning) -> Result<Self, IdentityError> {
        let peer = identity_of(&inner)?.map_or(Peer::Unauthenticated, Peer::Authenticated);
        Ok(Self::known(inner, peer, tuning))
    }

    fn known(inner: quinn::Connection, peer: Peer, tuning: &Tuning) -> Self {
        Self { inner, peer: Arc::new(peer), frames: tuning.frames, answers: tuning.frames, stranger: None }
    }

    fn sender(&self, stream: quinn::SendStream) -> FrameSender {
        FrameSender::new(stream, self.answers)
    }

    fn receiver(&self, stream: quinn::RecvStream) -> FrameReceiver {
        FrameReceiver::new(stream, self.frames, self.stranger.clone())
    }
}

impl Stranger {
    /// Counts bytes read from the peer; closes the connection when there are too many.
    pub(crate) fn spend(&self, bytes: usize) -> Result<(), Closed> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let spent = self.bytes_left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(bytes));
        spent.map(|_| ()).map_err(|_| {
            self.close("too many bytes without a certificate");
            Closed::Local
        })
    }

    fn close(&self, reason: &str) {
        self.connection.close(CloseCode::LIMIT.varint(), reason.as_bytes());
    }
}

/// The peer's certificate, which rustls has verified; `None` when it showed none.
fn identity_of(connection: &quinn::Connection) -> Result<Option<PeerIdentity>, IdentityError> {
    let Some(any) = connection.peer_identity() else {
        return Ok(None);
    };
    let chain = any
        .downcast::<Vec<CertificateDer<'static>>>()
        .map_err(|_| IdentityError::malformed("peer identity", "not a certificate chain"))?;
    chain.first().map(|leaf| PeerIdentity::from_der(leaf)).transpose()
}
