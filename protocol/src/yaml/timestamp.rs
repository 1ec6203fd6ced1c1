//! Timestamps as go-yaml reads them and as Go's JSON prints them.
//!
//! An unquoted `2024-1-2` in a manifest is a time to Kustomize, which therefore prints `2024-01-02T00:00:00Z`.

/// A moment as written; the zone is kept because Go prints it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timestamp {
    year: u32,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
    nanosecond: u32,
    offset_minutes: i32,
}

/// Parses one of the four layouts go-yaml allows.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    let mut cursor = Cursor { rest: text.as_bytes() };
    let leading = text.bytes().take_while(u8::is_ascii_digit).count();
    if leading != 4 {
        return None;
    }
    let year = cursor.number(4, 4)?;
    cursor.expect(b'-')?;
    let month = cursor.number(1, 2)?;
    cursor.expect(b'-')?;
    let day = cursor.number(1, 2)?;
    if !(1..=12).contains(&month) || day < 1 || day > days(year, month) {
        return None;
    }
    let mut stamp = Timestamp { year, month, day, hour: 0, minute: 0, second: 0, nanosecond: 0, offset_minutes: 0 };
    let Some(separator) = cursor.next() else { return Some(stamp) };
    cursor.time(&mut stamp)?;
    match separator {
        b'T' | b't' => stamp.offset_minutes = cursor.zone()?,
        b' ' => {}
        _ => return None,
    }
    cursor.rest.is_empty().then_some(stamp)
}

impl Timestamp {
    /// RFC 3339 with as many digits of the second as needed.
    pub(super) fn to_rfc3339(self) -> String {
        let Self { year, month, day, hour, minute, second, nanosecond, offset_minutes } = self;
        let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        if nanosecond > 0 {
            let fraction = format!("{nanosecond:09}");
            text.push('.');
            text.push_str(fraction.trim_end_matches('0'));
        }
        if offset_minutes == 0 {
            text.push('Z');
        } else {
            let sign = if offset_minutes < 0 { '-' } else { '+' };
            let minutes = offset_minutes.unsigned_abs();
            text.push_str(&format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
        }
        text
    }
}

fn days(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    fn number(&mut self, least: usize, most: usize) -> Option<u32> {
        let count = self.rest.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
        if count < least {
            return None;
        }
        let (digits, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(digits.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')))
    }

    fn time(&mut self, stamp: &mut Timestamp) -> Option<()> {
        stamp.hour = self.number(1, 2)?;
        self.expect(b':')?;
        stamp.minute = self.number(1, 2)?;
        self.expect(b':')?;
        stamp.second = self.number(1, 2)?;
        if matches!(self.rest.first(), Some(b'.' | b',')) {
            let digits = self.rest.iter().skip(1).take_while(|byte| byte.is_ascii_digit()).count();
            if (1..=9).contains(&digits) {
                self.next();
                let value = self.number(digits, digits)?;
                let missing = 9_u32.checked_sub(u32::try_from(digits).ok()?)?;
                stamp.nanosecond = value.checked_mul(10_u32.pow(missing))?;
            }
        }
        (stamp.hour < 24 && stamp.minute < 60 && stamp.second < 60).then_some(())
    }

    fn zone(&mut self) -> Option<i32> {
        let sign = match self.next()? {
            b'Z' => return Some(0),
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        let hours = self.number(2, 2)?;
        self.expect(b':')?;
        let minutes = self.number(2, 2)?;
        if hours > 24 || minutes > 60 {
            return None;
        }
        Some(sign * i32::try_from(hours * 60 + minutes).ok()?)
    }
}
