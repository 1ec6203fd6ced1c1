//! Nested JSON to dotted parameters, as `jeremywohl/flatten` (dot style) and Go's `%v` do it for Argo CD, with one
//! difference: whole numbers print as whole numbers (COMPAT.md, decision 3; Go prints 1000000 as `1e+06`).

use serde_json::{Number, Value};

use crate::Params;

/// Adds the leaves of a value under dotted names: `{"a": {"b": [1, 2]}}` gives `a.b.0` and `a.b.1`.
///
/// Empty maps and lists give nothing. A lone scalar needs a prefix to be named by; without one it gives nothing. The recursion
/// is as deep as the value: parsers bound it.
pub fn flatten(prefix: &str, value: &Value, params: &mut Params) {
    let name = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
    match value {
        Value::Object(map) => {
            for (key, item) in map {
                flatten(&name(key), item, params);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                flatten(&name(&index.to_string()), item, params);
            }
        }
        scalar => {
            if !prefix.is_empty() {
                params.insert(prefix.to_owned(), scalar_text(scalar));
            }
        }
    }
}

fn scalar_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number_text(number),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

/// A number as text: whole numbers in full, others as Go's `%v` prints a float64.
#[must_use]
pub fn number_text(number: &Number) -> String {
    if number.is_i64() || number.is_u64() {
        return number.to_string();
    }
    let value = number.as_f64().unwrap_or_default();
    // Above 2^53 a float says nothing about its last digits; up to 1e21 the digits are still readable, as in JavaScript.
    if value.fract() == 0.0 && value.abs() < 1e21 { format!("{value:.0}") } else { go_float(value) }
}

/// Go's `strconv.FormatFloat(value, 'g', -1, 64)`: the shortest digits, with an exponent below 1e-4 and from 1e6 on.
fn go_float(value: f64) -> String {
    // Rust's `{:e}` prints the same shortest digits, but no sign and no second digit of the exponent: `1.2345675e6`.
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let Ok(exponent) = exponent.parse::<i32>() else { return scientific };
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}
