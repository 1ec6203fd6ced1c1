//! Globs of AppProjects: `*` any text, `?` one character. Linear in memory, no backtracking beyond the last star.

/// Whether the whole text matches the pattern.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where to go on when the text after the last star does not fit: one character further.
    let mut star: Option<(usize, usize)> = None;
    while let Some(character) = text.get(t) {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(expected) if *expected == '?' || expected == character => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((star_p, star_t)) = star else { return false };
                star = Some((star_p, star_t + 1));
                p = star_p + 1;
                t = star_t + 1;
            }
        }
    }
    pattern.iter().skip(p).all(|rest| *rest == '*')
}

/// Argo CD's list of globs with negation: some pattern matches, and none that begins with `!` does.
#[must_use]
pub fn permits(patterns: &[String], text: &str) -> bool {
    let denied = patterns.iter().filter_map(|pattern| pattern.strip_prefix('!')).any(|pattern| matches(pattern, text));
    !denied && patterns.iter().filter(|pattern| !pattern.starts_with('!')).any(|pattern| matches(pattern, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_in_projects() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "anything", true),
            ("team-*", "team-a", true),
            ("team-*", "tea", false),
            ("*.k8s.io", "rbac.authorization.k8s.io", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("a?c", "abc", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
        let list = ["team-*".to_owned(), "!team-secret".to_owned()];
        assert!(permits(&list, "team-a") && !permits(&list, "team-secret") && !permits(&list, "other"));
    }
}
