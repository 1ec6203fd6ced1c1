//! Placeholder of the trait that another part defines in this exact shape.

use std::sync::Arc;

/// What an entry of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    File,
    Directory,
    Symlink,
    Submodule,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub kind: EntryKind,
}

/// The files of a commit. Paths are separated by `/`, without a leading one; `""` is the root.
pub trait Tree: Send + Sync {
    fn read(&self, path: &str) -> Result<Option<Arc<[u8]>>, TreeError>;
    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>, TreeError>;
    fn object_id(&self, path: &str) -> Result<Option<String>, TreeError>;
}

/// Why a path cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    #[error("{path}: {size} bytes exceed the limit of {limit}")]
    TooLarge { path: String, size: u64, limit: u64 },
    #[error("{path}: {message}")]
    Io { path: String, message: String },
}
