//! What can be wrong with a tree: many problems at once, each with its place.

use std::fmt;

use windlass_protocol::yaml;

use crate::tree::TreeError;

/// Why a source could not be rendered: every problem that was found, at least one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct RenderError {
    /// The problems, in the order in which they were found.
    pub problems: Vec<Problem>,
}

impl fmt::Display for RenderError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            write!(formatter, "{problem}")?;
        }
        Ok(())
    }
}

impl From<Problem> for RenderError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

/// One problem and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What sort of problem it is.
    pub kind: ProblemKind,
    /// The file or directory, from the root of the tree.
    pub file: Option<String>,
    /// Line in that file, from 1.
    pub line: Option<u32>,
    /// The field, as a path with dots.
    pub field: Option<String>,
    /// The cause, with the steps that led to it.
    pub message: String,
}

/// Sorts of problems; callers map them to conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// A file or directory does not exist.
    NotFound,
    /// A path leads out of the repository, or a file out of its kustomization's directory.
    Escape,
    /// A kustomization reaches itself.
    Cycle,
    /// A bound of [`crate::Limits`] is exceeded.
    Limit,
    /// Not YAML or not JSON.
    Syntax,
    /// A field is unknown, misplaced, or of the wrong type.
    Field,
    /// An object without kind, name or the like.
    Object,
    /// Two objects claim one identity, or a reference fits several.
    Conflict,
    /// A patch, replacement or variable does not fit.
    Patch,
    /// Something Windlass does not do, with what to do instead.
    Unsupported,
    /// The tree could not be read.
    Io,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(formatter, "{file}")?;
            if let Some(line) = self.line {
                write!(formatter, ":{line}")?;
            }
            formatter.write_str(": ")?;
        }
        if let Some(field) = &self.field {
            write!(formatter, "{field}: ")?;
        }
        formatter.write_str(&self.message)
    }
}

impl Problem {
    pub(crate) fn new(kind: ProblemKind, message: impl Into<String>) -> Self {
        Self { kind, file: None, line: None, field: None, message: message.into() }
    }

    pub(crate) fn field(message: impl Into<String>) -> Self {
        Self::new(ProblemKind::Field, message)
    }

    pub(crate) fn patch(message: impl Into<String>) -> Self {
        Self::new(ProblemKind::Patch, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(ProblemKind::Conflict, message)
    }

    pub(crate) fn object(message: impl Into<String>) -> Self {
        Self::new(ProblemKind::Object, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ProblemKind::Unsupported, message)
    }

    pub(crate) fn limit(name: &str, limit: impl fmt::Display) -> Self {
        Self::new(ProblemKind::Limit, format!("exceeds the limit `{name}` of {limit}"))
    }

    /// Names the file, unless one is named already.
    #[must_use]
    pub(crate) fn in_file(mut self, file: &str) -> Self {
        self.file.get_or_insert_with(|| file.to_owned());
        self
    }

    /// Names the line, unless one is named already; 0 is no line.
    #[must_use]
    pub(crate) fn at_line(mut self, line: u32) -> Self {
        if line > 0 {
            self.line.get_or_insert(line);
        }
        self
    }

    /// Names the field, unless one is named already.
    #[must_use]
    pub(crate) fn in_field(mut self, field: impl Into<String>) -> Self {
        self.field.get_or_insert_with(|| field.into());
        self
    }

    /// Says what was being done.
    #[must_use]
    pub(crate) fn while_(mut self, step: impl fmt::Display) -> Self {
        self.message = format!("{step}: {}", self.message);
        self
    }

    pub(crate) fn from_yaml(file: &str, error: &yaml::Error) -> Self {
        let kind = match error.kind {
            yaml::ErrorKind::Limit { .. } => ProblemKind::Limit,
            _ => ProblemKind::Syntax,
        };
        Self {
            kind,
            file: Some(file.to_owned()),
            line: Some(error.line),
            field: None,
            message: format!("column {}: {}", error.column, error.kind),
        }
    }
}

impl From<TreeError> for Problem {
    fn from(error: TreeError) -> Self {
        let kind = match &error {
            TreeError::TooLarge { .. } => ProblemKind::Limit,
            TreeError::Io { .. } => ProblemKind::Io,
        };
        let file = error.path().to_owned();
        Self { kind, file: Some(file), line: None, field: None, message: error.to_string() }
    }
}
