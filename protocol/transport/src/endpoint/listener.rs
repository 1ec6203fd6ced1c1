//! The listening side: admits handshakes at a bounded rate and hands over finished connections.
//!
//! One task takes attempts from QUIC's bounded queue. Under pressure it first makes peers prove their address
//! (a stateless retry), then paces them; beyond the queue QUIC refuses. A flood costs packets, not memory.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quinn::{Endpoint, Incoming, ServerConfig, TokioRuntime, crypto::rustls::QuicServerConfig};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

use super::{
    CloseCode, Closed, Connection, Dialer, EndpointError, ListenerLimits, Peer, ServerTls, restart, udp_socket,
};
use crate::{admission::Rate, identity::IdentityError};

/// Bytes buffered for one attempt that waits: a ClientHello with a certificate chain to come needs two packets.
const WAITING_BYTES_EACH: u64 = 16 * 1024;

/// Bytes buffered for all of them.
const WAITING_BYTES_TOTAL: u64 = 16 * 1024 * 1024;

/// A bound QUIC socket that accepts connections. Dropping it ends admission; connections already handed over live
/// on.
#[derive(Debug)]
pub struct Listener {
    accepted: mpsc::Receiver<Connection>,
    control: ListenerControl,
    admission: JoinHandle<()>,
}

/// Handle to a listener that runs elsewhere.
#[derive(Debug, Clone)]
pub struct ListenerControl {
    shared: Arc<Shared>,
}

/// Counters since the listener was bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListenerStats {
    /// Handshakes finished and handed over.
    pub accepted: u64,
    /// Attempts that had to prove their address first.
    pub retried: u64,
    /// Attempts or connections turned away for lack of room.
    pub refused: u64,
    /// Handshakes that failed: certificate, protocol, timeout.
    pub failed: u64,
    /// Connections open now.
    pub open: usize,
}

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    limits: ListenerLimits,
    strangers: Arc<Semaphore>,
    accepted: AtomicU64,
    retried: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

impl Listener {
    /// Binds `address` (port 0 picks a free one). To be called inside a tokio runtime, whose threads then do the
    /// work: bind in a runtime of its own what must not wait for others.
    pub fn bind(address: SocketAddr, tls: &ServerTls, limits: ListenerLimits) -> Result<Self, EndpointError> {
        let config = server_config(tls, &limits)?;
        let failed = |source| EndpointError::Bind { address, source };
        let socket = udp_socket(address, limits.tuning.socket_buffer).map_err(failed)?;
        let identity = restart::endpoint_config(limits.restart_key.as_ref());
        let endpoint = Endpoint::new(identity, Some(config), socket, Arc::new(TokioRuntime)).map_err(failed)?;
        let (sender, accepted) = mpsc::channel(limits.handshakes.max(1));
        let shared = Arc::new(Shared {
            endpoint,
            strangers: Arc::new(Semaphore::new(limits.unauthenticated.connections)),
            limits,
            accepted: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        let admission = tokio::spawn(admit(Arc::clone(&shared), sender));
        Ok(Self { accepted, control: ListenerControl { shared }, admission })
    }

    /// The next connection whose handshake is done; `None` once the listener was closed. Cancel-safe.
    pub async fn accept(&mut self) -> Option<Connection> {
        self.accepted.recv().await
    }

    /// A handle for whoever replaces certificates, reads counters, or shuts down.
    #[must_use]
    pub fn control(&self) -> ListenerControl {
        self.control.clone()
    }

    /// The bound address.
    pub fn local_address(&self) -> Result<SocketAddr, EndpointError> {
        self.control.local_address()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.admission.abort();
        // Attempts that come later are refused instead of waiting for an answer that nobody gives.
        self.control.shared.endpoint.set_server_config(None);
    }
}

impl ListenerControl {
    /// A dialer that uses the listener's socket: both directions pass through one port. Its connections end with
    /// [`close`](Self::close), too.
    #[must_use]
    pub fn dialer(&self) -> Dialer {
        Dialer::beside(self.shared.endpoint.clone(), self.shared.limits.tuning.clone())
    }

    /// The bound address.
    pub fn local_address(&self) -> Result<SocketAddr, EndpointError> {
        self.shared
            .endpoint
            .local_addr()
            .map_err(|source| EndpointError::Bind { address: SocketAddr::from(([0, 0, 0, 0], 0)), source })
    }

    /// Replaces certificate, key and trust bundle for handshakes that begin from now on. Open connections keep
    /// what they were verified against: who must go is cut off by the caller.
    pub fn update_tls(&self, tls: &ServerTls) -> Result<(), EndpointError> {
        let config = server_config(tls, &self.shared.limits)?;
        self.shared.endpoint.set_server_config(Some(config));
        Ok(())
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> ListenerStats {
        let shared = &self.shared;
        ListenerStats {
            accepted: shared.accepted.load(Ordering::Relaxed),
            retried: shared.retried.load(Ordering::Relaxed),
            refused: shared.refused.load(Ordering::Relaxed),
            failed: shared.failed.load(Ordering::Relaxed),
            open: shared.endpoint.open_connections(),
        }
    }

    /// Closes the listener and every connection that came through it.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.shared.endpoint.close(code.varint(), reason.as_bytes());
    }

    /// Waits until peers were told of the closing, at most a few round trips.
    pub async fn wait_idle(&self) {
        self.shared.endpoint.wait_idle().await;
    }
}

fn server_config(tls: &ServerTls, limits: &ListenerLimits) -> Result<ServerConfig, EndpointError> {
    let crypto = tls.quic().map_err(EndpointError::Tls)?;
    let crypto = QuicServerConfig::try_from(crypto)
        .map_err(|error| EndpointError::Tls(IdentityError::crypto("QUIC setup", error)))?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(limits.tuning.listening(&limits.unauthenticated)?)
        .migration(true)
        .max_incoming(limits.waiting)
        .incoming_buffer_size(WAITING_BYTES_EACH)
        .incoming_buffer_size_total(WAITING_BYTES_TOTAL);
    Ok(config)
}

/// Takes attempts until the endpoint closes. Ends, too, when nobody accepts any more.
async fn admit(shared: Arc<Shared>, accepted: mpsc::Sender<Connection>) {
    let limits = &shared.limits;
    let slots = Arc::new(Semaphore::new(limits.handshakes.max(1)));
    let crowded = limits.handshakes / 2;
    let mut rate = Rate::new(limits.handshakes_per_second, limits.handshakes_per_second / 4);
    let start = Instant::now();
    // Handshakes live in this set, so that aborting this task ends them too.
    let mut handshakes = JoinSet::new();
    while let Some(incoming) = shared.endpoint.accept().await {
        while handshakes.try_join_next().is_some() {}
        if shared.endpoint.open_connections() >= limits.connections {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            incoming.refuse();
            continue;
        }
        let pressed = slots.available_permits() <= crowded || rate.wait(start.elapsed()) > Duration::ZERO;
        if pressed && !incoming.remote_address_validated() && incoming.may_retry() {
            shared.retried.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = incoming.retry() {
                error.into_incoming().refuse();
            }
            continue;
        }
        loop {
            let wait = rate.wait(start.elapsed());
            if wait.is_zero() {
                break;
            }
            sleep(wait).await;
        }
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        rate.admitted(start.elapsed());
        handshakes.spawn(handshake(Arc::clone(&shared), incoming, accepted.clone(), slot));
    }
}

/// Finishes one handshake. The slot is held until the connection was taken over by [`Listener::accept`]'s queue.
async fn handshake(
    shared: Arc<Shared>,
    incoming: Incoming,
    accepted: mpsc::Sender<Connection>,
    slot: OwnedSemaphorePermit,
) {
    let remote = incoming.remote_address();
    let limits = &shared.limits;
    let finished = async {
        let connecting = incoming.accept().map_err(Closed::from)?;
        timeout(limits.handshake_timeout, connecting).await.map_err(|_| Closed::TimedOut)?.map_err(Closed::from)
    };
    let inner = match finished.await {
        Ok(inner) => inner,
        Err(error) => {
            shared.failed.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%remote, %error, "handshake failed");
            return;
        }
    };
    let raw = inner.clone();
    let connection = match Connection::accepted(inner, &limits.tuning, &limits.unauthenticated) {
        Ok(connection) => connection,
        Err(error) => {
            shared.failed.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%remote, %error, "peer certificate is unusable");
            raw.close(CloseCode::IDENTITY.varint(), error.to_string().as_bytes());
            return;
        }
    };
    if connection.peer() == &Peer::Unauthenticated {
        let Ok(place) = Arc::clone(&shared.strangers).try_acquire_owned() else {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            connection.close(CloseCode::BUSY, "too many peers without a certificate");
            return;
        };
        tokio::spawn(limit_lifetime(raw, limits.unauthenticated.lifetime, place));
    }
    shared.accepted.fetch_add(1, Ordering::Relaxed);
    // An error means that the listener was dropped; so is the connection then.
    let _ = accepted.send(connection).await;
    drop(slot);
}

/// Ends the connection of a peer without a certificate after its time. Holds its place until it is gone.
async fn limit_lifetime(connection: quinn::Connection, lifetime: Duration, place: OwnedSemaphorePermit) {
    if timeout(lifetime, connection.closed()).await.is_err() {
        connection.close(CloseCode::DEADLINE.varint(), b"no certificate within the time allowed");
    }
    drop(place);
}
