//! The binaries of the peers: found, or built by `tests/tools/build`.
//!
//! A missing peer is an error with a sentence that says what to do; a test is never
//! skipped for it, since a skipped end-to-end test looks like a passed one.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, anyhow, ensure};

/// A directory that holds the peers' binaries.
#[derive(Debug, Clone)]
pub struct Tools {
    bin: PathBuf,
}

impl Tools {
    /// Takes the directory named by `WINDLASS_TOOLS_BIN`, else runs `tests/tools/build`,
    /// which builds them once (several minutes) and afterwards only names the directory.
    pub fn locate() -> Result<Self> {
        static FOUND: OnceLock<Result<Tools, String>> = OnceLock::new();
        FOUND.get_or_init(|| Self::find().map_err(|error| format!("{error:#}"))).clone().map_err(|error| anyhow!(error))
    }

    /// The path of a peer: `kube-apiserver`, `kube-controller-manager`, `kubectl`, `etcd`,
    /// `kwok`, `kustomize` or `githttp`.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        let path = self.bin.join(name);
        ensure!(
            path.is_file(),
            "{name} is not in {}: run tests/tools/build, or unset WINDLASS_TOOLS_BIN",
            self.bin.display()
        );
        Ok(path)
    }

    /// The directory, to be put on a `PATH`.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    fn find() -> Result<Self> {
        if let Some(bin) = env::var_os("WINDLASS_TOOLS_BIN") {
            let bin = fs::canonicalize(&bin).with_context(|| format!("WINDLASS_TOOLS_BIN names {}", bin.display()))?;
            return Ok(Self { bin });
        }
        let script = workspace_root().join("tests/tools/build");
        // What the script says about a build of minutes goes to the terminal.
        let output = Command::new(&script)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("run {}", script.display()))?;
        ensure!(
            output.status.success(),
            "the end-to-end tests need their peers, and tests/tools/build failed ({}): \
             it needs bash, Go and, the first time, the Go module proxy",
            output.status
        );
        let stdout = String::from_utf8(output.stdout).context("tests/tools/build")?;
        let bin = stdout.lines().last().context("tests/tools/build printed no directory")?;
        Ok(Self { bin: bin.into() })
    }
}

/// The root of the checkout.
#[must_use]
pub fn workspace_root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_path_buf()
}
