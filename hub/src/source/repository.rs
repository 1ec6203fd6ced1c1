//! A repository's URL and credentials. Parsing takes the credentials out of the URL, so that no message, file name or
//! log line can carry them.

use std::{fmt, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::SourceError;

/// What a server asks for. `Debug` never shows a secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// HTTP basic authentication. GitHub, GitLab and Gitea take a token as the password.
    Basic { username: String, password: String },
    /// A token, sent as `Bearer` and, if the server refuses that, as the password of `x-access-token`.
    Token(String),
}

/// A Git repository as an Application names it.
#[derive(Clone, PartialEq, Eq)]
pub struct Repository {
    /// `https://`, `http://`, `file://` or an absolute path. May hold `user:password@`, which counts as
    /// [`Credentials::Basic`] unless `credentials` is set.
    pub url: String,
    /// Sent only to the server that the URL names.
    pub credentials: Option<Credentials>,
}

impl Repository {
    /// A repository that needs no credentials.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), credentials: None }
    }

    /// The same repository with credentials.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    pub(super) fn parse(&self) -> Result<Remote, SourceError> {
        Remote::parse(self)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository").field("url", &redact(&self.url)).field("credentials", &self.credentials).finish()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { username, .. } => write!(f, "Basic {{ username: {username:?}, password: *** }}"),
            Self::Token(_) => f.write_str("Token(***)"),
        }
    }
}

impl Credentials {
    /// The `Authorization` values to try, in order.
    pub(super) fn authorizations(&self) -> Vec<String> {
        let basic = |user: &str, password: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        match self {
            Self::Basic { username, password } => vec![basic(username, password)],
            Self::Token(token) => vec![format!("Bearer {token}"), basic("x-access-token", token)],
        }
    }

    /// Who the credentials speak for, for messages.
    pub(super) fn subject(&self) -> String {
        match self {
            Self::Basic { username, .. } => format!("user {username:?}"),
            Self::Token(_) => "the token".to_owned(),
        }
    }
}

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A directory of this machine.
    Local(PathBuf),
    /// A server; the URL carries no credentials.
    Http(reqwest::Url),
}

/// A parsed repository: place and credentials apart.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    pub(super) place: Place,
    pub(super) credentials: Option<Credentials>,
    /// The URL for messages and for naming the mirror.
    pub(super) label: String,
}

/// Tells apart the credentials of two tenants that name one URL, without keeping them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fingerprint([u8; 32]);

impl Remote {
    /// Longest URL accepted; servers and proxies refuse longer ones.
    const MAX_URL: usize = 4096;

    fn parse(repository: &Repository) -> Result<Self, SourceError> {
        let url = repository.url.trim();
        let refuse = |reason: &str| SourceError::Url { repository: redact(url), reason: reason.to_owned() };
        if url.is_empty() {
            return Err(refuse("the URL is empty"));
        }
        if url.len() > Self::MAX_URL || url.chars().any(char::is_control) {
            return Err(refuse("the URL is too long or holds control characters"));
        }
        if url.starts_with('/') {
            return Self::local(url, PathBuf::from(url), refuse);
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            // `git@host:path`, the short form of ssh.
            return Err(match url.split_once(':') {
                Some((host, _)) if !host.contains('/') => {
                    refuse("ssh is not supported yet; use https:// with a user name and password or a token")
                }
                _ => refuse("it is neither a URL nor an absolute path"),
            });
        };
        match scheme.to_ascii_lowercase().as_str() {
            "file" => {
                let path = rest.strip_prefix("localhost").unwrap_or(rest);
                Self::local(url, PathBuf::from(percent_decode(path)), refuse)
            }
            "http" | "https" => Self::http(url, repository.credentials.clone(), refuse),
            "ssh" | "git+ssh" => {
                Err(refuse("ssh is not supported yet; use https:// with a user name and password or a token"))
            }
            other => Err(refuse(&format!(
                "the scheme {other:?} is not supported; use https://, http://, file:// or an absolute path"
            ))),
        }
    }

    fn local(url: &str, path: PathBuf, refuse: impl Fn(&str) -> SourceError) -> Result<Self, SourceError> {
        if !path.is_absolute() {
            return Err(refuse("the path of a local repository must be absolute"));
        }
        Ok(Self { place: Place::Local(path), credentials: None, label: redact(url) })
    }

    fn http(
        url: &str,
        credentials: Option<Credentials>,
        refuse: impl Fn(&str) -> SourceError,
    ) -> Result<Self, SourceError> {
        let mut parsed = reqwest::Url::parse(url).map_err(|error| refuse(&error.to_string()))?;
        if parsed.host_str().is_none_or(str::is_empty) {
            return Err(refuse("the URL names no host"));
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(refuse("the URL of a repository has no query and no fragment"));
        }
        let embedded = match (parsed.username(), parsed.password()) {
            ("", None) => None,
            (token, None) => Some(Credentials::Token(percent_decode(token))),
            (username, Some(password)) => {
                Some(Credentials::Basic { username: percent_decode(username), password: percent_decode(password) })
            }
        };
        parsed
            .set_username("")
            .and_then(|()| parsed.set_password(None))
            .map_err(|()| refuse("the URL names no host"))?;
        let label = parsed.as_str().trim_end_matches('/').to_owned();
        Ok(Self { place: Place::Http(parsed), credentials: credentials.or(embedded), label })
    }

    /// The mirror's directory name: one per URL, whatever the credentials.
    pub(super) fn directory(&self) -> String {
        blake3::hash(self.label.as_bytes()).to_hex().chars().take(32).collect()
    }

    /// Identifies the credentials in memory; never stored.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let mut hasher = blake3::Hasher::new();
        for part in self.credentials.iter().flat_map(Credentials::authorizations) {
            hasher.update(part.as_bytes());
            hasher.update(&[0]);
        }
        Fingerprint(*hasher.finalize().as_bytes())
    }
}

/// The form in which two spellings of one repository are equal: no scheme, user, port 22/80/443, `.git` or trailing
/// slash; the host in lower case. As Argo CD matches webhooks, so `git@GitHub.com:a/b.git` equals
/// `https://github.com/a/b`.
pub fn normalize_url(url: &str) -> String {
    let url = url.trim();
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest.to_owned()),
        // `git@host:path` is `ssh://git@host/path`.
        None => match url.split_once(':') {
            Some((host, path)) if !host.contains('/') && !host.is_empty() => {
                ("ssh".to_owned(), format!("{host}/{}", path.trim_start_matches('/')))
            }
            _ => ("file".to_owned(), url.to_owned()),
        },
    };
    let trim = |text: &str| {
        let text = text.trim_end_matches('/');
        text.strip_suffix(".git").unwrap_or(text).trim_end_matches('/').to_owned()
    };
    if scheme == "file" {
        return trim(&percent_decode(&rest));
    }
    let (authority, path) = rest.split_once('/').unwrap_or((&rest, ""));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = host.to_ascii_lowercase();
    let host = [":443", ":80", ":22"].iter().find_map(|port| host.strip_suffix(port)).unwrap_or(&host);
    trim(&format!("{host}/{path}"))
}

/// The URL without what stands before `@` in its authority. Works on text that is no valid URL too.
pub(super) fn redact(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    let (head, rest) = url.split_at(start);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    // A password may itself hold a slash in a malformed URL; cut at the last `@` of the whole text then.
    let cut = match rest.get(..end).and_then(|authority| authority.rfind('@')) {
        Some(at) => Some(at),
        None if start > 0 => rest.rfind('@').filter(|at| rest.get(..*at).is_some_and(|text| text.contains(':'))),
        None => None,
    };
    match cut.and_then(|at| rest.get(at + 1..)) {
        Some(rest) => format!("{head}{rest}"),
        None => url.to_owned(),
    }
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        let decoded = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high * 16 + low),
            _ => None,
        };
        out.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { tail.get(2..).unwrap_or(&[]) } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
