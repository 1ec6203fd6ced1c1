//! The files of a commit, as the renderer sees them.

use std::{collections::BTreeMap, sync::Arc};

/// What a name in a directory stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; it is never followed.
    Symlink,
    /// Another repository; it is never entered.
    Submodule,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name, without slashes.
    pub name: String,
    /// What it stands for.
    pub kind: EntryKind,
}

/// An immutable set of files at a commit. Paths are separated by `/` and have no leading one; "" is the root.
pub trait Tree: Send + Sync {
    /// The content of the file at `path`; `None` when it is absent or not a file.
    ///
    /// # Errors
    /// The file is too large, or the store failed.
    fn read(&self, path: &str) -> Result<Option<Arc<[u8]>>, TreeError>;

    /// The entries of the directory at `path`, sorted by name; `None` when it is absent or not a directory.
    ///
    /// # Errors
    /// The store failed.
    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>, TreeError>;

    /// Id of the file or directory at `path`, for the keys of memos; equal ids mean equal content.
    ///
    /// # Errors
    /// The store failed.
    fn object_id(&self, path: &str) -> Result<Option<String>, TreeError>;
}

/// Why a tree could not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A file is over the limit.
    #[error("the file `{path}` has {size} bytes, which exceeds the limit `file` of {limit}")]
    TooLarge {
        /// The file.
        path: String,
        /// Its bytes.
        size: u64,
        /// The bound.
        limit: u64,
    },
    /// The store failed.
    #[error("cannot read `{path}`: {message}")]
    Io {
        /// What was being read.
        path: String,
        /// The cause.
        message: String,
    },
}

impl TreeError {
    /// The path that was asked for.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::TooLarge { path, .. } | Self::Io { path, .. } => path,
        }
    }
}

/// A tree in memory, for tests, the demo and offline commands.
#[derive(Debug, Clone, Default)]
pub struct MemoryTree {
    files: BTreeMap<String, Arc<[u8]>>,
}

impl MemoryTree {
    /// A tree of (path, content) pairs; leading slashes and `./` are dropped, a later pair wins.
    pub fn new<P: AsRef<str>, C: Into<Vec<u8>>>(files: impl IntoIterator<Item = (P, C)>) -> Self {
        let mut tree = Self::default();
        for (path, content) in files {
            tree.insert(path.as_ref(), content);
        }
        tree
    }

    /// Adds or replaces a file.
    pub fn insert(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        let path = path.trim_start_matches("./").trim_matches('/').to_owned();
        self.files.insert(path, content.into().into());
    }

    /// The paths of all files, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }
}

impl Tree for MemoryTree {
    fn read(&self, path: &str) -> Result<Option<Arc<[u8]>>, TreeError> {
        Ok(self.files.get(path).cloned())
    }

    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>, TreeError> {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let mut entries: BTreeMap<&str, EntryKind> = BTreeMap::new();
        for file in self.files.range(prefix.clone()..).map(|(file, _)| file) {
            let Some(rest) = file.strip_prefix(&prefix) else { break };
            match rest.split_once('/') {
                Some((directory, _)) => entries.insert(directory, EntryKind::Directory),
                None => entries.insert(rest, EntryKind::File),
            };
        }
        if entries.is_empty() && !path.is_empty() {
            return Ok(None);
        }
        let entry = |(name, kind): (&str, EntryKind)| Entry { name: name.to_owned(), kind };
        Ok(Some(entries.into_iter().map(entry).collect()))
    }

    fn object_id(&self, path: &str) -> Result<Option<String>, TreeError> {
        use sha2::{Digest as _, Sha256};

        let mut hasher = Sha256::new();
        if let Some(content) = self.files.get(path) {
            hasher.update(content);
            return Ok(Some(format!("{:x}", hasher.finalize())));
        }
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let mut found = path.is_empty();
        for (file, content) in self.files.range(prefix.clone()..) {
            let Some(rest) = file.strip_prefix(&prefix) else { break };
            found = true;
            hasher.update(rest.as_bytes());
            hasher.update([0]);
            hasher.update(Sha256::digest(content));
        }
        Ok(found.then(|| format!("{:x}", hasher.finalize())))
    }
}
