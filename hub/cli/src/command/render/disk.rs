//! The file system as a tree for the renderer.
//!
//! The root of the tree is the root of the file system, because bases may lie beside or above the directory that is built.
//! Links are shown as links, which the renderer never follows: what it builds here is what it builds on the hub.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use windlass_render::{Entry, EntryKind, Tree, TreeError};

/// Files of this machine.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    file_max: u64,
}

impl Disk {
    /// The file system that holds an absolute directory, and the directory's path in it.
    pub(super) fn holding(directory: &Path, file_max: u64) -> (Self, String) {
        let (mut root, mut names) = (PathBuf::new(), Vec::new());
        for part in directory.components() {
            match part {
                Component::Normal(name) => names.push(name.to_string_lossy().into_owned()),
                part => root.push(part),
            }
        }
        (Self { root, file_max }, names.join("/"))
    }

    /// What stands at a path; `None` when nothing does.
    fn look(&self, path: &str) -> Result<Option<(PathBuf, fs::Metadata)>, TreeError> {
        let place = if path.is_empty() { self.root.clone() } else { self.root.join(path) };
        match fs::symlink_metadata(&place) {
            Ok(metadata) => Ok(Some((place, metadata))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(failed(path, &error)),
        }
    }
}

impl Tree for Disk {
    fn read(&self, path: &str) -> Result<Option<Arc<[u8]>>, TreeError> {
        let Some((place, metadata)) = self.look(path)? else { return Ok(None) };
        if !metadata.is_file() {
            return Ok(None);
        }
        if metadata.len() > self.file_max {
            let (path, size, limit) = (path.to_owned(), metadata.len(), self.file_max);
            return Err(TreeError::TooLarge { path, size, limit });
        }
        fs::read(&place).map(|bytes| Some(bytes.into())).map_err(|error| failed(path, &error))
    }

    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>, TreeError> {
        let Some((place, metadata)) = self.look(path)? else { return Ok(None) };
        if !metadata.is_dir() {
            return Ok(None);
        }
        let mut entries = Vec::new();
        for entry in fs::read_dir(&place).map_err(|error| failed(path, &error))? {
            let entry = entry.map_err(|error| failed(path, &error))?;
            let kind = entry.file_type().map_err(|error| failed(path, &error))?;
            let kind = match (kind.is_symlink(), kind.is_dir()) {
                (true, _) => EntryKind::Symlink,
                (false, true) => EntryKind::Directory,
                (false, false) => EntryKind::File,
            };
            entries.push(Entry { name: entry.file_name().to_string_lossy().into_owned(), kind });
        }
        entries.sort();
        Ok(Some(entries))
    }

    fn object_id(&self, path: &str) -> Result<Option<String>, TreeError> {
        // Nothing is memoised here: an id only has to be there when the file is.
        Ok(self.look(path)?.map(|_| path.to_owned()))
    }
}

fn failed(path: &str, error: &io::Error) -> TreeError {
    TreeError::Io { path: path.to_owned(), message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_a_tree() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir(root.join("deep")).unwrap();
        fs::write(root.join("deep/file"), "12345").unwrap();
        fs::write(root.join("small"), "1").unwrap();
        let (disk, start) = Disk::holding(&root, 4);
        let names = disk.list(&start).unwrap().unwrap();
        let names: Vec<(&str, EntryKind)> = names.iter().map(|entry| (entry.name.as_str(), entry.kind)).collect();
        assert_eq!(names, [("deep", EntryKind::Directory), ("small", EntryKind::File)]);
        assert_eq!(disk.read(&format!("{start}/small")).unwrap().as_deref(), Some(&b"1"[..]));
        assert!(disk.read(&format!("{start}/absent")).unwrap().is_none());
        assert!(disk.read(&format!("{start}/deep")).unwrap().is_none());
        assert!(disk.read(&format!("{start}/small/below")).unwrap().is_none());
        assert!(matches!(disk.read(&format!("{start}/deep/file")), Err(TreeError::TooLarge { limit: 4, .. })));
        assert!(disk.list(&format!("{start}/small")).unwrap().is_none());
    }
}
