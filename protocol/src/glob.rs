//! Globs in the dialects that Argo CD's rules are written in, in one matcher.
//!
//! | where | library in Argo CD | dialect | `*` crosses `/` |
//! |---|---|---|---|
//! | AppProject `destinations[].server`, `.name`, `.namespace`; `sourceNamespaces` | gobwas/glob, no separator | [`Dialect::Text`] | yes |
//! | AppProject `sourceRepos` | gobwas/glob, separator `/` | [`Dialect::Url`] | no, `**` does |
//! | AppProject kind and group lists | `filepath.Match` | [`Dialect::GoPath`] | no |
//! | ApplicationSet `git.directories[].path` | `path.Match` | [`Dialect::GoPath`] | no |
//! | ApplicationSet `git.files[].path` | `git ls-files` pathspec | [`Dialect::Pathspec`] | yes |
//!
//! A leading `!` is not part of a glob: the rule that uses the glob gives it its meaning. A pattern becomes a small automaton, so
//! that matching costs pattern × text at worst and no pattern can make it hang.

/// How a pattern is read; see the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `*` is any text, `?` any character, `[a-z]` and `[!a-z]`, `{a,b}` alternatives, `\` escapes.
    Text,
    /// As [`Dialect::Text`], but `*` and `?` stop at `/`; `**` does not.
    Url,
    /// Go's `path.Match`: `*` and `?` stop at `/`, `[^a-z]` negates, no alternatives and no `**`.
    GoPath,
    /// Git's pathspec without magic: `*` and `?` cross `/`; a pattern without wildcards also names everything below it.
    Pathspec,
}

/// Bytes of a pattern. Longer ones are refused: no URL, name or path needs more.
pub const PATTERN_BYTES_MAX: usize = 4096;

/// A pattern that cannot be read. Argo CD treats it as matching nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the glob {pattern:?} {problem}")]
pub struct GlobError {
    /// The pattern, shortened.
    pub pattern: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// A pattern that was read.
#[derive(Clone, Debug)]
pub struct Glob {
    program: Vec<Op>,
    /// For [`Dialect::Pathspec`]: the pattern as text.
    prefix: Option<String>,
}

#[derive(Clone, Debug)]
enum Op {
    /// One character of the set.
    One(Set),
    /// Go on at both places.
    Fork(usize, usize),
    /// Go on there.
    Jump(usize),
    /// The text must end here.
    End,
}

#[derive(Clone, Debug)]
enum Set {
    Is(char),
    Any,
    NotSlash,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Set {
    fn has(&self, c: char) -> bool {
        match self {
            Self::Is(one) => *one == c,
            Self::Any => true,
            Self::NotSlash => c != '/',
            Self::Class { negated, ranges } => ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated,
        }
    }
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`GlobError`] for an unclosed bracket, a trailing backslash, alternatives inside alternatives, or a pattern over
    /// [`PATTERN_BYTES_MAX`].
    pub fn new(pattern: &str, dialect: Dialect) -> Result<Self, GlobError> {
        let error = |problem| GlobError { pattern: pattern.chars().take(80).collect(), problem };
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(error("is too long"));
        }
        let mut compiler = Compiler { dialect, program: Vec::new(), rest: pattern.chars().collect(), at: 0 };
        compiler.sequence(false).map_err(error)?;
        compiler.program.push(Op::End);
        let prefix = (dialect == Dialect::Pathspec).then(|| pattern.to_owned());
        Ok(Self { program: compiler.program, prefix })
    }

    /// Whether the whole text matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        if let Some(prefix) = &self.prefix
            && is_below(prefix, text)
        {
            return true;
        }
        let mut now = States::new(self.program.len());
        let mut next = States::new(self.program.len());
        self.add(&mut now, 0);
        for c in text.chars() {
            for state in now.take() {
                if let Some(Op::One(set)) = self.program.get(state)
                    && set.has(c)
                {
                    self.add(&mut next, state + 1);
                }
            }
            std::mem::swap(&mut now, &mut next);
        }
        now.take().into_iter().any(|state| matches!(self.program.get(state), Some(Op::End)))
    }

    fn add(&self, states: &mut States, start: usize) {
        let mut open = vec![start];
        while let Some(state) = open.pop() {
            if !states.insert(state) {
                continue;
            }
            match self.program.get(state) {
                Some(Op::Fork(one, other)) => open.extend([*one, *other]),
                Some(Op::Jump(to)) => open.push(*to),
                _ => {}
            }
        }
    }
}

/// Reads and matches at once; a pattern that cannot be read matches nothing, as in Argo CD.
#[must_use]
pub fn matches(pattern: &str, text: &str, dialect: Dialect) -> bool {
    Glob::new(pattern, dialect).is_ok_and(|glob| glob.matches(text))
}

/// The literal rule of a pathspec: the path itself, or a directory above it.
fn is_below(prefix: &str, path: &str) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/'),
        None => false,
    }
}

/// A set of states, each at most once.
struct States {
    seen: Vec<bool>,
    list: Vec<usize>,
}

impl States {
    fn new(count: usize) -> Self {
        Self { seen: vec![false; count], list: Vec::new() }
    }

    fn insert(&mut self, state: usize) -> bool {
        match self.seen.get_mut(state) {
            Some(seen) if !*seen => {
                *seen = true;
                self.list.push(state);
                true
            }
            _ => false,
        }
    }

    fn take(&mut self) -> Vec<usize> {
        for state in &self.list {
            if let Some(seen) = self.seen.get_mut(*state) {
                *seen = false;
            }
        }
        std::mem::take(&mut self.list)
    }
}

struct Compiler {
    dialect: Dialect,
    program: Vec<Op>,
    rest: Vec<char>,
    at: usize,
}

impl Compiler {
    fn peek(&self) -> Option<char> {
        self.rest.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    const fn is_gobwas(&self) -> bool {
        matches!(self.dialect, Dialect::Text | Dialect::Url)
    }

    const fn one(&self) -> Set {
        if matches!(self.dialect, Dialect::Url | Dialect::GoPath) { Set::NotSlash } else { Set::Any }
    }

    /// Compiles up to the end, or up to `,` or `}` inside alternatives.
    fn sequence(&mut self, inside: bool) -> Result<(), &'static str> {
        while let Some(c) = self.peek() {
            if inside && matches!(c, ',' | '}') {
                return Ok(());
            }
            self.at += 1;
            match c {
                '*' => {
                    let mut stars = 1;
                    while self.peek() == Some('*') {
                        self.at += 1;
                        stars += 1;
                    }
                    let set = if stars > 1 && self.is_gobwas() { Set::Any } else { self.one() };
                    self.star(set);
                }
                '?' => self.program.push(Op::One(self.one())),
                '[' => self.class()?,
                '\\' => {
                    let escaped = self.next().ok_or("ends with a backslash")?;
                    self.program.push(Op::One(Set::Is(escaped)));
                }
                '{' if self.is_gobwas() && inside => return Err("has alternatives inside alternatives"),
                '{' if self.is_gobwas() => self.alternatives()?,
                other => self.program.push(Op::One(Set::Is(other))),
            }
        }
        if inside { Err("has an unclosed `{`") } else { Ok(()) }
    }

    fn star(&mut self, set: Set) {
        let start = self.program.len();
        self.program.push(Op::Fork(start + 1, start + 3));
        self.program.push(Op::One(set));
        self.program.push(Op::Jump(start));
    }

    fn alternatives(&mut self) -> Result<(), &'static str> {
        let mut ends = Vec::new();
        loop {
            let fork = self.program.len();
            self.program.push(Op::Fork(fork + 1, fork + 1));
            self.sequence(true)?;
            ends.push(self.program.len());
            self.program.push(Op::Jump(0));
            let next = self.program.len();
            let more = self.next() == Some(',');
            if more && let Some(place) = self.program.get_mut(fork) {
                *place = Op::Fork(fork + 1, next);
            }
            if !more {
                break;
            }
        }
        let end = self.program.len();
        for jump in ends {
            if let Some(place) = self.program.get_mut(jump) {
                *place = Op::Jump(end);
            }
        }
        Ok(())
    }

    fn class(&mut self) -> Result<(), &'static str> {
        const UNCLOSED: &str = "has an unclosed `[`";
        let negated = match self.peek() {
            Some('!') => self.dialect != Dialect::GoPath,
            Some('^') => !self.is_gobwas(),
            _ => false,
        };
        self.at += usize::from(negated);
        let mut ranges = Vec::new();
        loop {
            let low = match self.next().ok_or(UNCLOSED)? {
                ']' if !ranges.is_empty() => break,
                '\\' => self.next().ok_or(UNCLOSED)?,
                c => c,
            };
            let is_range = self.peek() == Some('-') && self.rest.get(self.at + 1).is_some_and(|c| *c != ']');
            let high = if is_range {
                self.at += 1;
                match self.next().ok_or(UNCLOSED)? {
                    '\\' => self.next().ok_or(UNCLOSED)?,
                    c => c,
                }
            } else {
                low
            };
            ranges.push((low, high));
        }
        // In Go's `path.Match` a class never matches `/`; git's pathspec and gobwas do not care.
        self.program.push(Op::One(Set::Class { negated, ranges }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(dialect: Dialect, pattern: &str, yes: &[&str], no: &[&str]) {
        for text in yes {
            assert!(matches(pattern, text, dialect), "{pattern} should match {text}");
        }
        for text in no {
            assert!(!matches(pattern, text, dialect), "{pattern} should not match {text}");
        }
    }

    #[test]
    fn each_dialect_has_its_stars() {
        check(Dialect::Text, "https://*.example.com", &["https://a/b.example.com"], &["https://example.com"]);
        check(Dialect::Url, "https://h/org/*", &["https://h/org/a", "https://h/org/"], &["https://h/org/a/b"]);
        check(Dialect::Url, "https://h/**", &["https://h/org/a/b"], &["https://i/org"]);
        check(Dialect::GoPath, "apps/*", &["apps/a"], &["apps/a/b", "apps"]);
        check(Dialect::GoPath, "apps/**", &["apps/a"], &["apps/a/b"]);
        check(
            Dialect::Pathspec,
            "tenants/*/config.json",
            &["tenants/a/config.json", "tenants/a/b/config.json"],
            &["tenants/config.json"],
        );
        check(Dialect::Pathspec, "**/config.json", &["a/config.json", "a/b/config.json"], &["config.json"]);
        check(Dialect::Pathspec, "tenants", &["tenants", "tenants/a/b.yaml"], &["tenants2/a"]);
        check(Dialect::Pathspec, "tenants/", &["tenants/a"], &["tenants"]);
    }

    #[test]
    fn classes_alternatives_and_escapes() {
        check(Dialect::Text, "{dev,prod-[0-9]}-?", &["dev-a", "prod-7-b"], &["prod-x-b", "dev-", "dev-ab"]);
        check(Dialect::Text, "{a,}b", &["ab", "b"], &["cb"]);
        check(Dialect::Text, "[!ab]c", &["cc"], &["ac", "bc"]);
        check(Dialect::GoPath, "[^ab]c", &["cc", "!c"], &["ac"]);
        check(Dialect::GoPath, "{a}", &["{a}"], &["a"]);
        check(Dialect::Text, "a\\*", &["a*"], &["ab"]);
        check(Dialect::Text, "", &[""], &["a"]);
        for broken in ["[a", "{a", "a\\", "{a,{b}}"] {
            assert!(Glob::new(broken, Dialect::Text).is_err(), "{broken}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_panics_or_hangs(pattern in r"[a*?\[\]{},!^\\/-]{0,40}", text in "[a/]{0,60}") {
            for dialect in [Dialect::Text, Dialect::Url, Dialect::GoPath, Dialect::Pathspec] {
                let _ = matches(&pattern, &text, dialect);
            }
        }

        #[test]
        fn text_without_wildcards_matches_itself_only(text in "[a-z0-9./:-]{1,40}", other in "[a-z0-9./:-]{1,40}") {
            prop_assert!(matches(&text, &text, Dialect::Text));
            prop_assert_eq!(matches(&text, &other, Dialect::Text), text == other);
        }
    }
}
