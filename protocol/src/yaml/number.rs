//! Numbers as text, digit for digit as Go's `strconv` and `encoding/json` print them.

use serde_json::{Number, Value};

/// The largest float that Go's JSON prints without an exponent is just below this.
const JSON_EXPONENT: i32 = 21;

/// The same for the format `g`: its "shortest" precision counts as 6 when the form is chosen.
const FLOAT_EXPONENT: i32 = 6;

/// `FormatFloat(value, 'g', -1, 64)`: the shortest digits, with an exponent below 1e-4 and from 1e6 on.
#[must_use]
pub fn plain_float(value: f64) -> String {
    let (negative, digits, exponent) = shortest(value);
    if !(-4..FLOAT_EXPONENT).contains(&exponent) {
        scientific(negative, &digits, exponent, 2)
    } else {
        decimal(negative, &digits, exponent)
    }
}

/// A float as Go's JSON prints it: an exponent only below 1e-6 and from 1e21 on, with no leading zero in it.
#[must_use]
pub fn json_float(value: f64) -> String {
    let (negative, digits, exponent) = shortest(value);
    if value != 0.0 && !(-6..JSON_EXPONENT).contains(&exponent) {
        // Go drops the zero of `e-09`, but keeps that of `e+09`, which cannot occur.
        scientific(negative, &digits, exponent, if exponent < 0 { 1 } else { 2 })
    } else {
        decimal(negative, &digits, exponent)
    }
}

/// The text of a JSON number as it stands after Go has written it as JSON, read that as YAML, and written YAML.
#[must_use]
pub fn json_number_text(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => {
            let json = json_float(float);
            let whole = !json.contains(['.', 'e']);
            if whole && (json.parse::<i64>().is_ok() || json.parse::<u64>().is_ok()) {
                return if json == "-0" { "0".to_owned() } else { json };
            }
            plain_float(float)
        }
        _ => number.to_string(),
    }
}

/// A float as JSON holds it: a whole number becomes an integer, as it would on its way through Go. `None` for
/// infinities and NaN.
pub(super) fn float_value(float: f64) -> Option<Value> {
    if !float.is_finite() {
        return None;
    }
    let json = json_float(float);
    // A negative zero stays a float: its sign shows where the number becomes text.
    if !json.contains(['.', 'e']) && json != "-0" {
        if let Ok(whole) = json.parse::<i64>() {
            return Some(Value::from(whole));
        }
        if let Ok(whole) = json.parse::<u64>() {
            return Some(Value::from(whole));
        }
    }
    Number::from_f64(float).map(Value::Number)
}

/// Sign, shortest digits without the point, and the decimal exponent of the first digit.
fn shortest(value: f64) -> (bool, String, i32) {
    let text = format!("{:e}", value.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let digits = mantissa.chars().filter(char::is_ascii_digit).collect();
    (value.is_sign_negative(), digits, exponent.parse().unwrap_or(0))
}

fn scientific(negative: bool, digits: &str, exponent: i32, width: usize) -> String {
    let (first, rest) = digits.split_at_checked(1).unwrap_or((digits, ""));
    let sign = if negative { "-" } else { "" };
    let point = if rest.is_empty() { "" } else { "." };
    let exponent_sign = if exponent < 0 { '-' } else { '+' };
    format!("{sign}{first}{point}{rest}e{exponent_sign}{:0width$}", exponent.unsigned_abs())
}

fn decimal(negative: bool, digits: &str, exponent: i32) -> String {
    let mut text = String::from(if negative { "-" } else { "" });
    let count = digits.len();
    match usize::try_from(exponent) {
        Ok(whole) if whole + 1 >= count => {
            text.push_str(digits);
            text.push_str(&"0".repeat(whole + 1 - count));
        }
        Ok(whole) => {
            let (left, right) = digits.split_at_checked(whole + 1).unwrap_or((digits, ""));
            text.push_str(left);
            text.push('.');
            text.push_str(right);
        }
        Err(_) => {
            text.push_str("0.");
            let zeros = exponent.unsigned_abs().saturating_sub(1);
            text.push_str(&"0".repeat(usize::try_from(zeros).unwrap_or(0)));
            text.push_str(digits);
        }
    }
    text
}
