//! The binaries of this workspace that the tests run: `windlass`, `windlass-hub`,
//! `windlass-agent`.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::tools::workspace_root;

/// A directory that holds binaries built from the sources as they are.
#[derive(Debug, Clone)]
pub struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// Takes the directory named by `WINDLASS_BIN_DIR`, else has cargo build the three
    /// packages (once a test process) into the target directory of this executable.
    pub fn locate() -> Result<Self> {
        static FOUND: OnceLock<Result<Binaries, String>> = OnceLock::new();
        FOUND.get_or_init(|| Self::find().map_err(|error| format!("{error:#}"))).clone().map_err(|error| anyhow!(error))
    }

    /// The directory that holds them.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of `windlass`, `windlass-hub` or `windlass-agent`.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        ensure!(path.is_file(), "{name} is not in {}", self.dir.display());
        Ok(path)
    }

    fn find() -> Result<Self> {
        if let Some(dir) = env::var_os("WINDLASS_BIN_DIR") {
            return Ok(Self { dir: dir.into() });
        }
        // <target>/<profile>/deps/it-<hash>
        let executable = env::current_exe().context("find this executable")?;
        let dir = executable
            .parent()
            .filter(|deps| deps.ends_with("deps"))
            .and_then(Path::parent)
            .context("this executable is not in a target directory: set WINDLASS_BIN_DIR")?;
        let target = dir.parent().context("a profile directory has a parent")?;
        let profile = match dir.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let status = Command::new(cargo)
            .current_dir(workspace_root())
            .args(["build", "--locked", "--profile", profile])
            .args(["-p", "windlass-hub", "-p", "windlass-agent", "-p", "windlass"])
            .arg("--target-dir")
            .arg(target)
            .stdin(Stdio::null())
            .status()
            .context("run cargo")?;
        ensure!(status.success(), "the binaries under test do not build");
        Ok(Self { dir: dir.to_path_buf() })
    }
}
