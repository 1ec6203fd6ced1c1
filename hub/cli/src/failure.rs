//! Exit codes, and how an error is told.
//!
//! 0: done. 1: it failed, or a condition that was waited for did not come. 2: the command line is wrong (clap's own code).
//! 20 is kept for errors of commands whose 1 means "there is a difference".

use std::{
    fmt,
    io::{self, Write as _},
    process::ExitCode,
};

/// A failure with an exit code of its own; every other error ends 1.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Something failed in a way that has been explained: exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { code: FAILED, message: message.into() }
    }

    /// The command line asks for something that cannot be: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The exit code of an error; `None` for a reader that went away, which is no error of ours.
pub(crate) fn code(error: &anyhow::Error) -> Option<u8> {
    let io = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    if io.into_iter().any(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return None;
    }
    Some(error.downcast_ref::<Failure>().map_or(FAILED, |failure| failure.code))
}

/// Tells an error on stderr and gives its exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let Some(code) = code(error) else { return ExitCode::SUCCESS };
    // Nobody is left to be told when stderr is closed.
    let _ = writeln!(io::stderr(), "error: {error:#}");
    ExitCode::from(code)
}

const FAILED: u8 = 1;
const USAGE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_context_and_a_closed_pipe_is_quiet() {
        assert_eq!(code(&anyhow::anyhow!("x")), Some(1));
        assert_eq!(code(&anyhow::Error::new(Failure::usage("x"))), Some(2));
        assert_eq!(code(&anyhow::Error::new(Failure::usage("x")).context("while y")), Some(2));
        let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(code(&anyhow::Error::new(pipe).context("cannot write")), None);
    }
}
