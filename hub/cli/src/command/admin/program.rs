//! Finds `windlass-hub` and becomes it.

use std::{
    env,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::anyhow;

use crate::failure::Failure;

const PROGRAM: &str = "windlass-hub";

/// Replaces this process by `windlass-hub` with these words: output, exit code and signals are that program's own. Comes back
/// only with the reason why it could not.
pub(super) fn become_hub(words: &[String]) -> anyhow::Error {
    let beside = env::current_exe().ok().and_then(|path| Some(path.parent()?.to_owned()));
    let path = env::var_os("PATH").unwrap_or_default();
    let Some(program) = find(beside.as_deref(), env::split_paths(&path)) else {
        return Failure::new(format!(
            "this needs the program {PROGRAM}, which is neither beside {} nor in PATH: run it where a hub is installed, or install that program here",
            beside.unwrap_or_default().join("windlass").display()
        ))
        .into();
    };
    let error = Command::new(&program).args(words).exec();
    anyhow!("cannot run {}: {error}", program.display())
}

fn find(beside: Option<&Path>, path: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    beside.map(Path::to_owned).into_iter().chain(path).map(|folder| folder.join(PROGRAM)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_beside_goes_before_path() {
        let (beside, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = || std::iter::once(other.path().to_owned());
        assert_eq!(find(Some(beside.path()), path()), None);
        std::fs::write(other.path().join(PROGRAM), "").unwrap();
        assert_eq!(find(Some(beside.path()), path()), Some(other.path().join(PROGRAM)));
        std::fs::write(beside.path().join(PROGRAM), "").unwrap();
        assert_eq!(find(Some(beside.path()), path()), Some(beside.path().join(PROGRAM)));
    }
}
