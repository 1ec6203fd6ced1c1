//! Globs of `directory.include` and `directory.exclude`: a star also matches slashes, as in Argo CD.

/// Whether `text` fits `pattern`: `*`, `?`, `[abc]`, `[!a-z]`, `{one,two}` and `\` before a special character.
pub(crate) fn fits(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    alternatives(&pattern, 0).iter().any(|pattern| simple(pattern, &text))
}

/// Patterns that braces unfold to are no more than this; what lies beyond is not looked at.
const ALTERNATIVES: usize = 256;

/// Unfolds `{a,b}`, inner ones too.
fn alternatives(pattern: &[char], depth: usize) -> Vec<Vec<char>> {
    let Some((open, close, commas)) = first_braces(pattern) else { return vec![pattern.to_vec()] };
    if depth > 8 {
        return vec![pattern.to_vec()];
    }
    let before = pattern.get(..open).unwrap_or_default();
    let after = pattern.get(close + 1..).unwrap_or_default();
    let mut cuts = vec![open];
    cuts.extend(commas);
    cuts.push(close);
    let mut all = Vec::new();
    for pair in cuts.windows(2) {
        let [from, to] = pair else { continue };
        let inner = pattern.get(from + 1..*to).unwrap_or_default();
        let whole: Vec<char> = before.iter().chain(inner).chain(after).copied().collect();
        all.extend(alternatives(&whole, depth + 1));
        if all.len() >= ALTERNATIVES {
            break;
        }
    }
    all
}

fn first_braces(pattern: &[char]) -> Option<(usize, usize, Vec<usize>)> {
    let mut open = None;
    let mut depth = 0_usize;
    let mut commas = Vec::new();
    let mut escaped = false;
    for (index, character) in pattern.iter().enumerate() {
        if std::mem::take(&mut escaped) {
            continue;
        }
        match character {
            '\\' => escaped = true,
            '{' => {
                open.get_or_insert(index);
                depth += 1;
            }
            ',' if depth == 1 => commas.push(index),
            '}' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    return open.map(|open| (open, index, commas));
                }
            }
            _ => {}
        }
    }
    None
}

/// Matches without braces, by going back to the last star.
fn simple(pattern: &[char], text: &[char]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let Some(character) = text.get(seen) else {
            return pattern.get(at..).unwrap_or_default().iter().all(|rest| *rest == '*');
        };
        if pattern.get(at) == Some(&'*') {
            star = Some((at, seen));
            at += 1;
            continue;
        }
        if let Some(next) = one(pattern, at, *character) {
            at = next;
            seen += 1;
            continue;
        }
        let Some((star_at, star_seen)) = star else { return false };
        star = Some((star_at, star_seen + 1));
        at = star_at + 1;
        seen = star_seen + 1;
    }
}

/// Matches one character; gives where the pattern goes on.
fn one(pattern: &[char], at: usize, character: char) -> Option<usize> {
    match pattern.get(at)? {
        '?' => Some(at + 1),
        '\\' => (pattern.get(at + 1) == Some(&character)).then_some(at + 2),
        '[' => {
            let length = pattern.get(at + 1..)?.iter().position(|end| *end == ']')?;
            let class = pattern.get(at + 1..at + 1 + length)?;
            (in_class(class, character)).then_some(at + length + 2)
        }
        literal => (*literal == character).then_some(at + 1),
    }
}

fn in_class(class: &[char], character: char) -> bool {
    let (negated, class) = match class.split_first() {
        Some(('!' | '^', rest)) => (true, rest),
        _ => (false, class),
    };
    let is_in = match class {
        [from, '-', to] => (*from..=*to).contains(&character),
        list => list.contains(&character),
    };
    is_in != negated
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn globs_match_as_in_argo() {
        assert!(fits("*.yaml", "a/b.yaml") && fits("**/x.yaml", "a/b/x.yaml") && fits("{a,b}.{yaml,yml}", "b.yml"));
        assert!(
            fits("config.?aml", "config.yaml") && fits("[a-c]*", "b1") && fits("[!a]x", "bx") && fits("a\\*", "a*")
        );
        assert!(!fits("*.yaml", "a.json") && !fits("{a,b}", "c") && !fits("[a-c]", "d") && !fits("", "x"));
    }
}
