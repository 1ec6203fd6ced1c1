//! The dependency rule: which crate of the workspace may depend on which, and which
//! outside crates a pure crate must not depend on. Only normal dependencies count: what
//! tests and build scripts use does not reach a binary.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// What a crate may depend on within the workspace. A crate that is not named here is a
/// violation: it has to be placed first.
const ALLOWED: [(&str, &[&str]); 11] = [
    ("windlass-protocol", &[]),
    ("windlass-transport", &["windlass-protocol"]),
    ("windlass-hub-core", &["windlass-protocol", "windlass-template"]),
    ("windlass-render", &["windlass-protocol", "windlass-template"]),
    ("windlass-template", &["windlass-protocol"]),
    ("windlass-engine", &["windlass-protocol"]),
    (
        "windlass-hub",
        &[
            "windlass-protocol",
            "windlass-transport",
            "windlass-hub-core",
            "windlass-render",
            "windlass-template",
            "windlass-engine",
        ],
    ),
    ("windlass-agent", &["windlass-protocol", "windlass-transport", "windlass-engine"]),
    (
        "windlass",
        &[
            "windlass-protocol",
            // TLS set-up and the root pin of `login`.
            "windlass-transport",
            "windlass-hub-core",
            "windlass-render",
            "windlass-template",
            "windlass-engine",
        ],
    ),
    ("windlass-chaos", ANYTHING),
    ("windlass-tests", ANYTHING),
];

/// What a crate may depend on only behind a feature: the demo runs a whole fleet in the
/// process of the command line, and packages are built without it.
const ALLOWED_OPTIONAL: [(&str, &[&str]); 1] = [("windlass", &["windlass-hub", "windlass-agent", "windlass-chaos"])];

const ANYTHING: &[&str] = &["*"];

/// The crates that decide and never act.
pub(super) const PURE: [&str; 5] =
    ["windlass-protocol", "windlass-hub-core", "windlass-render", "windlass-template", "windlass-engine"];

/// Crates that bring a runtime, a socket, a disk, a clock or chance.
pub(super) const WORLDLY: [&str; 26] = [
    "async-std",
    "axum",
    "chrono",
    "fastrand",
    "getrandom",
    "gix",
    "hyper",
    "hyper-util",
    "jiff",
    "k8s-openapi",
    "kube",
    "mio",
    "openraft",
    "quinn",
    "rand",
    "reqwest",
    "ring",
    "rustls",
    "sled",
    "smol",
    "socket2",
    "tempfile",
    "time",
    "tokio",
    "tokio-util",
    "uuid",
];

/// A crate of the workspace with its direct normal dependencies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) dependencies: Vec<Dependency>,
}

/// A direct normal dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dependency {
    pub(super) name: String,
    pub(super) presence: Presence,
}

/// Whether a dependency is always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Always,
    BehindFeature,
}

/// The violations, one sentence each.
pub(super) fn check(members: &[Member]) -> Vec<String> {
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let mut violations = Vec::new();
    for member in members {
        let Some(allowed) = lookup(&ALLOWED, &member.name) else {
            violations.push(format!("{} has no place in the dependency rule", member.name));
            continue;
        };
        let optional = lookup(&ALLOWED_OPTIONAL, &member.name).unwrap_or_default();
        for Dependency { name, presence } in &member.dependencies {
            let name = name.as_str();
            let fine = if names.contains(&name) {
                allowed == ANYTHING
                    || allowed.contains(&name)
                    || (*presence == Presence::BehindFeature && optional.contains(&name))
            } else {
                !(PURE.contains(&member.name.as_str()) && WORLDLY.contains(&name))
            };
            if !fine {
                violations.push(format!("{} must not depend on {name}", member.name));
            }
        }
    }
    violations
}

/// The crates of the workspace, out of what cargo knows.
pub(super) fn members(metadata: &Value) -> Result<Vec<Member>> {
    let ids = metadata["workspace_members"].as_array().context("cargo metadata names no members")?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    packages.iter().filter(|package| ids.contains(&package["id"])).map(member).collect()
}

fn member(package: &Value) -> Result<Member> {
    let name = package["name"].as_str().context("a package without a name")?;
    let dependencies = package["dependencies"].as_array().context("a package without dependencies")?;
    let normal = dependencies.iter().filter(|dependency| dependency["kind"].is_null());
    let dependencies = normal.map(|dependency| {
        Ok(Dependency {
            name: dependency["name"].as_str().context("a dependency without a name")?.to_owned(),
            presence: match dependency["optional"].as_bool() {
                Some(true) => Presence::BehindFeature,
                _ => Presence::Always,
            },
        })
    });
    Ok(Member { name: name.to_owned(), dependencies: dependencies.collect::<Result<_>>()? })
}

fn lookup<'a>(table: &[(&str, &'a [&'a str])], name: &str) -> Option<&'a [&'a str]> {
    table.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The workspace with one crate that depends on one other.
    fn planted(name: &str, dependency: &str, presence: Presence) -> Vec<String> {
        let mut members: Vec<Member> =
            ALLOWED.iter().map(|(name, _)| Member { name: (*name).to_owned(), dependencies: Vec::new() }).collect();
        members.retain(|member| member.name != name);
        let dependency = Dependency { name: dependency.to_owned(), presence };
        members.push(Member { name: name.to_owned(), dependencies: vec![dependency] });
        check(&members)
    }

    #[test]
    fn finds_each_kind_of_violation() {
        for (name, dependency) in [
            ("windlass-hub", "windlass-agent"),
            ("windlass-agent", "windlass-hub"),
            ("windlass-hub-core", "windlass-render"),
            ("windlass-render", "windlass-hub-core"),
            ("windlass-protocol", "windlass-transport"),
            ("windlass-engine", "tokio"),
            ("windlass-hub-core", "rand"),
            ("windlass", "windlass-hub"),
        ] {
            let violations = planted(name, dependency, Presence::Always);
            assert_eq!(violations, [format!("{name} must not depend on {dependency}")]);
        }
        let violations = planted("windlass-newcomer", "serde", Presence::Always);
        assert_eq!(violations, ["windlass-newcomer has no place in the dependency rule"]);
    }

    #[test]
    fn lets_through_what_is_allowed() {
        assert!(planted("windlass-hub", "windlass-hub-core", Presence::Always).is_empty());
        assert!(planted("windlass-hub", "tokio", Presence::Always).is_empty());
        assert!(planted("windlass", "windlass-agent", Presence::BehindFeature).is_empty());
        assert!(planted("windlass-tests", "windlass-agent", Presence::Always).is_empty());
    }

    #[test]
    fn reads_normal_dependencies_of_members_only() {
        let metadata = json!({
            "workspace_members": ["a"],
            "packages": [
                {"id": "a", "name": "a", "dependencies": [
                    {"name": "b", "kind": null, "optional": true},
                    {"name": "c", "kind": "dev", "optional": false},
                ]},
                {"id": "b", "name": "b", "dependencies": []},
            ],
        });
        let b = Dependency { name: "b".to_owned(), presence: Presence::BehindFeature };
        let wanted = Member { name: "a".to_owned(), dependencies: vec![b] };
        assert_eq!(members(&metadata).unwrap(), [wanted]);
    }
}
