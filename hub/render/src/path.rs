//! Paths inside a tree: joining without ever leaving it.

use crate::error::{Problem, ProblemKind};

/// Joins `relative` to the directory `base` and removes `.` and `..`.
///
/// # Errors
/// The path is absolute or leads out of the tree.
pub(crate) fn join(base: &str, relative: &str) -> Result<String, Problem> {
    let escape = |reason: &str| {
        let place = if base.is_empty() { "." } else { base };
        Problem::new(ProblemKind::Escape, format!("the path '{relative}' in '{place}' {reason}"))
    };
    if relative.starts_with('/') {
        return Err(escape("is absolute; paths are relative to their file's directory"));
    }
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Err(escape("leads out of the repository"));
                }
            }
            name => parts.push(name),
        }
    }
    Ok(parts.join("/"))
}

/// The last part of a path.
pub(crate) fn base_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// Whether `path` is `directory` or below it.
pub(crate) fn is_within(path: &str, directory: &str) -> bool {
    directory.is_empty() || path == directory || path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(join("a/b", "../c/./d.yaml").as_deref(), Ok("a/c/d.yaml"));
        assert_eq!(join("", "x").as_deref(), Ok("x"));
        assert_eq!(join("a", "../../b").map_err(|problem| problem.kind), Err(ProblemKind::Escape));
        assert_eq!(join("a", "/etc/passwd").map_err(|problem| problem.kind), Err(ProblemKind::Escape));
        assert!(is_within("a/b", "a") && !is_within("ab", "a"));
    }
}
