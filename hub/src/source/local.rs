//! Repositories on this machine's disk, bare or with a working tree, opened with gix and without the `git` program.
//!
//! A commit that is wanted is copied into the mirror: the commit, its trees and its files, not its history. So a forced
//! push with garbage collection, or the removal of the repository, takes nothing away that was already resolved. Nothing
//! is written to the repository, no hook or filter runs, and its configuration is not trusted.

use std::path::Path;

use gix::{objs::Write as _, sec::Trust};

use super::{
    SourceConfig, SourceError,
    fetch::describe,
    guard::Guard,
    reference::{CommitId, ListedRef},
};

/// An opened local repository, for one operation.
pub(super) struct LocalRepository<'a> {
    repository: gix::Repository,
    guard: &'a Guard,
}

impl<'a> LocalRepository<'a> {
    pub(super) fn open(path: &Path, config: &SourceConfig, guard: &'a Guard) -> Result<Self, SourceError> {
        let options = gix::open::Options::isolated()
            // Opens repositories of other users, but believes nothing of their configuration.
            .with(Trust::Reduced)
            .config_overrides([format!("gitoxide.objects.allocLimit={}", config.max_object_bytes)]);
        let repository = gix::open_opts(path, options).map_err(|error| {
            if path.join("HEAD").exists() || path.join(".git").exists() {
                SourceError::Disk { repository: guard.label().to_owned(), reason: describe(&error) }
            } else {
                SourceError::NotFound { repository: guard.label().to_owned() }
            }
        })?;
        Ok(Self { repository, guard })
    }

    /// Branches, tags and `HEAD`, peeled. References that lead nowhere are left out.
    pub(super) fn list(&self) -> Result<Vec<ListedRef>, SourceError> {
        let mut listed = Vec::new();
        if let Ok(id) = self.repository.head_id() {
            listed.push(ListedRef { name: "HEAD".to_owned(), target: CommitId::from(id.detach()) });
        }
        let platform = self.repository.references().map_err(|error| self.unreadable(&error))?;
        for reference in platform.all().map_err(|error| self.unreadable(&error))? {
            self.guard.check()?;
            let Ok(mut reference) = reference else { continue };
            let Ok(name) = std::str::from_utf8(reference.name().as_bstr()).map(str::to_owned) else {
                continue;
            };
            if !name.starts_with("refs/heads/") && !name.starts_with("refs/tags/") {
                continue;
            }
            let Ok(id) = reference.peel_to_id() else { continue };
            listed.push(ListedRef { name, target: CommitId::from(id.detach()) });
        }
        Ok(listed)
    }

    pub(super) fn repository(&self) -> &gix::Repository {
        &self.repository
    }

    pub(super) fn contains(&self, commit: &CommitId) -> bool {
        matches!(
            self.repository.try_find_header(commit.object_id()),
            Ok(Some(header)) if header.kind() == gix::objs::Kind::Commit
        )
    }

    /// Copies the commit and all its files into `mirror`.
    pub(super) fn copy(
        &self,
        commit: &CommitId,
        mirror: &gix::Repository,
        allowed_bytes: u64,
        max_entries: usize,
    ) -> Result<(), SourceError> {
        self.guard.allow("max_repository_bytes", allowed_bytes);
        let id = commit.object_id();
        let object = self.repository.find_commit(id).map_err(|error| self.unreadable(&error))?;
        let tree = object.tree_id().map_err(|error| self.unreadable(&error))?.detach();
        let mut copy = Copy { source: self, mirror, entries: 0, max_entries };
        copy.tree(tree, 0)?;
        // Last, so that a commit in the mirror is a whole commit.
        copy.write(gix::objs::Kind::Commit, &object.data)
    }

    fn unreadable(&self, error: &gix::Error) -> SourceError {
        self.guard.fault().unwrap_or_else(|| SourceError::Protocol {
            repository: self.guard.label().to_owned(),
            reason: format!("the repository cannot be read: {}", describe(error)),
        })
    }
}

struct Copy<'a> {
    source: &'a LocalRepository<'a>,
    mirror: &'a gix::Repository,
    entries: usize,
    max_entries: usize,
}

impl Copy<'_> {
    /// Deeper trees are no work of people.
    const MAX_DEPTH: usize = 128;

    /// Writes children before the tree, so that a tree in the mirror is a whole tree and need not be walked again.
    fn tree(&mut self, id: gix::ObjectId, depth: usize) -> Result<(), SourceError> {
        if self.mirror.has_object(id) {
            return Ok(());
        }
        self.source.guard.check()?;
        if depth > Self::MAX_DEPTH {
            return Err(self.too_large("depth of directories", Self::MAX_DEPTH));
        }
        let tree = self.source.repository.find_tree(id).map_err(|error| self.source.unreadable(&error))?;
        for entry in tree.iter() {
            let entry = entry.map_err(|error| self.source.unreadable(&error))?;
            self.entries += 1;
            if self.entries > self.max_entries {
                return Err(self.too_large("max_tree_entries", self.max_entries));
            }
            let mode = entry.mode();
            if mode.is_tree() {
                self.tree(entry.object_id(), depth + 1)?;
            } else if !mode.is_commit() {
                self.blob(entry.object_id())?;
            }
        }
        self.write(gix::objs::Kind::Tree, &tree.data)
    }

    fn blob(&self, id: gix::ObjectId) -> Result<(), SourceError> {
        if self.mirror.has_object(id) {
            return Ok(());
        }
        self.source.guard.check()?;
        let blob = self.source.repository.find_blob(id).map_err(|error| self.source.unreadable(&error))?;
        self.write(gix::objs::Kind::Blob, &blob.data)
    }

    fn write(&self, kind: gix::objs::Kind, bytes: &[u8]) -> Result<(), SourceError> {
        self.source.guard.received(bytes.len())?;
        self.mirror.objects.write_buf(kind, bytes).map(|_| ()).map_err(|error| SourceError::Disk {
            repository: self.source.guard.label().to_owned(),
            reason: format!("cannot write an object: {}", describe(&error)),
        })
    }

    fn too_large(&self, limit: &'static str, allowed: usize) -> SourceError {
        SourceError::TooLarge {
            repository: self.source.guard.label().to_owned(),
            limit,
            allowed: u64::try_from(allowed).unwrap_or(u64::MAX),
        }
    }
}
