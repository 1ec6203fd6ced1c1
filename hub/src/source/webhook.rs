//! GitHub push webhooks: signature, event, and which repositories they speak of. Pure functions; the HTTP route that
//! feeds them lives in the API. A webhook only makes a poll immediate: nothing it says is believed further.

use ring::hmac;
use serde::Deserialize;

use super::CommitId;

/// GitHub sends at most 25 MiB.
pub const MAX_BODY_BYTES: usize = 25 << 20;

/// Header with the signature of the body.
pub const SIGNATURE_HEADER: &str = "X-Hub-Signature-256";

/// Header with the name of the event.
pub const EVENT_HEADER: &str = "X-GitHub-Event";

/// Why a webhook is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// No secret is configured: everyone could make the hub poll.
    #[error("no webhook secret is configured")]
    NoSecret,
    #[error("header X-Hub-Signature-256 is missing or is not sha256=<64 hex digits>")]
    MalformedSignature,
    #[error("the signature does not belong to this body and secret")]
    WrongSignature,
    #[error("the body has more than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("event {0:?} is not handled; send push events")]
    Event(String),
    #[error("the push event cannot be read: {0}")]
    Body(String),
}

/// What an event asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The webhook was just created; answer 200.
    Ping,
    /// Something was pushed.
    Push(PushHint),
}

/// A push: pass each URL and the reference to [`Sources::refresh`](super::Sources::refresh).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushHint {
    /// Every spelling of the repository's URL in the event, at most four.
    pub urls: Vec<String>,
    /// Full name, such as `refs/heads/main`.
    pub reference: String,
    /// The new commit; `None` when the reference was deleted.
    pub commit: Option<CommitId>,
}

/// Checks `X-Hub-Signature-256` over the whole body in constant time.
pub fn verify_signature(secret: &[u8], header: Option<&str>, body: &[u8]) -> Result<(), WebhookError> {
    if secret.is_empty() {
        return Err(WebhookError::NoSecret);
    }
    if body.len() > MAX_BODY_BYTES {
        return Err(WebhookError::TooLarge { limit: MAX_BODY_BYTES });
    }
    let tag = header
        .and_then(|header| header.trim().strip_prefix("sha256="))
        .and_then(decode_hex)
        .ok_or(WebhookError::MalformedSignature)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::verify(&key, body, &tag).map_err(|_| WebhookError::WrongSignature)
}

/// Reads the event named by `X-GitHub-Event`. Verify the signature first.
pub fn parse_event(event: &str, body: &[u8]) -> Result<Event, WebhookError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(WebhookError::TooLarge { limit: MAX_BODY_BYTES });
    }
    match event {
        "ping" => Ok(Event::Ping),
        "push" => parse_push(body).map(Event::Push),
        other => Err(WebhookError::Event(other.chars().take(64).collect())),
    }
}

#[derive(Deserialize)]
struct PushBody {
    #[serde(rename = "ref")]
    reference: String,
    #[serde(default)]
    after: Option<String>,
    repository: RepositoryBody,
}

#[derive(Deserialize)]
struct RepositoryBody {
    #[serde(default)]
    clone_url: Option<String>,
    #[serde(default)]
    html_url: Option<String>,
    #[serde(default)]
    ssh_url: Option<String>,
    #[serde(default)]
    git_url: Option<String>,
}

fn parse_push(body: &[u8]) -> Result<PushHint, WebhookError> {
    let body: PushBody = serde_json::from_slice(body).map_err(|error| WebhookError::Body(error.to_string()))?;
    if body.reference.is_empty() || body.reference.len() > 1024 {
        return Err(WebhookError::Body("ref is empty or longer than 1024 bytes".to_owned()));
    }
    let repository = body.repository;
    let urls: Vec<String> = [repository.clone_url, repository.html_url, repository.ssh_url, repository.git_url]
        .into_iter()
        .flatten()
        .filter(|url| !url.is_empty() && url.len() <= 4096)
        .collect();
    if urls.is_empty() {
        return Err(WebhookError::Body("repository has no clone_url, html_url or ssh_url".to_owned()));
    }
    let commit = body
        .after
        .as_deref()
        .and_then(CommitId::parse)
        .filter(|commit| commit.as_str().bytes().any(|digit| digit != b'0'));
    Ok(PushHint { urls, reference: body.reference, commit })
}

fn decode_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = value(*high)? * 16 + value(*low)?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::normalize_url;

    /// The example of GitHub's documentation ("Validating webhook deliveries").
    #[test]
    fn the_signature_of_the_documentation_verifies() {
        let secret = b"It's a Secret to Everybody";
        let body = b"Hello, World!";
        let good = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert_eq!(verify_signature(secret, Some(good), body), Ok(()));
        assert_eq!(verify_signature(secret, Some(good), b"Hello, World?"), Err(WebhookError::WrongSignature));
        assert_eq!(verify_signature(b"another secret", Some(good), body), Err(WebhookError::WrongSignature));
        for malformed in [None, Some(""), Some("sha1=75"), Some("sha256=75"), Some(&good[7..])] {
            assert_eq!(verify_signature(secret, malformed, body), Err(WebhookError::MalformedSignature));
        }
        assert_eq!(verify_signature(b"", Some(good), body), Err(WebhookError::NoSecret));
    }

    #[test]
    fn a_push_names_repository_reference_and_commit() {
        let body = br#"{"ref":"refs/heads/main","after":"6113728f27ae82c7b1a177c8d03f9e96e0adf246","extra":[1],
            "repository":{"id":1,"clone_url":"https://github.com/Codertocat/Hello-World.git",
            "html_url":"https://github.com/Codertocat/Hello-World","ssh_url":"git@github.com:Codertocat/Hello-World.git"}}"#;
        let Ok(Event::Push(hint)) = parse_event("push", body) else {
            panic!("a push");
        };
        assert_eq!(hint.reference, "refs/heads/main");
        assert_eq!(hint.commit, CommitId::parse("6113728f27ae82c7b1a177c8d03f9e96e0adf246"));
        let names: Vec<String> = hint.urls.iter().map(|url| normalize_url(url)).collect();
        assert_eq!(names, vec!["github.com/Codertocat/Hello-World"; 3]);
    }

    #[test]
    fn a_deletion_has_no_commit_and_other_events_are_told_apart() {
        let body = br#"{"ref":"refs/heads/x","after":"0000000000000000000000000000000000000000","repository":{"html_url":"https://h/a"}}"#;
        let Ok(Event::Push(hint)) = parse_event("push", body) else {
            panic!("a push");
        };
        assert_eq!(hint.commit, None);
        assert_eq!(parse_event("ping", b"{}"), Ok(Event::Ping));
        assert_eq!(parse_event("issues", b"{}"), Err(WebhookError::Event("issues".to_owned())));
        for broken in [&b"{"[..], b"[]", br#"{"ref":"x","repository":{}}"#, br#"{"ref":1,"repository":{}}"#] {
            assert!(matches!(parse_event("push", broken), Err(WebhookError::Body(_))));
        }
    }
}
