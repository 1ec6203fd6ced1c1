//! The examples that the project is developed against are not ours to publish: no file of
//! the project may equal one of them.

use std::collections::BTreeMap;

/// Below this many bytes two files can be equal by chance: a list of one resource is
/// written in one way only.
const BYTES_MIN: usize = 64;

/// The violations, one sentence each. Files are given by name and content.
pub(super) fn check(project: &[(String, Vec<u8>)], originals: &[(String, Vec<u8>)]) -> Vec<String> {
    let originals: BTreeMap<&[u8], &str> = originals
        .iter()
        .filter(|(_, content)| content.len() >= BYTES_MIN)
        .map(|(name, content)| (content.as_slice(), name.as_str()))
        .collect();
    project
        .iter()
        .filter_map(|(name, content)| {
            let original = originals.get(content.as_slice())?;
            Some(format!("{name}: a copy of {original}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_copy() {
        let file = |name: &str, content: &str| (name.to_owned(), content.as_bytes().to_vec());
        let text = "kind: Deployment\n".repeat(10);
        let originals = [file("apps/web.yaml", &text), file("apps/short.yaml", "resources: []\n")];
        let project = [
            file("tests/data/copy.yaml", &text),
            file("tests/data/own.yaml", &text.replace("Deployment", "DaemonSet")),
            file("tests/data/short.yaml", "resources: []\n"),
        ];
        assert_eq!(check(&project, &originals), ["tests/data/copy.yaml: a copy of apps/web.yaml"]);
    }
}
