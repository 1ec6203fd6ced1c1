//! What lies where: the fixed top level, a page of documentation at the head of every
//! Rust file, and files short enough to be read in one go.

use super::source::SourceFile;

/// The visible entries of the root. Tools keep their configuration in hidden files.
const TOP_LEVEL: [&str; 10] =
    ["Cargo.lock", "Cargo.toml", "LICENSE", "README.md", "agent", "chaos", "deploy", "hub", "protocol", "tests"];

/// Lines of a file, without its tests.
const LINES_MAX: usize = 800;

/// The violations of the top level, one sentence each.
pub(super) fn check_top_level(names: &[String]) -> Vec<String> {
    let visible = names.iter().filter(|name| !name.starts_with('.') && *name != "target");
    let strange = visible
        .filter(|name| !TOP_LEVEL.contains(&name.as_str()))
        .map(|name| format!("{name} must not be at the top level"));
    let missing = TOP_LEVEL
        .iter()
        .filter(|fixed| !names.iter().any(|name| name == *fixed))
        .map(|fixed| format!("{fixed} is missing at the top level"));
    strange.chain(missing).collect()
}

/// The violations of single files, one sentence each.
pub(super) fn check_files(files: &[SourceFile]) -> Vec<String> {
    let mut violations = Vec::new();
    for file in files {
        if !file.text.starts_with("//! ") {
            violations.push(format!("{}: opens without a page of documentation (//!)", file.path));
        }
        let lines = file.lines_without_tests();
        if lines > LINES_MAX && !file.is_test() {
            violations.push(format!("{}: {lines} lines, more than {LINES_MAX}", file.path));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_strange_and_missing_entries() {
        let mut names: Vec<String> = TOP_LEVEL.map(str::to_owned).to_vec();
        names.extend([".github".to_owned(), "target".to_owned()]);
        assert!(check_top_level(&names).is_empty());
        names.push("docs".to_owned());
        names.retain(|name| name != "LICENSE");
        let wanted = ["docs must not be at the top level", "LICENSE is missing at the top level"];
        assert_eq!(check_top_level(&names), wanted);
    }

    #[test]
    fn finds_files_without_a_page_and_long_ones() {
        let page = "//! What it is for.\n";
        let long = format!("{page}{}", "const A: u8 = 0;\n".repeat(LINES_MAX));
        let tested = format!("{page}#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(LINES_MAX));
        let files = [
            SourceFile::new("hub/src/a.rs", "use std::fmt;\n".to_owned()),
            SourceFile::new("hub/src/b.rs", long),
            SourceFile::new("hub/src/c.rs", tested),
        ];
        let wanted =
            ["hub/src/a.rs: opens without a page of documentation (//!)", "hub/src/b.rs: 801 lines, more than 800"];
        assert_eq!(check_files(&files), wanted);
    }
}
