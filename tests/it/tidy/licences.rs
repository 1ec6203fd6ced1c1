//! The supply chain: the licence of every package in the resolved graph is on the list,
//! and crates that would bring a second TLS stack are absent.
//!
//! `.deny.toml` says the same to those who use cargo-deny, which also knows advisories.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Permissive licences, and MPL-2.0, which binds only changes to its own files.
const LICENCES: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Zlib",
];

/// ring is the one provider: with a second one rustls cannot choose and panics, and the
/// others need a C tool chain or the system's library.
const BANNED: [&str; 5] = ["aws-lc-rs", "aws-lc-sys", "native-tls", "openssl", "openssl-sys"];

/// A package of the resolved graph.
#[derive(Debug, Clone)]
pub(super) struct Package {
    name: String,
    licence: Option<String>,
}

/// The violations, one sentence each.
pub(super) fn check(packages: &[Package]) -> Vec<String> {
    let mut violations = Vec::new();
    for Package { name, licence } in packages {
        if BANNED.contains(&name.as_str()) {
            violations.push(format!("{name} must not be in the graph (cargo tree -i {name})"));
        }
        match licence.as_deref().map(allows) {
            Some(Ok(true)) => {}
            Some(Ok(false)) => {
                let licence = licence.as_deref().unwrap_or_default();
                violations.push(format!("{name}: licence {licence} is not on the list"));
            }
            Some(Err(error)) => violations.push(format!("{name}: {error:#}")),
            None => violations.push(format!("{name}: no licence named")),
        }
    }
    violations
}

/// The violations of the equivalent file: what is said here has to be said there.
pub(super) fn check_deny_file(text: &str) -> Vec<String> {
    LICENCES
        .iter()
        .chain(&BANNED)
        .filter(|name| !text.contains(&format!("\"{name}\"")))
        .map(|name| format!(".deny.toml does not name {name}"))
        .collect()
}

/// The packages that the resolved graph uses, out of what cargo knows.
pub(super) fn packages(metadata: &Value) -> Result<Vec<Package>> {
    let nodes =
        metadata.pointer("/resolve/nodes").and_then(Value::as_array).context("cargo metadata resolved nothing")?;
    let used: BTreeSet<&str> = nodes.iter().filter_map(|node| node["id"].as_str()).collect();
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    packages
        .iter()
        .filter(|package| package["id"].as_str().is_some_and(|id| used.contains(id)))
        .map(|package| {
            Ok(Package {
                name: package["name"].as_str().context("a package without a name")?.to_owned(),
                licence: package["license"].as_str().map(str::to_owned),
            })
        })
        .collect()
}

/// Whether a licence expression can be met with the list: SPDX's AND, OR, WITH and
/// parentheses, and the slash of older packages, which means OR.
fn allows(expression: &str) -> Result<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let met = any_of(&mut words).with_context(|| format!("licence {expression:?}"))?;
    anyhow::ensure!(words.next().is_none(), "licence {expression:?} goes on after its end");
    Ok(met)
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(words: &mut Words<'_>) -> Result<bool> {
    let mut met = all_of(words)?;
    while words.next_if_eq(&"OR").is_some() {
        met |= all_of(words)?;
    }
    Ok(met)
}

fn all_of(words: &mut Words<'_>) -> Result<bool> {
    let mut met = one(words)?;
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words)?;
    }
    Ok(met)
}

fn one(words: &mut Words<'_>) -> Result<bool> {
    let word = words.next().context("ends too early")?;
    if word == "(" {
        let met = any_of(words)?;
        words.next_if_eq(&")").context("a parenthesis is not closed")?;
        return Ok(met);
    }
    if words.next_if_eq(&"WITH").is_some() {
        let exception = words.next().context("WITH is followed by nothing")?;
        return Ok(LICENCES.contains(&format!("{word} WITH {exception}").as_str()));
    }
    Ok(LICENCES.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluates_expressions() {
        for (expression, wanted) in [
            ("MIT", true),
            ("GPL-3.0-only", false),
            ("MIT/Apache-2.0", true),
            ("MIT OR GPL-3.0-only", true),
            ("MIT AND GPL-3.0-only", false),
            ("GPL-3.0-only OR MIT AND ISC", true),
            ("(GPL-3.0-only OR MIT) AND Unicode-3.0", true),
            ("MIT AND (GPL-3.0-only OR LGPL-2.1-only)", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("MIT WITH LLVM-exception", false),
        ] {
            assert_eq!(allows(expression).unwrap(), wanted, "{expression}");
        }
        for broken in ["", "MIT OR", "(MIT", "MIT ISC", "MIT WITH"] {
            assert!(allows(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn finds_bad_packages() {
        let package =
            |name: &str, licence: Option<&str>| Package { name: name.to_owned(), licence: licence.map(str::to_owned) };
        let packages = [
            package("serde", Some("MIT OR Apache-2.0")),
            package("copyleft", Some("GPL-3.0-only")),
            package("unlicensed", None),
            package("openssl-sys", Some("MIT")),
        ];
        let wanted = [
            "copyleft: licence GPL-3.0-only is not on the list",
            "unlicensed: no licence named",
            "openssl-sys must not be in the graph (cargo tree -i openssl-sys)",
        ];
        assert_eq!(check(&packages), wanted);
    }

    #[test]
    fn finds_a_gap_in_the_deny_file() {
        let names: Vec<String> = LICENCES.iter().chain(&BANNED).map(|name| format!("{name:?}")).collect();
        assert!(check_deny_file(&names.join("\n")).is_empty());
        assert_eq!(check_deny_file(&names[1..].join("\n")), [".deny.toml does not name 0BSD"]);
    }
}
