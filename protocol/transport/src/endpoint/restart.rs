//! A listener that is recognised after a restart.
//!
//! A process that was killed says no goodbye: its peers go on sending until their idle timeout. Its successor does not
//! know their connections and would drop the packets; with a key that both processes share it answers with the stateless
//! reset (RFC 9000 section 10.3) that the first one had announced, and the peers dial again at once.

use std::{fmt, sync::Arc, time::Duration};

use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};

/// Bytes of a connection id; as many as QUIC libraries use by default.
const ID_LEN: usize = 8;

/// Between two resets: 10,000 agents of a restarted hub hear of it within 5 s.
const RESET_INTERVAL: Duration = Duration::from_micros(500);

/// Stays the same over restarts of one listener, and is known to nobody who may not end its connections.
#[derive(Clone, PartialEq, Eq)]
pub struct RestartKey([u8; 32]);

impl RestartKey {
    /// From secret bytes.
    #[must_use]
    pub const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }
}

impl fmt::Debug for RestartKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RestartKey(..)")
    }
}

/// The configuration of an endpoint, with resets that outlive the process where there is a key.
pub(super) fn endpoint_config(key: Option<&RestartKey>) -> EndpointConfig {
    let Some(RestartKey(key)) = key else { return EndpointConfig::default() };
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key)));
    // The library's own generator takes ids of another process for noise, and never resets them.
    config
        .cid_generator(|| Box::new(RandomIds { random: SystemRandom::new(), counter: 0 }))
        .min_reset_interval(RESET_INTERVAL);
    config
}

struct RandomIds {
    random: SystemRandom,
    counter: u64,
}

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_LEN];
        self.counter = self.counter.wrapping_add(1);
        if self.random.fill(&mut id).is_err() {
            // Guessable, but distinct; no handshake succeeds without random numbers anyway.
            id = self.counter.to_be_bytes();
        }
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
