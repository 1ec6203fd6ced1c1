//! A disk that misbehaves on demand: slow or failing syncs, a full disk, and a trace of everything that was written.
//!
//! The disk itself is `chaos/shim/disk.c`, preloaded into the program under test; its first page documents variables,
//! control file and trace. Here it is compiled (a C compiler is all it needs), aimed at a directory, and told what to do.
//! Linux only. Never loaded into this process, never installed anywhere.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use std::{path::Path, process::Command, time::Duration};
//! use windlass_chaos::shim::{Disk, Faults};
//!
//! let disk = Disk::new(Path::new("/data"), Path::new("/run/disk.control"))?;
//! let mut hub = Command::new("windlass-hub");
//! hub.args(["serve", "--data", "/data"]).envs(disk.environment());
//! disk.set(&Faults { fsync: Duration::from_secs(1), ..Faults::default() })?;
//! # Ok(()) }
//! ```

mod clock;
mod trace;

use std::{
    ffi::OsString,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

pub use self::clock::Clock;
pub use self::trace::{Event, Marker, read_trace};

/// What the disk does wrong. The default is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// How much longer every `fsync` and `fdatasync` takes (milliseconds count).
    pub fsync: Duration,
    /// Every `fsync` and `fdatasync` fails with EIO.
    pub fsync_fails: bool,
    /// Which writes find no space.
    pub full: Full,
    /// The disk is full after so many more bytes, counted from when this is set: a short write, then ENOSPC.
    pub full_after: Option<u64>,
}

/// How full a disk is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Full {
    /// Everything fits.
    #[default]
    Not,
    /// What makes a file larger, or makes a file, fails with ENOSPC; overwriting works.
    Growth,
    /// Every write fails with ENOSPC.
    All,
}

/// The disk below one directory, for any number of programs.
#[derive(Debug, Clone)]
pub struct Disk {
    library: PathBuf,
    directory: PathBuf,
    control: PathBuf,
    trace: Option<PathBuf>,
}

impl Disk {
    /// A disk for `directory`, which is made when missing; what it does wrong is written to the file `control`, which
    /// must lie outside. Compiles the library when that has not been done yet.
    ///
    /// # Errors
    /// Without a C compiler, or when a folder cannot be made.
    pub fn new(directory: &Path, control: &Path) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        let directory = directory.canonicalize().with_context(|| format!("resolve {}", directory.display()))?;
        ensure!(!control.starts_with(&directory), "the control file lies on the disk that it controls");
        let disk = Self { library: library()?, directory, control: control.to_path_buf(), trace: None };
        disk.set(&Faults::default())?;
        Ok(disk)
    }

    /// Records every change to the file `trace` (appended; outside of the directory); [`read_trace`] reads it.
    #[must_use]
    pub fn recording(mut self, trace: &Path) -> Self {
        self.trace = Some(trace.to_path_buf());
        self
    }

    /// The environment of a program that is to run on this disk.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut variables = vec![
            ("LD_PRELOAD", self.library.clone().into_os_string()),
            ("WINDLASS_SHIM_DIR", self.directory.clone().into_os_string()),
            ("WINDLASS_SHIM_CONTROL", self.control.clone().into_os_string()),
        ];
        variables.extend(self.trace.iter().map(|trace| ("WINDLASS_SHIM_TRACE", trace.clone().into_os_string())));
        variables
    }

    /// Changes what the disk does wrong; in force from the next call of the program on.
    ///
    /// # Errors
    /// When the control file cannot be replaced.
    pub fn set(&self, faults: &Faults) -> Result<()> {
        let aside = self.control.with_extension("new");
        fs::write(&aside, faults.text()).with_context(|| format!("write {}", aside.display()))?;
        fs::rename(&aside, &self.control).with_context(|| format!("replace {}", self.control.display()))
    }
}

impl Faults {
    fn text(&self) -> String {
        let mut text = format!("fsync_ms={}\nfsync_fail={}\n", self.fsync.as_millis(), u8::from(self.fsync_fails));
        match self.full {
            Full::Not => {}
            Full::Growth => text.push_str("full=growth\n"),
            Full::All => text.push_str("full=all\n"),
        }
        if let Some(bytes) = self.full_after {
            text.push_str(&format!("full_after={bytes}\n"));
        }
        text
    }
}

/// The compiled library; compiled once for each version of its source, beside this executable.
///
/// # Errors
/// Without a C compiler (`cc`, or what `CC` names).
pub fn library() -> Result<PathBuf> {
    compiled("disk", SOURCE)
}

/// As [`library`], in a folder of the caller's choice.
///
/// # Errors
/// Without a C compiler, or when the folder cannot be written.
pub fn library_in(folder: &Path) -> Result<PathBuf> {
    compiled_in("disk", SOURCE, folder)
}

/// A compiled library, beside this executable.
fn compiled(name: &str, source: &str) -> Result<PathBuf> {
    let executable = std::env::current_exe().context("find this executable")?;
    let beside = executable.parent().context("an executable lies in a folder")?;
    compiled_in(name, source, &beside.join("windlass-shim")).or_else(|error| {
        // An installed executable may lie where nobody may write.
        let own = std::env::temp_dir().join(format!("windlass-shim-{}", std::process::id()));
        compiled_in(name, source, &own).map_err(|_| error)
    })
}

fn compiled_in(name: &str, text: &str, folder: &Path) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let path = folder.join(format!("{name}-{:016x}.so", hasher.finish()));
    if path.is_file() {
        return Ok(path);
    }
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    // Several test processes may do this at once: each under a name of its own, then one rename.
    let thread = std::thread::current().id();
    let own = format!("{name}-{}-{thread:?}", std::process::id());
    let (source, object) = (folder.join(format!("{own}.c")), folder.join(format!("{own}.so")));
    fs::write(&source, text).with_context(|| format!("write {}", source.display()))?;
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let output = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .arg(&object)
        .arg(&source)
        .arg("-lpthread")
        .output()
        .with_context(|| format!("run the C compiler {}", compiler.display()))?;
    ensure!(output.status.success(), "{name}.c does not compile:\n{}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&object, &path).with_context(|| format!("rename {}", object.display()))?;
    fs::remove_file(&source).with_context(|| format!("remove {}", source.display()))?;
    Ok(path)
}

const SOURCE: &str = include_str!("../shim/disk.c");

#[cfg(test)]
mod tests {
    use super::*;

    struct Shell {
        folder: tempfile::TempDir,
        disk: Disk,
    }

    impl Shell {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let data = folder.path().join("data");
            let disk = Disk::new(&data, &folder.path().join("control")).unwrap();
            let disk = disk.recording(&folder.path().join("trace"));
            Self { folder, disk }
        }

        /// Runs a script in the data directory; whether it succeeded, and what it complained about.
        fn run(&self, script: &str) -> (bool, String) {
            let mut command = Command::new("sh");
            command.args(["-c", script]).current_dir(self.folder.path().join("data")).envs(self.disk.environment());
            let output = command.output().unwrap();
            (output.status.success(), String::from_utf8(output.stderr).unwrap())
        }

        fn trace(&self) -> Vec<Event> {
            read_trace(&self.folder.path().join("trace")).unwrap()
        }
    }

    #[test]
    fn records_what_happens_below_the_directory_and_nothing_else() {
        let shell = Shell::new();
        let script = "mkdir d; printf one > d/a; printf two >> d/a; mv d/a d/b; sync d/b; sync d; echo x > ../else";
        assert_eq!(shell.run(script), (true, String::new()));
        Marker::open(&shell.folder.path().join("trace")).unwrap().mark("acknowledged").unwrap();
        assert_eq!(shell.run("rm d/b; rmdir d"), (true, String::new()));
        let kinds: Vec<String> = shell.trace().iter().map(|event| event.to_string()).collect();
        let expected = [
            "mkdir d",
            "create d/a",
            "write +0 3",
            "write +3 3",
            "rename d/a d/b",
            "sync",
            "sync folder d",
            "mark acknowledged",
            "unlink d/b",
            "rmdir d",
        ];
        let data = shell.folder.path().join("data").canonicalize().unwrap();
        let short: Vec<String> = kinds.iter().map(|kind| kind.replace(&format!("{}/", data.display()), "")).collect();
        assert_eq!(short, expected);
    }

    #[test]
    fn a_full_disk_takes_what_fits_and_a_freed_one_everything() {
        let shell = Shell::new();
        assert!(shell.run("printf 0123456789 > a").0);
        shell.disk.set(&Faults { full: Full::Growth, ..Faults::default() }).unwrap();
        assert!(shell.run("printf new 1<> a").0, "overwriting works");
        assert!(!shell.run("printf more >> a").0);
        assert!(shell.run("echo > b").1.contains("o space left"));
        shell.disk.set(&Faults { full: Full::All, ..Faults::default() }).unwrap();
        assert!(!shell.run("printf new 1<> a").0);
        shell.disk.set(&Faults { full_after: Some(4), ..Faults::default() }).unwrap();
        assert!(!shell.run("printf 0123456789 >> a").0);
        let text = fs::read_to_string(shell.folder.path().join("data/a")).unwrap();
        assert_eq!(text, "new34567890123", "the write was cut");
        shell.disk.set(&Faults::default()).unwrap();
        assert!(shell.run("echo > b").0);
    }

    #[test]
    fn a_sync_may_be_slow_or_fail() {
        let shell = Shell::new();
        assert!(shell.run("echo > a").0);
        shell.disk.set(&Faults { fsync: Duration::from_millis(300), ..Faults::default() }).unwrap();
        let start = std::time::Instant::now();
        assert!(shell.run("sync a").0);
        assert!(start.elapsed() >= Duration::from_millis(300));
        shell.disk.set(&Faults { fsync_fails: true, ..Faults::default() }).unwrap();
        assert!(!shell.run("sync a").0);
    }
}
