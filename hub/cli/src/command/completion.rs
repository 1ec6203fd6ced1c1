//! `windlass completion`: scripts that complete commands and options in a shell.

use anyhow::Result;
use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::{Shell as Script, generate};

use crate::{args::Arguments, output::Output};

/// Options of `completion`.
#[derive(Args, Debug)]
pub(crate) struct Completion {
    /// Shell to complete in, such as: source <(windlass completion bash)
    #[arg(value_enum)]
    shell: Shell,
}

/// Shells with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script.
pub(crate) fn run(options: &Completion, output: &mut Output) -> Result<()> {
    let script = match options.shell {
        Shell::Bash => Script::Bash,
        Shell::Zsh => Script::Zsh,
        Shell::Fish => Script::Fish,
    };
    let mut bytes = Vec::new();
    generate(script, &mut Arguments::command(), "windlass", &mut bytes);
    output.raw(&String::from_utf8_lossy(&bytes))
}
