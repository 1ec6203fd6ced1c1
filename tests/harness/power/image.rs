//! A disk rebuilt from a trace, and what of it is left after a power cut.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use windlass_chaos::shim::Event;

use super::Random;

/// What happens to that which was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// It is gone.
    Gone,
    /// It is there: the process died, not the power.
    There,
    /// Any writes are there, each as a whole or not at all.
    SomeWrites,
    /// Any sectors of any writes are there.
    SomeSectors,
    /// What came first is there, the last of it torn.
    Torn,
}

/// All files below one directory: what is safe, and what is not yet.
#[derive(Debug)]
pub struct Disk {
    root: PathBuf,
    clock: u64,
    files: Vec<FileState>,
    by_inode: BTreeMap<u64, usize>,
    live: BTreeMap<PathBuf, Node>,
    folders: BTreeMap<PathBuf, Folder>,
}

#[derive(Debug, Default)]
struct FileState {
    safe: Vec<u8>,
    pending: Vec<(u64, Change)>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { at: usize, data: Vec<u8> },
    Length(usize),
    Grow(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    File(usize),
    Folder,
}

#[derive(Debug, Default)]
struct Folder {
    safe: BTreeMap<PathBuf, Node>,
    /// Each element happens as one.
    pending: Vec<(u64, Vec<NameChange>)>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Add(PathBuf, Node),
    Remove(PathBuf),
}

impl Disk {
    /// An empty disk at `root`, as the trace names it.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let folders = BTreeMap::from([(root.to_path_buf(), Folder::default())]);
        Self {
            root: root.to_path_buf(),
            clock: 0,
            files: Vec::new(),
            by_inode: BTreeMap::new(),
            live: BTreeMap::new(),
            folders,
        }
    }

    /// Goes on by one event.
    ///
    /// # Errors
    /// When the trace names a file that it never made.
    pub fn advance(&mut self, event: &Event) -> Result<()> {
        self.clock += 1;
        match event {
            Event::Create { file, path } => {
                self.files.push(FileState::default());
                self.by_inode.insert(*file, self.files.len() - 1);
                self.name(path, Node::File(self.files.len() - 1));
            }
            Event::Truncate { file } => self.change(*file, Change::Length(0))?,
            Event::Write { file, at, data } => {
                self.change(*file, Change::Write { at: usize::try_from(*at)?, data: data.clone() })?;
            }
            Event::SetLength { file, length } => self.change(*file, Change::Length(usize::try_from(*length)?))?,
            Event::Allocate { file, at, length } => self.change(*file, Change::Grow(usize::try_from(at + length)?))?,
            Event::Sync { file } => {
                let file = self.file(*file)?;
                for (_, change) in std::mem::take(&mut file.pending) {
                    apply(&mut file.safe, &change);
                }
            }
            Event::SyncFolder { path } => {
                let folder = self.folders.entry(path.clone()).or_default();
                for (_, changes) in std::mem::take(&mut folder.pending) {
                    changes.iter().for_each(|change| apply_name(&mut folder.safe, change));
                }
            }
            Event::Rename { from, to } => self.rename(from, to)?,
            Event::Unlink { path } | Event::RemoveFolder { path } => {
                self.live.remove(path);
                self.names(path, vec![NameChange::Remove(path.clone())]);
            }
            Event::MakeFolder { path } => {
                self.folders.insert(path.clone(), Folder::default());
                self.name(path, Node::Folder);
            }
            Event::Link { from, to } => {
                let node = *self.live.get(from).with_context(|| format!("{} is not there", from.display()))?;
                self.name(to, node);
            }
            Event::Mark { .. } => {}
        }
        Ok(())
    }

    /// Whether there is anything that is not safe.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.files.iter().any(|file| !file.pending.is_empty())
    }

    /// Writes what a power cut leaves to the folder `to`.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn after_power_cut(&self, rest: Rest, random: &mut Random, to: &Path) -> Result<()> {
        let oldest = self.files.iter().filter_map(|file| Some(file.pending.first()?.0)).min().unwrap_or(self.clock);
        let span = usize::try_from(self.clock + 1 - oldest).unwrap_or(usize::MAX);
        let torn = oldest + random.below(span) as u64;
        let cut = Cut { rest, torn };
        self.write_folder(&self.root, to, &cut, random)
    }

    fn write_folder(&self, folder: &Path, to: &Path, cut: &Cut, random: &mut Random) -> Result<()> {
        fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
        let Some(state) = self.folders.get(folder) else {
            return Ok(());
        };
        let mut names = state.safe.clone();
        let kept = match cut.rest {
            Rest::Gone => 0,
            Rest::There => state.pending.len(),
            Rest::SomeWrites | Rest::SomeSectors => random.below(state.pending.len() + 1),
            Rest::Torn => state.pending.iter().filter(|(at, _)| *at < cut.torn).count(),
        };
        for (_, changes) in state.pending.iter().take(kept) {
            changes.iter().for_each(|change| apply_name(&mut names, change));
        }
        for (path, node) in names {
            let target = to.join(path.file_name().context("a name")?);
            match node {
                Node::Folder => self.write_folder(&path, &target, cut, random)?,
                Node::File(file) => {
                    let state = self.files.get(file).context("a file")?;
                    let content = state.after(cut, random);
                    fs::write(&target, content).with_context(|| format!("write {}", target.display()))?;
                }
            }
        }
        Ok(())
    }

    fn name(&mut self, path: &Path, node: Node) {
        self.live.insert(path.to_path_buf(), node);
        self.names(path, vec![NameChange::Add(path.to_path_buf(), node)]);
    }

    fn names(&mut self, path: &Path, changes: Vec<NameChange>) {
        let folder = path.parent().unwrap_or(path).to_path_buf();
        self.folders.entry(folder).or_default().pending.push((self.clock, changes));
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<()> {
        let node = self.live.remove(from).with_context(|| format!("{} is not there", from.display()))?;
        anyhow::ensure!(node != Node::Folder, "renamed folders are not modelled: {}", from.display());
        self.live.insert(to.to_path_buf(), node);
        let (remove, add) = (NameChange::Remove(from.to_path_buf()), NameChange::Add(to.to_path_buf(), node));
        if from.parent() == to.parent() {
            self.names(from, vec![remove, add]);
        } else {
            self.names(to, vec![add]);
            self.names(from, vec![remove]);
        }
        Ok(())
    }

    fn change(&mut self, inode: u64, change: Change) -> Result<()> {
        let clock = self.clock;
        self.file(inode)?.pending.push((clock, change));
        Ok(())
    }

    fn file(&mut self, inode: u64) -> Result<&mut FileState> {
        let file = *self.by_inode.get(&inode).with_context(|| format!("file {inode} was never made"))?;
        self.files.get_mut(file).context("a file")
    }
}

struct Cut {
    rest: Rest,
    /// The moment at which everything stopped, for [`Rest::Torn`].
    torn: u64,
}

impl FileState {
    fn after(&self, cut: &Cut, random: &mut Random) -> Vec<u8> {
        let mut content = self.safe.clone();
        let likely = [10, 50, 90].get(random.below(3)).copied().unwrap_or(50);
        for (at, change) in &self.pending {
            match (cut.rest, change) {
                (Rest::Gone, _) => {}
                (Rest::There, _) => apply(&mut content, change),
                (Rest::Torn, _) if *at < cut.torn => apply(&mut content, change),
                (Rest::Torn, Change::Write { at: start, data }) if *at == cut.torn => {
                    sectors(&mut content, *start, data, |_| random.chance(50));
                }
                (Rest::Torn, _) => {}
                (Rest::SomeSectors, Change::Write { at: start, data }) => {
                    sectors(&mut content, *start, data, |_| random.chance(likely));
                }
                (Rest::SomeWrites | Rest::SomeSectors, _) => {
                    if random.chance(likely) {
                        apply(&mut content, change);
                    }
                }
            }
        }
        content
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(length) => content.resize(*length, 0),
        Change::Grow(end) => content.resize(content.len().max(*end), 0),
        Change::Write { at, data } => {
            content.resize(content.len().max(at + data.len()), 0);
            if let Some(place) = content.get_mut(*at..at + data.len()) {
                place.copy_from_slice(data);
            }
        }
    }
}

/// Writes those sectors of `data` that are `kept`; a sector is a sector of the disk, not of the write.
fn sectors(content: &mut Vec<u8>, at: usize, data: &[u8], mut kept: impl FnMut(usize) -> bool) {
    let mut start = at;
    while start < at + data.len() {
        let end = ((start / SECTOR + 1) * SECTOR).min(at + data.len());
        if kept(start / SECTOR) {
            let part = data.get(start - at..end - at).unwrap_or_default().to_vec();
            apply(content, &Change::Write { at: start, data: part });
        }
        start = end;
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, Node>, change: &NameChange) {
    match change {
        NameChange::Add(path, node) => drop(names.insert(path.clone(), *node)),
        NameChange::Remove(path) => drop(names.remove(path)),
    }
}

const SECTOR: usize = 512;
