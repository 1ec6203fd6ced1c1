//! Git repositories as sources: which commit a reference names now, and the files of that commit.
//!
//! ```text
//! subscribe ──> Sources (owner task) ──> one poller per (repository, reference) ──> watch::Receiver<RefState>
//! tree ───────> Mirror (one per URL) ──> CommitTree: windlass_render::Tree over the object database
//! webhook ────> pure functions: signature, push event, URL matching; the HTTP route lives in the API
//! ```
//!
//! The only place that names gix. HTTP goes through our own client under gix's protocol code, so that every read is
//! bounded in time and size and credentials never reach gix, its messages or the disk. Local repositories are opened
//! directly: no `git` program is run. Nothing here checks files out, pushes, or reads the user's git configuration.

mod backend;
mod config;
mod error;
mod fetch;
mod guard;
mod http;
mod local;
mod mirror;
mod poll;
mod reference;
mod repository;
mod resolve;
mod tree;
mod version;
pub mod webhook;

pub use config::{LocalAccess, SourceConfig};
pub use error::SourceError;
pub use poll::{RefState, Sources};
pub use reference::CommitId;
pub use repository::{Credentials, Repository, normalize_url};
pub use tree::CommitTree;

#[cfg(test)]
mod tests;
