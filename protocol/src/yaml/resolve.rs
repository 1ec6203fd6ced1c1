//! What a plain scalar means, word for word as go-yaml decides it (`resolve.go` of v2 and v3).
//!
//! It never looks at quoted scalars: those are strings. Base-60 numbers are strings to Go; the printer quotes them.

use super::{Dialect, timestamp};

/// The type and value of a plain scalar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Resolved {
    /// `null`, `~` and the empty text.
    Null,
    /// A boolean word.
    Bool(bool),
    /// An integer that fits 64 bits with a sign.
    Int(i64),
    /// A larger one that fits without a sign.
    Uint(u64),
    /// A float, infinities and NaN included.
    Float(f64),
    /// A date, or date and time.
    Timestamp,
    /// `<<`
    Merge,
    /// Everything else.
    Str,
}

/// Decides the type of a plain scalar.
#[must_use]
pub fn resolve(text: &str, dialect: Dialect) -> Resolved {
    let Some(first) = text.as_bytes().first() else { return Resolved::Null };
    match first {
        b'y' | b'Y' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'o' | b'O' | b'~' => word(text, dialect),
        b'.' => dotted(text),
        b'<' if text == "<<" => Resolved::Merge,
        b'0'..=b'9' | b'+' | b'-' => numeric(text),
        _ => Resolved::Str,
    }
}

fn word(text: &str, dialect: Dialect) -> Resolved {
    match text {
        "true" | "True" | "TRUE" => Resolved::Bool(true),
        "false" | "False" | "FALSE" => Resolved::Bool(false),
        "~" | "null" | "Null" | "NULL" => Resolved::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" if dialect == Dialect::Sigs => Resolved::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" if dialect == Dialect::Sigs => Resolved::Bool(false),
        _ => Resolved::Str,
    }
}

fn dotted(text: &str) -> Resolved {
    match text {
        ".nan" | ".NaN" | ".NAN" => Resolved::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" => Resolved::Float(f64::INFINITY),
        _ => float(text),
    }
}

fn numeric(text: &str) -> Resolved {
    match text {
        "+.inf" | "+.Inf" | "+.INF" => return Resolved::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Resolved::Float(f64::NEG_INFINITY),
        _ => {}
    }
    if timestamp::parse(text).is_some() {
        return Resolved::Timestamp;
    }
    let plain: std::borrow::Cow<'_, str> = if text.contains('_') { text.replace('_', "").into() } else { text.into() };
    integer(&plain).unwrap_or_else(|| float(&plain))
}

/// Go's `ParseInt(text, 0, 64)`, then `ParseUint`, then the binary and octal forms go-yaml tries by hand.
fn integer(text: &str) -> Option<Resolved> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let signed = digits.len() != text.len();
    let (radix, body) = radix(digits);
    if body.is_empty() || !body.bytes().all(|byte| char::from(byte).is_digit(radix)) {
        return None;
    }
    let magnitude = u64::from_str_radix(body, radix).ok()?;
    if negative {
        let value = 0_i64.checked_sub_unsigned(magnitude)?;
        return Some(Resolved::Int(value));
    }
    match i64::try_from(magnitude) {
        Ok(value) => Some(Resolved::Int(value)),
        // `ParseUint` takes no sign, so `+18446744073709551615` is a float; as in Go.
        Err(_) if signed => None,
        Err(_) => Some(Resolved::Uint(magnitude)),
    }
}

fn radix(digits: &str) -> (u32, &str) {
    let bytes = digits.as_bytes();
    match (bytes.first(), bytes.get(1)) {
        (Some(b'0'), Some(b'x' | b'X')) => (16, digits.get(2..).unwrap_or_default()),
        (Some(b'0'), Some(b'o' | b'O')) => (8, digits.get(2..).unwrap_or_default()),
        (Some(b'0'), Some(b'b' | b'B')) => (2, digits.get(2..).unwrap_or_default()),
        (Some(b'0'), Some(_)) => (8, digits.get(1..).unwrap_or_default()),
        _ => (10, digits),
    }
}

/// `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`, and within the range of a float.
fn float(text: &str) -> Resolved {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes.iter().skip(from).take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = usize::from(matches!(bytes.first(), Some(b'-' | b'+')));
    let whole = digits(at);
    at += whole;
    let mut fraction = 0;
    if bytes.get(at) == Some(&b'.') {
        fraction = digits(at + 1);
        at += 1 + fraction;
    }
    if whole == 0 && fraction == 0 {
        return Resolved::Str;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'-' | b'+')));
        let exponent = digits(at);
        if exponent == 0 {
            return Resolved::Str;
        }
        at += exponent;
    }
    match text.parse::<f64>() {
        Ok(value) if at == bytes.len() && value.is_finite() => Resolved::Float(value),
        _ => Resolved::Str,
    }
}
