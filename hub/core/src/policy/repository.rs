//! `sourceRepos`: repository URLs compared as Argo CD compares them.

use windlass_protocol::glob::{self, Dialect};

/// Argo CD's `IsSourcePermitted`: some entry permits, and no entry with a leading `!` denies. An entry with `!` that does not deny
/// permits.
pub(super) fn is_source_permitted(patterns: &[String], repo_url: &str) -> bool {
    let repo_url = normalize_url(repo_url);
    let mut any = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(denied) if is_match(denied, &repo_url) => return false,
            Some(_) => any = true,
            None => any |= pattern == "*" || is_match(pattern, &repo_url),
        }
    }
    any
}

fn is_match(pattern: &str, repo_url: &str) -> bool {
    glob::matches(&normalize_url(pattern), repo_url, Dialect::Url)
}

/// Argo CD's `NormalizeGitURL`: lower case, no `.git` at the end, `git@host:path` and `ssh://git@host/path` alike.
pub(super) fn normalize_url(url: &str) -> String {
    let url = url.trim().to_lowercase();
    let url = url.strip_suffix(".git").unwrap_or(&url);
    let (is_explicit, rest) = match url.strip_prefix("ssh://") {
        Some(rest) => (true, rest),
        None => (false, url),
    };
    // `user@host:path`: one `@`, and neither `/` nor `:` before it.
    let is_ssh = rest.split_once('@').is_some_and(|(user, host)| !user.contains(['/', ':']) && !host.contains('@'));
    if is_ssh && !is_explicit { rest.replacen(':', "/", 1) } else { rest.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(patterns: &[&str], url: &str, expect: bool) {
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        assert_eq!(is_source_permitted(&patterns, url), expect, "{patterns:?} {url}");
    }

    #[test]
    fn urls_are_compared_normalized() {
        check(&["https://github.com/Org/Repo"], "https://github.com/org/repo.git", true);
        check(&["git@github.com:org/*"], "ssh://git@github.com/org/repo", true);
        check(&["https://github.com/org/*"], "https://github.com/org/a/b", false);
        check(&["https://github.com/**"], "https://github.com/org/a/b", true);
        check(&["*"], "https://github.com/org/a/b", true);
        check(&[], "https://github.com/org/a", false);
    }

    #[test]
    fn an_exclamation_mark_denies() {
        check(&["*", "!https://github.com/org/secret"], "https://github.com/org/secret.git", false);
        check(&["!https://github.com/org/secret", "*"], "https://github.com/org/open", true);
        check(&["!https://github.com/org/secret"], "https://github.com/org/open", true);
    }
}
