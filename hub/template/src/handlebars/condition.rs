//! Conditions of blocks: a name, or `eq`, `ne`, `and`, `or`, `not` in parentheses over names, literals and each other.

use crate::Params;

/// Parentheses inside parentheses; the parser recurses this deep.
const DEPTH: usize = 16;

/// A condition all of whose names are parameters.
#[derive(Debug)]
pub(super) enum Condition {
    Param(String),
    Literal(String),
    Call(Helper, Vec<Self>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Helper {
    Eq,
    Ne,
    And,
    Or,
    Not,
}

impl Condition {
    /// `None` when the text is not such a condition: then the block belongs to another tool.
    pub(super) fn parse(text: &str, params: &Params) -> Option<Self> {
        let mut rest = text;
        let condition = operand(&mut rest, params, 0)?;
        let is_ours = rest.trim().is_empty() && !matches!(condition, Self::Literal(_));
        is_ours.then_some(condition)
    }

    pub(super) fn holds(&self, params: &Params) -> bool {
        match self {
            Self::Param(_) | Self::Literal(_) => is_true(&self.text(params)),
            Self::Call(helper, operands) => match helper {
                Helper::And => operands.iter().all(|one| one.holds(params)),
                Helper::Or => operands.iter().any(|one| one.holds(params)),
                Helper::Not => !operands.iter().any(|one| one.holds(params)),
                Helper::Eq => equal(operands, params),
                Helper::Ne => !equal(operands, params),
            },
        }
    }

    fn text(&self, params: &Params) -> String {
        match self {
            Self::Param(name) => params.get(name).cloned().unwrap_or_default(),
            Self::Literal(text) => text.clone(),
            Self::Call(..) => self.holds(params).to_string(),
        }
    }
}

fn equal(operands: &[Condition], params: &Params) -> bool {
    match operands {
        [left, right] => left.text(params) == right.text(params),
        _ => false,
    }
}

fn is_true(text: &str) -> bool {
    !matches!(text, "" | "false" | "0" | "<nil>")
}

fn operand(rest: &mut &str, params: &Params, depth: usize) -> Option<Condition> {
    *rest = rest.trim_start();
    if let Some(inner) = rest.strip_prefix('(') {
        *rest = inner;
        return if depth < DEPTH { call(rest, params, depth + 1) } else { None };
    }
    if let Some(quote) = rest.chars().next().filter(|first| matches!(first, '"' | '\'')) {
        return literal(rest, quote);
    }
    let name = word(rest)?;
    if params.contains_key(name) {
        return Some(Condition::Param(name.to_owned()));
    }
    let is_literal = matches!(name, "true" | "false") || name.parse::<f64>().is_ok_and(f64::is_finite);
    is_literal.then(|| Condition::Literal(name.to_owned()))
}

fn call(rest: &mut &str, params: &Params, depth: usize) -> Option<Condition> {
    *rest = rest.trim_start();
    let helper = match word(rest)? {
        "eq" => Helper::Eq,
        "ne" => Helper::Ne,
        "and" => Helper::And,
        "or" => Helper::Or,
        "not" => Helper::Not,
        _ => return None,
    };
    let mut operands = Vec::new();
    loop {
        *rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(')') {
            *rest = after;
            break;
        }
        operands.push(operand(rest, params, depth)?);
    }
    let counts = match helper {
        Helper::Eq | Helper::Ne => operands.len() == 2,
        Helper::And | Helper::Or => !operands.is_empty(),
        Helper::Not => operands.len() == 1,
    };
    counts.then_some(Condition::Call(helper, operands))
}

/// A name: everything up to a blank, a parenthesis or a quote.
fn word<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let ends = |c: char| c.is_whitespace() || matches!(c, '(' | ')' | '"' | '\'');
    let (name, after) = rest.split_at_checked(rest.find(ends).unwrap_or(rest.len()))?;
    *rest = after;
    (!name.is_empty()).then_some(name)
}

/// A text in quotes; a backslash before the quote keeps it.
fn literal(rest: &mut &str, quote: char) -> Option<Condition> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            *rest = rest.get(at + 1..)?;
            return Some(Condition::Literal(text));
        }
        if c == '\\'
            && let Some((_, kept)) = chars.next_if(|(_, next)| *next == quote)
        {
            text.push(kept);
        } else {
            text.push(c);
        }
    }
    None
}
