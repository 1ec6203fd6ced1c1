//! What a `targetRevision` means, decided on a list of references. Pure.
//!
//! Order, after Argo CD's `LsRemote`: nothing is `HEAD`; a full SHA is itself; a version range takes the highest tag it
//! matches; then a reference of that full name, the branch, the tag; then an abbreviated SHA. Argo takes whichever of a
//! branch and a tag of one name its server listed first, which is not fixed; here the branch wins, always.

use std::fmt;

use super::{SourceError, version::Range};

/// A full SHA-1 commit id in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(String);

impl CommitId {
    /// Accepts exactly 40 hexadecimal digits of either case.
    pub fn parse(text: &str) -> Option<Self> {
        let valid = text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        valid.then(|| Self(text.to_ascii_lowercase()))
    }

    /// The 40 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn object_id(&self) -> gix::ObjectId {
        gix::ObjectId::from_hex(self.0.as_bytes()).unwrap_or_else(|_| gix::ObjectId::null(gix::hash::Kind::Sha1))
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<gix::ObjectId> for CommitId {
    fn from(id: gix::ObjectId) -> Self {
        Self(id.to_hex().to_string())
    }
}

/// A reference of a repository and the object it leads to, annotated tags peeled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListedRef {
    pub(super) name: String,
    pub(super) target: CommitId,
}

/// What someone asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    Head,
    Commit(CommitId),
    Name(String),
    Range { text: String, range: Range },
}

/// What a list of references makes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selected {
    Ref(ListedRef),
    /// Looks like an abbreviated SHA; the object database decides.
    Abbreviated(String),
    Unknown,
}

impl Wanted {
    /// Longest reference name accepted.
    const MAX_LENGTH: usize = 1024;

    pub(super) fn parse(text: &str) -> Result<Self, SourceError> {
        let text = text.trim();
        let refuse = |reason: &str| SourceError::Reference {
            reference: text.chars().take(200).collect(),
            reason: reason.to_owned(),
        };
        if text.is_empty() || text == "HEAD" {
            return Ok(Self::Head);
        }
        if text.len() > Self::MAX_LENGTH {
            return Err(refuse("it is longer than 1024 bytes"));
        }
        if let Some(commit) = CommitId::parse(text) {
            return Ok(Self::Commit(commit));
        }
        if let Some(range) = Range::parse(text) {
            return Ok(Self::Range { text: text.to_owned(), range });
        }
        if !is_ref_name(text) {
            return Err(refuse("git allows no reference of that name"));
        }
        Ok(Self::Name(text.to_owned()))
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Head => "HEAD",
            Self::Commit(commit) => commit.as_str(),
            Self::Name(text) | Self::Range { text, .. } => text,
        }
    }

    /// Finds it among the references of a repository.
    pub(super) fn select(&self, refs: &[ListedRef]) -> Selected {
        let named = |name: &str| refs.iter().find(|listed| listed.name == name).cloned();
        let by_name = |text: &str| {
            named(text)
                .filter(|_| text.starts_with("refs/"))
                .or_else(|| named(&format!("refs/heads/{text}")))
                .or_else(|| named(&format!("refs/tags/{text}")))
                .or_else(|| named(&format!("refs/{text}")))
        };
        let found = match self {
            Self::Head => named("HEAD"),
            Self::Commit(_) => None,
            Self::Name(text) => by_name(text),
            Self::Range { text, range } => {
                let tags = refs.iter().filter_map(|listed| listed.name.strip_prefix("refs/tags/"));
                range.highest(tags).and_then(|tag| named(&format!("refs/tags/{tag}"))).or_else(|| by_name(text))
            }
        };
        match (found, self) {
            (Some(listed), _) => Selected::Ref(listed),
            (None, Self::Name(text)) if is_abbreviated(text) => Selected::Abbreviated(text.to_ascii_lowercase()),
            (None, _) => Selected::Unknown,
        }
    }

    /// Whether a push to `pushed` (`refs/heads/main`, `refs/tags/v1`, or a short name) can move it.
    pub(super) fn affected_by(&self, pushed: &str) -> bool {
        match self {
            // Which branch HEAD is cannot be known without asking.
            Self::Head => !pushed.starts_with("refs/tags/"),
            Self::Commit(_) => false,
            Self::Name(text) => same_name(text, pushed),
            Self::Range { text, .. } => !pushed.starts_with("refs/heads/") || same_name(text, pushed),
        }
    }
}

/// Whether two names, each full or short, can mean one reference.
fn same_name(one: &str, other: &str) -> bool {
    let short = |name: &str| {
        let name = name.strip_prefix("refs/").unwrap_or(name);
        let name = name.strip_prefix("heads/").or_else(|| name.strip_prefix("tags/")).unwrap_or(name);
        name.to_owned()
    };
    let both_full = one.starts_with("refs/") && other.starts_with("refs/");
    if both_full { one == other } else { short(one) == short(other) }
}

/// 7 to 39 hexadecimal digits, as Argo CD takes them.
fn is_abbreviated(text: &str) -> bool {
    (7..40).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The rules of `git check-ref-format --allow-onelevel`.
fn is_ref_name(text: &str) -> bool {
    let bad = |c: char| c.is_control() || " ~^:?*[\\\u{7f}".contains(c);
    !text.chars().any(bad)
        && !text.contains("..")
        && !text.contains("@{")
        && text != "@"
        && !text.ends_with('.')
        && text.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"))
}
