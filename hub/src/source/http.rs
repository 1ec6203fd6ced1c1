//! The HTTP under gix's protocol code: our own client, so that every read is bounded by a [`Guard`] and credentials go
//! only to the server they belong to. gix's own backend can neither cut a slow server nor keep a secret out of its URL.
//!
//! Redirects are followed for the first request only, at most five, never from https to http, and only where the end of
//! the path stays the same, as git does.

use std::{
    any::Any,
    io::{self, BufRead, Read, Write},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::{Buf, Bytes};
use gix::protocol::transport::client::blocking_io::http::{GetResponse, Http, PostBodyDataKind, PostResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use reqwest::Url;

use super::{SourceError, guard::Guard, repository::Credentials};

/// One connection pool for all repositories; built at first use.
#[derive(Debug, Default)]
pub(super) struct Client(OnceLock<reqwest::Client>);

impl Client {
    fn get(&self, label: &str) -> Result<reqwest::Client, SourceError> {
        if let Some(client) = self.0.get() {
            return Ok(client.clone());
        }
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(20))
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(4)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| SourceError::Unreachable {
                repository: label.to_owned(),
                reason: format!("no HTTP client: {}", describe(&error)),
            })?;
        Ok(self.0.get_or_init(|| client).clone())
    }

    /// A transport's HTTP side for one operation on the repository at `origin`.
    pub(super) fn session(
        &self,
        origin: &Url,
        credentials: Option<&Credentials>,
        guard: &Guard,
    ) -> Result<GitHttp, SourceError> {
        Ok(GitHttp {
            client: self.get(guard.label())?,
            guard: guard.clone(),
            session: Arc::new(Mutex::new(Session {
                origin: origin.clone(),
                authorizations: credentials.map(Credentials::authorizations).unwrap_or_default(),
                attempt: 0,
                subject: credentials.map(Credentials::subject),
                redirected: None,
            })),
        })
    }
}

/// Implements gix's `Http`; requests are sent when their response is first read.
#[derive(Debug)]
pub(super) struct GitHttp {
    client: reqwest::Client,
    guard: Guard,
    session: Arc<Mutex<Session>>,
}

/// What one request teaches the next.
struct Session {
    origin: Url,
    authorizations: Vec<String>,
    attempt: usize,
    subject: Option<String>,
    redirected: Option<String>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("origin", &self.origin.as_str()).finish_non_exhaustive()
    }
}

impl Session {
    /// The `Authorization` for `url`: nothing for another server, and nothing in clear that was given for https.
    fn authorization(&self, url: &Url) -> Option<&str> {
        let same_host = url.host_str() == self.origin.host_str();
        let same_origin =
            url.scheme() == self.origin.scheme() && url.port_or_known_default() == self.origin.port_or_known_default();
        let upgraded = self.origin.scheme() == "http"
            && url.scheme() == "https"
            && self.origin.port().is_none()
            && url.port().is_none();
        (same_host && (same_origin || upgraded))
            .then(|| self.authorizations.get(self.attempt).map(String::as_str))
            .flatten()
    }
}

/// One request and its response.
struct Exchange {
    client: reqwest::Client,
    guard: Guard,
    session: Arc<Mutex<Session>>,
    method: Method,
    url: String,
    /// The part of `url` after the repository's base.
    tail: String,
    headers: HeaderMap,
    body: Vec<u8>,
    state: State,
}

enum State {
    Prepared,
    Received(reqwest::Response),
    Ended,
}

impl Exchange {
    const MAX_REDIRECTS: usize = 5;
    /// Wants and haves of one negotiation round; honest ones are far smaller.
    const MAX_REQUEST: usize = 64 << 20;

    /// Sends the request once; gives the response's headers as `name: value` lines.
    fn send(&mut self) -> Result<Vec<u8>, SourceError> {
        if !matches!(self.state, State::Prepared) {
            return Ok(Vec::new());
        }
        self.state = State::Ended;
        let response = self.execute()?;
        let mut lines = Vec::new();
        for (name, value) in response.headers() {
            lines.extend_from_slice(name.as_str().as_bytes());
            lines.extend_from_slice(b": ");
            lines.extend_from_slice(value.as_bytes());
            lines.push(b'\n');
        }
        self.state = State::Received(response);
        Ok(lines)
    }

    fn execute(&mut self) -> Result<reqwest::Response, SourceError> {
        let mut url = self.parse_url(&self.url)?;
        let body = Bytes::from(std::mem::take(&mut self.body));
        let mut redirects = 0;
        loop {
            let response = self.attempt(&url, body.clone())?;
            let status = response.status();
            if status.is_success() {
                if redirects > 0 {
                    let base = url.as_str().strip_suffix(&self.tail).map(str::to_owned);
                    self.session().redirected = base;
                }
                return Ok(response);
            }
            let redirected = status.is_redirection() && self.method == Method::GET && redirects < Self::MAX_REDIRECTS;
            if redirected {
                redirects += 1;
                url = self.redirect(&url, &response)?;
            } else if status == StatusCode::UNAUTHORIZED && self.next_authorization() {
                tracing::debug!(repository = self.guard.label(), "trying the next form of the credentials");
            } else {
                return Err(self.guard.fail(self.refusal(status)));
            }
        }
    }

    fn attempt(&self, url: &Url, body: Bytes) -> Result<reqwest::Response, SourceError> {
        let mut request = self.client.request(self.method.clone(), url.clone()).headers(self.headers.clone());
        if let Some(value) = self.session().authorization(url) {
            let mut value = HeaderValue::from_str(value).map_err(|_| {
                self.guard.fail(SourceError::Unauthorized {
                    repository: self.guard.label().to_owned(),
                    reason: "the credentials hold characters that no HTTP header can carry".to_owned(),
                })
            })?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        if self.method == Method::POST {
            request = request.body(body);
        }
        self.guard.wait(request.send())?.map_err(|error| self.unreachable(&error))
    }

    fn redirect(&self, from: &Url, response: &reqwest::Response) -> Result<Url, SourceError> {
        let refuse = |reason: &str| {
            self.guard
                .fail(SourceError::Protocol { repository: self.guard.label().to_owned(), reason: reason.to_owned() })
        };
        let target = response
            .headers()
            .get(header::LOCATION)
            .and_then(|location| location.to_str().ok())
            .and_then(|location| from.join(location).ok())
            .ok_or_else(|| refuse("the server redirects to nowhere"))?;
        if !matches!(target.scheme(), "http" | "https") || (from.scheme() == "https" && target.scheme() == "http") {
            return Err(refuse("the server redirects to an insecure address"));
        }
        if !target.username().is_empty() || target.password().is_some() || !target.as_str().ends_with(&self.tail) {
            return Err(refuse("the server redirects to something that is not a Git repository"));
        }
        Ok(target)
    }

    fn next_authorization(&self) -> bool {
        let mut session = self.session();
        let more = self.method == Method::GET && session.attempt + 1 < session.authorizations.len();
        if more {
            session.attempt += 1;
        }
        more
    }

    fn refusal(&self, status: StatusCode) -> SourceError {
        let repository = self.guard.label().to_owned();
        let subject = self.session().subject.clone();
        match status {
            StatusCode::UNAUTHORIZED => SourceError::Unauthorized {
                repository,
                reason: match subject {
                    Some(subject) => format!("the server refuses the credentials of {subject}"),
                    None => "the server asks for credentials and none are configured; some servers say the same of a repository that does not exist".to_owned(),
                },
            },
            StatusCode::FORBIDDEN => SourceError::Unauthorized {
                repository,
                reason: match subject {
                    Some(subject) => format!("the server forbids {subject} to read it (403)"),
                    None => "the server forbids reading it without credentials (403)".to_owned(),
                },
            },
            StatusCode::NOT_FOUND | StatusCode::GONE => SourceError::NotFound { repository },
            other => SourceError::Unreachable { repository, reason: format!("the server answered {other}") },
        }
    }

    /// The next piece of the response's body; empty at its end.
    fn read(&mut self) -> Result<Bytes, SourceError> {
        let State::Received(response) = &mut self.state else {
            return Ok(Bytes::new());
        };
        let chunk = self.guard.wait(response.chunk())?;
        match chunk {
            Ok(Some(chunk)) => {
                self.guard.received(chunk.len())?;
                Ok(chunk)
            }
            Ok(None) => {
                self.state = State::Ended;
                Ok(Bytes::new())
            }
            Err(error) => Err(self.unreachable(&error)),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> SourceError {
        self.guard.fail(SourceError::Unreachable { repository: self.guard.label().to_owned(), reason: describe(error) })
    }

    fn parse_url(&self, url: &str) -> Result<Url, SourceError> {
        Url::parse(url).map_err(|error| {
            self.guard.fail(SourceError::Url { repository: self.guard.label().to_owned(), reason: error.to_string() })
        })
    }

    fn session(&self) -> std::sync::MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GitHttp {
    fn prepare<H: AsRef<str>>(
        &self,
        method: Method,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = H>,
    ) -> Arc<Mutex<Exchange>> {
        let mut map = HeaderMap::new();
        for line in headers {
            let Some((name, value)) = line.as_ref().split_once(':') else {
                continue;
            };
            let name = HeaderName::try_from(name.trim());
            let value = HeaderValue::try_from(value.trim());
            if let (Ok(name), Ok(value)) = (name, value) {
                map.append(name, value);
            }
        }
        Arc::new(Mutex::new(Exchange {
            client: self.client.clone(),
            guard: self.guard.clone(),
            session: Arc::clone(&self.session),
            method,
            url: url.to_owned(),
            tail: url.strip_prefix(base_url).unwrap_or(url).to_owned(),
            headers: map,
            body: Vec::new(),
            state: State::Prepared,
        }))
    }
}

impl Http for GitHttp {
    type Headers = HeaderLines;
    type ResponseBody = Body;
    type PostBody = RequestBody;

    fn get(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> gix::Result<GetResponse<HeaderLines, Body>> {
        let exchange = self.prepare(Method::GET, url, base_url, headers);
        Ok(GetResponse { headers: HeaderLines::new(&exchange), body: Body::new(&exchange) })
    }

    fn post(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        _body: PostBodyDataKind,
    ) -> gix::Result<PostResponse<HeaderLines, Body, RequestBody>> {
        let exchange = self.prepare(Method::POST, url, base_url, headers);
        Ok(PostResponse {
            headers: HeaderLines::new(&exchange),
            body: Body::new(&exchange),
            post_body: RequestBody(exchange),
        })
    }

    fn configure(&mut self, _config: &dyn Any) -> gix::Result {
        Ok(())
    }

    fn redirected_base_url(&self) -> Option<String> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).redirected.clone()
    }
}

/// The response's headers, line by line.
pub(super) struct HeaderLines {
    exchange: Arc<Mutex<Exchange>>,
    lines: Option<io::Cursor<Vec<u8>>>,
}

impl HeaderLines {
    fn new(exchange: &Arc<Mutex<Exchange>>) -> Self {
        Self { exchange: Arc::clone(exchange), lines: None }
    }

    fn lines(&mut self) -> io::Result<&mut io::Cursor<Vec<u8>>> {
        if self.lines.is_none() {
            let lines = lock(&self.exchange).send().map_err(to_io)?;
            self.lines = Some(io::Cursor::new(lines));
        }
        Ok(self.lines.get_or_insert_default())
    }
}

impl Read for HeaderLines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.lines()?.read(buffer)
    }
}

impl BufRead for HeaderLines {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.lines()?.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        if let Some(lines) = &mut self.lines {
            lines.consume(amount);
        }
    }
}

/// The response's body.
pub(super) struct Body {
    exchange: Arc<Mutex<Exchange>>,
    buffer: Bytes,
}

impl Body {
    fn new(exchange: &Arc<Mutex<Exchange>>) -> Self {
        Self { exchange: Arc::clone(exchange), buffer: Bytes::new() }
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut available = self.fill_buf()?;
        let read = available.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Body {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.buffer.is_empty() {
            let mut exchange = lock(&self.exchange);
            exchange.send().map_err(to_io)?;
            self.buffer = exchange.read().map_err(to_io)?;
        }
        Ok(&self.buffer)
    }

    fn consume(&mut self, amount: usize) {
        self.buffer.advance(amount.min(self.buffer.len()));
    }
}

/// The request's body, kept until the response is asked for.
pub(super) struct RequestBody(Arc<Mutex<Exchange>>);

impl Write for RequestBody {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut exchange = lock(&self.0);
        if exchange.body.len() + bytes.len() > Exchange::MAX_REQUEST {
            return Err(io::Error::other("the request exceeds 64 MiB"));
        }
        exchange.body.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock(exchange: &Mutex<Exchange>) -> std::sync::MutexGuard<'_, Exchange> {
    exchange.lock().unwrap_or_else(PoisonError::into_inner)
}

fn to_io(error: SourceError) -> io::Error {
    io::Error::other(error)
}

/// The innermost causes, without the URL: reqwest's own text says only "error sending request".
fn describe(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source.filter(|_| causes.len() < 8) {
        let text = cause.to_string();
        // Wrappers often repeat what they wrap.
        if !causes.iter().any(|known: &String| known.contains(&text)) {
            causes.push(text);
        }
        source = cause.source();
    }
    if causes.is_empty() {
        return if error.is_timeout() { "timed out" } else { "the connection failed" }.to_owned();
    }
    causes.join(": ")
}
