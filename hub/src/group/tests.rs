//! States for the tests of this folder.

use windlass_hub_core::{Command, Envelope, STATE_VERSION, State, command::HubAnnouncement};
use windlass_protocol::{
    ids::{Digest, RequestId},
    time::Millis,
};

/// A state with these hubs, 1 to n in order; `true` for removed ones. The address of node n is `a:n`.
pub(super) fn state_of(hubs: &[(u64, bool)]) -> State {
    let mut state = State::default();
    let mut request = 0;
    let mut apply = |command| {
        request += 1;
        let envelope = Envelope {
            request: RequestId([request; 16]),
            subject: String::new(),
            source: String::new(),
            proposed_at: Millis::from_secs(1),
            preconditions: Vec::new(),
            command,
        };
        state.apply(&envelope).result.unwrap();
    };
    let uids = ["a", "b", "c"].map(str::to_owned).to_vec();
    apply(Command::Bootstrap { cluster_id: "c".to_owned(), trust_domain: "t".to_owned(), uids });
    for (node, _) in hubs {
        let hub = HubAnnouncement {
            name: String::new(),
            address: format!("a:{node}"),
            agents: Vec::new(),
            software: String::new(),
            state_version: STATE_VERSION,
        };
        let key = Digest::of(&node.to_be_bytes());
        if *node == 1 {
            apply(Command::AnnounceHub { node: 1, store: [1; 16], key, hub });
        } else {
            apply(Command::AddHubToken { hash: key, expires_at: Millis::from_secs(9) });
            apply(Command::AdmitHub { hash: key, key, store: [2; 16], hub });
        }
    }
    for (node, _) in hubs.iter().filter(|(_, removed)| *removed) {
        apply(Command::RemoveHub { node: *node });
    }
    state
}
