//! Credentials of repositories, from Secrets in Argo CD's shape: label `argocd.argoproj.io/secret-type` = `repository` (one
//! URL) or `repo-creds` (every URL with this prefix).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use windlass_hub_core::State;
use windlass_protocol::{
    json,
    resource::{CONTROL_NAMESPACE, Kind},
};

use crate::{
    sealing::Sealer,
    source::{Credentials, Repository, normalize_url},
};

const SECRET_TYPE: &str = "argocd.argoproj.io/secret-type";

/// Credentials of all registered repositories.
#[derive(Debug, Default)]
pub(crate) struct Repositories {
    exact: Vec<(String, Credentials)>,
    prefixes: Vec<(String, Credentials)>,
}

impl Repositories {
    /// Reads them from a state.
    #[must_use]
    pub(crate) fn new(state: &State, sealer: &Sealer) -> Self {
        let mut found = Self::default();
        for (key, record) in state.objects(Kind::Secret, Some(CONTROL_NAMESPACE)) {
            let kind = record.labels.get(SECRET_TYPE).map(String::as_str);
            let (Some(kind @ ("repository" | "repo-creds")), Some(sealed)) = (kind, &record.sealed) else { continue };
            let mut secret = record.value();
            if let Err(error) = sealer.join_secret(&mut secret, sealed) {
                tracing::warn!(secret = %key, %error, "credentials cannot be opened");
                continue;
            }
            let url = text(&secret, "url");
            let Some(credentials) = credentials(&secret).filter(|_| !url.is_empty()) else { continue };
            if kind == "repository" {
                found.exact.push((normalize_url(&url), credentials));
            } else {
                found.prefixes.push((url, credentials));
            }
        }
        // The longest prefix wins.
        found.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        found
    }

    /// A repository with its credentials.
    #[must_use]
    pub(crate) fn repository(&self, url: &str) -> Repository {
        let normal = normalize_url(url);
        let exact = self.exact.iter().find(|(known, _)| *known == normal);
        let found = exact.or_else(|| self.prefixes.iter().find(|(prefix, _)| url.starts_with(prefix.as_str())));
        let repository = Repository::new(url);
        match found {
            Some((_, credentials)) => repository.with_credentials(credentials.clone()),
            None => repository,
        }
    }
}

fn credentials(secret: &Value) -> Option<Credentials> {
    let bearer = text(secret, "bearerToken");
    if !bearer.is_empty() {
        return Some(Credentials::Token(bearer));
    }
    let (username, password) = (text(secret, "username"), text(secret, "password"));
    match (username.is_empty(), password.is_empty()) {
        (_, true) => None,
        (true, false) => Some(Credentials::Token(password)),
        (false, false) => Some(Credentials::Basic { username, password }),
    }
}

fn text(secret: &Value, key: &str) -> String {
    let decoded = STANDARD.decode(json::text(secret, &["data", key])).unwrap_or_default();
    String::from_utf8(decoded).unwrap_or_default().trim().to_owned()
}
