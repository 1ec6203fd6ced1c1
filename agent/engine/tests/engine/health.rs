//! One fixture a case: `tests/data/health/<kind>-<case>.json` holds a live object and the verdict expected of it.

use std::fs;

use serde_json::Value;
use windlass_engine::{NoExtension, health};
use windlass_protocol::json;

#[test]
fn fixtures_have_the_expected_health() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/health");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 40, "fixtures are missing");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let case: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let live = case.get("live").expect("the case has a live object");
        let found = health::assess(live, &NoExtension).map(|(health, _)| (health.status.to_string(), health.message));
        let expected = case.get("health").filter(|it| !it.is_null()).map(|expected| {
            (json::text(expected, &["status"]).to_owned(), json::text(expected, &["message"]).to_owned())
        });
        assert_eq!(found, expected, "{}", file.display());
    }
}
