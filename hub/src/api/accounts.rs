//! Who asks: bearer tokens against the Secret `windlass-accounts`, and a bound on wrong ones.
//!
//! Tokens are kept as BLAKE3 hashes and compared in constant time. An address that keeps sending wrong ones gets 429; a right
//! token always passes, since another process behind the same address must not be able to lock it out.

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, header};
use serde_json::Value;
use windlass_hub_core::{ObjectKey, State};
use windlass_protocol::{
    ids::StateRevision,
    json,
    resource::{CONTROL_NAMESPACE, Kind},
};

use super::error::ApiError;
use crate::sealing::Sealer;

/// Secret of the control namespace: `data.<account>` is [`token_hash`] of the account's token.
pub const ACCOUNTS_SECRET: &str = "windlass-accounts";
/// The account that may do everything.
pub const ADMIN_ACCOUNT: &str = "admin";
/// Addresses whose failures are remembered; beyond that the oldest are forgotten.
const ADDRESSES_MAX: usize = 10_000;
const WINDOW: Duration = Duration::from_secs(60);

/// How a token is kept: BLAKE3 in 64 hexadecimal digits.
#[must_use]
pub fn token_hash(token: &str) -> String {
    blake3::hash(token.as_bytes()).to_hex().to_string()
}

/// Knows the accounts, and who has failed lately.
pub(super) struct Accounts {
    sealer: Arc<Sealer>,
    failures_per_minute: u32,
    known: Mutex<Option<(StateRevision, Arc<Hashes>)>>,
    failures: Mutex<BTreeMap<IpAddr, Failures>>,
}

type Hashes = BTreeMap<String, blake3::Hash>;

#[derive(Clone, Copy, Debug)]
struct Failures {
    since: Instant,
    count: u32,
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts").finish_non_exhaustive()
    }
}

impl Accounts {
    pub(super) fn new(sealer: Arc<Sealer>, failures_per_minute: u32) -> Self {
        Self { sealer, failures_per_minute, known: Mutex::default(), failures: Mutex::default() }
    }

    /// The account of a request. Errors never say what is wrong.
    pub(super) fn authenticate(
        &self,
        state: &State,
        headers: &HeaderMap,
        address: Option<IpAddr>,
        now: Instant,
    ) -> Result<String, ApiError> {
        let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer);
        let account = token.and_then(|token| self.account_of(state, token));
        account.ok_or_else(|| self.failed(address, now))
    }

    fn account_of(&self, state: &State, token: &str) -> Option<String> {
        let hash = blake3::hash(token.as_bytes());
        let mut found = None;
        // Every account is compared, so that time tells nothing; `blake3::Hash` compares in constant time.
        for (account, known) in self.hashes(state)?.iter() {
            if *known == hash {
                found = Some(account.clone());
            }
        }
        found
    }

    fn hashes(&self, state: &State) -> Option<Arc<Hashes>> {
        let record = state.object(&ObjectKey::new(Kind::Secret, CONTROL_NAMESPACE, ACCOUNTS_SECRET))?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((revision, hashes)) = known.as_ref()
            && *revision == record.revision
        {
            return Some(Arc::clone(hashes));
        }
        let mut secret = record.value();
        if let Err(error) = self.sealer.join_secret(&mut secret, record.sealed.as_deref()?) {
            tracing::error!(%error, "the accounts cannot be read");
            return None;
        }
        let entries = json::at(&secret, &["data"]).and_then(Value::as_object)?;
        let hash = |value: &Value| {
            let text = STANDARD.decode(value.as_str()?).ok()?;
            blake3::Hash::from_hex(text.trim_ascii()).ok()
        };
        let hashes = entries.iter().filter_map(|(account, value)| Some((account.clone(), hash(value)?)));
        let hashes = Arc::new(hashes.collect::<Hashes>());
        *known = Some((record.revision, Arc::clone(&hashes)));
        Some(hashes)
    }

    fn failed(&self, address: Option<IpAddr>, now: Instant) -> ApiError {
        let Some(address) = address else { return ApiError::unauthorized() };
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= ADDRESSES_MAX && !failures.contains_key(&address) {
            failures.retain(|_, entry| now.duration_since(entry.since) < WINDOW);
            if failures.len() >= ADDRESSES_MAX {
                failures.pop_first();
            }
        }
        let entry = failures.entry(address).or_insert(Failures { since: now, count: 0 });
        if now.duration_since(entry.since) >= WINDOW {
            *entry = Failures { since: now, count: 0 };
        }
        entry.count = entry.count.saturating_add(1);
        if entry.count <= self.failures_per_minute {
            return ApiError::unauthorized();
        }
        let rest = WINDOW.saturating_sub(now.duration_since(entry.since)).as_secs();
        ApiError::too_many_requests("too many requests with wrong credentials")
            .retry_after(u32::try_from(rest).unwrap_or(60).max(1))
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_tokens_are_bounded_per_address() {
        let accounts = Accounts::new(Arc::new(Sealer::new(&[1; 32]).unwrap()), 3);
        let state = State::default();
        let start = Instant::now();
        let ask = |address: [u8; 4], now| {
            let error = accounts.authenticate(&state, &HeaderMap::new(), Some(IpAddr::from(address)), now).unwrap_err();
            error.code.as_u16()
        };
        let codes: Vec<u16> = (0..4).map(|_| ask([127, 0, 0, 1], start)).collect();
        assert_eq!(codes, [401, 401, 401, 429]);
        assert_eq!(ask([127, 0, 0, 2], start), 401);
        assert_eq!(ask([127, 0, 0, 1], start + WINDOW), 401);
    }
}
