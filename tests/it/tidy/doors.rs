//! Where a dependency may be named.
//!
//! Each heavy dependency has one door: a folder that is alone in naming it, so that it can
//! be replaced without a search. The world itself (files, sockets, clocks, chance, a map
//! without an order) has no door in the pure crates: it comes in as values.

use super::{
    layers::WORLDLY,
    source::{Name, SourceFile},
};

/// A group of crates and the places that may name them; a place is a module: `a/b` is
/// `a/b.rs` and everything below `a/b/`.
struct Door {
    crates: &'static [&'static str],
    places: &'static [&'static str],
}

const DOORS: [Door; 8] = [
    Door { crates: &["quinn", "rustls", "rcgen", "tokio_rustls", "x509_parser"], places: &["protocol/transport"] },
    Door { crates: &["bincode"], places: &["protocol/src/codec"] },
    Door {
        crates: &["serde_saphyr", "saphyr", "granit_parser", "serde_yaml", "serde_yml", "yaml_rust2"],
        places: &["protocol/src/yaml"],
    },
    Door { crates: &["sled"], places: &["hub/src/store", "agent/src/checkpoint"] },
    Door { crates: &["gix"], places: &["hub/src/source"] },
    Door { crates: &["object_store"], places: &["hub/src/backup"] },
    Door { crates: &["openraft"], places: &["hub/src/raft"] },
    Door { crates: &["kube", "k8s_openapi"], places: &["agent/src/cluster", "hub/cli", "tests"] },
];

/// The folders of the pure crates, without those of crates inside of them.
const PURE_PLACES: [&str; 5] = ["protocol/src", "hub/core", "hub/render", "hub/template", "agent/engine"];

/// What a pure crate does not name, beside the crates that are worldly.
const WORLD: [&[&str]; 11] = [
    &["std", "fs"],
    &["std", "net"],
    &["std", "env"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["std", "hash", "RandomState"],
    &["std", "collections", "HashMap"],
    &["std", "collections", "HashSet"],
    &["std", "collections", "hash_map"],
];

/// Names outside of their door, one sentence each.
pub(super) fn check_doors(files: &[SourceFile]) -> Vec<String> {
    let mut violations = Vec::new();
    for file in files {
        for name in &file.names {
            let door = DOORS.iter().find(|door| door.crates.contains(&name.root()));
            if let Some(door) = door
                && !door.places.iter().any(|place| within(&file.path, place))
            {
                let places = door.places.join(" or ");
                violations.push(format!("{}:{}: {name} belongs in {places}", file.path, name.line));
            }
        }
    }
    violations
}

/// Names of the world in pure crates, one sentence each. Tests may read fixtures.
pub(super) fn check_purity(files: &[SourceFile]) -> Vec<String> {
    let tests: Vec<String> = files.iter().flat_map(SourceFile::test_module_places).collect();
    let mut violations = Vec::new();
    for file in files {
        let pure = PURE_PLACES.iter().any(|place| within(&file.path, place));
        if !pure || file.is_test() || tests.iter().any(|place| within(&file.path, place)) {
            continue;
        }
        for name in file.names.iter().filter(|name| !name.in_test && is_worldly(name)) {
            violations.push(format!("{}:{}: {name} in a pure crate", file.path, name.line));
        }
    }
    violations
}

fn is_worldly(name: &Name) -> bool {
    let dashed = name.root().replace('_', "-");
    WORLDLY.contains(&dashed.as_str()) || WORLD.iter().any(|banned| name.reaches(banned))
}

fn within(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purity(path: &str, text: &str) -> Vec<String> {
        check_purity(&[SourceFile::new(path, text.to_owned())])
    }

    fn doors(path: &str, text: &str) -> Vec<String> {
        check_doors(&[SourceFile::new(path, text.to_owned())])
    }

    #[test]
    fn finds_the_world_however_it_is_named() {
        for text in [
            "use std::fs;",
            "use std::{fmt, fs::File};",
            "use std::time::{Duration, Instant as Now};",
            "use std::time;",
            "use std::collections::*;",
            "fn f() -> u64 { std::time::SystemTime::now() }",
            "use std::{collections::{BTreeMap, HashMap}, fmt};",
            "use ::std::net::IpAddr;",
            "#[tokio::main] async fn f() {}",
            "fn f() { rand::random::<u8>() }",
            "use hyper_util::rt;",
        ] {
            assert_eq!(purity("hub/core/src/a.rs", text).len(), 1, "{text}");
        }
    }

    #[test]
    fn lets_pure_code_through() {
        for text in [
            "use std::time::Duration;",
            "use std::collections::{BTreeMap, btree_map::Entry};",
            "// use std::fs;\n/* std::net /* nested */ std::env */",
            "const A: &str = \"std::fs::read\"; const B: &str = r#\"std::\"fs\"#;",
            "fn f(tokio: u8, x: X) -> u8 { x.rand + tokio }",
            "const V: &str = env!(\"CARGO_PKG_VERSION\");",
            "#[cfg(test)]\nmod tests { use std::fs; fn f() { let c = '}'; fs::read(\"a\"); } }",
        ] {
            assert_eq!(purity("hub/core/src/a.rs", text), [""; 0], "{text}");
        }
        assert_eq!(purity("hub/src/a.rs", "use std::fs;"), [""; 0]);
        assert_eq!(purity("protocol/transport/src/lib.rs", "use std::net::IpAddr;"), [""; 0]);
        let after = "#[cfg(test)]\nmod tests { fn f() {} }\nuse std::fs;";
        assert_eq!(purity("hub/core/src/a.rs", after).len(), 1, "what follows the tests counts");
    }

    #[test]
    fn test_modules_in_files_of_their_own_may_read_fixtures() {
        let parent = |text: &str| SourceFile::new("hub/render/src/helm.rs", text.to_owned());
        let child = SourceFile::new("hub/render/src/helm/corpus.rs", "use std::fs;".to_owned());
        let declared = [parent("#[cfg(test)]\nmod corpus;"), child.clone()];
        assert_eq!(check_purity(&declared), [""; 0]);
        let undeclared = [parent("mod corpus;"), child];
        assert_eq!(check_purity(&undeclared).len(), 1);
    }

    #[test]
    fn finds_names_outside_of_their_door() {
        for (path, text) in [
            ("hub/src/gateway.rs", "use quinn::Endpoint;"),
            ("agent/src/uplink.rs", "fn f() -> rustls::Error { g() }"),
            ("protocol/src/message.rs", "use bincode::serialize;"),
            ("hub/src/api/patch.rs", "use serde_saphyr as yaml;"),
            ("hub/src/raft/log.rs", "use {std::fmt, sled::Db};"),
            ("hub/src/api.rs", "use gix;"),
            ("hub/src/tasks.rs", "pub use openraft::Raft;"),
            ("hub/src/gateway.rs", "extern crate kube;"),
        ] {
            assert_eq!(doors(path, text).len(), 1, "{path}: {text}");
        }
    }

    #[test]
    fn lets_names_through_their_door() {
        for (path, text) in [
            ("protocol/transport/src/tls.rs", "use rustls::ServerConfig;"),
            ("protocol/src/codec.rs", "use bincode::Options;"),
            ("hub/src/store/blob.rs", "use sled::Tree;"),
            ("agent/src/checkpoint.rs", "use sled::Db;"),
            ("agent/src/cluster.rs", "use kube::Client;"),
            ("tests/harness/plane.rs", "use kube::Client;"),
            ("hub/src/lib.rs", "mod kube; use crate::kube::Client;"),
        ] {
            assert_eq!(doors(path, text), [""; 0], "{path}: {text}");
        }
        assert_eq!(doors("hub/src/stores.rs", "use sled::Db;").len(), 1, "a longer name is another module");
    }
}
