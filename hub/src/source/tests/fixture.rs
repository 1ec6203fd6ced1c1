//! Repositories, a Git server, and sources with short times.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use tokio::sync::watch;

use crate::source::{CommitId, RefState, Repository, SourceConfig, Sources};

/// A repository with a working tree, in a directory that goes with it.
pub(super) struct Work {
    pub(super) dir: tempfile::TempDir,
}

impl Work {
    /// `repo` with one commit on `main` that holds `app.yaml`.
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("repo")).unwrap();
        let work = Self { dir };
        work.git(&["init", "-q", "-b", "main"]);
        work.commit("app.yaml", "one");
        work
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    pub(super) fn local(&self) -> Repository {
        Repository::new(format!("file://{}", self.path().display()))
    }

    /// Runs git without any configuration but the repository's own.
    pub(super) fn git(&self, arguments: &[&str]) -> String {
        git(&self.path(), arguments)
    }

    pub(super) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(super) fn commit(&self, path: &str, content: impl AsRef<[u8]>) -> CommitId {
        self.write(path, content);
        self.commit_all()
    }

    pub(super) fn commit_all(&self) -> CommitId {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", "change"]);
        self.head()
    }

    pub(super) fn head(&self) -> CommitId {
        CommitId::parse(self.git(&["rev-parse", "HEAD"]).trim()).unwrap()
    }
}

fn git(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_AUTHOR_NAME", "tester")
        .env("GIT_AUTHOR_EMAIL", "tester@localhost")
        .env("GIT_COMMITTER_NAME", "tester")
        .env("GIT_COMMITTER_EMAIL", "tester@localhost")
        .output()
        .expect("these tests need the git program");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Sources that poll only when told to.
pub(super) fn config(dir: &Path) -> SourceConfig {
    SourceConfig {
        poll_period: Duration::from_secs(3600),
        retry_delay: Duration::from_secs(3600),
        ..SourceConfig::new(dir)
    }
}

pub(super) fn start() -> (tempfile::TempDir, Sources) {
    let dir = tempfile::tempdir().unwrap();
    let sources = start_in(config(dir.path()));
    (dir, sources)
}

pub(super) fn start_in(config: SourceConfig) -> Sources {
    windlass_transport::install_crypto_provider();
    Sources::start(config)
}

/// Waits for the first state that fits. The bound only turns a hang into a failure.
pub(super) async fn until(receiver: &mut watch::Receiver<RefState>, fits: impl FnMut(&RefState) -> bool) -> RefState {
    tokio::time::timeout(Duration::from_secs(60), receiver.wait_for(fits))
        .await
        .expect("the state arrives")
        .expect("the poller lives")
        .clone()
}

pub(super) async fn checked(receiver: &mut watch::Receiver<RefState>) -> RefState {
    until(receiver, |state| state.checked_at_ms > 0).await
}

/// What the server does with requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Behaviour {
    Serve,
    /// 401 unless `Authorization` is this.
    Demand(String),
    /// One byte every 20 ms of a packet that takes minutes.
    Drip,
    /// The same, but only in answer to a command.
    DripAnswers,
    /// Headers, then nothing.
    Silence,
    Fail(u16),
    RedirectTo(String),
}

pub(super) struct Server {
    state: Arc<ServerState>,
    address: std::net::SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

struct ServerState {
    root: PathBuf,
    behaviour: Mutex<Behaviour>,
    listings: AtomicUsize,
    requests: AtomicUsize,
    authorized: AtomicUsize,
}

impl Server {
    /// Serves every repository below `root`.
    pub(super) async fn start(root: &Path) -> Self {
        let state = Arc::new(ServerState {
            root: root.to_owned(),
            behaviour: Mutex::new(Behaviour::Serve),
            listings: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            authorized: AtomicUsize::new(0),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { state, address, task }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    pub(super) fn repository(&self) -> Repository {
        Repository::new(self.url("repo/.git"))
    }

    pub(super) fn behave(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().unwrap() = behaviour;
    }

    /// Requests for `info/refs`: one per poll.
    pub(super) fn listings(&self) -> usize {
        self.state.listings.load(Ordering::SeqCst)
    }

    pub(super) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Requests that carried `Authorization`.
    pub(super) fn authorized(&self) -> usize {
        self.state.authorized.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(state): State<Arc<ServerState>>, request: Request) -> Response {
    state.requests.fetch_add(1, Ordering::SeqCst);
    if request.uri().path().ends_with("/info/refs") {
        state.listings.fetch_add(1, Ordering::SeqCst);
    }
    let authorization = request.headers().get(header::AUTHORIZATION).cloned();
    if authorization.is_some() {
        state.authorized.fetch_add(1, Ordering::SeqCst);
    }
    let behaviour = state.behaviour.lock().unwrap().clone();
    let advertisement = [(header::CONTENT_TYPE, "application/x-git-upload-pack-advertisement")];
    match behaviour {
        Behaviour::Serve => backend(&state.root, request).await,
        Behaviour::Demand(expected) => {
            if authorization.is_some_and(|value| value == expected.as_str()) {
                return backend(&state.root, request).await;
            }
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"git\"")]).into_response()
        }
        Behaviour::Drip => (advertisement, drip()).into_response(),
        Behaviour::DripAnswers if request.method() == http::Method::POST => {
            let result = [(header::CONTENT_TYPE, "application/x-git-upload-pack-result")];
            (result, drip()).into_response()
        }
        Behaviour::DripAnswers => backend(&state.root, request).await,
        Behaviour::Silence => {
            let nothing = futures::stream::pending::<Result<Bytes, std::convert::Infallible>>();
            (advertisement, Body::from_stream(nothing)).into_response()
        }
        Behaviour::Fail(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Behaviour::RedirectTo(base) => {
            let path = request.uri().path_and_query().unwrap().as_str().to_owned();
            let target = format!("{base}{path}");
            (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, target)]).into_response()
        }
    }
}

/// The length of a packet of 32 KiB, then its content, a byte at a time.
fn drip() -> Body {
    let state = (tokio::time::interval(Duration::from_millis(20)), b"8000".iter());
    let bytes = futures::stream::unfold(state, |(mut ticks, mut length)| async {
        ticks.tick().await;
        let byte = length.next().copied().unwrap_or(b'x');
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(vec![byte])), (ticks, length)))
    });
    Body::from_stream(bytes)
}

/// `git http-backend` as CGI.
async fn backend(root: &Path, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 64 << 20).await.unwrap();
    let text =
        |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let mut child = tokio::process::Command::new("git")
        .arg("http-backend")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("CONTENT_TYPE", text("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("GIT_PROTOCOL", text("git-protocol"))
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("these tests need the git program");
    let mut stdin = child.stdin.take().unwrap();
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        // git may end before it read everything.
        let _ = stdin.write_all(&body).await;
    });
    let output = child.wait_with_output().await.unwrap().stdout;
    let split = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let mut headers = HeaderMap::new();
    let mut status = StatusCode::OK;
    for line in std::str::from_utf8(&output[..split]).unwrap().lines() {
        let (name, value) = line.split_once(':').unwrap();
        if name == "Status" {
            status = StatusCode::from_u16(value.trim()[..3].parse().unwrap()).unwrap();
        } else {
            headers.insert(http::HeaderName::try_from(name).unwrap(), value.trim().parse().unwrap());
        }
    }
    (status, headers, output[split + 4..].to_vec()).into_response()
}
