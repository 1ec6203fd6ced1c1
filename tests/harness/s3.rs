//! An S3-compatible server on loopback that checks the signature of every request: versitygw over a directory.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use windlass_chaos::host::{Process, START_DEADLINE, free_port, wait_until};

use crate::tools::workspace_root;

/// Id of the one key that the server knows.
const ACCESS_KEY: &str = "windlass-tests";
/// Its secret.
const SECRET_KEY: &str = "secret of the tests";

/// A running server. Dropping it ends it; what is stored stays in its directory.
#[derive(Debug)]
pub struct S3Server {
    process: Process,
    root: PathBuf,
    url: String,
}

impl S3Server {
    /// Starts one over `folder`, in which each directory of `buckets/` is a bucket; there is one, named `backups`.
    ///
    /// # Errors
    /// When it cannot be built, or does not start.
    pub async fn start(folder: &Path) -> Result<Self> {
        let (root, meta) = (folder.join("buckets"), folder.join("meta"));
        std::fs::create_dir_all(root.join("backups")).context("make the bucket")?;
        std::fs::create_dir_all(&meta).context("make the server's directory")?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut command = Command::new(program()?);
        command.args(["--quiet", "--access", ACCESS_KEY, "--secret", SECRET_KEY, "--port", &address, "posix"]);
        // Not every temporary directory knows extended attributes.
        command.arg("--sidecar").arg(meta).arg(&root).current_dir(folder);
        let process = Process::start("versitygw", folder, command)?.into_peer();
        let mut server = Self { process, root, url: format!("http://{address}") };
        server.ready().await?;
        Ok(server)
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Id and secret of its key.
    #[must_use]
    pub const fn keys(&self) -> (&'static str, &'static str) {
        (ACCESS_KEY, SECRET_KEY)
    }

    /// Where the objects of a bucket lie as files.
    #[must_use]
    pub fn bucket(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again at the same address.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.restart()?;
        self.ready().await
    }

    async fn ready(&mut self) -> Result<()> {
        windlass_transport::install_crypto_provider();
        let (client, url) = (reqwest::Client::new(), self.url.clone());
        wait_until(START_DEADLINE, "the S3 server", async || {
            self.process.ensure_running()?;
            // Any answer is one: a request without a signature is refused.
            let answer = client.get(&url).send().await?;
            ensure!(answer.status().as_u16() == 403, "it takes requests without a signature: {}", answer.status());
            Ok(Some(()))
        })
        .await
    }
}

/// The server's program: in `WINDLASS_TOOLS_BIN`, or built once by `tests/tools/s3/build`.
fn program() -> Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let find = || -> Result<PathBuf> {
        let given = std::env::var_os("WINDLASS_TOOLS_BIN").map(|folder| Path::new(&folder).join("versitygw"));
        if let Some(program) = given.filter(|program| program.is_file()) {
            return Ok(program);
        }
        let script = workspace_root().join("tests/tools/s3/build");
        let mut command = Command::new(&script);
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = output.with_context(|| format!("run {}", script.display()))?;
        ensure!(
            output.status.success(),
            "tests/tools/s3/build failed ({}): it needs bash, Go and, the first time, the Go module proxy",
            output.status
        );
        let printed = String::from_utf8(output.stdout).context("tests/tools/s3/build")?;
        let folder = printed.lines().last().context("tests/tools/s3/build printed no directory")?;
        Ok(Path::new(folder).join("versitygw"))
    };
    FOUND.get_or_init(|| find().map_err(|error| format!("{error:#}"))).clone().map_err(|error| anyhow!(error))
}
