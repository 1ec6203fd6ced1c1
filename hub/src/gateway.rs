//! The agents' side of the hub: enrolment of strangers, one session per admitted agent, and who is connected.
//!
//! A session is level-triggered: it is woken when its cluster's desired state may have changed, and reads the state afresh.
//! Everything that an agent says about itself is checked against the state before it counts.

mod balance;
mod contact;
mod enrol;
mod outbox;
mod registry;
mod review;
mod session;
mod watch;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use windlass_hub_core::{Effect, State};
use windlass_protocol::message::GoAway;
use windlass_transport::{
    endpoint::{CloseCode, Connection, Listener, Peer},
    identity::Subject,
};

use self::outbox::{GroupLedger, Outbox};
pub use self::registry::{Registry, SessionCommand};
use crate::{blobs::Bundles, replica::Replica, trust::Trust};

/// The session ends because the hub says so; the reason text tells why.
pub(crate) const CLOSE_SESSION: CloseCode = CloseCode(CloseCode::FIRST_FREE);
/// Wait for a frame that says goodbye before the connection is closed.
const GOODBYE: Duration = Duration::from_millis(500);
/// At shutdown, agents that were sent away have this long to go.
const DRAIN: Duration = Duration::from_secs(3);
/// At shutdown, the last batch has this long.
const LAST_BATCH: Duration = Duration::from_millis(500);

/// What every session needs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// State and proposals.
    pub replica: Replica,
    /// Keys and certificates.
    pub trust: Arc<Trust>,
    /// Manifests by address.
    pub bundles: Bundles,
    /// Connected agents.
    pub registry: Arc<Registry>,
    /// This node.
    pub node: u64,
    /// Where agents find this hub, while the state names no addresses.
    hubs: Arc<[String]>,
    outbox: Arc<Outbox>,
    /// No leader for too long: nobody is admitted.
    cut_off: Arc<AtomicBool>,
}

impl Gateway {
    /// A gateway of node `node`; agents are told `hubs` while the state names no addresses.
    #[must_use]
    pub fn new(
        replica: Replica,
        trust: Arc<Trust>,
        bundles: Bundles,
        registry: Arc<Registry>,
        node: u64,
        hubs: Vec<String>,
    ) -> Self {
        let ledger = GroupLedger { replica: replica.clone(), subject: format!("hub:{node}") };
        let outbox = Arc::new(Outbox::new(node, Box::new(ledger), Arc::clone(&registry)));
        Self { replica, trust, bundles, registry, node, hubs: hubs.into(), outbox, cut_off: Arc::default() }
    }

    /// Accepts agents until shutdown, then sends them away.
    pub async fn run(self, mut listener: Listener, shutdown: CancellationToken) {
        let stop = CancellationToken::new();
        let force = CancellationToken::new();
        let parts = TaskTracker::new();
        parts.spawn(self.clone().follow_effects(stop.clone()));
        parts.spawn(watch::run(self.clone(), stop.clone()));
        let outbox_stop = CancellationToken::new();
        let outbox = tokio::spawn(Arc::clone(&self.outbox).run(outbox_stop.clone()));
        let sessions = TaskTracker::new();
        loop {
            let connection = tokio::select! {
                () = shutdown.cancelled() => break,
                connection = listener.accept() => match connection {
                    Some(connection) => connection,
                    None => break,
                },
            };
            sessions.spawn(self.clone().serve(connection, force.clone()));
        }
        sessions.close();
        self.registry.leave(GoAway::Drain, None);
        if tokio::time::timeout(DRAIN, sessions.wait()).await.is_err() {
            force.cancel();
            let _ = tokio::time::timeout(2 * GOODBYE, sessions.wait()).await;
        }
        stop.cancel();
        outbox_stop.cancel();
        if tokio::time::timeout(LAST_BATCH, outbox).await.is_err() {
            tracing::info!("the ends of sessions were not recorded: the next start does it");
        }
        let control = listener.control();
        control.close(CloseCode::DONE, "the hub shuts down");
        // Peers hear of it, and the socket is free afterwards.
        let _ = tokio::time::timeout(GOODBYE, control.wait_idle()).await;
    }

    async fn serve(self, connection: Connection, force: CancellationToken) {
        let remote = connection.remote_address();
        match connection.peer().clone() {
            Peer::Unauthenticated => {
                if let Err(error) = enrol::serve(&self, &connection).await {
                    tracing::debug!(%remote, %error, "enrolment ended");
                }
                connection.close(CloseCode::DONE, "done");
            }
            Peer::Authenticated(identity) => match &identity.subject {
                Subject::Cluster { name, uid } => {
                    // Boxed: what a session keeps while it is idle should not hold what it needs while it begins.
                    let result = Box::pin(session::serve(&self, &connection, uid, &identity, force)).await;
                    match result {
                        Ok(()) => tracing::info!(cluster = name, %remote, "session ended"),
                        Err(error) => {
                            tracing::info!(cluster = name, %remote, error = format!("{error:#}"), "session ended");
                        }
                    }
                    connection.close(CLOSE_SESSION, "the session ended");
                }
                Subject::Hub { .. } => connection.close(CloseCode::IDENTITY, "hubs talk to hubs on the peer port"),
            },
        }
    }

    /// Without a leader for too long.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }

    /// What agents should trust (PEM), and the hubs that they should dial.
    fn trusted(&self, state: &State) -> (String, Vec<String>) {
        let record = state.trust();
        let roots = if record.version > 0 { record.roots.clone() } else { self.trust.bundle().pem().to_owned() };
        let hubs = state.hub_addresses();
        (roots, if hubs.is_empty() { self.hubs.to_vec() } else { hubs })
    }

    /// Tells sessions what concerns them; after falling behind, tells all of them to look.
    async fn follow_effects(self, stop: CancellationToken) {
        let mut effects = self.replica.machine().effects();
        loop {
            let batch = tokio::select! {
                () = stop.cancelled() => return,
                batch = effects.recv() => batch,
            };
            match batch {
                Ok(batch) => batch.iter().for_each(|effect| self.route(effect)),
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {
                    self.registry.send_all(&SessionCommand::Look);
                    self.registry.send_all(&SessionCommand::Trust);
                }
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    fn route(&self, effect: &Effect) {
        match effect {
            Effect::Object(_) | Effect::Hashes(_) => {}
            Effect::Hubs | Effect::Trust { .. } => self.registry.send_all(&SessionCommand::Trust),
            Effect::Desired { cluster, .. } => self.registry.send(cluster, &SessionCommand::Look),
            Effect::Disconnect { cluster, keep_serial, reason } => {
                let command = SessionCommand::Disconnect { keep_serial: *keep_serial, reason: reason.clone() };
                self.registry.send(cluster, &command);
            }
            Effect::Refresh { cluster, application, hard } => {
                let command = SessionCommand::Refresh { application: application.clone(), hard: *hard };
                self.registry.send(cluster, &command);
            }
        }
    }
}
