//! The invariants of the code base that no compiler checks, as tests: who may depend on
//! whom, where a dependency may be named, licences, sizes, and what lies where.
//!
//! Each rule is a pure function over names and texts with a test of its own that plants a
//! violation; the tests here apply the rules to the project as it is.

mod doors;
mod layers;
mod layout;
mod licences;
mod shared;
mod source;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use windlass_tests::workspace_root;

use self::source::SourceFile;

#[test]
fn crates_depend_only_downwards() -> Result<()> {
    report(layers::check(&layers::members(metadata()?)?))
}

#[test]
fn pure_crates_reach_no_world() -> Result<()> {
    report(doors::check_purity(&sources()?))
}

#[test]
fn dependencies_are_named_behind_their_door() -> Result<()> {
    report(doors::check_doors(&sources()?))
}

#[test]
fn licences_are_on_the_list_and_banned_crates_absent() -> Result<()> {
    let packages = licences::packages(metadata()?)?;
    ensure!(packages.len() > 100, "the resolved graph has only {} packages", packages.len());
    report(licences::check(&packages))?;
    let deny = fs::read_to_string(workspace_root().join(".deny.toml")).context("read .deny.toml")?;
    report(licences::check_deny_file(&deny))
}

#[test]
fn files_say_what_they_are_for_and_stay_short() -> Result<()> {
    report(layout::check_files(&sources()?))
}

#[test]
fn the_top_level_is_as_fixed() -> Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(workspace_root())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    report(layout::check_top_level(&names))
}

#[test]
fn nothing_is_copied_from_the_shared_examples() -> Result<()> {
    let root = workspace_root();
    for name in ["showcase", "conformance"] {
        let originals = root.join("../shared").join(name);
        if !originals.is_dir() {
            eprintln!("skipped: ../shared/{name} is absent, so nothing can be compared with it");
            continue;
        }
        report(shared::check(&contents(&root)?, &contents(&originals)?))?;
    }
    Ok(())
}

/// One test failure for all violations, each on its line.
fn report(violations: Vec<String>) -> Result<()> {
    ensure!(violations.is_empty(), "\n{}", violations.join("\n"));
    Ok(())
}

/// Every Rust file of the project.
fn sources() -> Result<Vec<SourceFile>> {
    let root = workspace_root();
    let mut sources = Vec::new();
    for path in walk(&root)? {
        if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(root.join(&path)).with_context(|| format!("read {}", path.display()))?;
            sources.push(SourceFile::new(&path.to_string_lossy(), text));
        }
    }
    ensure!(!sources.is_empty(), "no source below {}", root.display());
    Ok(sources)
}

/// Every file below a directory, with its content.
fn contents(root: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for path in walk(root)? {
        let content = fs::read(root.join(&path)).with_context(|| format!("read {}", path.display()))?;
        files.push((path.to_string_lossy().into_owned(), content));
    }
    Ok(files)
}

/// The files below `root`, relative to it, in order; without build output and the
/// repository's own files.
fn walk(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if entry.file_name() != "target" && entry.file_name() != ".git" {
                    open.push(entry.path());
                }
            } else if kind.is_file() {
                files.push(entry.path().strip_prefix(root)?.to_path_buf());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// What cargo knows about the workspace, with every feature on; nothing is downloaded.
fn metadata() -> Result<&'static Value> {
    static METADATA: OnceLock<Result<Value, String>> = OnceLock::new();
    METADATA
        .get_or_init(|| read_metadata().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow::anyhow!("{error}"))
}

fn read_metadata() -> Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(workspace_root())
        .args(["metadata", "--format-version=1", "--all-features", "--locked", "--offline"])
        .output()
        .context("run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("read the output of cargo metadata")
}
