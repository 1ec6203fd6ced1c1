//! Hubs among themselves: one QUIC socket (7444/udp), mutual TLS, and a thread pool of its own.
//!
//! ```text
//! RaftNode ----- PeerLink ---.                       .--> PeerService::call(Raft | Service | Bulk)
//! forwards, reads - service() +-> Slot -> connection -+--> PeerService::snapshot(header, content)
//! blobs ----------- bulk() ---'   (one per peer)      '--> PeerService::stranger (a hub that joins)
//! ```
//!
//! Every call is a QUIC stream of its own, so none waits for another; votes and entries go first, snapshots and blobs
//! last, and each class has its own bound. Both sides of a connection say who they are before anything else ([`hello`]):
//! a peer of another cluster, node or store is refused with a sentence that says what to do.
//!
//! What is carried is opaque here: Raft messages belong to [`crate::raft`], everything else to the
//! [`PeerService`]. A runtime of two threads does the work of this module and whatever is spawned in it
//! ([`Peers::runtime`]), so that a storm of agents cannot unseat a leader.

mod hello;
mod join;
mod limits;
mod link;
mod network;
mod notes;
mod serve;
mod service;
#[cfg(test)]
pub(crate) mod tests;
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::{Handle, Runtime};
use windlass_transport::endpoint::{
    ClientTls, CloseCode, Connection, Dialer, EndpointError, Listener, ListenerControl, PeerAdmission, Protocol,
    RestartKey, ServerTls,
};
use windlass_transport::identity::{Identity as Certificate, IdentityError, Subject, TrustBundle};

pub use self::join::{JoinCallError, join_call};
pub use self::limits::{
    BULK_CALLS_MAX, JOIN_ANSWER_BYTES_MAX, JOIN_LIFETIME, JOIN_REQUEST_BYTES_MAX, PEER_FRAME_BYTES_MAX, RAFT_CALLS_MAX,
    SERVICE_CALLS_MAX, SNAPSHOT_STREAMS_MAX,
};
pub use self::link::PeerStatus;
pub use self::service::{CallKind, Expected, PeerService};

use self::link::Slot;
use self::notes::Notes;
use self::wire::Class;
use crate::raft::{LinkError, NodeId, PeerNetwork};
use crate::store::Identity;

/// Says what is expected of a node that answers or calls.
pub type Expectations = Arc<dyn Fn(NodeId) -> Expected + Send + Sync>;

/// Says where a node can be dialled (`host:port`).
pub type Directory = Arc<dyn Fn(NodeId) -> Option<String> + Send + Sync>;

/// Our certificate and whom we believe.
#[derive(Debug, Clone)]
pub struct PeerTls {
    /// Certificate and key of this hub.
    pub certificate: Certificate,
    /// The roots of the trust domain.
    pub bundle: TrustBundle,
}

/// What a peer transport needs to start.
#[derive(Clone)]
pub struct PeersConfig {
    /// UDP address to bind (`listen_peers`).
    pub listen: SocketAddr,
    /// Cluster, node and store of this hub.
    pub identity: Identity,
    /// Name and version of this build, told to the peers.
    pub software: String,
    /// Certificates.
    pub tls: PeerTls,
    /// Called at each hello; must be quick.
    pub expectations: Expectations,
    /// Called before each dial; must be quick.
    pub directory: Directory,
}

/// Why the peer transport did not start, or certificates were not replaced.
#[derive(Debug, thiserror::Error)]
pub enum PeersError {
    /// The operating system gives no threads.
    #[error("cannot start the threads of the peer transport")]
    Threads(#[source] std::io::Error),
    /// The socket, or TLS.
    #[error("cannot listen for other hubs")]
    Endpoint(#[from] EndpointError),
    /// The certificate and the bundle do not belong together.
    #[error("the certificate for other hubs cannot be used")]
    Tls(#[from] IdentityError),
    /// After [`Peers::shutdown`].
    #[error("the peer transport was shut down")]
    ShutDown,
    /// The certificate names somebody else.
    #[error("the certificate for other hubs is that of {found}, this is node {node}")]
    Certificate {
        /// Whom it names.
        found: String,
        /// This node.
        node: NodeId,
    },
}

/// The ways to all peers. Cheap to clone. Ends with [`Peers::shutdown`], or when the last clone is dropped.
#[derive(Clone)]
pub struct Peers {
    owner: Arc<Owner>,
}

struct Owner {
    shared: Arc<Shared>,
    threads: Mutex<Threads>,
}

/// The runtime, dropped in a way that never waits: that may happen on an async thread.
struct Threads(Option<Runtime>);

/// The socket in its two roles; let go at the shutdown, so that the port is free then.
#[derive(Clone)]
struct Socket {
    control: ListenerControl,
    dialer: Dialer,
}

/// What the tasks share. Never holds the runtime: tasks must not keep it alive.
struct Shared {
    identity: Identity,
    software: String,
    expectations: Expectations,
    directory: Directory,
    look_every: Duration,
    socket: RwLock<Option<Socket>>,
    runtime: Handle,
    tls: RwLock<ClientTls>,
    service: RwLock<Option<Arc<dyn PeerService>>>,
    slots: Mutex<BTreeMap<NodeId, Arc<Slot>>>,
    /// Connections that peers opened, by a number of their own.
    accepted: Mutex<BTreeMap<(NodeId, u64), Connection>>,
    notes: Notes,
}

impl Peers {
    /// Binds the socket and starts the threads. Until [`Peers::serve`], peers are told that this hub is starting.
    ///
    /// # Errors
    /// [`PeersError`] when the port is taken or the certificate is not this node's.
    pub fn start(config: PeersConfig) -> Result<Self, PeersError> {
        Self::looking(config, limits::LOOK_EVERY)
    }

    fn looking(config: PeersConfig, look_every: Duration) -> Result<Self, PeersError> {
        let (server, client) = tls(&config.tls, config.identity.node)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(limits::THREADS)
            .thread_name("windlass-peer")
            .enable_all()
            .build()
            .map_err(PeersError::Threads)?;
        let (handle, threads) = (runtime.handle().clone(), Threads(Some(runtime)));
        let listener = {
            let _inside = handle.enter();
            Listener::bind(config.listen, &server, limits::listener(restart_key(&config.identity)))?
        };
        let shared = Arc::new(Shared {
            identity: config.identity,
            software: config.software,
            expectations: config.expectations,
            directory: config.directory,
            look_every,
            socket: RwLock::new(Some(Socket { control: listener.control(), dialer: listener.control().dialer() })),
            runtime: handle.clone(),
            tls: RwLock::new(client),
            service: RwLock::default(),
            slots: Mutex::default(),
            accepted: Mutex::default(),
            notes: Notes::default(),
        });
        handle.spawn(serve::accept(Arc::clone(&shared), listener));
        Ok(Self { owner: Arc::new(Owner { shared, threads: Mutex::new(threads) }) })
    }

    /// Who answers peers from now on. Held until [`Peers::shutdown`].
    pub fn serve(&self, service: Arc<dyn PeerService>) {
        *self.shared().service.write().unwrap_or_else(PoisonError::into_inner) = Some(service);
    }

    /// The threads of the peer transport: run Raft in here.
    #[must_use]
    pub fn runtime(&self) -> Handle {
        self.shared().runtime.clone()
    }

    /// The network for [`crate::raft::RaftNode::start`]. Does not keep the transport alive.
    #[must_use]
    pub fn network(&self) -> Arc<dyn PeerNetwork> {
        Arc::new(network::Network(Arc::clone(self.shared())))
    }

    /// The bound address.
    ///
    /// # Errors
    /// [`PeersError::Endpoint`] when the system does not tell, and after the shutdown.
    pub fn local_address(&self) -> Result<SocketAddr, PeersError> {
        let socket = self.shared().socket().ok_or(PeersError::ShutDown)?;
        Ok(socket.control.local_address()?)
    }

    /// Asks a peer's [`PeerService`] ([`CallKind::Service`]); at most [`SERVICE_CALLS_MAX`] at a time per peer.
    ///
    /// # Errors
    /// [`LinkError::Refused`] carries what the service said.
    pub async fn service(&self, node: NodeId, request: Bytes, limit: Duration) -> Result<Bytes, LinkError> {
        self.shared().call(node, Class::Service, &request, limit).await
    }

    /// As [`Peers::service`], behind everything else ([`CallKind::Bulk`]); at most [`BULK_CALLS_MAX`] at a time per
    /// peer.
    ///
    /// # Errors
    /// [`LinkError::Refused`] carries what the service said.
    pub async fn bulk(&self, node: NodeId, request: Bytes, limit: Duration) -> Result<Bytes, LinkError> {
        self.shared().call(node, Class::Bulk, &request, limit).await
    }

    /// Replaces certificate and trust bundle for connections made from now on; open ones live on.
    ///
    /// # Errors
    /// [`PeersError`] when they cannot be used; nothing has changed then.
    pub fn set_tls(&self, tls_: &PeerTls) -> Result<(), PeersError> {
        let (server, client) = tls(tls_, self.shared().identity.node)?;
        self.shared().socket().ok_or(PeersError::ShutDown)?.control.update_tls(&server)?;
        *self.shared().tls.write().unwrap_or_else(PoisonError::into_inner) = client;
        Ok(())
    }

    /// Closes all connections with a peer, in both directions: to be called when it was removed, or must show its
    /// certificate again. A peer that is still expected comes back at once.
    pub fn disconnect(&self, node: NodeId) {
        let shared = self.shared();
        if let Some(slot) = shared.slots().get(&node) {
            slot.redial("disconnected by the other side");
        }
        for (_, connection) in shared.accepted().range((node, 0)..=(node, u64::MAX)) {
            connection.close(CloseCode::DONE, "disconnected by the other side");
        }
    }

    /// What is known of each peer that was ever called.
    #[must_use]
    pub fn status(&self) -> Vec<PeerStatus> {
        let slots: Vec<Arc<Slot>> = self.shared().slots().values().cloned().collect();
        slots.iter().map(|slot| slot.status()).collect()
    }

    /// Tells the peers, ends all connections and the threads, and lets go of service and port. Stop Raft before. Must
    /// not be called on the threads of [`Peers::runtime`].
    pub async fn shutdown(&self) {
        let shared = self.shared();
        let service = shared.service.write().unwrap_or_else(PoisonError::into_inner).take();
        let socket = shared.socket.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Socket { control, .. }) = socket {
            control.close(CloseCode::DONE, "the hub shuts down");
            if tokio::time::timeout(limits::GOODBYE, control.wait_idle()).await.is_err() {
                tracing::debug!("some peers were not told of the shutdown");
            }
        }
        let runtime = self.owner.threads.lock().unwrap_or_else(PoisonError::into_inner).0.take();
        let stop = move || {
            drop(service);
            if let Some(runtime) = runtime {
                runtime.shutdown_timeout(limits::GOODBYE);
            }
        };
        if tokio::task::spawn_blocking(stop).await.is_err() {
            tracing::error!("the threads of the peer transport did not end well");
        }
        // Connections hold the socket, too.
        shared.accepted().clear();
        shared.slots().values().for_each(|slot| slot.shut_down());
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    async fn call(
        self: &Arc<Self>,
        node: NodeId,
        class: Class,
        request: &[u8],
        limit: Duration,
    ) -> Result<Bytes, LinkError> {
        self.slot(node).call(self, class, request, limit).await
    }

    /// The slot of a peer, made when it is asked for first.
    fn slot(&self, node: NodeId) -> Arc<Slot> {
        Arc::clone(self.slots().entry(node).or_insert_with(|| Arc::new(Slot::new(node))))
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accepted(&self) -> MutexGuard<'_, BTreeMap<(NodeId, u64), Connection>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current_service(&self) -> Option<Arc<dyn PeerService>> {
        self.service.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn socket(&self) -> Option<Socket> {
        self.socket.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn client_tls(&self) -> ClientTls {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Cluster and store id are random and known to the hubs alone, who may end each other's connections.
fn restart_key(identity: &Identity) -> RestartKey {
    let secret = [identity.cluster.as_bytes().as_slice(), identity.store.as_bytes()].concat();
    RestartKey::new(blake3::derive_key("windlass 2026 peer listener stateless reset", &secret))
}

fn tls(tls: &PeerTls, node: NodeId) -> Result<(ServerTls, ClientTls), PeersError> {
    match &tls.certificate.describe().subject {
        Subject::Hub { node: found } if *found == node.to_string() => {}
        Subject::Hub { node: found } => {
            return Err(PeersError::Certificate { found: format!("hub {found}"), node });
        }
        Subject::Cluster { name, .. } => {
            return Err(PeersError::Certificate { found: format!("the agent of cluster {name}"), node });
        }
    }
    let server = ServerTls::new(tls.certificate.clone(), tls.bundle.clone(), PeerAdmission::Enrolment)?;
    let client = ClientTls::enrolled(tls.bundle.clone(), tls.certificate.clone());
    Ok((server.speaking(Protocol::Peers), client.speaking(Protocol::Peers)))
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers").field("identity", &self.shared().identity).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for PeersConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeersConfig")
            .field("listen", &self.listen)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
