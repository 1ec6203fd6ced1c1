//! A temporary directory of one test or one peer; gone when dropped, unless the
//! environment asks to keep it (`WINDLASS_KEEP=1`).

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

/// A directory that its owner may fill as it likes.
#[derive(Debug)]
pub struct Workdir {
    dir: TempDir,
}

impl Workdir {
    /// Makes an empty directory whose name holds `name`.
    pub fn new(name: &str) -> Result<Self> {
        let mut dir = tempfile::Builder::new()
            .prefix(&format!("windlass-{name}-"))
            .tempdir()
            .context("make a temporary directory")?;
        dir.disable_cleanup(env::var_os("WINDLASS_KEEP").is_some());
        Ok(Self { dir })
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The path of an entry, which need not exist.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, with the directories above it, and returns its path.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}
