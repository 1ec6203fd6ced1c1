//! The names that a Rust file mentions, read without a compiler: comments and literals
//! are skipped, `use` trees are spelled out, and paths elsewhere are taken as written.
//!
//! Enough for rules about names. It resolves nothing: a name hidden behind a re-export or
//! a macro is not seen.

mod tokens;

use std::fmt::{self, Display};

use self::tokens::{Token, tokens};

/// A Rust file and what it names.
#[derive(Debug, Clone)]
pub(super) struct SourceFile {
    /// Relative to the root of the checkout.
    pub(super) path: String,
    pub(super) text: String,
    pub(super) names: Vec<Name>,
    /// Modules in files of their own that exist only in tests.
    test_modules: Vec<String>,
    /// The first line of test code inside of the file and the number of such lines.
    test_lines: usize,
}

/// A path of at least two segments, or anything that a `use` imports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) line: usize,
    pub(super) in_test: bool,
    segments: Vec<String>,
    /// Whether the name brings everything below it into scope.
    opens: bool,
}

impl SourceFile {
    /// Reads the names out of a text.
    pub(super) fn new(path: &str, text: String) -> Self {
        let mut reader = Reader {
            tokens: tokens(&text),
            at: 0,
            names: Vec::new(),
            test_modules: Vec::new(),
            test_lines: 0,
            in_test: false,
        };
        reader.read_to(usize::MAX);
        let Reader { names, test_modules, test_lines, .. } = reader;
        Self { path: path.to_owned(), text, names, test_modules, test_lines }
    }

    /// Whether the whole file is test code by its name.
    pub(super) fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs")
            || ["/tests/", "/benches/", "/examples/"].iter().any(|folder| self.path.contains(folder))
    }

    /// Lines that are not inside of test modules.
    pub(super) fn lines_without_tests(&self) -> usize {
        self.text.lines().count() - self.test_lines
    }

    /// The modules that this file declares for tests only, as `folder/module`.
    pub(super) fn test_module_places(&self) -> Vec<String> {
        let stem = self.path.trim_end_matches(".rs");
        let folder = match stem.rsplit_once('/') {
            Some((folder, "lib" | "main" | "mod")) => folder,
            _ => stem,
        };
        self.test_modules.iter().map(|module| format!("{folder}/{module}")).collect()
    }
}

impl Name {
    /// The first segment: a crate, if it is not a module.
    pub(super) fn root(&self) -> &str {
        self.segments.first().map_or("", String::as_str)
    }

    /// Whether it is `banned` or below it, or imports a parent of it as a whole.
    pub(super) fn reaches(&self, banned: &[&str]) -> bool {
        let common = self.segments.len().min(banned.len());
        let equal = self.segments.iter().zip(banned).all(|(mine, theirs)| mine == theirs);
        equal && (common == banned.len() || self.opens)
    }
}

impl Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.segments.join("::"))
    }
}

/// Walks over the tokens of a file.
struct Reader {
    tokens: Vec<Token>,
    at: usize,
    names: Vec<Name>,
    test_modules: Vec<String>,
    test_lines: usize,
    in_test: bool,
}

impl Reader {
    fn read_to(&mut self, end: usize) {
        while self.at < end.min(self.tokens.len()) {
            if self.looks_at(&["#", "[", "cfg", "(", "test", ")", "]"]) {
                self.read_test_item();
            } else if self.looks_at(&["use"]) && !self.is(1, "<") {
                self.at += 1;
                self.read_use(&[]);
            } else if self.looks_at(&["extern", "crate"]) {
                self.at += 2;
                let name = self.take();
                self.add(vec![name], true);
            } else {
                self.read_path();
            }
        }
    }

    /// An item under `#[cfg(test)]`: what it names is marked, what it declares is kept.
    fn read_test_item(&mut self) {
        let first = self.line();
        self.at += 7;
        let end = self.item_end();
        if let Some(at) = (self.at..end).find(|at| self.text(*at) == "mod")
            && self.text(at + 2) == ";"
        {
            self.test_modules.push(self.text(at + 1).to_owned());
        }
        let outer = std::mem::replace(&mut self.in_test, true);
        self.read_to(end);
        self.in_test = outer;
        let last = self.tokens.get(end.saturating_sub(1)).map_or(first, |token| token.line);
        if !outer {
            self.test_lines += last + 1 - first;
        }
    }

    /// The end of the item that starts here: after its block, or after its semicolon.
    fn item_end(&self) -> usize {
        let mut depth = 0_usize;
        for at in self.at..self.tokens.len() {
            match self.text(at) {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 && self.text(at) == "}" {
                        return at + 1;
                    }
                }
                ";" if depth == 0 => return at + 1,
                _ => {}
            }
        }
        self.tokens.len()
    }

    /// One branch of a `use` tree below `prefix`; stops at what ends the branch.
    fn read_use(&mut self, prefix: &[String]) {
        let mut path = prefix.to_vec();
        loop {
            match self.text(self.at) {
                "::" => self.at += 1,
                "{" => {
                    self.at += 1;
                    while self.at < self.tokens.len() && !self.is(0, "}") {
                        self.read_use(&path);
                        if self.is(0, ",") {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                "*" => {
                    self.at += 1;
                    self.add(path, true);
                    return;
                }
                "as" => {
                    self.at += 2;
                    self.add(path, true);
                    return;
                }
                text if is_word(text) => {
                    if text != "self" || path.is_empty() {
                        path.push(text.to_owned());
                    }
                    self.at += 1;
                }
                _ => {
                    if !path.is_empty() {
                        self.add(path, true);
                    }
                    // Whatever is not a tree is stepped over, so that reading goes on.
                    if !self.is(0, ",") && !self.is(0, "}") {
                        self.at += 1;
                    }
                    return;
                }
            }
        }
    }

    /// A path outside of `use`, or one token that is none.
    fn read_path(&mut self) {
        let mut path = Vec::new();
        let line = self.line();
        while is_word(self.text(self.at)) {
            path.push(self.take());
            if !self.is(0, "::") || !is_word(self.text(self.at + 1)) {
                break;
            }
            self.at += 1;
        }
        match path.len() {
            0 => self.at += 1,
            1 => {}
            _ => self.names.push(Name { line, in_test: self.in_test, segments: path, opens: false }),
        }
    }

    fn add(&mut self, segments: Vec<String>, opens: bool) {
        let line = self.tokens.get(self.at.saturating_sub(1)).map_or(0, |token| token.line);
        self.names.push(Name { line, in_test: self.in_test, segments, opens });
    }

    fn take(&mut self) -> String {
        let text = self.text(self.at).to_owned();
        self.at += 1;
        text
    }

    fn line(&self) -> usize {
        self.tokens.get(self.at).map_or(0, |token| token.line)
    }

    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text.as_str())
    }

    fn is(&self, ahead: usize, text: &str) -> bool {
        self.text(self.at + ahead) == text
    }

    fn looks_at(&self, texts: &[&str]) -> bool {
        texts.iter().enumerate().all(|(ahead, text)| self.is(ahead, text))
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        SourceFile::new("a.rs", text.to_owned()).names.iter().map(Name::to_string).collect()
    }

    #[test]
    fn spells_out_use_trees() {
        let text = "pub(crate) use a::{b, c::{self, d as e}, f::*};\nuse ::g;";
        assert_eq!(names(text), ["a::b", "a::c", "a::c::d", "a::f", "g"]);
    }

    #[test]
    fn takes_paths_and_skips_literals() {
        let text = "fn f<'a>(x: &'a b::C) { d::e::<g::H>('\\'', \"i::j\", br##\"k::\"# l\"##, b'm', x.n) }";
        assert_eq!(names(text), ["b::C", "d::e", "g::H"]);
    }

    #[test]
    fn knows_the_lines() {
        let text = "//! a::b\n\"\n\";\nuse c::d;\n\nfn f() { e::f() }\n";
        let lines: Vec<usize> = SourceFile::new("a.rs", text.to_owned()).names.iter().map(|name| name.line).collect();
        assert_eq!(lines, [4, 6]);
    }

    #[test]
    fn does_not_count_lines_of_tests() {
        let text = "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    use a::b;\n}\nfn g() {}\n";
        assert_eq!(SourceFile::new("a.rs", text.to_owned()).lines_without_tests(), 3);
    }
}
