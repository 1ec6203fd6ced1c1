//! A program that runs beside the test: its log in a file, its end by handle.
//!
//! Output goes straight into a file, so that no pipe can fill and nothing is lost when
//! the program is killed. A program never outlives the test: it is killed when its value
//! is dropped, and by a watchdog when the test process itself is killed.

use std::{
    fmt::{self, Display},
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{scenario::leave_ending, wait::wait_until};

/// How many lines of a log are worth printing after a failure.
const TAIL_LINES: usize = 40;

/// As many of a peer, which is seldom the one at fault and writes long lines.
const PEER_TAIL_LINES: usize = 8;

/// How long a program has to end after a signal that asks for it.
const END_DEADLINE: Duration = Duration::from_secs(30);

/// A child process with a log. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    command: Command,
    child: Option<Child>,
    log: PathBuf,
    /// Length of the log when the program was last started, in bytes.
    started_at: usize,
    input: Input,
    tail_lines: usize,
}

/// What a program gets as its standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Nothing,
    /// A pipe that stays open and empty: a program that ends with it is on a leash.
    Leash,
}

/// What can be sent to a [`Process`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Asks it to end (SIGTERM).
    Terminate,
    /// Ends it at once, as a power cut would (SIGKILL).
    Kill,
    /// Stops it where it is, as a stalled machine would (SIGSTOP).
    Pause,
    /// Lets a paused one go on (SIGCONT).
    Resume,
}

impl Process {
    /// Starts `command` with `name.log` in `directory` for what it prints, with an empty
    /// standard input, and the rest as the command says.
    pub fn start(name: &str, directory: &Path, command: Command) -> Result<Self> {
        Self::start_with(name, directory, command, Input::Nothing)
    }

    /// As [`Self::start`], for a program that ends when its standard input is closed.
    pub fn start_leashed(name: &str, directory: &Path, command: Command) -> Result<Self> {
        Self::start_with(name, directory, command, Input::Leash)
    }

    /// Marks a process that is a peer of the programs under test.
    #[must_use]
    pub fn into_peer(mut self) -> Self {
        self.tail_lines = PEER_TAIL_LINES;
        self
    }

    fn start_with(name: &str, directory: &Path, command: Command, input: Input) -> Result<Self> {
        let mut process = Self {
            name: name.to_owned(),
            command,
            child: None,
            log: directory.join(format!("{name}.log")),
            started_at: 0,
            input,
            tail_lines: TAIL_LINES,
        };
        process.spawn()?;
        Ok(process)
    }

    /// Starts it again with the same command and the same log; kills it first if it runs.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.spawn()
    }

    /// The name, as given at the start.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The file that takes what it prints.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What it printed since it was last started.
    pub fn log(&self) -> Result<String> {
        let bytes = fs::read(&self.log).with_context(|| format!("read {}", self.log.display()))?;
        let recent = bytes.get(self.started_at..).unwrap_or_default();
        Ok(String::from_utf8_lossy(recent).into_owned())
    }

    /// Waits until a line that holds `text` was printed since the last start; gives the
    /// line. An early end of the program is an error at once.
    pub async fn wait_for_line(&mut self, text: &str, deadline: Duration) -> Result<String> {
        let what = format!("{}: a line with {text:?}", self.name);
        let found = wait_until(deadline, what, async || {
            let ended = self.exit_status()?;
            // Looked at after the state: an ended program prints no more.
            let log = self.log()?;
            let line = log.lines().find(|line| line.contains(text)).map(str::to_owned);
            if let (None, Some(status)) = (&line, ended) {
                return Ok(Some(Err(status)));
            }
            let last = log.lines().last().unwrap_or("no line at all").to_owned();
            ensure!(line.is_some(), "{last}");
            Ok(line.map(Ok))
        });
        match found.await? {
            Ok(line) => Ok(line),
            Err(status) => bail!("{} ended ({status}) without a line with {text:?}:\n{}", self.name, self.tail()),
        }
    }

    /// Waits until it ended by itself.
    pub async fn wait_for_exit(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("{}: its end", self.name);
        wait_until(deadline, what, async || self.exit_status()).await
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.is_some() && self.exit_status()?.is_none())
    }

    /// An error with the end of its log if it no longer runs.
    pub fn ensure_running(&mut self) -> Result<()> {
        ensure!(self.is_running()?, "{} ended:\n{}", self.name, self.tail());
        Ok(())
    }

    /// Sends a signal; does not wait for what it does.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.name))?;
        ensure!(self.is_running()?, "{} has ended", self.name);
        let status = Command::new("kill").args(["-s", signal.name(), &pid.to_string()]).status().context("run kill")?;
        ensure!(status.success(), "{signal} to {} failed", self.name);
        Ok(())
    }

    /// Asks it to end and waits until it has.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::Terminate)?;
        let status = self.wait_for_exit(END_DEADLINE).await?;
        self.forget();
        Ok(status)
    }

    /// Ends it at once and waits until the system has taken it away. Nothing if it ended.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(child) = self.child.as_mut() {
            child.kill().with_context(|| format!("kill {}", self.name))?;
            child.wait().with_context(|| format!("wait for {}", self.name))?;
            self.forget();
        }
        Ok(())
    }

    /// Memory that it holds now and held at most, in KiB (`VmRSS` and `VmHWM`).
    pub fn memory_kib(&self) -> Result<(u64, u64)> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.name))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read the process status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        field("VmRSS:").zip(field("VmHWM:")).context("the process status names no memory")
    }

    /// The last lines of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let skipped = lines.len().saturating_sub(self.tail_lines);
        lines.get(skipped..).unwrap_or_default().join("\n")
    }

    fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        match self.child.as_mut() {
            Some(child) => child.try_wait().with_context(|| format!("look at {}", self.name)),
            None => Ok(None),
        }
    }

    fn spawn(&mut self) -> Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("open {}", self.log.display()))?;
        self.started_at = length(&log)?;
        let input = match self.input {
            Input::Nothing => Stdio::null(),
            Input::Leash => Stdio::piped(), // held open by the child's handle
        };
        let child = self
            .command
            .stdin(input)
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", self.command.get_program().display()))?;
        watch("add", child.id());
        self.child = Some(child);
        Ok(())
    }

    fn forget(&mut self) {
        if let Some(child) = self.child.take() {
            watch("del", child.id());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The log is worth keeping even when the kill fails.
        let _ = self.kill();
        leave_ending(&self.name, self.tail());
    }
}

impl Signal {
    const fn name(self) -> &'static str {
        match self {
            Self::Terminate => "TERM",
            Self::Kill => "KILL",
            Self::Pause => "STOP",
            Self::Resume => "CONT",
        }
    }
}

impl Display for Signal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SIG{}", self.name())
    }
}

fn length(file: &File) -> Result<usize> {
    let length = file.metadata().context("look at the log")?.len();
    usize::try_from(length).context("the log is too long")
}

/// Tells the watchdog about a process that started or was taken away.
///
/// The watchdog is a shell that reads these lines, and kills what is left when its input
/// ends, which the system brings about however the test process ends.
fn watch(verb: &str, pid: u32) {
    static WATCHDOG: OnceLock<Mutex<Option<ChildStdin>>> = OnceLock::new();
    let watchdog = WATCHDOG.get_or_init(|| Mutex::new(start_watchdog()));
    let mut input = watchdog.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(input) = input.as_mut() {
        // Without a watchdog, dropping still ends the process: nothing else to do.
        let _ = writeln!(input, "{verb} {pid}");
    }
}

fn start_watchdog() -> Option<ChildStdin> {
    Command::new("sh")
        .args(["-c", WATCHDOG])
        .process_group(0) // an interrupt from the terminal must not end it first
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()
        .and_then(|child| child.stdin)
}

const WATCHDOG: &str = r#"
pids=" "
while read -r verb pid; do
    case $verb in
        add) pids="$pids$pid " ;;
        del) pids="${pids%% $pid *} ${pids#* $pid }" ;;
    esac
done
for pid in $pids; do kill -9 "$pid"; done
"#;

#[cfg(test)]
mod tests {
    use std::{thread, time::Instant};

    use super::*;
    use crate::host::Workdir;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn waits_for_lines_and_restarts() {
        let dir = Workdir::new("process").unwrap();
        let mut process = Process::start("echo", dir.path(), shell("echo up $$; exec sleep 60")).unwrap();
        let first = process.wait_for_line("up", DEADLINE).await.unwrap();
        process.kill().unwrap();
        assert!(!process.is_running().unwrap());
        process.restart().unwrap();
        let second = process.wait_for_line("up", DEADLINE).await.unwrap();
        assert_ne!(first, second, "the line of the first run must not be found again");
        let status = process.terminate().await.unwrap();
        assert!(!status.success());
    }

    #[tokio::test]
    async fn an_early_end_is_told_with_the_log() {
        let dir = Workdir::new("process").unwrap();
        let mut process = Process::start("fails", dir.path(), shell("echo no such disk; exit 3")).unwrap();
        let error = process.wait_for_line("ready", DEADLINE).await.unwrap_err().to_string();
        assert!(error.contains("no such disk") && error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn the_watchdog_kills_what_is_left() {
        let mut kept = shell("exec sleep 60").spawn().unwrap();
        let mut left = shell("exec sleep 60").spawn().unwrap();
        let mut watchdog = shell(WATCHDOG).stdin(Stdio::piped()).spawn().unwrap();
        let mut input = watchdog.stdin.take().unwrap();
        writeln!(input, "add {}\nadd {}\ndel {}", kept.id(), left.id(), kept.id()).unwrap();
        drop(input);
        watchdog.wait().unwrap();
        assert!(!left.wait().unwrap().success());
        assert!(kept.try_wait().unwrap().is_none(), "the one taken away must live");
        kept.kill().unwrap();
        kept.wait().unwrap();
    }

    #[test]
    fn dropping_ends_it() {
        let dir = Workdir::new("process").unwrap();
        let process = Process::start("sleep", dir.path(), shell("exec sleep 60")).unwrap();
        let pid = process.pid().unwrap();
        drop(process);
        let end = Instant::now() + DEADLINE;
        while Path::new(&format!("/proc/{pid}")).exists() {
            assert!(Instant::now() < end, "still there");
            thread::yield_now();
        }
    }
}
