//! How a string is written: which style its characters allow, and the text of each style.

use super::{Breaks, Emitter, Gap, WIDTH};
use crate::yaml::{Dialect, Resolved, resolve};

/// The style of a scalar in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Plain,
    SingleQuoted,
    DoubleQuoted,
    Literal,
}

/// What the characters of a text allow.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Analysis {
    /// It holds line breaks.
    pub(super) multiline: bool,
    plain_forbidden: bool,
    single_quoted_forbidden: bool,
    literal_forbidden: bool,
}

impl Analysis {
    pub(super) fn of(text: &str) -> Self {
        if text.is_empty() {
            return Self { literal_forbidden: true, ..Self::default() };
        }
        let indicators = text.starts_with("---") || text.starts_with("...");
        let mut scan = Scan { indicators, ..Scan::default() };
        let mut characters = text.chars().peekable();
        let mut preceded_by_blank = true;
        while let Some(character) = characters.next() {
            let next = characters.peek().copied();
            scan.character(character, preceded_by_blank, next);
            preceded_by_blank = character == ' ' || character == '\t' || is_break(character);
        }
        scan.verdict()
    }

    /// The style for a value.
    pub(super) fn value_look(self, text: &str) -> Look {
        if text.contains('\n') {
            return if self.literal_forbidden { Look::DoubleQuoted } else { Look::Literal };
        }
        if !reads_back_as_string(text) {
            return Look::DoubleQuoted;
        }
        self.without_breaks()
    }

    /// The style for a key on one line.
    pub(super) fn key_look(self, text: &str) -> Look {
        if !reads_back_as_string(text) {
            return Look::DoubleQuoted;
        }
        self.without_breaks()
    }

    fn without_breaks(self) -> Look {
        if !self.plain_forbidden {
            Look::Plain
        } else if self.single_quoted_forbidden {
            Look::DoubleQuoted
        } else {
            Look::SingleQuoted
        }
    }
}

#[derive(Default)]
struct Scan {
    started: bool,
    indicators: bool,
    special: bool,
    breaks: bool,
    leading_blank: bool,
    trailing_space: bool,
    trailing_break: bool,
    break_space: bool,
    space_break: bool,
    previous_space: bool,
    previous_break: bool,
}

impl Scan {
    fn character(&mut self, character: char, preceded_by_blank: bool, next: Option<char>) {
        let blank_follows = matches!(next, None | Some(' ' | '\t'));
        self.indicators |= match character {
            '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`'
                if !self.started =>
            {
                true
            }
            '?' | '-' => !self.started && blank_follows,
            ':' => blank_follows,
            '#' => preceded_by_blank,
            _ => false,
        };
        self.special |= !is_printable(character);
        let last = next.is_none();
        if character == ' ' {
            self.leading_blank |= !self.started;
            self.trailing_space |= last;
            self.break_space |= self.previous_break;
            self.previous_space = true;
            self.previous_break = false;
        } else if is_break(character) {
            self.breaks = true;
            self.leading_blank |= !self.started;
            self.trailing_break |= last;
            self.space_break |= self.previous_space;
            self.previous_space = false;
            self.previous_break = true;
        } else {
            self.previous_space = false;
            self.previous_break = false;
        }
        self.started = true;
    }

    fn verdict(&self) -> Analysis {
        let unquotable = self.space_break || self.special;
        Analysis {
            multiline: self.breaks,
            plain_forbidden: self.leading_blank
                || self.trailing_space
                || self.trailing_break
                || self.break_space
                || unquotable
                || self.breaks
                || self.indicators,
            single_quoted_forbidden: self.break_space || unquotable,
            literal_forbidden: self.trailing_space || unquotable,
        }
    }
}

impl Emitter {
    pub(super) fn write_plain(&mut self, text: &str, breaks: Breaks) {
        if !self.whitespace {
            self.put(' ');
        }
        self.write_folding(text, breaks, Quoting::None);
        self.whitespace = false;
        self.indention = false;
    }

    pub(super) fn write_single_quoted(&mut self, text: &str, breaks: Breaks) {
        self.indicator('\'', Gap::Blank);
        self.write_folding(text, breaks, Quoting::Single);
        self.indicator('\'', Gap::None);
    }

    /// Plain and single-quoted text differ in the doubling of quotes and in where the first break may be.
    fn write_folding(&mut self, text: &str, breaks: Breaks, quoting: Quoting) {
        let mut spaces = false;
        let mut after_break = false;
        let mut characters = text.char_indices().peekable();
        while let Some((index, character)) = characters.next() {
            let next = characters.peek().map(|(_, next)| *next);
            if character == ' ' {
                let inside = quoting == Quoting::None || (index > 0 && next.is_some());
                let fold = breaks == Breaks::Allowed && !spaces && self.column > WIDTH && inside && next != Some(' ');
                if fold {
                    self.write_indent();
                } else {
                    self.put(' ');
                }
                spaces = true;
            } else if is_break(character) {
                if !after_break && character == '\n' {
                    self.line_feed();
                }
                self.write_break(character);
                self.indention = true;
                after_break = true;
            } else {
                if after_break {
                    self.write_indent();
                }
                if quoting == Quoting::Single && character == '\'' {
                    self.put('\'');
                }
                self.put(character);
                self.indention = false;
                spaces = false;
                after_break = false;
            }
        }
    }

    pub(super) fn write_double_quoted(&mut self, text: &str, breaks: Breaks) {
        self.indicator('"', Gap::Blank);
        let bom = text.starts_with('\u{feff}');
        let mut spaces = false;
        let mut characters = text.char_indices().peekable();
        while let Some((index, character)) = characters.next() {
            if bom || !is_printable(character) || is_break(character) || character == '"' || character == '\\' {
                self.write_escape(character);
                spaces = false;
            } else if character == ' ' {
                let next = characters.peek().map(|(_, next)| *next);
                let inside = index > 0 && next.is_some();
                if breaks == Breaks::Allowed && !spaces && self.column > WIDTH && inside {
                    self.write_indent();
                    if next == Some(' ') {
                        self.put('\\');
                    }
                } else {
                    self.put(' ');
                }
                spaces = true;
            } else {
                self.put(character);
                spaces = false;
            }
        }
        self.indicator('"', Gap::None);
    }

    fn write_escape(&mut self, character: char) {
        self.put('\\');
        let short = match character {
            '\0' => Some('0'),
            '\x07' => Some('a'),
            '\x08' => Some('b'),
            '\t' => Some('t'),
            '\n' => Some('n'),
            '\x0b' => Some('v'),
            '\x0c' => Some('f'),
            '\r' => Some('r'),
            '\x1b' => Some('e'),
            '"' => Some('"'),
            '\\' => Some('\\'),
            '\u{85}' => Some('N'),
            '\u{a0}' => Some('_'),
            '\u{2028}' => Some('L'),
            '\u{2029}' => Some('P'),
            _ => None,
        };
        let code = u32::from(character);
        let text = match short {
            Some(letter) => letter.to_string(),
            None if code <= 0xff => format!("x{code:02X}"),
            None if code <= 0xffff => format!("u{code:04X}"),
            None => format!("U{code:08X}"),
        };
        for letter in text.chars() {
            self.put(letter);
        }
    }

    pub(super) fn write_literal(&mut self, text: &str) {
        self.indicator('|', Gap::Blank);
        if text.starts_with(|first| first == ' ' || is_break(first)) {
            self.indicator('2', Gap::None);
        }
        let mut end = text.chars().rev();
        match (end.next().is_some_and(is_break), end.next()) {
            (false, _) => self.indicator('-', Gap::None),
            (true, None) => self.indicator('+', Gap::None),
            (true, Some(before)) if is_break(before) => self.indicator('+', Gap::None),
            (true, Some(_)) => {}
        }
        self.line_feed();
        self.indention = true;
        self.whitespace = true;
        let mut after_break = true;
        for character in text.chars() {
            if is_break(character) {
                self.write_break(character);
                self.indention = true;
                after_break = true;
            } else {
                if after_break {
                    self.write_indent();
                }
                self.put(character);
                self.indention = false;
                after_break = false;
            }
        }
    }

    fn write_break(&mut self, character: char) {
        if character == '\n' {
            self.line_feed();
        } else {
            self.out.push(character);
            self.column = 0;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quoting {
    None,
    Single,
}

/// Whether the text, written plain, is read as a string by YAML 1.1.
fn reads_back_as_string(text: &str) -> bool {
    resolve(text, Dialect::Sigs) == Resolved::Str && !is_base_60(text)
}

/// `^[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?$`: a number of YAML 1.1 that Go reads as text, but quotes.
fn is_base_60(text: &str) -> bool {
    if !text.starts_with(|first: char| first == '+' || first == '-' || first.is_ascii_digit()) {
        return false;
    }
    let body = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (body, fraction) = body.split_once('.').unwrap_or((body, ""));
    let mut parts = body.split(':');
    let number = |byte: u8| byte.is_ascii_digit() || byte == b'_';
    let first = parts.next().unwrap_or_default();
    let first_fits = first.starts_with(|first: char| first.is_ascii_digit()) && first.bytes().all(number);
    let mut count = 0;
    let rest_fits = parts.all(|part| {
        count += 1;
        match part.as_bytes() {
            [digit] => digit.is_ascii_digit(),
            [tens, digit] => (b'0'..=b'5').contains(tens) && digit.is_ascii_digit(),
            _ => false,
        }
    });
    first_fits && rest_fits && count > 0 && fraction.bytes().all(number)
}

fn is_break(character: char) -> bool {
    matches!(character, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Characters beyond the basic plane count as special to this emitter, so emoji are escaped.
fn is_printable(character: char) -> bool {
    matches!(character,
        '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}')
}
