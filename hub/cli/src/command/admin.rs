//! `windlass admin`: backups of the hub, and a new group from one.
//!
//! A backup is fetched through the API like anything else. What needs the operator key (a restore, and a look inside of a
//! backup) is done by the program that has it, `windlass-hub`: this one only finds and runs it.

mod backup;
mod program;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::{args::Global, output::Output};

/// Commands for whoever answers for the hub.
#[derive(Debug, Subcommand)]
pub(crate) enum Admin {
    /// Write a backup of the hub, encrypted with its operator key, to a file
    Backup(backup::Backup),
    /// Make the first node of a new group out of a backup: runs `windlass-hub restore` with the same flags
    Restore(Restore),
}

/// Options of `admin restore`.
#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// The backup: a file, - for standard input, or s3://BUCKET/PREFIX/NAME
    #[arg(value_name = "BACKUP")]
    backup: String,
    /// Flags of `windlass-hub restore`, such as --data DIR --operator-key-file FILE --advertise HOST:PORT --new-admin-token
    #[arg(value_name = "FLAG", trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    flags: Vec<String>,
}

/// Runs a command for administrators.
pub(crate) async fn run(global: &Global, command: Admin, output: &mut Output) -> Result<()> {
    match command {
        Admin::Backup(options) => backup::run(global, options, output).await,
        Admin::Restore(options) => {
            let mut words = vec!["restore".to_owned(), "--backup".to_owned(), options.backup];
            words.extend(options.flags);
            Err(program::become_hub(&words))
        }
    }
}
