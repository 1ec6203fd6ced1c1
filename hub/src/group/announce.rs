//! This hub says where it is and what it runs, once it is different from what the state knows.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use windlass_hub_core::{Command, STATE_VERSION, command::HubAnnouncement};
use windlass_protocol::ids::Digest;

use crate::{config::Config, replica::Replica};

/// Name and version of this build, as hubs tell it to each other and to agents.
pub const SOFTWARE: &str = concat!("windlass-hub/", env!("CARGO_PKG_VERSION"));
/// Between two looks: the announcement waits for a leader, and for the state's version.
const PERIOD: Duration = Duration::from_secs(1);

/// What this hub announces.
#[must_use]
pub fn announcement(config: &Config, node: Option<u64>, agents: Vec<String>) -> HubAnnouncement {
    let name = config.name.clone().unwrap_or_else(|| match node {
        Some(node) => format!("hub-{node}"),
        None => String::new(),
    });
    HubAnnouncement {
        name,
        address: config.advertise_peers.clone().unwrap_or_default(),
        agents,
        software: SOFTWARE.to_owned(),
        state_version: STATE_VERSION,
    }
}

/// Announces until the state knows it, and again whenever somebody else's word stands there.
pub async fn announce(replica: Replica, key: Digest, hub: HubAnnouncement, shutdown: CancellationToken) {
    let identity = replica.raft().identity();
    let mut refused = false;
    loop {
        let known = replica.state().hub(identity.node).cloned();
        let current = known.is_some_and(|record| {
            record.removed
                || (record.name == hub.name
                    && record.address == hub.address
                    && record.agents == hub.agents
                    && record.software == hub.software
                    && record.state_version == hub.state_version)
        });
        let leader = replica.raft().status().borrow().leader.is_some();
        if !current && leader && replica.state().meta().version >= 2 {
            let store = *identity.store.as_bytes();
            let command = Command::AnnounceHub { node: identity.node, store, key, hub: hub.clone() };
            if let Err(error) = replica.propose("hub", "announce", Vec::new(), command).await
                && !std::mem::replace(&mut refused, true)
            {
                tracing::warn!(%error, "this hub could not announce itself");
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}
