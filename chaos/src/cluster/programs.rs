//! Where the programs under test are.

use std::{env, path::PathBuf};

use anyhow::{Context as _, Result, ensure};

/// A folder with `windlass-hub` and `windlass-agent`.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// In this folder.
    #[must_use]
    pub const fn within(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// In the folder that `WINDLASS_BIN_DIR` names, else beside this executable.
    ///
    /// # Errors
    /// When the system does not say where this executable is.
    pub fn locate() -> Result<Self> {
        if let Some(folder) = env::var_os("WINDLASS_BIN_DIR") {
            return Ok(Self::within(folder.into()));
        }
        let executable = env::current_exe().context("find this executable")?;
        let folder = executable.parent().context("this executable is in no folder")?;
        Ok(Self::within(folder.to_path_buf()))
    }

    /// The path of a program.
    ///
    /// # Errors
    /// When it is not there.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        ensure!(path.is_file(), "{name} is not in {}: build it, or set WINDLASS_BIN_DIR", self.folder.display());
        Ok(path)
    }
}
