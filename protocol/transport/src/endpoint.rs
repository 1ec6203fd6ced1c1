//! QUIC endpoints: what is bounded, what is tuned, and how connections end.
//!
//! [`Listener`] accepts, [`Dialer`] connects, both give [`Connection`]s. Every limit is a field here with its
//! default and the reason for it. 0-RTT is never offered: commands must not be replayable.

mod connection;
mod dialer;
mod listener;
mod restart;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use quinn::{IdleTimeout, TransportConfig, VarInt};
use socket2::{Domain, Socket, Type};

pub(crate) use connection::Stranger;
pub use connection::{Connection, Peer};
pub use dialer::{DialError, Dialer};
pub use listener::{Listener, ListenerControl, ListenerStats};
pub use restart::RestartKey;

use crate::identity::IdentityError;
pub use crate::tls::{ClientTls, ExpectedHub, PeerAdmission, Protocol, ServerTls, Trust};

/// Why an endpoint could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The socket could not be made or bound.
    #[error("cannot bind {address}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The certificates do not make a TLS configuration.
    #[error("cannot set up TLS")]
    Tls(#[source] IdentityError),
    /// A tuning value that QUIC cannot express.
    #[error("{name} is out of range")]
    Limit {
        /// Name of the limit.
        name: &'static str,
    },
}

/// Whether packets are sent in batches that the network card cuts (UDP GSO). Some cards announce it and fail;
/// QUIC turns it off by itself after loss, this switch does so from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentationOffload {
    /// Use it where the system offers it.
    On,
    /// Never.
    Off,
}

/// How connections behave; for both sides.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// The dialer pings after this much silence. At most 15 s: NATs forget UDP flows after 30 s. 5 s, so that an agent
    /// leaves a dead hub soon; 10,000 agents cost their hubs 2,000 packets a second. The listener does
    /// not ping: one side is enough, and a hub has thousands of connections.
    pub keep_alive: Duration,
    /// A connection without a packet for this long is dead; three keep-alives may be lost.
    pub idle_timeout: Duration,
    /// The round trip assumed before one was measured: a lost first packet is sent again after three times this.
    pub initial_rtt: Duration,
    /// Streams of each direction that the peer may have open at a time. Memory is paid per connection for each,
    /// used or not: 16 + 16 cost about 20 KiB, 1,024 cost 100 KiB.
    pub bidirectional_streams: u32,
    /// As above, one-way streams.
    pub unidirectional_streams: u32,
    /// Bytes that the peer may send on one stream ahead of our reading: one full frame.
    pub stream_window: u32,
    /// The same over all streams: room for seven stalled streams before an eighth is held up.
    pub connection_window: u32,
    /// Bytes that we keep for retransmission per connection.
    pub send_window: u32,
    /// SO_RCVBUF and SO_SNDBUF in bytes. The usual 208 KiB drop the packets of 2,000 agents reconnecting at once
    /// (measured: 12 s instead of 0.2 s). The system may grant less.
    pub socket_buffer: usize,
    /// UDP GSO.
    pub segmentation_offload: SegmentationOffload,
    /// Limits of frames on all streams.
    pub frames: FrameLimits,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(16),
            initial_rtt: Duration::from_millis(333),
            bidirectional_streams: 16,
            unidirectional_streams: 16,
            stream_window: 1024 * 1024,
            connection_window: 8 * 1024 * 1024,
            send_window: 4 * 1024 * 1024,
            socket_buffer: 4 * 1024 * 1024,
            segmentation_offload: SegmentationOffload::On,
            frames: FrameLimits::default(),
        }
    }
}

impl Tuning {
    fn transport(&self) -> Result<TransportConfig, EndpointError> {
        let idle =
            IdleTimeout::try_from(self.idle_timeout).map_err(|_| EndpointError::Limit { name: "idle_timeout" })?;
        let mut transport = TransportConfig::default();
        transport
            .max_idle_timeout(Some(idle))
            .initial_rtt(self.initial_rtt)
            .max_concurrent_bidi_streams(VarInt::from_u32(self.bidirectional_streams))
            .max_concurrent_uni_streams(VarInt::from_u32(self.unidirectional_streams))
            .stream_receive_window(VarInt::from_u32(self.stream_window))
            .receive_window(VarInt::from_u32(self.connection_window))
            .send_window(u64::from(self.send_window))
            .datagram_receive_buffer_size(None)
            .enable_segmentation_offload(self.segmentation_offload == SegmentationOffload::On);
        Ok(transport)
    }

    /// Transport of a dialer: keeps the connection alive.
    fn dialing(&self) -> Result<Arc<TransportConfig>, EndpointError> {
        let mut transport = self.transport()?;
        transport.keep_alive_interval(Some(self.keep_alive));
        Ok(Arc::new(transport))
    }

    /// Transport of a listener: every peer starts with what a stranger may have, and gets the rest once it is
    /// known. The stream window cannot be raised later, hence is full; the connection window bounds it.
    fn listening(&self, strangers: &UnauthenticatedLimits) -> Result<Arc<TransportConfig>, EndpointError> {
        let mut transport = self.transport()?;
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(1))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .receive_window(VarInt::from_u32(strangers.bytes));
        Ok(Arc::new(transport))
    }
}

/// Limits of the frames on one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Longest payload in bytes, both ways.
    pub frame: usize,
    /// A frame must have arrived this long after its first byte; silence between frames is free. 256 KiB at
    /// 40 kbit/s take 52 s.
    pub receive_deadline: Duration,
    /// A frame must have been taken over by the connection this long after sending began.
    pub send_deadline: Duration,
    /// How long to wait for the peer to allow another stream.
    pub open_deadline: Duration,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self {
            frame: windlass_protocol::codec::MAX_FRAME,
            receive_deadline: Duration::from_secs(60),
            send_deadline: Duration::from_secs(60),
            open_deadline: Duration::from_secs(10),
        }
    }
}

/// What a peer without a certificate may do (DESIGN section 10): one stream, ever, that it opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnauthenticatedLimits {
    /// Bytes it may send in all.
    pub bytes: u32,
    /// Longest payload of a frame that it is sent, in bytes.
    pub answer: usize,
    /// Its connection is closed this long after the handshake.
    pub lifetime: Duration,
    /// Such connections at a time; further ones are closed at once.
    pub connections: usize,
}

impl Default for UnauthenticatedLimits {
    fn default() -> Self {
        Self { bytes: 16 * 1024, answer: 16 * 1024, lifetime: Duration::from_secs(5), connections: 256 }
    }
}

/// What a listener admits.
#[derive(Debug, Clone)]
pub struct ListenerLimits {
    /// Behaviour of admitted connections.
    pub tuning: Tuning,
    /// Peers without a certificate.
    pub unauthenticated: UnauthenticatedLimits,
    /// Connections at a time: 10,000 agents, and room for those that reconnect before the old one is dead.
    pub connections: usize,
    /// Handshakes at a time, and connections that wait for `accept`. From half of it, addresses must be proved.
    pub handshakes: usize,
    /// Handshakes begun per second; 0.4 ms of CPU each leaves more than half of a core.
    pub handshakes_per_second: u32,
    /// Attempts waiting for a handshake slot; further ones are refused and come back after their backoff.
    pub waiting: usize,
    /// A handshake must be done after this time.
    pub handshake_timeout: Duration,
    /// With a key, peers notice at once that the process was killed and is back, instead of after the idle timeout.
    pub restart_key: Option<RestartKey>,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            tuning: Tuning::default(),
            unauthenticated: UnauthenticatedLimits::default(),
            connections: 12_000,
            handshakes: 128,
            handshakes_per_second: 1_000,
            waiting: 2_048,
            handshake_timeout: Duration::from_secs(10),
            restart_key: None,
        }
    }
}

/// Application code of a closed connection or stream. This crate uses the constants here; the protocol's own codes
/// start at [`CloseCode::FIRST_FREE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CloseCode(pub u32);

impl CloseCode {
    /// Nothing more to say.
    pub const DONE: Self = Self(0);
    /// The other side broke a limit or the framing.
    pub const LIMIT: Self = Self(1);
    /// A deadline passed.
    pub const DEADLINE: Self = Self(2);
    /// No room now; try another hub or later.
    pub const BUSY: Self = Self(3);
    /// The peer's certificate is unusable although its chain is valid.
    pub const IDENTITY: Self = Self(4);
    /// First code for users of this crate.
    pub const FIRST_FREE: u32 = 64;

    pub(crate) fn varint(self) -> VarInt {
        VarInt::from_u32(self.0)
    }

    pub(crate) fn of(code: VarInt) -> Self {
        Self(u32::try_from(code.into_inner()).unwrap_or(u32::MAX))
    }
}

/// How a connection ended, or why it never began.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// We closed it.
    #[error("closed by this side")]
    Local,
    /// The peer closed it with a code.
    #[error("closed by the peer with code {}: {reason}", .code.0)]
    Peer {
        /// The code.
        code: CloseCode,
        /// The peer's words.
        reason: String,
    },
    /// One side does not accept the other's certificate (TLS alert). A client whose certificate is refused sees
    /// this only after its handshake.
    #[error("certificate not accepted: {reason}")]
    Untrusted {
        /// What the verifying side said; a bare alert when that was the peer.
        reason: String,
    },
    /// Nothing was heard for the idle timeout.
    #[error("timed out")]
    TimedOut,
    /// The peer has no memory of this connection; it was restarted.
    #[error("reset by the peer")]
    Reset,
    /// The listener is too busy, or not admitting.
    #[error("refused by the peer")]
    Refused,
    /// The two sides share no protocol: an agent has dialled the port of hubs, or a hub that of agents.
    #[error("the other side speaks another protocol; check the port (agents: 7443/udp, hubs: 7444/udp)")]
    OtherProtocol,
    /// Anything else QUIC can say.
    #[error("connection failed: {reason}")]
    Transport {
        /// QUIC's words.
        reason: String,
    },
}

impl From<quinn::ConnectionError> for Closed {
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as E;
        match &error {
            E::LocallyClosed => Self::Local,
            E::TimedOut => Self::TimedOut,
            E::Reset => Self::Reset,
            E::ApplicationClosed(close) => Self::Peer {
                code: CloseCode::of(close.error_code),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            E::ConnectionClosed(close) if no_protocol(close.error_code) => Self::OtherProtocol,
            E::TransportError(failure) if no_protocol(failure.code) => Self::OtherProtocol,
            E::ConnectionClosed(close) if is_tls_alert(close.error_code) => {
                Self::Untrusted { reason: format!("peer: {close}") }
            }
            E::ConnectionClosed(close) if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED => {
                Self::Refused
            }
            E::TransportError(failure) if is_tls_alert(failure.code) => {
                Self::Untrusted { reason: failure.reason.clone() }
            }
            E::TransportError(_) | E::ConnectionClosed(_) | E::VersionMismatch | E::CidsExhausted => {
                Self::Transport { reason: error.to_string() }
            }
        }
    }
}

/// The TLS alert `no_application_protocol` (RFC 7301 section 3.2).
fn no_protocol(code: quinn::TransportErrorCode) -> bool {
    code == quinn::TransportErrorCode::crypto(120)
}

/// QUIC carries TLS alerts as 0x100 + alert (RFC 9001 section 4.8).
fn is_tls_alert(code: quinn::TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}

/// A bound UDP socket with large buffers; IPv6 wildcard addresses take IPv4 too.
fn udp_socket(address: SocketAddr, buffer: usize) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(socket2::Protocol::UDP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // The system caps what it grants; a smaller buffer is slower, not wrong.
    if let Err(error) = socket.set_recv_buffer_size(buffer).and_then(|()| socket.set_send_buffer_size(buffer)) {
        tracing::warn!(%error, buffer, "cannot enlarge the udp socket buffers");
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    let granted = socket.recv_buffer_size().unwrap_or_default();
    if granted < buffer {
        tracing::debug!(granted, buffer, "udp receive buffer is capped by the system");
    }
    Ok(socket.into())
}
