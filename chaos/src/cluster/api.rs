//! A hub's API as a client of the tests speaks to it: one request, one [`Answer`]. Never retries, never hides a failure.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Certificate, Client, Method, StatusCode};
use serde_json::Value;

/// How long a client waits for one answer. Longer than an election, shorter than the hub's own limit: a paused hub must not
/// hold a client for long.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);

/// The header that says that a read may be behind.
const READ_HEADER: &str = "windlass-read";

/// The hubs of a group, with what it takes to speak to them. Cheap to clone; a clone has connections of its own.
#[derive(Clone, Debug)]
pub struct Access {
    inner: Arc<Inner>,
}

struct Inner {
    roots: Vec<Certificate>,
    token: String,
    hubs: Vec<String>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the token.
        f.debug_struct("Inner").field("hubs", &self.hubs).finish_non_exhaustive()
    }
}

/// Connections to every hub of a group.
#[derive(Clone, Debug)]
pub struct Api {
    access: Access,
    client: Client,
}

/// How a request ended.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The hub did what was asked; a read says here whether it may be behind.
    Ok {
        /// The body.
        body: Value,
        /// `follower` or `stale`, when the hub says so.
        label: Option<String>,
    },
    /// A definite refusal; nothing was changed.
    Refused {
        /// The status code.
        code: u16,
        /// `reason` of the Kubernetes `Status`.
        reason: String,
        /// `message` of it.
        message: String,
        /// As of [`Self::Ok`]: that there is no such object may be old news, too.
        label: Option<String>,
    },
    /// Certainly not done: the request never arrived, or the hub had no place for it.
    NotDone(String),
    /// No answer, or one that leaves it open.
    Unknown(String),
}

impl Access {
    /// From the administrator's kubeconfig and the addresses (`host:port`) of all hubs.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub fn new(kubeconfig: &str, hubs: Vec<String>) -> Result<Self> {
        windlass_transport::install_crypto_provider();
        let config = windlass_protocol::yaml::value(kubeconfig).context("the kubeconfig is not YAML")?;
        let text = |pointer: &str| config.pointer(pointer).and_then(Value::as_str).context("a kubeconfig without it");
        let authority = text("/clusters/0/cluster/certificate-authority-data").context("certificate authority")?;
        let roots = STANDARD.decode(authority).context("the authority is not base64")?;
        let roots = Certificate::from_pem_bundle(&roots).context("the authority is no certificate")?;
        let token = text("/users/0/user/token").context("token")?.to_owned();
        Ok(Self { inner: Arc::new(Inner { roots, token, hubs }) })
    }

    /// How many hubs there are.
    #[must_use]
    pub fn hubs(&self) -> usize {
        self.inner.hubs.len()
    }

    /// Fresh connections.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn connect(&self) -> Result<Api> {
        let client = Client::builder()
            .tls_certs_only(self.inner.roots.clone())
            .connect_timeout(ANSWER_TIME_MAX)
            .timeout(ANSWER_TIME_MAX)
            .build()
            .context("no HTTP client")?;
        Ok(Api { access: self.clone(), client })
    }
}

impl Api {
    /// How many hubs there are.
    #[must_use]
    pub fn hubs(&self) -> usize {
        self.access.hubs()
    }

    /// One request to the hub at `hub` (counted from 0).
    pub async fn send(&self, hub: usize, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let Some(address) = self.access.inner.hubs.get(hub) else {
            return Answer::NotDone(format!("there is no hub {hub}"));
        };
        let mut request = self.client.request(method, format!("https://{address}{path}"));
        request = request.bearer_auth(&self.access.inner.token);
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body.to_string());
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Answer::NotDone(describe(&error)),
            Err(error) => return Answer::Unknown(describe(&error)),
        };
        let code = response.status();
        let label = response.headers().get(READ_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body: Value = match response.bytes().await {
            // `/readyz` and the like say a word, not an object.
            Ok(bytes) => serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned())),
            // An error that was cut off says what it is by its code.
            Err(error) if code.is_success() => return Answer::Unknown(describe(&error)),
            Err(_) => Value::Null,
        };
        classify(code, body, label)
    }

    /// `GET` that must succeed.
    ///
    /// # Errors
    /// Whatever came instead of the object.
    pub async fn get(&self, hub: usize, path: &str) -> Result<Value> {
        self.send(hub, Method::GET, path, None).await.ok().with_context(|| format!("GET {path} at hub {}", hub + 1))
    }

    /// What a hub says about the group.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self, hub: usize) -> Result<Value> {
        let answer = self.get(hub, "/hub/status").await?;
        Ok(answer.get("status").cloned().unwrap_or_default())
    }

    /// Whether a hub serves and knows a leader.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ready(&self, hub: usize) -> Result<()> {
        self.get(hub, "/readyz").await.map(drop)
    }
}

impl Answer {
    /// The body of an answer that must be good.
    ///
    /// # Errors
    /// What it was instead.
    pub fn ok(self) -> Result<Value> {
        ensure!(matches!(self, Self::Ok { .. }), "{self:?}");
        match self {
            Self::Ok { body, .. } => Ok(body),
            Self::Refused { .. } | Self::NotDone(_) | Self::Unknown(_) => Ok(Value::Null),
        }
    }
}

fn classify(code: StatusCode, body: Value, label: Option<String>) -> Answer {
    let text = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (reason, message) = (text("reason"), text("message"));
    if code.is_success() {
        return Answer::Ok { body, label };
    }
    let said = format!("{code} {reason}: {message}");
    match code {
        // Refused at the door, before anything is proposed.
        StatusCode::TOO_MANY_REQUESTS => Answer::NotDone(said),
        // 503 also stands for a hub that stopped with the command under way.
        _ if code.is_server_error() => Answer::Unknown(said),
        _ => Answer::Refused { code: code.as_u16(), reason, message, label },
    }
}

/// The causes of an error, outermost first.
fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
