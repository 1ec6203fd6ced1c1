//! A wall clock that jumps: `chaos/shim/clock.c`, preloaded into the program under test and set through a mapped file.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The clock of any number of programs.
#[derive(Debug, Clone)]
pub struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    /// A clock that goes right until it is set; its offset is kept in a file.
    ///
    /// # Errors
    /// Without a C compiler, or when the file cannot be written.
    pub fn new(offset: &Path) -> Result<Self> {
        fs::write(offset, 0_i64.to_ne_bytes()).with_context(|| format!("write {}", offset.display()))?;
        Ok(Self { library: super::compiled("clock", SOURCE)?, offset: offset.to_path_buf() })
    }

    /// The environment of a program that is to read this clock.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("LD_PRELOAD", self.library.clone().into_os_string()),
            ("WINDLASS_SHIM_CLOCK", self.offset.clone().into_os_string()),
        ]
    }

    /// Sets the clock so many seconds before (negative) or after the right time, at once.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&self, seconds: i64) -> Result<()> {
        // In place: programs have the file mapped.
        let file = OpenOptions::new().write(true).open(&self.offset);
        let file = file.with_context(|| format!("open {}", self.offset.display()))?;
        file.write_all_at(&seconds.to_ne_bytes(), 0).with_context(|| format!("write {}", self.offset.display()))
    }
}

const SOURCE: &str = include_str!("../../shim/clock.c");

#[cfg(test)]
mod tests {
    use std::{process::Command, time::SystemTime};

    use super::*;

    fn shown(clock: &Clock) -> u64 {
        let output = Command::new("date").arg("+%s").envs(clock.environment()).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }

    #[test]
    fn jumps_both_ways() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::new(&folder.path().join("offset")).unwrap();
        let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        for offset in [0, 7_200, -7_200] {
            clock.set(offset).unwrap();
            let (before, seen, after) = (now(), shown(&clock), now());
            let range = before.saturating_add_signed(offset)..=after.saturating_add_signed(offset);
            assert!(range.contains(&seen), "{seen} not in {range:?}");
        }
    }
}
