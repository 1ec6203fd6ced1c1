//! Why a set cannot be generated, with the generator, the file and the line that are to blame.

use std::fmt;

use windlass_template::TemplateError;

/// A set could not be generated; nothing of it may be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerateError {
    /// Index in `spec.generators`; `None` when the set itself is at fault.
    pub generator: Option<usize>,
    /// Kind of the generator, such as `git`; empty when the set itself is at fault.
    pub kind: &'static str,
    /// What went wrong.
    pub cause: GenerateCause,
}

impl GenerateError {
    pub(super) const fn new(generator: usize, kind: &'static str, cause: GenerateCause) -> Self {
        Self { generator: Some(generator), kind, cause }
    }

    pub(super) const fn of_set(cause: GenerateCause) -> Self {
        Self { generator: None, kind: "", cause }
    }

    /// Argo CD's reason of the condition ErrorOccurred.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self.cause {
            GenerateCause::Template(_) => "RenderTemplateParamsError",
            GenerateCause::DuplicateName { .. } | GenerateCause::Field { .. } => "ApplicationValidationError",
            _ => "ApplicationGenerationFromParamsError",
        }
    }

    /// Whether the parameters could be made, so that the template or its result is to blame.
    #[must_use]
    pub const fn has_parameters(&self) -> bool {
        matches!(self.cause, GenerateCause::DuplicateName { .. } | GenerateCause::Field { .. })
    }
}

impl fmt::Display for GenerateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.generator, &self.cause) {
            // Argo CD's sentence, which tools look for, comes first and alone.
            (None, cause) | (_, cause @ GenerateCause::DuplicateName { .. }) => write!(f, "{cause}"),
            (Some(index), cause) => write!(f, "generators[{index}] ({}): {cause}", self.kind),
        }
    }
}

impl std::error::Error for GenerateError {}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenerateCause {
    /// `goTemplate: true`.
    #[error("goTemplate: true is set: Go templates arrive with a later version; nothing is changed")]
    GoTemplates,
    /// `templatePatch` is a Go template.
    #[error("templatePatch is set: it is a Go template, and they arrive with a later version; nothing is changed")]
    TemplatePatch,
    /// A kind that is known but not run yet.
    #[error("generators of this kind arrive with a later version; nothing is changed")]
    Unsupported,
    /// The entry has no kind that is known.
    #[error("the entry names no known generator; nothing is changed")]
    NoKind,
    /// A git generator without `files` and `directories`.
    #[error("one of `files` and `directories` is required")]
    NoPaths,
    /// A glob cannot be read.
    #[error("{0}")]
    Glob(#[from] windlass_protocol::glob::GlobError),
    /// A repository cannot be read.
    #[error("{0}")]
    Source(#[from] SourceUnavailable),
    /// A parameter file is bad.
    #[error("unable to process file '{path}'{}: {message}", .line.map(|line| format!(", line {line}")).unwrap_or_default())]
    File {
        /// Path in the repository.
        path: String,
        /// Line, from 1, if known.
        line: Option<u32>,
        /// What is wrong.
        message: String,
    },
    /// An element of a list is bad.
    #[error("{path}: {message}")]
    Element {
        /// Path of the element, such as `elements[2].replicas`.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// A parameter made of others cannot be rendered.
    #[error("{name}: {message}")]
    Parameter {
        /// Name of the parameter.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// The template cannot be rendered.
    #[error("template.{0}")]
    Template(#[from] TemplateError),
    /// Two sets of parameters give one name; Argo CD's sentence.
    #[error("ApplicationSet {set} contains applications with duplicate name: {application}")]
    DuplicateName {
        /// Name of the set.
        set: String,
        /// The name that comes twice.
        application: String,
    },
    /// A field of a rendered Application is missing or wrong.
    #[error("application {application:?}: {field}: {message}")]
    Field {
        /// Name of the Application, as far as it is known.
        application: String,
        /// Path of the field in the template.
        field: String,
        /// What is wrong.
        message: String,
    },
    /// A bound of [`super::GenerateLimits`].
    #[error("more than {limit} {name}")]
    Limit {
        /// What was counted.
        name: &'static str,
        /// The bound.
        limit: usize,
    },
}

/// A repository or a revision cannot be read (yet).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("repository {repo_url} at {revision}: {message}")]
pub struct SourceUnavailable {
    /// Repository.
    pub repo_url: String,
    /// Revision as it was asked for.
    pub revision: String,
    /// Why, in words.
    pub message: String,
}
