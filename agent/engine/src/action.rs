//! What the engine asks its shell to do, and what comes back. Closed lists: a shell matches them without a wildcard.
//!
//! Actions without an outcome yet may run side by side, the engine bounds their number. The shell retries nothing by itself
//! beyond one request: waiting and trying again is decided here.

use std::{fmt, sync::Arc};

use serde_json::Value;
use windlass_protocol::manifest::ResourceKey;

use crate::{discovery::GroupKind, resume::ResumePoint};

/// Names an action within the life of one [`crate::Reconciler`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ActionId(pub u64);

impl fmt::Display for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One thing to do. Its outcome goes to [`crate::Reconciler::handle_outcome`] under the same id, exactly once.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// Names the action in its outcome.
    pub id: ActionId,
    /// What to do.
    pub work: Work,
}

/// The closed list of what a shell can be asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Make sure that a kind is watched and deliver what of it concerns this assignment, once completely.
    ///
    /// Answer: [`Outcome::Observed`] with every live object of the kind that [`crate::Reconciler::wants`] (tracked by this
    /// application, or named by `keys` or an earlier request); what is not in the list is not there. Later changes go to
    /// [`crate::Reconciler::handle_live`]. A shell without a cache may list by the owner label and get `keys` one by one.
    Observe {
        /// Group and kind.
        kind: GroupKind,
        /// The version in which the manifests are written, if there are any; read in it to avoid differences of conversion.
        version: Option<String>,
        /// Objects whose state is needed although they may not carry our tracking yet.
        keys: Vec<ResourceKey>,
    },
    /// Ask the API server for its kinds again, give them to [`crate::Reconciler::handle_kinds`], then answer [`Outcome::Done`].
    RefreshKinds,
    /// Write one object. Answer: [`Outcome::Applied`].
    Apply(Apply),
    /// Delete one object, only while its uid is this one. Answer: [`Outcome::Deleting`], or [`Outcome::Gone`] when it is not
    /// there (any more) or has another uid.
    Delete {
        /// Which object.
        key: ResourceKey,
        /// Version to delete through; the preferred one when `None`.
        version: Option<String>,
        /// Precondition. `None` only where the live object was never seen.
        uid: Option<String>,
        /// What becomes of its dependents.
        propagation: Propagation,
    },
    /// Take our tracking annotation, owner label and hook finalizer from an object, while its uid is this one. Answer as for
    /// [`Work::Apply`], or [`Outcome::Gone`].
    Untrack {
        /// Which object.
        key: ResourceKey,
        /// Precondition.
        uid: Option<String>,
    },
    /// Bring this to the disk. Nothing else is asked for until [`Outcome::Done`]. A failure is asked for again later.
    Persist(Box<ResumePoint>),
}

/// A write of one object.
#[derive(Clone, PartialEq)]
pub struct Apply {
    /// Group, kind, namespace and name.
    pub key: ResourceKey,
    /// The whole object as it is to be sent (tracking included). Contains secret values for Secrets: never log it.
    pub manifest: Arc<Value>,
    /// How to write.
    pub mode: ApplyMode,
    /// Whether the API server should only say what would happen.
    pub dry_run: DryRun,
    /// `Validate=false`: unknown fields are not refused.
    pub validation: Validation,
}

impl fmt::Debug for Apply {
    /// Without the manifest: it may be a Secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Apply")
            .field("key", &self.key)
            .field("mode", &self.mode)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

/// How an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyMode {
    /// Server-side apply as manager `windlass`, with force.
    ServerSide,
    /// Three-way merge with the last-applied annotation, as kubectl (`ServerSideApply=false`).
    ClientSide,
    /// Create; when it exists, replace all of it (`Replace=true`).
    Replace,
    /// Delete, wait until it is gone, create (`Replace=true,Force=true`, or an immutable field with force).
    Recreate,
    /// Create only. "Already exists" is [`FailureReason::AlreadyExists`]: the engine then looks at the object.
    Create,
}

/// Whether a write really writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DryRun {
    /// It writes.
    #[default]
    No,
    /// The API server evaluates it and stores nothing.
    Server,
}

/// What the API server does about unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Validation {
    /// Refuses them (`fieldValidation=Strict`).
    #[default]
    Strict,
    /// Drops them silently (`Validate=false`).
    Ignore,
}

/// `propagationPolicy` of a deletion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// Dependents are deleted before their owner goes (Argo CD's default).
    #[default]
    Foreground,
    /// The owner goes at once, dependents follow.
    Background,
    /// Dependents stay.
    Orphan,
}

/// What became of an action.
#[derive(Clone, PartialEq)]
pub enum Outcome {
    /// Done; nothing to tell.
    Done,
    /// The object as the API server returned it (with a dry run: as it would be).
    Applied(Arc<Value>),
    /// The deletion is accepted; the object may stay until its finalizers are done.
    Deleting,
    /// There is no such object (with this uid).
    Gone,
    /// The complete answer to [`Work::Observe`].
    Observed(Vec<Arc<Value>>),
    /// It did not work.
    Failed(Failure),
}

impl fmt::Debug for Outcome {
    /// Names objects, never their content: it may be a Secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("Done"),
            Self::Applied(object) => write!(f, "Applied({})", ResourceKey::of(object)),
            Self::Deleting => f.write_str("Deleting"),
            Self::Gone => f.write_str("Gone"),
            Self::Observed(objects) => write!(f, "Observed({} objects)", objects.len()),
            Self::Failed(failure) => write!(f, "Failed({failure:?})"),
        }
    }
}

/// Why an action did not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure, decides whether to try again.
    pub reason: FailureReason,
    /// The API server's own words, whole.
    pub message: String,
}

impl Failure {
    /// A failure with its text.
    #[must_use]
    pub fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureReason {
    /// The API server refuses this object: invalid, forbidden, quota, webhook. Trying again at once is useless.
    Rejected,
    /// The API server does not serve the kind (404 on the path, "no matches for kind").
    NoMatch,
    /// The object, or the namespace that it should be in, does not exist.
    NotFound,
    /// It exists already ([`ApplyMode::Create`]).
    AlreadyExists,
    /// A precondition or resourceVersion did not hold; look again.
    Conflict,
    /// The agent may not do this (403 of authorization, not of admission).
    Forbidden,
    /// API server not reachable, overloaded, or too slow. Not the object's fault: tried again with backoff.
    Unavailable,
}

/// A change of a live object, from a watch.
#[derive(Clone, PartialEq)]
pub enum LiveChange {
    /// It was added or modified; the whole object (managedFields included).
    Present(Arc<Value>),
    /// It is gone. A DELETED event of a filtered watch has to be checked with a GET before.
    Gone {
        /// Which object.
        key: ResourceKey,
        /// The uid it had; another object of the same name is not affected.
        uid: String,
    },
}

impl fmt::Debug for LiveChange {
    /// Names the object, never its content: it may be a Secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present(object) => write!(f, "Present({})", ResourceKey::of(object)),
            Self::Gone { key, uid } => write!(f, "Gone({key}, {uid})"),
        }
    }
}
