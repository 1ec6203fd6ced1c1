//! The bare repository of one URL on the hub's disk, in generations.
//!
//! ```text
//! <data>/git/<hash of URL>/gen-1      the mirror; fetches add packs to it
//!                          tmp-2      a new clone in the making; worthless until renamed
//!                          used       touched when the mirror is opened
//! ```
//!
//! A mirror that is damaged, too large or in too many packs is never repaired in place: a new generation is cloned
//! beside it and takes over only when complete. The previous one stays readable until the next change, so a failed
//! clone harms nothing and open trees stay whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use gix::{odb::store::init::Slots, sec::Trust};
use tokio::sync::{Notify, Semaphore};

use super::{
    CommitTree, SourceConfig, SourceError,
    fetch::describe,
    reference::CommitId,
    repository::{Fingerprint, Remote},
};

/// All that is known of one URL.
#[derive(Debug)]
pub(super) struct Mirror {
    directory: PathBuf,
    label: String,
    max_object_bytes: u64,
    rebuild_interval: Duration,
    state: Mutex<State>,
    /// One operation at a time on a mirror.
    pub(super) exclusive: Arc<Semaphore>,
    /// Wakes the pollers when a reader finds damage.
    pub(super) damage: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Arc<Generation>>,
    previous: Option<Arc<Generation>>,
    last_rebuild: Option<Instant>,
    /// Trees that someone holds, so that a thousand renders of one commit share one cache of directories.
    trees: BTreeMap<CommitId, Weak<CommitTree>>,
    /// Credentials that listed the repository since the hub started. One mirror serves all credentials of a URL, so
    /// whoever reads from it must first have shown the server its own.
    admitted: BTreeSet<Fingerprint>,
}

/// One directory with a bare repository.
#[derive(Debug)]
pub(super) struct Generation {
    path: PathBuf,
    number: u64,
    repository: gix::ThreadSafeRepository,
    damaged: AtomicBool,
    obsolete: AtomicBool,
    damage: Arc<Notify>,
}

impl Mirror {
    pub(super) fn new(config: &SourceConfig, remote: &Remote) -> Self {
        Self {
            directory: config.data_dir.join("git").join(remote.directory()),
            label: remote.label.clone(),
            max_object_bytes: config.max_object_bytes,
            rebuild_interval: config.rebuild_interval,
            state: Mutex::default(),
            exclusive: Arc::new(Semaphore::new(1)),
            damage: Arc::new(Notify::new()),
        }
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn admit(&self, who: Fingerprint) {
        self.state().admitted.insert(who);
    }

    pub(super) fn dismiss(&self, who: Fingerprint) {
        self.state().admitted.remove(&who);
    }

    pub(super) fn admitted(&self, who: Fingerprint) -> bool {
        self.state().admitted.contains(&who)
    }

    /// The mirror as it is, opened or made at the first call. Blocking; call under the `exclusive` permit.
    pub(super) fn generation(&self) -> Result<Arc<Generation>, SourceError> {
        if let Some(current) = self.state().current.clone() {
            return Ok(current);
        }
        fs::create_dir_all(&self.directory).map_err(|error| self.disk("cannot create its directory", &error))?;
        fs::write(self.directory.join("used"), self.label.as_bytes())
            .map_err(|error| self.disk("cannot write in its directory", &error))?;
        let opened = self.open_newest()?;
        let generation = match opened {
            Some(generation) => generation,
            None => self.start_generation()?.finish()?,
        };
        self.state().current = Some(Arc::clone(&generation));
        Ok(generation)
    }

    /// The generations to read from, newest first. Does not touch the disk.
    pub(super) fn readable(&self) -> Vec<Arc<Generation>> {
        let state = self.state();
        state.current.iter().chain(&state.previous).cloned().collect()
    }

    /// The tree of a commit if someone holds it and its mirror is whole.
    pub(super) fn held_tree(&self, commit: &CommitId) -> Option<Arc<CommitTree>> {
        let tree = self.state().trees.get(commit)?.upgrade()?;
        (!tree.is_damaged()).then_some(tree)
    }

    /// Shares a tree with who asks for it next.
    pub(super) fn hold_tree(&self, commit: &CommitId, tree: &Arc<CommitTree>) {
        let trees = &mut self.state().trees;
        trees.retain(|_, tree| tree.strong_count() > 0);
        trees.insert(commit.clone(), Arc::downgrade(tree));
    }

    /// Whether a damaged mirror may be cloned again now; counts as doing so.
    pub(super) fn may_rebuild(&self) -> bool {
        let mut state = self.state();
        let allowed = state.last_rebuild.is_none_or(|last| last.elapsed() >= self.rebuild_interval);
        if allowed {
            state.last_rebuild = Some(Instant::now());
        }
        allowed
    }

    /// An empty repository that nobody sees until [`Draft::finish`].
    pub(super) fn start_generation(&self) -> Result<Draft<'_>, SourceError> {
        let current = self.state().current.as_ref().map_or(0, |generation| generation.number);
        let number = current + 1;
        let path = self.directory.join(format!("tmp-{number}"));
        remove(&path).map_err(|error| self.disk("cannot remove an unfinished clone", &error))?;
        let repository = gix::ThreadSafeRepository::init_opts(
            &path,
            gix::create::Kind::Bare,
            gix::create::Options::default(),
            self.options(),
        )
        .map_err(|error| self.unusable("cannot create the mirror", &error))?;
        Ok(Draft { mirror: self, number, path, repository })
    }

    /// Makes a finished draft the mirror.
    pub(super) fn replace(&self, draft: Draft<'_>) -> Result<Arc<Generation>, SourceError> {
        let next = draft.finish()?;
        let mut state = self.state();
        let old = state.current.replace(Arc::clone(&next));
        let older = std::mem::replace(&mut state.previous, old);
        drop(state);
        if let Some(older) = older {
            older.obsolete.store(true, Ordering::Relaxed);
        }
        Ok(next)
    }

    fn open_newest(&self) -> Result<Option<Arc<Generation>>, SourceError> {
        let mut numbers = Vec::new();
        let entries = fs::read_dir(&self.directory).map_err(|error| self.disk("cannot read its directory", &error))?;
        for entry in entries {
            let entry = entry.map_err(|error| self.disk("cannot read its directory", &error))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if let Some(number) = name.strip_prefix("gen-").and_then(|number| number.parse::<u64>().ok()) {
                numbers.push(number);
            } else if name.starts_with("tmp-") {
                // Left by a clone that the end of the process cut short.
                remove(&entry.path()).map_err(|error| self.disk("cannot remove an unfinished clone", &error))?;
            }
        }
        numbers.sort_unstable();
        let mut newest = None;
        while let Some(number) = numbers.pop() {
            let path = self.directory.join(format!("gen-{number}"));
            if newest.is_none() {
                match self.open(&path, number) {
                    Ok(generation) => {
                        remove_leftovers(&path);
                        newest = Some(generation);
                        continue;
                    }
                    Err(error) => tracing::warn!(repository = %self.label, %error, "removing an unreadable mirror"),
                }
            }
            remove(&path).map_err(|error| self.disk("cannot remove an old mirror", &error))?;
        }
        Ok(newest)
    }

    fn open(&self, path: &Path, number: u64) -> Result<Arc<Generation>, SourceError> {
        let repository = gix::ThreadSafeRepository::open_opts(path, self.options().open_path_as_is(true))
            .map_err(|error| self.unusable("cannot open the mirror", &error))?;
        Ok(Arc::new(Generation {
            path: path.to_owned(),
            number,
            repository,
            damaged: AtomicBool::new(false),
            obsolete: AtomicBool::new(false),
            damage: Arc::clone(&self.damage),
        }))
    }

    fn options(&self) -> gix::open::Options {
        gix::open::Options::isolated()
            .with(Trust::Full)
            // More than `max_packs`, so that a handle opened early still finds packs that came later.
            .object_store_slots(Slots::Given(4096))
            .config_overrides([
                format!("gitoxide.objects.allocLimit={}", self.max_object_bytes),
                "committer.name=windlass".to_owned(),
                "committer.email=windlass@localhost".to_owned(),
                "core.logAllRefUpdates=false".to_owned(),
                // Indexing a large pack must not take the cores that consensus and agents need.
                "pack.threads=2".to_owned(),
            ])
    }

    pub(super) fn disk(&self, what: &str, error: &io::Error) -> SourceError {
        SourceError::Disk { repository: self.label.clone(), reason: format!("{what}: {error}") }
    }

    fn unusable(&self, what: &str, error: &gix::Error) -> SourceError {
        SourceError::Disk { repository: self.label.clone(), reason: format!("{what}: {}", describe(error)) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A generation in the making; removed from the disk unless it is finished.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    mirror: &'a Mirror,
    number: u64,
    path: PathBuf,
    repository: gix::ThreadSafeRepository,
}

impl Draft<'_> {
    pub(super) fn repository(&self) -> gix::Repository {
        self.repository.to_thread_local()
    }

    fn finish(self) -> Result<Arc<Generation>, SourceError> {
        let target = self.mirror.directory.join(format!("gen-{}", self.number));
        let disk = |error: io::Error| self.mirror.disk("cannot put the new clone in place", &error);
        remove(&target).map_err(disk)?;
        fs::rename(&self.path, &target).map_err(disk)?;
        self.mirror.open(&target, self.number)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(repository = %self.mirror.label, %error, "cannot remove an unfinished clone");
        }
    }
}

impl Generation {
    pub(super) fn repository(&self) -> gix::Repository {
        self.repository.to_thread_local()
    }

    /// Whether the object is a commit that is here. Looks at the pack index and the object's header only.
    pub(super) fn contains(&self, commit: &CommitId) -> bool {
        matches!(
            self.repository().try_find_header(commit.object_id()),
            Ok(Some(header)) if header.kind() == gix::objs::Kind::Commit
        )
    }

    /// Tells that an object could not be read; the pollers clone the mirror again.
    pub(super) fn report_damage(&self) {
        if !self.damaged.swap(true, Ordering::Relaxed) {
            tracing::warn!(mirror = %self.path.display(), "an object of the mirror cannot be read");
        }
        self.damage.notify_waiters();
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Number of packs, and bytes of all objects.
    pub(super) fn usage(&self) -> Usage {
        let mut usage = Usage { packs: 0, bytes: 0 };
        let objects = self.path.join("objects");
        for folder in entries(&objects) {
            for file in entries(&folder.path()) {
                usage.bytes += file.metadata().map_or(0, |metadata| metadata.len());
                usage.packs += usize::from(file.path().extension().is_some_and(|extension| extension == "pack"));
            }
        }
        usage
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Relaxed)
            && let Err(error) = remove(&self.path)
        {
            tracing::warn!(mirror = %self.path.display(), %error, "cannot remove an old mirror");
        }
    }
}

/// What a generation takes on disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) packs: usize,
    pub(super) bytes: u64,
}

/// Removes mirrors that nobody opened for `age`. Called once at the start, before any mirror is open.
pub(super) fn remove_unused(config: &SourceConfig) {
    for entry in entries(&config.data_dir.join("git")) {
        let used = fs::metadata(entry.path().join("used")).and_then(|metadata| metadata.modified());
        let old = used.is_ok_and(|used| used.elapsed().is_ok_and(|age| age > config.unused_mirror_age));
        if old && let Err(error) = remove(&entry.path()) {
            tracing::warn!(mirror = %entry.path().display(), %error, "cannot remove an unused mirror");
        }
    }
}

/// Files of a fetch that was killed: packs that were never given their name.
fn remove_leftovers(generation: &Path) {
    for entry in entries(&generation.join("objects/pack")) {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let named = name.starts_with("pack-") || name == "multi-pack-index";
        if !named && let Err(error) = fs::remove_file(entry.path()) {
            tracing::debug!(file = %entry.path().display(), %error, "cannot remove a leftover of a fetch");
        }
    }
}

fn entries(directory: &Path) -> impl Iterator<Item = fs::DirEntry> + use<> {
    fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
