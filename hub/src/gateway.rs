//! The agents' side of the hub: enrolment of strangers, one session per admitted agent, and who is connected.
//!
//! A session is level-triggered: it is woken when its cluster's desired state may have changed, and reads the state afresh.
//! Everything that an agent says about itself is checked against the state before it counts.

mod enrol;
mod registry;
mod session;

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use windlass_hub_core::Effect;
use windlass_transport::{
    endpoint::{CloseCode, Connection, Listener, Peer},
    identity::Subject,
};

pub use self::registry::{Registry, SessionCommand};
use crate::{blobs::Bundles, replica::Replica, trust::Trust};

/// The session ends because the hub says so; the reason text tells why.
pub(crate) const CLOSE_SESSION: CloseCode = CloseCode(CloseCode::FIRST_FREE);
/// Wait for a frame that says goodbye before the connection is closed.
const GOODBYE: Duration = Duration::from_millis(500);

/// What every session needs.
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
    /// Where agents find the hubs.
    pub hubs: Vec<String>,
}

impl Gateway {
    /// Accepts agents until shutdown.
    pub async fn run(self, mut listener: Listener, shutdown: CancellationToken) {
        let effects = tokio::spawn(self.clone().follow_effects(shutdown.clone()));
        let sessions = tokio_util::task::TaskTracker::new();
        loop {
            let connection = tokio::select! {
                () = shutdown.cancelled() => break,
                connection = listener.accept() => match connection {
                    Some(connection) => connection,
                    None => break,
                },
            };
            let gateway = self.clone();
            let shutdown = shutdown.clone();
            sessions.spawn(async move { gateway.serve(connection, shutdown).await });
        }
        sessions.close();
        sessions.wait().await;
        listener.control().close(CloseCode::DONE, "the hub shuts down");
        effects.abort();
    }

    async fn serve(self, connection: Connection, shutdown: CancellationToken) {
        let remote = connection.remote_address();
        match connection.peer().clone() {
            Peer::Unauthenticated => {
                if let Err(error) = enrol::serve(&self, &connection).await {
                    tracing::debug!(%remote, %error, "enrolment ended");
                }
                connection.close(CloseCode::DONE, "done");
            }
            Peer::Authenticated(identity) => match identity.subject {
                Subject::Cluster { ref name, ref uid } => {
                    let serial = identity.serial.to_be_bytes();
                    let result =
                        session::serve(&self, &connection, uid, serial, identity.not_after_unix, shutdown).await;
                    match result {
                        Ok(()) => tracing::info!(cluster = name, %remote, "session ended"),
                        Err(error) => {
                            tracing::info!(cluster = name, %remote, error = format!("{error:#}"), "session ended")
                        }
                    }
                    connection.close(CLOSE_SESSION, "the session ended");
                }
                Subject::Hub { .. } => connection.close(CloseCode::IDENTITY, "hubs talk to hubs on the peer port"),
            },
        }
    }

    /// Tells sessions what concerns them; after falling behind, tells all of them to look.
    async fn follow_effects(self, shutdown: CancellationToken) {
        let mut effects = self.replica.machine().effects();
        loop {
            let batch = tokio::select! {
                () = shutdown.cancelled() => return,
                batch = effects.recv() => batch,
            };
            match batch {
                Ok(batch) => batch.iter().for_each(|effect| self.route(effect)),
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => self.registry.wake_all(),
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    fn route(&self, effect: &Effect) {
        match effect {
            Effect::Object(_) | Effect::Hubs | Effect::Trust { .. } | Effect::Hashes(_) => {}
            Effect::Desired { cluster, .. } => self.registry.send(cluster, SessionCommand::Look),
            Effect::Disconnect { cluster, keep_serial, reason } => {
                let command = SessionCommand::Disconnect { keep_serial: *keep_serial, reason: reason.clone() };
                self.registry.send(cluster, command);
            }
            Effect::Refresh { cluster, application, hard } => {
                let command = SessionCommand::Refresh { application: application.clone(), hard: *hard };
                self.registry.send(cluster, command);
            }
        }
    }
}
