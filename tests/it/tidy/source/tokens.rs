//! The tokens of a Rust file, as far as names are concerned: comments, strings,
//! characters and raw literals are recognised in order to be left out.

use std::{iter::Peekable, str::Chars};

/// A word, `::` or a single mark, with its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) line: usize,
    pub(super) text: String,
}

/// Words, `::` and single marks; neither comments nor literals.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut input = Input { rest: text.chars().peekable(), line: 1 };
    while let Some(first) = input.next() {
        let line = input.line;
        let token = match first {
            '/' if input.rest.peek() == Some(&'/') => {
                input.skip_line();
                continue;
            }
            '/' if input.rest.peek() == Some(&'*') => {
                input.skip_comment();
                continue;
            }
            '"' => {
                input.skip_string();
                continue;
            }
            '\'' => {
                input.skip_quote();
                continue;
            }
            ':' if input.rest.next_if_eq(&':').is_some() => "::".to_owned(),
            _ if first.is_alphanumeric() || first == '_' => {
                let word = input.word(first);
                if input.skip_prefixed_literal(&word) {
                    continue;
                }
                word
            }
            _ if first.is_whitespace() => continue,
            _ => first.to_string(),
        };
        tokens.push(Token { line, text: token });
    }
    tokens
}

/// Characters with their line.
struct Input<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
}

impl Input<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        // A token's line is that of its first character, so a break counts afterwards.
        if next == Some('\n') {
            self.line += 1;
        }
        next
    }

    fn word(&mut self, first: char) -> String {
        let mut word = String::from(first);
        while let Some(next) = self.rest.next_if(|next| next.is_alphanumeric() || *next == '_') {
            word.push(next);
        }
        word
    }

    fn skip_line(&mut self) {
        while self.next().is_some_and(|next| next != '\n') {}
    }

    fn skip_comment(&mut self) {
        let mut depth = 1;
        self.next();
        while depth > 0 {
            match self.next() {
                Some('/') if self.rest.next_if_eq(&'*').is_some() => depth += 1,
                Some('*') if self.rest.next_if_eq(&'/').is_some() => depth -= 1,
                Some(_) => {}
                None => return,
            }
        }
    }

    /// After an opening quotation mark.
    fn skip_string(&mut self) {
        while let Some(next) = self.next() {
            match next {
                '\\' => drop(self.next()),
                '"' => return,
                _ => {}
            }
        }
    }

    /// After an apostrophe: a character literal, or a lifetime, whose name is left behind
    /// as a word of its own, which is no path.
    fn skip_quote(&mut self) {
        let mut ahead = self.rest.clone();
        match ahead.next() {
            Some('\\') => {
                self.next();
                self.next();
                while self.next().is_some_and(|next| next != '\'') {}
            }
            Some(_) if ahead.next() == Some('\'') => {
                self.next();
                self.next();
            }
            _ => {}
        }
    }

    /// The literal after a prefix such as `r`, `b` or `br`; gives whether there was one.
    /// The prefix of a raw word (`r#use`) is dropped too.
    fn skip_prefixed_literal(&mut self, prefix: &str) -> bool {
        let raw = matches!(prefix, "r" | "br" | "cr");
        if !raw && !matches!(prefix, "b" | "c") {
            return false;
        }
        match self.rest.peek() {
            Some('"') if !raw => {
                self.next();
                self.skip_string();
                true
            }
            Some('\'') if prefix == "b" => {
                self.next();
                self.skip_quote();
                true
            }
            Some('"' | '#') if raw => {
                self.skip_raw();
                true
            }
            _ => false,
        }
    }

    /// `"..."` or `#"..."#` with any number of marks, after its prefix.
    fn skip_raw(&mut self) {
        let mut marks = 0;
        while self.rest.next_if_eq(&'#').is_some() {
            marks += 1;
        }
        if self.rest.next_if_eq(&'"').is_none() {
            return;
        }
        while let Some(next) = self.next() {
            let closes = next == '"' && self.rest.clone().take(marks).filter(|mark| *mark == '#').count() == marks;
            if closes {
                return; // the marks that follow are tokens that mean nothing
            }
        }
    }
}
