//! Keeps the listeners of a running hub at what the state says everybody trusts: on the signal of a change, and on a period.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use windlass_hub_core::Effect;
use windlass_transport::{
    endpoint::{ListenerControl, PeerAdmission, ServerTls},
    https::HttpsControl,
};

use super::Trust;
use crate::{
    peers::{PeerTls, Peers},
    replica::{Replica, wall_clock},
    sealing::Sealer,
};

/// What a signal missed is found then; a node that installed a snapshot gets no signal.
const PERIOD: Duration = Duration::from_secs(5);

/// Whoever shows this hub's certificate.
#[derive(Debug)]
pub struct Listeners {
    /// For agents.
    pub agents: ListenerControl,
    /// For users.
    pub api: HttpsControl,
    /// For the other hubs.
    pub peers: Option<Peers>,
    /// Names in the certificate for agents and users.
    pub names: Vec<String>,
}

/// Follows the state until shutdown.
pub async fn keep(
    trust: Arc<Trust>,
    sealer: Arc<Sealer>,
    replica: Replica,
    listeners: Listeners,
    shutdown: CancellationToken,
) {
    let mut effects = replica.machine().effects();
    loop {
        if let Err(error) = follow(&trust, &sealer, &replica, &listeners) {
            tracing::error!(error = format!("{error:#}"), "this hub cannot follow the group's trust bundle");
        }
        let deadline = tokio::time::Instant::now() + PERIOD;
        loop {
            let batch = tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep_until(deadline) => break,
                batch = effects.recv() => batch,
            };
            match batch {
                Ok(batch) if !batch.iter().any(|effect| matches!(effect, Effect::Trust { .. })) => {}
                Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => break,
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            }
        }
    }
}

fn follow(trust: &Trust, sealer: &Sealer, replica: &Replica, listeners: &Listeners) -> anyhow::Result<()> {
    let state = replica.state();
    let node = replica.raft().identity().node;
    let serial = || anyhow::Ok(u128::from_be_bytes(replica.random_bytes()?) >> 1);
    if !trust.follow(state.trust(), sealer, node, wall_clock(), serial()?)? {
        return Ok(());
    }
    let identity = trust.hub_identity(node, &listeners.names, wall_clock(), serial()?)?;
    let tls = ServerTls::new(identity, trust.bundle(), PeerAdmission::Enrolment)?;
    listeners.agents.update_tls(&tls).context("the agents' listener")?;
    listeners.api.update_tls(&tls).context("the API's listener")?;
    if let Some(peers) = &listeners.peers {
        let certificate = trust.hub_identity(node, &[], wall_clock(), serial()?)?;
        peers.set_tls(&PeerTls { certificate, bundle: trust.bundle() }).context("the peers' listener")?;
    }
    tracing::info!(version = state.trust().version, "this hub has taken over the group's trust bundle");
    Ok(())
}
