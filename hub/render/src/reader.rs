//! The one way to the tree: counts what is read, remembers it for the memo, and keeps the limits.

use std::{collections::BTreeMap, sync::Arc};

use windlass_protocol::yaml::{self, Dialect, DuplicateKeys, Node};

use crate::{
    error::{Problem, ProblemKind},
    limits::Limits,
    tree::{Entry, Tree},
};

/// A tree with a memory of what was asked of it.
pub(crate) struct Reader<'t> {
    tree: &'t dyn Tree,
    pub(crate) limits: &'t Limits,
    /// Every path that was asked for, with its object id then; `None` for absent ones, which matter as much.
    pub(crate) read: BTreeMap<String, Option<String>>,
    pub(crate) warnings: Vec<String>,
    bytes: u64,
    entries: usize,
    parsed: BTreeMap<String, Arc<Vec<Node>>>,
}

impl<'t> Reader<'t> {
    pub(crate) fn new(tree: &'t dyn Tree, limits: &'t Limits) -> Self {
        Self {
            tree,
            limits,
            read: BTreeMap::new(),
            warnings: Vec::new(),
            bytes: 0,
            entries: 0,
            parsed: BTreeMap::new(),
        }
    }

    /// The file at `path`, or `None`.
    pub(crate) fn file(&mut self, path: &str) -> Result<Option<Arc<[u8]>>, Problem> {
        let first = self.note(path)?;
        let content = self.tree.read(path).map_err(Problem::from)?;
        if let Some(content) = &content {
            let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
            if size > self.limits.file {
                let message = format!("has {size} bytes, which exceeds the limit `file` of {}", self.limits.file);
                return Err(Problem::new(ProblemKind::Limit, message).in_file(path));
            }
            if first {
                self.bytes = self.bytes.saturating_add(size);
            }
            if self.bytes > self.limits.bytes_read {
                return Err(Problem::limit("bytes_read", self.limits.bytes_read).in_file(path));
            }
        }
        Ok(content)
    }

    /// The entries of the directory at `path`, or `None`.
    pub(crate) fn directory(&mut self, path: &str) -> Result<Option<Vec<Entry>>, Problem> {
        self.note(path)?;
        let entries = self.tree.list(path).map_err(Problem::from)?;
        self.entries = self.entries.saturating_add(entries.as_ref().map_or(0, Vec::len));
        if self.entries > self.limits.files_per_tree {
            return Err(Problem::limit("files_per_tree", self.limits.files_per_tree).in_file(path));
        }
        Ok(entries)
    }

    /// Whether a directory is at `path`.
    pub(crate) fn is_directory(&mut self, path: &str) -> Result<bool, Problem> {
        Ok(self.tree.list(path).map_err(Problem::from)?.is_some())
    }

    /// The documents of the file at `path` as Kustomize reads them; each file is parsed once.
    pub(crate) fn documents(&mut self, path: &str, content: &[u8]) -> Result<Arc<Vec<Node>>, Problem> {
        if let Some(known) = self.parsed.get(path) {
            return Ok(Arc::clone(known));
        }
        let nodes = Arc::new(parse(path, content, &mut self.warnings)?);
        self.parsed.insert(path.to_owned(), Arc::clone(&nodes));
        Ok(nodes)
    }

    /// Remembers a path; says whether it is new.
    fn note(&mut self, path: &str) -> Result<bool, Problem> {
        if self.read.contains_key(path) {
            return Ok(false);
        }
        let id = self.tree.object_id(path).map_err(Problem::from)?;
        self.read.insert(path.to_owned(), id);
        Ok(true)
    }
}

/// Parses a text of resources or patches; `name` is what problems and warnings call it.
pub(crate) fn parse(name: &str, content: &[u8], warnings: &mut Vec<String>) -> Result<Vec<Node>, Problem> {
    let options = yaml::Options {
        dialect: Dialect::Kyaml,
        duplicates: DuplicateKeys::MergeInArgo,
        limits: yaml::Limits { bytes: usize::MAX, ..yaml::Limits::default() },
    };
    let documents = yaml::parse_bytes(content, &options).map_err(|error| Problem::from_yaml(name, &error))?;
    let mut nodes = Vec::with_capacity(documents.len());
    for document in documents {
        warnings
            .extend(document.warnings.iter().map(|warning| format!("{name}:{}: {}", warning.line, warning.message)));
        nodes.push(document.node);
    }
    Ok(nodes)
}
