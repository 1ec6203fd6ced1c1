//! The files of one commit, read from the mirror's object database: no checkout, no lock for readers of other trees.
//!
//! Symbolic links are followed inside the tree only. A link to nothing reads as absent; one that is absolute or leaves
//! the repository, or a chain of more than 40, is an error that names the path. Submodules are listed and read as
//! absent. Names that are not UTF-8 cannot be addressed and are left out of listings.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use gix::{ObjectId, objs::Find as _, objs::tree::EntryKind as GitKind, odb::Header as _};
use windlass_render::{Entry, EntryKind, Tree, TreeError};

use super::{SourceConfig, SourceError, mirror::Generation, reference::CommitId};

/// An immutable set of files. Cheap to share; keeps its mirror generation on disk while it lives.
pub struct CommitTree {
    generation: Arc<Generation>,
    root: ObjectId,
    max_file_bytes: u64,
    max_entries: usize,
    handles: Mutex<Vec<gix::OdbHandle>>,
    directories: Mutex<Directories>,
}

impl std::fmt::Debug for CommitTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommitTree").field("root", &self.root).finish_non_exhaustive()
    }
}

/// Decoded directories, bounded by the limit on entries.
#[derive(Default)]
struct Directories {
    decoded: BTreeMap<ObjectId, Arc<Directory>>,
    entries: usize,
}

type Directory = BTreeMap<String, Node>;

#[derive(Debug, Clone, Copy)]
struct Node {
    kind: EntryKind,
    id: ObjectId,
}

impl CommitTree {
    /// Reader threads beyond this make their own handle each time.
    const MAX_HANDLES: usize = 8;
    /// As Linux.
    const MAX_LINKS: usize = 40;
    /// As Linux' PATH_MAX.
    const MAX_LINK_BYTES: u64 = 4096;

    pub(super) fn open(
        generation: Arc<Generation>,
        commit: &CommitId,
        label: &str,
        config: &SourceConfig,
    ) -> Result<Self, SourceError> {
        let damaged = |reason: String| {
            generation.report_damage();
            SourceError::Damaged { repository: label.to_owned(), reason }
        };
        let repository = generation.repository();
        let tree = repository
            .find_commit(commit.object_id())
            .and_then(|commit| commit.tree_id().map(gix::Id::detach))
            .map_err(|error| damaged(super::fetch::describe(&error)))?;
        let tree = Self {
            generation: Arc::clone(&generation),
            root: tree,
            max_file_bytes: config.max_file_bytes,
            max_entries: config.max_tree_entries,
            handles: Mutex::default(),
            directories: Mutex::default(),
        };
        match tree.directory("", tree.root) {
            Ok(_) => Ok(tree),
            Err(TreeError::TooLarge { limit, .. }) => {
                Err(SourceError::TooLarge { repository: label.to_owned(), limit: "max_tree_entries", allowed: limit })
            }
            Err(TreeError::Io { message, .. }) => Err(damaged(message)),
        }
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.generation.is_damaged()
    }

    /// Follows `path` from the root; `None` if there is nothing.
    fn resolve(&self, path: &str) -> Result<Option<Node>, TreeError> {
        let mut todo: Vec<String> = components(path)?.into_iter().rev().collect();
        let root = Node { kind: EntryKind::Directory, id: self.root };
        // The directories from the root to where we are.
        let mut stack = vec![root];
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                // Only links bring these; the root itself is never popped.
                if stack.len() < 2 {
                    return Err(io(path, "a symbolic link leaves the repository"));
                }
                let left = stack.pop();
                if left.is_some_and(|node| node.kind != EntryKind::Directory) {
                    return Ok(None);
                }
                continue;
            }
            let Some(here) = stack.last().copied() else { return Ok(None) };
            if here.kind != EntryKind::Directory {
                return Ok(None);
            }
            let Some(node) = self.directory(path, here.id)?.get(&name).copied() else {
                return Ok(None);
            };
            if node.kind == EntryKind::Symlink {
                links += 1;
                if links > Self::MAX_LINKS {
                    return Err(io(path, "too many symbolic links, or a cycle of them"));
                }
                todo.extend(self.link(path, node.id)?);
            } else {
                stack.push(node);
            }
        }
        Ok(stack.last().copied())
    }

    /// The components of a link's target, last first.
    fn link(&self, path: &str, id: ObjectId) -> Result<Vec<String>, TreeError> {
        let target = self.blob(path, id, Self::MAX_LINK_BYTES)?;
        let target = std::str::from_utf8(&target).map_err(|_| io(path, "a symbolic link's target is not UTF-8"))?;
        if target.starts_with('/') {
            return Err(io(path, "a symbolic link leaves the repository"));
        }
        Ok(target.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).rev().collect())
    }

    fn directory(&self, path: &str, id: ObjectId) -> Result<Arc<Directory>, TreeError> {
        if let Some(known) = self.directories().decoded.get(&id) {
            return Ok(Arc::clone(known));
        }
        // An entry takes at least 24 bytes, with a name of usual length about 40.
        let limit = u64::try_from(self.max_entries).unwrap_or(u64::MAX).saturating_mul(256);
        let bytes = self.object(path, id, gix::objs::Kind::Tree, limit)?;
        let mut directory = Directory::new();
        for entry in gix::objs::TreeRefIter::from_bytes(&bytes, gix::hash::Kind::Sha1) {
            let entry = entry.map_err(|_| self.damaged(path, "a directory cannot be decoded"))?;
            let Ok(name) = std::str::from_utf8(entry.filename) else { continue };
            if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
                return Err(io(path, "a directory has an entry with a forbidden name"));
            }
            let kind = match entry.mode.kind() {
                GitKind::Tree => EntryKind::Directory,
                GitKind::Blob | GitKind::BlobExecutable => EntryKind::File,
                GitKind::Link => EntryKind::Symlink,
                GitKind::Commit => EntryKind::Submodule,
            };
            let node = Node { kind, id: entry.oid.to_owned() };
            directory.insert(name.to_owned(), node);
        }
        let directory = Arc::new(directory);
        let mut directories = self.directories();
        // Two readers may decode the same directory; it counts once.
        if directories.decoded.insert(id, Arc::clone(&directory)).is_none() {
            directories.entries += directory.len();
        }
        if directories.entries > self.max_entries {
            return Err(TreeError::TooLarge {
                path: path.to_owned(),
                size: u64::try_from(directories.entries).unwrap_or(u64::MAX),
                limit: u64::try_from(self.max_entries).unwrap_or(u64::MAX),
            });
        }
        Ok(directory)
    }

    fn blob(&self, path: &str, id: ObjectId, limit: u64) -> Result<Vec<u8>, TreeError> {
        self.object(path, id, gix::objs::Kind::Blob, limit)
    }

    /// Reads an object after its header said that it is small enough.
    fn object(&self, path: &str, id: ObjectId, kind: gix::objs::Kind, limit: u64) -> Result<Vec<u8>, TreeError> {
        let handle = self.handle();
        let header = match handle.try_header(&id) {
            Ok(Some(header)) => header,
            Ok(None) => return Err(self.damaged(path, "an object is missing in the mirror")),
            Err(_) => return Err(self.damaged(path, "an object of the mirror cannot be read")),
        };
        if header.size() > limit {
            return Err(TreeError::TooLarge { path: path.to_owned(), size: header.size(), limit });
        }
        let mut buffer = Vec::new();
        let found = match handle.try_find(&id, &mut buffer) {
            Ok(Some(object)) => object.kind,
            Ok(None) | Err(_) => return Err(self.damaged(path, "an object of the mirror cannot be read")),
        };
        self.give_back(handle);
        if found != kind {
            return Err(io(path, "an object is not of the kind its directory says"));
        }
        Ok(buffer)
    }

    fn damaged(&self, path: &str, message: &str) -> TreeError {
        self.generation.report_damage();
        io(path, message)
    }

    fn handle(&self) -> gix::OdbHandle {
        let kept = self.handles.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| self.generation.repository().objects)
    }

    fn give_back(&self, handle: gix::OdbHandle) {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        if handles.len() < Self::MAX_HANDLES {
            handles.push(handle);
        }
    }

    fn directories(&self) -> std::sync::MutexGuard<'_, Directories> {
        self.directories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tree for CommitTree {
    fn read(&self, path: &str) -> Result<Option<Arc<[u8]>>, TreeError> {
        match self.resolve(path)? {
            Some(node) if node.kind == EntryKind::File => {
                Ok(Some(self.blob(path, node.id, self.max_file_bytes)?.into()))
            }
            _ => Ok(None),
        }
    }

    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>, TreeError> {
        match self.resolve(path)? {
            Some(node) if node.kind == EntryKind::Directory => {
                let directory = self.directory(path, node.id)?;
                let entries = directory.iter().map(|(name, node)| Entry { name: name.clone(), kind: node.kind });
                Ok(Some(entries.collect()))
            }
            _ => Ok(None),
        }
    }

    fn object_id(&self, path: &str) -> Result<Option<String>, TreeError> {
        let node = self.resolve(path)?;
        let object = node.filter(|node| matches!(node.kind, EntryKind::File | EntryKind::Directory));
        Ok(object.map(|node| node.id.to_hex().to_string()))
    }
}

/// Splits a path and refuses what does not name something in a tree.
fn components(path: &str) -> Result<Vec<String>, TreeError> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    if path.contains('\0') {
        return Err(io(path, "the path holds a NUL character"));
    }
    if path.starts_with('/') {
        return Err(io(path, "the path is absolute"));
    }
    path.split('/')
        .map(|part| match part {
            "" | "." => Err(io(path, "the path has an empty component")),
            ".." => Err(io(path, "the path leaves the repository")),
            part => Ok(part.to_owned()),
        })
        .collect()
}

fn io(path: &str, message: &str) -> TreeError {
    TreeError::Io { path: path.to_owned(), message: message.to_owned() }
}
