//! Quantities of Kubernetes (`1500m`, `1.5Gi`, `2e3`) compared by value, exactly, without floats.
//!
//! Grammar: k8s.io/apimachinery `pkg/api/resource/quantity.go`. Fractions below one nano are rounded up, as there.

use serde_json::Value;

/// Whether two JSON scalars are the same quantity. A text that is no quantity equals nothing.
#[must_use]
pub fn equal(left: &Value, right: &Value) -> bool {
    match (value(left), value(right)) {
        (Some(left), Some(right)) => left == right,
        _ => false,
    }
}

fn value(scalar: &Value) -> Option<i128> {
    match scalar {
        Value::String(text) => nanos(text),
        Value::Number(number) => nanos(&number.to_string()),
        _ => None,
    }
}

/// The quantity in billionths; `None` when the text is none, or beyond what 128 bits hold.
#[must_use]
pub fn nanos(text: &str) -> Option<i128> {
    let text = text.trim();
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = text.find(|character: char| !(character.is_ascii_digit() || character == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let (multiplier, exponent) = scale(suffix)?;
    // digits * multiplier * 10^(exponent + 9 - places of the fraction)
    let power = exponent.checked_add(9)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let scaled = digits.checked_mul(multiplier)?;
    let nanos = if power >= 0 {
        scaled.checked_mul(ten_to(power)?)?
    } else {
        let divisor = ten_to(-power)?;
        scaled.checked_add(divisor - 1)? / divisor
    };
    Some(if negative { -nanos } else { nanos })
}

fn ten_to(power: i32) -> Option<i128> {
    10_i128.checked_pow(u32::try_from(power).ok()?)
}

/// Multiplier and decimal exponent of a suffix.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    let scale = match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => (1, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    (-40..=40).contains(&scale.1).then_some(scale)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_not_texts_are_compared() {
        for (left, right) in [
            (json!("1000m"), json!(1)),
            (json!("1"), json!("1.0")),
            (json!("1Gi"), json!("1024Mi")),
            (json!("1.5Gi"), json!("1536Mi")),
            (json!("1e3"), json!("1k")),
            (json!(0.5), json!("500m")),
            (json!("0.1"), json!("100m")),
        ] {
            assert!(equal(&left, &right), "{left} {right}");
        }
        for (left, right) in [("1", "1001m"), ("1G", "1Gi"), ("x", "x"), ("", ""), ("1.2.3", "1.2.3"), ("1e99", "1e99")]
        {
            assert!(!equal(&json!(left), &json!(right)), "{left} {right}");
        }
    }
}
