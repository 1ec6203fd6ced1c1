//! What git generators read: trees at pinned commits, walked without a checkout.

use std::{collections::BTreeMap, sync::Arc};

use windlass_hub_core::generate::{self, SourceFile, SourceUnavailable, Sources as GeneratorSources};
use windlass_protocol::resource::{ApplicationSetSpec, GitItem};
use windlass_render::{EntryKind, Tree};

use crate::{repositories::Repositories, source::Sources};

/// Directories that a generator may descend.
const DEPTH_MAX: usize = 64;

/// The trees that the git generators of a set may read, by (repository, revision).
#[derive(Default)]
pub(crate) struct Trees {
    trees: BTreeMap<(String, String), Result<Arc<dyn Tree>, String>>,
}

impl Trees {
    /// Resolves what the generators of a set read, now; a source that is not there is an error only of its generator.
    pub(crate) async fn resolve(spec: &ApplicationSetSpec, repositories: &Repositories, sources: &Sources) -> Self {
        let mut trees = Self::default();
        for git in spec.generators.iter().filter_map(|generator| generator.git.as_ref()) {
            let repository = repositories.repository(&git.repo_url);
            let tree = match sources.resolve(&repository, reference(&git.revision)).await {
                Ok(commit) => sources.tree(&repository, &commit).await,
                Err(error) => Err(error),
            };
            trees.insert(&git.repo_url, &git.revision, tree.map_err(|error| error.to_string()));
        }
        trees
    }

    /// Adds the tree of a revision, or why there is none.
    pub(crate) fn insert(&mut self, repo_url: &str, revision: &str, tree: Result<Arc<dyn Tree>, String>) {
        self.trees.insert((repo_url.to_owned(), revision.to_owned()), tree);
    }

    fn tree(&self, repo_url: &str, revision: &str) -> Result<&Arc<dyn Tree>, SourceUnavailable> {
        let unavailable = |message: String| SourceUnavailable {
            repo_url: repo_url.to_owned(),
            revision: revision.to_owned(),
            message,
        };
        match self.trees.get(&(repo_url.to_owned(), revision.to_owned())) {
            Some(Ok(tree)) => Ok(tree),
            Some(Err(error)) => Err(unavailable(error.clone())),
            None => Err(unavailable("it is not resolved yet".to_owned())),
        }
    }

    /// Walks a tree; `visit` says whether to go on into a directory.
    fn walk(
        tree: &dyn Tree,
        path: &str,
        depth: usize,
        visit: &mut dyn FnMut(&str, EntryKind) -> Result<(), String>,
    ) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("{path}: more than {DEPTH_MAX} directories deep"));
        }
        let entries = tree.list(path).map_err(|error| error.to_string())?.unwrap_or_default();
        for entry in entries {
            let inner = if path.is_empty() { entry.name } else { format!("{path}/{}", entry.name) };
            visit(&inner, entry.kind)?;
            if entry.kind == EntryKind::Directory {
                Self::walk(tree, &inner, depth + 1, visit)?;
            }
        }
        Ok(())
    }
}

impl GeneratorSources for Trees {
    fn files(&self, repo_url: &str, revision: &str, items: &[GitItem]) -> Result<Vec<SourceFile>, SourceUnavailable> {
        let tree = self.tree(repo_url, revision)?;
        let mut files = Vec::new();
        let result = Self::walk(tree.as_ref(), "", 0, &mut |path, kind| {
            if kind != EntryKind::Directory
                && generate::wants_file(items, path)
                && let Some(content) = tree.read(path).map_err(|error| error.to_string())?
            {
                files.push(SourceFile { path: path.to_owned(), content });
            }
            Ok(())
        });
        let (repo_url, revision) = (repo_url.to_owned(), revision.to_owned());
        result.map_err(|message| SourceUnavailable { repo_url, revision, message })?;
        Ok(files)
    }

    fn directories(&self, repo_url: &str, revision: &str, items: &[GitItem]) -> Result<Vec<String>, SourceUnavailable> {
        let tree = self.tree(repo_url, revision)?;
        let mut directories = Vec::new();
        let result = Self::walk(tree.as_ref(), "", 0, &mut |path, kind| {
            if kind == EntryKind::Directory && generate::wants_directory(items, path) {
                directories.push(path.to_owned());
            }
            Ok(())
        });
        let (repo_url, revision) = (repo_url.to_owned(), revision.to_owned());
        result.map_err(|message| SourceUnavailable { repo_url, revision, message })?;
        Ok(directories)
    }
}

/// An empty revision is `HEAD`, as in Argo CD.
pub(crate) fn reference(revision: &str) -> &str {
    if revision.is_empty() { "HEAD" } else { revision }
}
