//! Version ranges on tags, with the grammar and the quirks of Masterminds/semver v3, which Argo CD uses. Pure.
//!
//! `1.2.3`, `v1.2` and `1` are versions, so names of tags, not ranges. `^1.2`, `~1.2`, `1.2.x`, `>=1 <2`, `1.0 - 2.0`,
//! `*` and `a || b` are ranges. A pre-release matches only where one of the comparisons joined by "and" names a pre-release.

use std::cmp::Ordering;

/// A parsed range: any of the groups, all comparisons of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range(Vec<Vec<Comparison>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    major: u64,
    minor: u64,
    patch: u64,
    pre: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    Tilde,
    Caret,
}

/// How much of the version was written: `*`, `1`, `1.2` or `1.2.3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Precision {
    Any,
    Major,
    Minor,
    Full,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Comparison {
    operator: Operator,
    version: Version,
    precision: Precision,
}

impl Range {
    /// Comparisons in one range; more is no honest range.
    const MAX_COMPARISONS: usize = 64;

    /// `None` if the text is a plain version or no range at all.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if Version::parse(text).is_some() {
            return None;
        }
        let groups = text.split("||").map(parse_group).collect::<Option<Vec<_>>>()?;
        let count: usize = groups.iter().map(Vec::len).sum();
        (count <= Self::MAX_COMPARISONS).then_some(Self(groups))
    }

    /// The tag with the highest version that matches; of equal versions the first.
    pub(super) fn highest<'a>(&self, tags: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        let mut best: Option<(Version, &str)> = None;
        for tag in tags {
            let Some(version) = Version::parse(tag).filter(|version| self.matches(version)) else {
                continue;
            };
            if best.as_ref().is_none_or(|(highest, _)| version.compare(highest) == Ordering::Greater) {
                best = Some((version, tag));
            }
        }
        best.map(|(_, tag)| tag)
    }

    fn matches(&self, version: &Version) -> bool {
        self.0.iter().any(|group| {
            let pre_releases = group.iter().any(|comparison| !comparison.version.pre.is_empty());
            (version.pre.is_empty() || pre_releases) && group.iter().all(|comparison| comparison.matches(version))
        })
    }
}

fn parse_group(text: &str) -> Option<Vec<Comparison>> {
    // `1.2 - 1.4` is `>=1.2 <=1.4`; the blanks tell it from a pre-release.
    if let Some((low, high)) = text.split_once(" - ") {
        let bound = |operator, text: &str| {
            let (version, precision, rest) = parse_partial(text.trim())?;
            rest.is_empty().then_some(Comparison { operator, version, precision })
        };
        return Some(vec![bound(Operator::GreaterEqual, low)?, bound(Operator::LessEqual, high)?]);
    }
    let mut comparisons = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (operator, tail) = parse_operator(rest);
        let (version, precision, tail) = parse_partial(tail.trim_start())?;
        // Something must separate two comparisons.
        if !(tail.is_empty() || tail.starts_with([' ', ',', '\t'])) {
            return None;
        }
        comparisons.push(Comparison { operator, version, precision });
        let tail = tail.trim_start();
        rest = match tail.strip_prefix(',') {
            // A comma at the end separates nothing.
            Some(after) if after.trim().is_empty() => return None,
            Some(after) => after.trim_start(),
            None => tail,
        };
    }
    (!comparisons.is_empty()).then_some(comparisons)
}

fn parse_operator(text: &str) -> (Operator, &str) {
    const OPERATORS: [(&str, Operator); 12] = [
        ("!=", Operator::NotEqual),
        (">=", Operator::GreaterEqual),
        ("=>", Operator::GreaterEqual),
        ("<=", Operator::LessEqual),
        ("=<", Operator::LessEqual),
        ("~>", Operator::Tilde),
        ("=", Operator::Equal),
        (">", Operator::Greater),
        ("<", Operator::Less),
        ("~", Operator::Tilde),
        ("^", Operator::Caret),
        ("", Operator::Equal),
    ];
    OPERATORS
        .iter()
        .find_map(|(sign, operator)| text.strip_prefix(sign).map(|rest| (*operator, rest)))
        .unwrap_or((Operator::Equal, text))
}

/// Reads `v1.2.x-pre+meta` from the start of `text`; gives what is left.
fn parse_partial(text: &str) -> Option<(Version, Precision, &str)> {
    let end = text.find([' ', ',', '\t']).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let word = word.strip_prefix('v').unwrap_or(word);
    let word = word.split_once('+').map_or(word, |(word, _)| word);
    let (numbers, pre) = word.split_once('-').unwrap_or((word, ""));
    if !is_pre_release(pre) || (pre.is_empty() && word.contains('-')) {
        return None;
    }
    let parts: Vec<&str> = numbers.split('.').collect();
    if parts.len() > 3 {
        return None;
    }
    let mut values = [0u64; 3];
    let mut known = 0;
    let mut wild = false;
    for (slot, part) in values.iter_mut().zip(&parts) {
        if matches!(*part, "x" | "X" | "*") {
            wild = true;
        } else {
            let value = parse_number(part)?;
            // `1.x.3` means `1.x`, as in the reference.
            if !wild {
                *slot = value;
                known += 1;
            }
        }
    }
    let precision = match known {
        0 => Precision::Any,
        1 => Precision::Major,
        2 => Precision::Minor,
        _ => Precision::Full,
    };
    let [major, minor, patch] = values;
    let version = Version { major, minor, patch, pre: pre.to_owned() };
    Some((version, precision, rest))
}

fn parse_number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

fn is_pre_release(text: &str) -> bool {
    text.is_empty()
        || text
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        if text.contains([' ', ',', '\t']) {
            return None;
        }
        let numbers = text.strip_prefix('v').unwrap_or(text);
        let numbers = numbers.split(['-', '+']).next().unwrap_or_default();
        if numbers.split('.').any(|part| matches!(part, "x" | "X" | "*")) {
            return None;
        }
        let (version, _, rest) = parse_partial(text)?;
        rest.is_empty().then_some(version)
    }

    fn numbers(&self) -> (u64, u64, u64) {
        (self.major, self.minor, self.patch)
    }

    /// Precedence of semver 2.0; build metadata counts for nothing.
    fn compare(&self, other: &Self) -> Ordering {
        self.numbers().cmp(&other.numbers()).then_with(|| match (self.pre.as_str(), other.pre.as_str()) {
            ("", "") => Ordering::Equal,
            ("", _) => Ordering::Greater,
            (_, "") => Ordering::Less,
            (left, right) => compare_pre_releases(left, right),
        })
    }
}

fn compare_pre_releases(left: &str, right: &str) -> Ordering {
    let mut left = left.split('.');
    let mut right = right.split('.');
    loop {
        let order = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(left), Some(right)) => match (parse_number(left), parse_number(right)) {
                (Some(left), Some(right)) => left.cmp(&right),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => left.cmp(right),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

impl Comparison {
    fn matches(&self, version: &Version) -> bool {
        let bound = &self.version;
        let order = version.compare(bound);
        match self.operator {
            Operator::Equal if self.precision == Precision::Full => order == Ordering::Equal,
            Operator::Equal => self.within_tilde(version),
            Operator::NotEqual if self.precision == Precision::Full => order != Ordering::Equal,
            Operator::NotEqual => !self.same_prefix(version),
            Operator::Greater if self.precision == Precision::Full => order == Ordering::Greater,
            // `>11` starts at 12, `>11.1` at 11.2.
            Operator::Greater => order == Ordering::Greater && !self.same_prefix(version),
            Operator::GreaterEqual => order != Ordering::Less,
            Operator::Less => order == Ordering::Less,
            // `<=11` includes 11.9.
            Operator::LessEqual => order != Ordering::Greater || self.same_prefix(version),
            Operator::Tilde => self.within_tilde(version),
            Operator::Caret => order != Ordering::Less && self.below_caret(version),
        }
    }

    /// Equal in the parts that were written.
    fn same_prefix(&self, version: &Version) -> bool {
        let bound = &self.version;
        match self.precision {
            Precision::Any => true,
            Precision::Major => version.major == bound.major,
            Precision::Minor => (version.major, version.minor) == (bound.major, bound.minor),
            Precision::Full => version.numbers() == bound.numbers(),
        }
    }

    fn within_tilde(&self, version: &Version) -> bool {
        let bound = &self.version;
        // The reference takes `~0.0.0` for `>=0.0.0`.
        if version.compare(bound) == Ordering::Less {
            return false;
        }
        match self.precision {
            Precision::Any => true,
            Precision::Full if bound.numbers() == (0, 0, 0) => true,
            Precision::Major => version.major == bound.major,
            Precision::Minor | Precision::Full => (version.major, version.minor) == (bound.major, bound.minor),
        }
    }

    /// Below the next change of the leftmost part that is not zero.
    fn below_caret(&self, version: &Version) -> bool {
        let bound = &self.version;
        if self.precision == Precision::Any {
            return true;
        }
        if bound.major > 0 || self.precision == Precision::Major {
            return version.major == bound.major;
        }
        if bound.minor > 0 || self.precision == Precision::Minor {
            return (version.major, version.minor) == (bound.major, bound.minor);
        }
        version.numbers() == bound.numbers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAGS: [&str; 12] = [
        "v0.0.3",
        "v0.2.3",
        "v0.2.9",
        "v0.3.0",
        "v1.0.0",
        "v1.2.0",
        "1.2.7",
        "v1.10.1",
        "v2.0.0-rc.1",
        "v2.0.0-rc.10",
        "v3.1.0",
        "nightly",
    ];

    #[track_caller]
    fn check(range: &str, expect: Option<&str>) {
        let parsed = Range::parse(range).unwrap_or_else(|| panic!("{range} is a range"));
        assert_eq!(parsed.highest(TAGS.into_iter()), expect, "{range}");
    }

    #[test]
    fn the_highest_matching_tag_wins() {
        check("*", Some("v3.1.0"));
        check("^1", Some("v1.10.1"));
        check("^1.2.0", Some("v1.10.1"));
        check("~1.2", Some("1.2.7"));
        check("1.2.x", Some("1.2.7"));
        check("v1.x", Some("v1.10.1"));
        check("^0.2.3", Some("v0.2.9"));
        check("^0.0.3", Some("v0.0.3"));
        check("^0", Some("v0.3.0"));
        check(">=1.0.0 <2", Some("v1.10.1"));
        check(">= 1.0.0, < 1.10", Some("1.2.7"));
        check("1.0 - 1.2", Some("1.2.7"));
        check("<=1.2", Some("1.2.7"));
        check(">1.2 <2", Some("v1.10.1"));
        check(">3", None);
        check("!=3.1.0", Some("v1.10.1"));
        check("~0.2 || ^1.2", Some("v1.10.1"));
        check(">=2.0.0-0 <3", Some("v2.0.0-rc.10"));
        check("4.x", None);
    }

    #[test]
    fn names_and_versions_are_no_ranges() {
        for text in ["main", "v1.2.3", "1.2", "v1", "release-1.x", "feature/x", "1.2.3-rc.1", "", "^", ">= ", "1.x,"] {
            assert_eq!(Range::parse(text), None, "{text}");
        }
    }
}
