//! TLS over TCP for the API (7443/tcp): HTTP/2 and HTTP/1.1 by ALPN, no client certificates.
//!
//! Gives byte streams; what is spoken over them is the hub's API server's business. Handshakes are bounded in
//! number and time, so that silent connections cannot pile up.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll},
    time::Duration,
};

use rustls::ServerConfig;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::endpoint::{EndpointError, ServerTls};

/// Connections that the kernel queues before we accept them.
const BACKLOG: i32 = 1024;

/// How long to wait after a failed accept: the usual cause is a lack of file descriptors, which passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Silence before the kernel probes a connection: watches live long, dead clients must not.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// What an HTTPS listener admits.
#[derive(Debug, Clone)]
pub struct HttpsLimits {
    /// Connections at a time: 2,000 watches and ordinary requests.
    pub connections: usize,
    /// Handshakes at a time, and finished ones that wait for `accept`.
    pub handshakes: usize,
    /// A handshake must be done after this time.
    pub handshake_timeout: Duration,
}

impl Default for HttpsLimits {
    fn default() -> Self {
        Self { connections: 4_096, handshakes: 128, handshake_timeout: Duration::from_secs(10) }
    }
}

/// The HTTP version agreed on by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    /// `http/1.1`, or nothing was said.
    Http1,
    /// `h2`.
    Http2,
}

/// A bound TCP socket that accepts TLS connections. Dropping it ends admission; streams handed over live on.
#[derive(Debug)]
pub struct HttpsListener {
    accepted: mpsc::Receiver<(HttpsStream, SocketAddr)>,
    control: HttpsControl,
    local: SocketAddr,
    admission: JoinHandle<()>,
}

/// Handle to a listener that runs elsewhere.
#[derive(Debug, Clone)]
pub struct HttpsControl {
    config: Arc<RwLock<Arc<ServerConfig>>>,
}

/// One TLS connection. Counts against [`HttpsLimits::connections`] until it is dropped.
#[derive(Debug)]
pub struct HttpsStream {
    stream: TlsStream<TcpStream>,
    _place: OwnedSemaphorePermit,
}

impl HttpsListener {
    /// Binds `address` (port 0 picks a free one). To be called inside a tokio runtime.
    pub fn bind(address: SocketAddr, tls: &ServerTls, limits: HttpsLimits) -> Result<Self, EndpointError> {
        let config = tls.https().map_err(EndpointError::Tls)?;
        let control = HttpsControl { config: Arc::new(RwLock::new(Arc::new(config))) };
        let failed = |source| EndpointError::Bind { address, source };
        let listener = tcp_listener(address).map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        let (sender, accepted) = mpsc::channel(limits.handshakes.max(1));
        let admission = tokio::spawn(admit(listener, control.clone(), limits, sender));
        Ok(Self { accepted, control, local, admission })
    }

    /// The next connection whose handshake is done. `None` only if admission broke down. Cancel-safe.
    pub async fn accept(&mut self) -> Option<(HttpsStream, SocketAddr)> {
        self.accepted.recv().await
    }

    /// The bound address.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// A handle for whoever replaces certificates.
    #[must_use]
    pub fn control(&self) -> HttpsControl {
        self.control.clone()
    }
}

impl Drop for HttpsListener {
    fn drop(&mut self) {
        self.admission.abort();
    }
}

impl HttpsControl {
    /// Replaces certificate and key for handshakes that begin from now on.
    pub fn update_tls(&self, tls: &ServerTls) -> Result<(), EndpointError> {
        let config = Arc::new(tls.https().map_err(EndpointError::Tls)?);
        // A poisoned lock still holds a whole configuration: it is only ever replaced.
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    fn current(&self) -> Arc<ServerConfig> {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&config)
    }
}

impl HttpsStream {
    /// What ALPN agreed on.
    #[must_use]
    pub fn http_version(&self) -> HttpVersion {
        match self.stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => HttpVersion::Http2,
            _ => HttpVersion::Http1,
        }
    }
}

impl AsyncRead for HttpsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for HttpsStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

fn tcp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted hub gets its port back although old connections linger in TIME_WAIT.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until the listener is dropped. Waits while the limits are reached: the kernel's backlog then fills, and
/// clients wait or are refused by it.
async fn admit(
    listener: TcpListener,
    control: HttpsControl,
    limits: HttpsLimits,
    accepted: mpsc::Sender<(HttpsStream, SocketAddr)>,
) {
    let places = Arc::new(Semaphore::new(limits.connections.max(1)));
    let slots = Arc::new(Semaphore::new(limits.handshakes.max(1)));
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let (tcp, remote) = match listener.accept().await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a tcp connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let acceptor = TlsAcceptor::from(control.current());
        let within = limits.handshake_timeout;
        let accepted = accepted.clone();
        handshakes.spawn(async move {
            match timeout(within, acceptor.accept(tune(tcp))).await {
                Ok(Ok(stream)) => {
                    let stream = HttpsStream { stream, _place: place };
                    // An error means that the listener was dropped; so is the stream then.
                    let _ = accepted.send((stream, remote)).await;
                }
                Ok(Err(error)) => tracing::debug!(%remote, %error, "tls handshake failed"),
                Err(_) => tracing::debug!(%remote, "tls handshake timed out"),
            }
            drop(slot);
        });
    }
}

/// Small answers go out at once, dead clients are noticed. A system that refuses either still serves.
fn tune(tcp: TcpStream) -> TcpStream {
    let keepalive = TcpKeepalive::new().with_time(TCP_KEEPALIVE);
    let tuned = tcp.set_nodelay(true).and_then(|()| SockRef::from(&tcp).set_tcp_keepalive(&keepalive));
    if let Err(error) = tuned {
        tracing::debug!(%error, "cannot tune a tcp connection");
    }
    tcp
}
