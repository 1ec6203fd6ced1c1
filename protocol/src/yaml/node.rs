//! The tree a YAML text becomes: what a scalar looked like is kept, what it means is decided late.
//!
//! Kustomize edits scalars as *text with a style and a tag* and lets their type fall out at the end (a name
//! `1` after a prefix `2` becomes the number 21); this form makes the same possible without a detour over text.

use super::resolve::Resolved;

/// One node. Aliases and merge keys are gone: they are expanded while loading.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// A leaf, null included.
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<Self>),
    /// Keys and values in the order of the text; keys are unique by text.
    Mapping(Vec<(Scalar, Self)>),
}

/// A leaf or a mapping key.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    /// The text after unescaping and folding.
    pub text: String,
    /// The type it was found or declared to have.
    pub tag: Tag,
    /// How it was written.
    pub style: Style,
    /// Line in its file, from 1; 0 for a scalar made by code.
    pub line: u32,
}

/// Type of a scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// None given: a plain scalar means what its text resolves to, a quoted one is a string.
    Unset,
    /// A string, whatever it looks like.
    Str,
    /// An integer.
    Int,
    /// A float.
    Float,
    /// A boolean.
    Bool,
    /// Null.
    Null,
    /// A timestamp.
    Timestamp,
    /// Base64 of bytes.
    Binary,
    /// The key `<<`.
    Merge,
    /// An application's own tag; the text is taken as a string.
    Other,
}

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Without quotes.
    Plain,
    /// `'…'`
    SingleQuoted,
    /// `"…"`
    DoubleQuoted,
    /// `|`
    Literal,
    /// `>`
    Folded,
    /// With an explicit tag, which is then always written.
    Tagged,
}

impl Scalar {
    /// A plain scalar whose type is what its text resolves to.
    #[must_use]
    pub fn untyped(text: impl Into<String>) -> Self {
        Self { text: text.into(), tag: Tag::Unset, style: Style::Plain, line: 0 }
    }

    /// A string.
    #[must_use]
    pub fn string(text: impl Into<String>) -> Self {
        let text = text.into();
        let style = if text.contains('\n') { Style::Literal } else { Style::Plain };
        Self { text, tag: Tag::Str, style, line: 0 }
    }

    /// Whether it counts as a string for edits (declared so, or undeclared).
    #[must_use]
    pub fn is_string(&self) -> bool {
        matches!(self.tag, Tag::Str | Tag::Unset)
    }

    /// Whether it is tagged null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.tag == Tag::Null
    }
}

impl Node {
    /// The null scalar.
    #[must_use]
    pub fn null() -> Self {
        Self::Scalar(Scalar { text: "null".to_owned(), tag: Tag::Null, style: Style::Plain, line: 0 })
    }

    /// A string scalar.
    #[must_use]
    pub fn string(text: impl Into<String>) -> Self {
        Self::Scalar(Scalar::string(text))
    }

    /// Whether this is null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Scalar(scalar) if scalar.is_null())
    }

    /// Whether this is null, an empty map or an empty list.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Scalar(scalar) => scalar.is_null(),
            Self::Sequence(items) => items.is_empty(),
            Self::Mapping(entries) => entries.is_empty(),
        }
    }

    /// The entries, if this is a mapping.
    #[must_use]
    pub fn entries(&self) -> Option<&[(Scalar, Self)]> {
        match self {
            Self::Mapping(entries) => Some(entries),
            Self::Scalar(_) | Self::Sequence(_) => None,
        }
    }

    /// The items, if this is a sequence.
    #[must_use]
    pub fn items(&self) -> Option<&[Self]> {
        match self {
            Self::Sequence(items) => Some(items),
            Self::Scalar(_) | Self::Mapping(_) => None,
        }
    }

    /// The scalar, if this is one.
    #[must_use]
    pub fn scalar(&self) -> Option<&Scalar> {
        match self {
            Self::Scalar(scalar) => Some(scalar),
            Self::Sequence(_) | Self::Mapping(_) => None,
        }
    }

    /// The text of a scalar that is not null; empty for everything else.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Scalar(scalar) if !scalar.is_null() => &scalar.text,
            Self::Scalar(_) | Self::Sequence(_) | Self::Mapping(_) => "",
        }
    }

    /// The value under `key`, if this is a mapping that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entries()?.iter().find(|(name, _)| name.text == key).map(|(_, value)| value)
    }

    /// The value under `key`, for edits.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        match self {
            Self::Mapping(entries) => entries.iter_mut().find(|(name, _)| name.text == key).map(|(_, value)| value),
            Self::Scalar(_) | Self::Sequence(_) => None,
        }
    }

    /// Removes `key`; gives what stood there.
    pub fn remove(&mut self, key: &str) -> Option<Self> {
        match self {
            Self::Mapping(entries) => {
                let index = entries.iter().position(|(name, _)| name.text == key)?;
                Some(entries.remove(index).1)
            }
            Self::Scalar(_) | Self::Sequence(_) => None,
        }
    }

    /// Line of the first scalar at or below this node, 0 if there is none.
    #[must_use]
    pub fn line(&self) -> u32 {
        match self {
            Self::Scalar(scalar) => scalar.line,
            Self::Sequence(items) => items.first().map_or(0, Self::line),
            Self::Mapping(entries) => entries.first().map_or(0, |(key, _)| key.line),
        }
    }

    /// "string", "number", "mapping" and so on, for messages.
    #[must_use]
    pub fn kind_name(&self) -> &'static str {
        match self {
            Self::Sequence(_) => "sequence",
            Self::Mapping(_) => "mapping",
            Self::Scalar(scalar) => match scalar.tag {
                Tag::Int | Tag::Float => "number",
                Tag::Bool => "bool",
                Tag::Null => "null",
                Tag::Unset | Tag::Str | Tag::Timestamp | Tag::Binary | Tag::Merge | Tag::Other => "string",
            },
        }
    }
}

impl From<&Resolved> for Tag {
    fn from(resolved: &Resolved) -> Self {
        match resolved {
            Resolved::Null => Self::Null,
            Resolved::Bool(_) => Self::Bool,
            Resolved::Int(_) | Resolved::Uint(_) => Self::Int,
            Resolved::Float(_) => Self::Float,
            Resolved::Timestamp => Self::Timestamp,
            Resolved::Merge => Self::Merge,
            Resolved::Str => Self::Str,
        }
    }
}
