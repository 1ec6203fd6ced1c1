//! `windlass render`: `kustomize build` on this machine, by the renderer that the hub uses. No hub is asked.

mod disk;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use windlass_render::{KustomizeFlags, Limits, LoadRestrictions, Reorder, kustomize_build};

use self::disk::Disk;
use crate::{failure::Failure, output::Output};

/// Options of `render`.
#[derive(Args, Debug)]
pub(crate) struct Render {
    /// Directory with a kustomization
    #[arg(default_value = ".", value_name = "DIR")]
    directory: PathBuf,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Where files that a kustomization names may be
    #[arg(long, value_enum, default_value = "LoadRestrictionsRootOnly", value_name = "WHERE")]
    load_restrictor: Restrictor,
    /// Order of the manifests, unless the kustomization has sortOptions
    #[arg(long, value_enum, value_name = "ORDER")]
    reorder: Option<Order>,
    /// Add the label app.kubernetes.io/managed-by
    #[arg(long)]
    enable_managedby_label: bool,
}

/// `--load-restrictor`, in kustomize's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Restrictor {
    /// In or below the directory of the kustomization
    #[value(name = "LoadRestrictionsRootOnly")]
    RootOnly,
    /// Anywhere
    #[value(name = "LoadRestrictionsNone")]
    None,
}

/// `--reorder`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Order {
    /// By kind
    Legacy,
    /// As read
    None,
}

/// Builds and prints.
pub(crate) fn run(options: &Render, output: &mut Output) -> Result<()> {
    let told = || format!("cannot read the directory {}", options.directory.display());
    let directory = fs::canonicalize(&options.directory).with_context(told)?;
    let limits = Limits::default();
    let (disk, start) = Disk::holding(&directory, limits.file);
    let flags = KustomizeFlags {
        load_restrictions: match options.load_restrictor {
            Restrictor::RootOnly => LoadRestrictions::RootOnly,
            Restrictor::None => LoadRestrictions::None,
        },
        reorder: match options.reorder {
            None => Reorder::Unspecified,
            Some(Order::Legacy) => Reorder::Legacy,
            Some(Order::None) => Reorder::None,
        },
        managed_by_label: options.enable_managedby_label,
    };
    let built = kustomize_build(&disk, &start, &flags, &limits).map_err(|error| Failure::new(error.to_string()))?;
    for warning in &built.warnings {
        output.say(format!("Warning: {warning}"));
    }
    match &options.output {
        Some(path) => write(path, &built.to_yaml()),
        None => output.raw(&built.to_yaml()),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
