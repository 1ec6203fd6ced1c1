//! go-yaml's order of mapping keys (`sorter.go`): letters after everything else, digits by their number.

use std::cmp::Ordering;

/// Compares two keys. Equal only for equal keys.
pub(super) fn natural(left: &str, right: &str) -> Ordering {
    if left.bytes().chain(right.bytes()).all(|byte| byte.is_ascii_alphabetic()) {
        return left.cmp(right);
    }
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let difference = left.iter().zip(&right).position(|(left, right)| left != right);
    match difference {
        None => left.len().cmp(&right.len()),
        Some(index) => at_difference(&left, &right, index),
    }
}

fn at_difference(left: &[char], right: &[char], index: usize) -> Ordering {
    let (Some(&a), Some(&b)) = (left.get(index), right.get(index)) else { return Ordering::Equal };
    match (a.is_alphabetic(), b.is_alphabetic()) {
        (true, true) => return a.cmp(&b),
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    // A zero inside a number counts for its place; a leading one does not.
    let start = if a == '0' || b == '0' {
        let before = left.iter().take(index).rev().take_while(|c| c.is_numeric());
        i64::from(before.into_iter().any(|c| *c != '0'))
    } else {
        0
    };
    let (left_number, left_digits) = number(left, index, start);
    let (right_number, right_digits) = number(right, index, start);
    left_number.cmp(&right_number).then(left_digits.cmp(&right_digits)).then(a.cmp(&b))
}

/// The number that the digits from `index` on continue; wraps on overflow, as Go's does.
fn number(text: &[char], index: usize, start: i64) -> (i64, usize) {
    let digits = text.iter().skip(index).take_while(|c| c.is_numeric());
    digits.fold((start, 0), |(value, count), digit| {
        let digit = i64::from(u32::from(*digit)) - i64::from(u32::from('0'));
        (value.wrapping_mul(10).wrapping_add(digit), count + 1)
    })
}
