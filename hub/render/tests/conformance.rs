//! Kustomize's own cases, and the overlays of the showcase, where they are at hand.
//!
//! `conformance-known.txt` lists the cases that are known to fail, with the reason; the test fails when a case joins
//! or leaves that list. The showcase is compared with the program that `WINDLASS_KUSTOMIZE` names; without it the
//! overlays must only build.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use windlass_render::{KustomizeFlags, Limits, LoadRestrictions, MemoryTree, Reorder, kustomize_build};

const KNOWN: &str = include_str!("conformance-known.txt");

fn shared(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(name)
}

fn read_tree(root: &Path) -> MemoryTree {
    fn visit(root: &Path, directory: &Path, tree: &mut MemoryTree) {
        for entry in fs::read_dir(directory).expect("a readable directory") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                visit(root, &path, tree);
            } else {
                let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
                tree.insert(&name, fs::read(&path).expect("a readable file"));
            }
        }
    }
    let mut tree = MemoryTree::default();
    visit(root, root, &mut tree);
    tree
}

/// Runs one case; the error says how it differs.
fn run_case(folder: &Path) -> Result<(), String> {
    let text = fs::read_to_string(folder.join("case.json")).map_err(|error| error.to_string())?;
    let case: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let option = |name: &str| case.pointer(&format!("/options/{name}")).and_then(Value::as_str).unwrap_or_default();
    let flags = KustomizeFlags {
        load_restrictions: if option("load_restrictor") == "none" {
            LoadRestrictions::None
        } else {
            LoadRestrictions::RootOnly
        },
        reorder: match option("reorder") {
            "none" => Reorder::None,
            "legacy" => Reorder::Legacy,
            _ => Reorder::Unspecified,
        },
        managed_by_label: case.pointer("/options/managed_by").and_then(Value::as_bool).unwrap_or_default(),
    };
    let tree = read_tree(&folder.join("input"));
    let target = case.get("target").and_then(Value::as_str).unwrap_or(".");
    let built = kustomize_build(&tree, target, &flags, &Limits::default());
    match (case.get("expect").and_then(Value::as_str), built) {
        (Some("yaml"), Ok(built)) => {
            let expected = fs::read_to_string(folder.join("expected.yaml")).map_err(|error| error.to_string())?;
            let found = built.to_yaml();
            if found == expected { Ok(()) } else { Err(first_difference(&expected, &found)) }
        }
        (Some("ok"), Ok(_)) => Ok(()),
        (Some("error"), Err(error)) => {
            let text = error.to_string().replace("'/", "'").replace('\\', "");
            let fragments = case.get("error_contains").and_then(Value::as_array).into_iter().flatten();
            let missing: Vec<&str> = fragments
                .filter_map(Value::as_str)
                .filter(|fragment| !text.contains(&fragment.replace("'/", "'").replace('\\', "")))
                .collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("the message lacks {missing:?}: {text}")) }
        }
        (Some("error"), Ok(_)) => Err("it builds, but must fail".to_owned()),
        (_, Err(error)) => Err(format!("it fails: {error}")),
        (expect, Ok(_)) => Err(format!("unknown expectation {expect:?}")),
    }
}

fn first_difference(expected: &str, found: &str) -> String {
    let mut lines = expected.lines().zip(found.lines()).enumerate();
    match lines.find(|(_, (expected, found))| expected != found) {
        Some((index, (expected, found))) => format!("line {}: expected `{expected}`, found `{found}`", index + 1),
        None => format!("expected {} lines, found {}", expected.lines().count(), found.lines().count()),
    }
}

fn known() -> BTreeSet<&'static str> {
    let name = |line: &'static str| line.split_whitespace().next().filter(|name| !name.starts_with('#'));
    KNOWN.lines().filter_map(name).collect()
}

#[test]
fn kustomize_cases_are_reproduced() {
    let root = shared("conformance/kustomize");
    let Ok(entries) = fs::read_dir(&root) else {
        println!("SKIPPED: the kustomize cases are not at hand ({})", root.display());
        return;
    };
    let folders: BTreeMap<String, PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().join("case.json").is_file())
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .collect();
    let known = known();
    let (mut passed, mut failed, mut changed) = (0, 0, Vec::new());
    for (name, folder) in &folders {
        match (run_case(folder), known.contains(name.as_str())) {
            (Ok(()), false) => passed += 1,
            (Ok(()), true) => {
                passed += 1;
                changed.push(format!("{name}: passes now, take it off the list"));
            }
            (Err(reason), is_known) => {
                failed += 1;
                println!("{} {name}: {reason}", if is_known { "known" } else { "FAILED" });
                if !is_known {
                    changed.push(format!("{name}: {reason}"));
                }
            }
        }
    }
    for name in known.iter().filter(|name| !folders.contains_key(**name)) {
        changed.push(format!("{name}: listed, but there is no such case"));
    }
    println!("kustomize cases: {passed} passed, {failed} failed, 0 skipped, of {}", folders.len());
    assert!(changed.is_empty(), "conformance-known.txt is not true:\n{}", changed.join("\n"));
}

#[test]
fn showcase_overlays_are_byte_identical() {
    let root = shared("showcase");
    if !root.is_dir() {
        println!("SKIPPED: the showcase is not at hand ({})", root.display());
        return;
    }
    let tree = read_tree(&root);
    let overlays: Vec<String> =
        tree.paths().filter_map(|path| path.strip_suffix("/kustomization.yaml")).map(str::to_owned).collect();
    let program = std::env::var_os("WINDLASS_KUSTOMIZE");
    if program.is_none() {
        println!("SKIPPED: the comparison with kustomize, since WINDLASS_KUSTOMIZE names no program");
    }
    assert!(!overlays.is_empty(), "the showcase has overlays");
    let mut compared = 0;
    for overlay in &overlays {
        let built = kustomize_build(&tree, overlay, &KustomizeFlags::default(), &Limits::default());
        let Some(program) = &program else {
            // Bases may refer to what only overlays generate, but they build; so must everything here.
            built.unwrap_or_else(|error| panic!("{overlay}: {error}"));
            continue;
        };
        let output = Command::new(program).arg("build").arg(root.join(overlay)).output().expect("kustomize runs");
        match built {
            Ok(built) => {
                let expected = String::from_utf8_lossy(&output.stdout);
                assert!(
                    output.status.success(),
                    "{overlay}: kustomize fails: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
                let found = built.to_yaml();
                assert_eq!(found, expected, "{overlay}: {}", first_difference(&expected, &found));
            }
            Err(error) => assert!(!output.status.success(), "{overlay}: {error}"),
        }
        compared += 1;
    }
    println!("showcase: {} overlays build, {compared} compared", overlays.len());
}
