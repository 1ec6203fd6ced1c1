//! The one error of the sources: what a person reads in a condition. URLs in it carry no user or password.

use super::CommitId;

/// Why a repository, a reference or a commit cannot be used. `repository` is always a redacted URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The URL cannot be parsed or its scheme is not supported.
    #[error("repository {repository:?} cannot be used: {reason}")]
    Url { repository: String, reason: String },
    /// The reference is not something git could name.
    #[error("revision {reference:?} is not valid: {reason}")]
    Reference { reference: String, reason: String },
    /// Local repositories are turned off.
    #[error("repository {repository}: repositories on the hub's disk are turned off in its configuration")]
    LocalRefused { repository: String },
    /// 401 or 403.
    #[error("repository {repository}: {reason}")]
    Unauthorized { repository: String, reason: String },
    /// 404, or no repository at that path.
    #[error("repository {repository} does not exist, or these credentials may not see it")]
    NotFound { repository: String },
    /// No branch, tag or commit of that name.
    #[error("repository {repository} has no branch, tag or commit {reference:?}")]
    UnknownReference { repository: String, reference: String },
    /// An abbreviated commit id that fits several commits.
    #[error("revision {reference:?} fits several commits of repository {repository}; give more characters")]
    Ambiguous { repository: String, reference: String },
    /// The commit cannot be found in the repository any more.
    #[error("repository {repository} has no commit {commit}")]
    UnknownCommit { repository: String, commit: CommitId },
    /// The server cannot be reached or answered with an error.
    #[error("repository {repository} cannot be reached: {reason}")]
    Unreachable { repository: String, reason: String },
    /// The server sends too slowly.
    #[error("repository {repository}: the server sent fewer than {bytes} bytes in {seconds} s; the connection was cut")]
    Stalled { repository: String, bytes: u64, seconds: u64 },
    /// The operation took too long as a whole.
    #[error("repository {repository}: not finished after {seconds} s")]
    TimedOut { repository: String, seconds: u64 },
    /// A limit was reached.
    #[error("repository {repository} exceeds the limit {limit} of {allowed}")]
    TooLarge { repository: String, limit: &'static str, allowed: u64 },
    /// The server speaks something else, or what it sent does not decode.
    #[error("repository {repository}: {reason}")]
    Protocol { repository: String, reason: String },
    /// The mirror on the hub's disk is damaged; it is cloned again at the next poll.
    #[error("mirror of repository {repository} is damaged and will be cloned again: {reason}")]
    Damaged { repository: String, reason: String },
    /// The hub's disk.
    #[error("mirror of repository {repository}: {reason}")]
    Disk { repository: String, reason: String },
    /// Too many references are polled.
    #[error("more than {allowed} references are polled (limit max_pollers)")]
    TooManyReferences { allowed: usize },
    /// The hub is shutting down.
    #[error("the hub is shutting down")]
    Closed,
}

impl SourceError {
    /// Whether trying again soon could help; refused credentials and bad names wait for the full period.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Url { .. }
            | Self::Reference { .. }
            | Self::LocalRefused { .. }
            | Self::Unauthorized { .. }
            | Self::TooLarge { .. }
            | Self::Ambiguous { .. }
            | Self::TooManyReferences { .. } => false,
            Self::NotFound { .. }
            | Self::UnknownReference { .. }
            | Self::UnknownCommit { .. }
            | Self::Unreachable { .. }
            | Self::Stalled { .. }
            | Self::TimedOut { .. }
            | Self::Protocol { .. }
            | Self::Damaged { .. }
            | Self::Disk { .. }
            | Self::Closed => true,
        }
    }
}
