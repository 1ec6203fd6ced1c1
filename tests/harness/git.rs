//! A Git host on loopback and a work tree that pushes to it, both by the real `git`,
//! isolated from the configuration of the user who runs the tests.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{Process, START_DEADLINE, Tools, Workdir, free_port};

/// What a Git host asks of its clients, for fetch and push alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    #[default]
    Anonymous,
    /// A user and password.
    Basic { user: String, password: String },
    /// A token in `Authorization: Bearer`.
    Bearer { token: String },
}

/// Serves the bare repositories of one directory over smart HTTP.
#[derive(Debug)]
pub struct GitServer {
    process: Process,
    root: PathBuf,
    url: String,
    access: Access,
}

/// A work tree on branch `main`, with its commits made as a fixed author.
#[derive(Debug)]
pub struct GitRepo {
    dir: Workdir,
    remote: String,
    url: String,
}

impl GitServer {
    /// Serves the repositories below `root`, which has to exist, to anybody.
    pub async fn start(root: &Path) -> Result<Self> {
        Self::start_with(root, Access::Anonymous).await
    }

    /// Serves the repositories below `root` to those with the credentials.
    pub async fn start_with(root: &Path, access: Access) -> Result<Self> {
        let mut command = Command::new(Tools::locate()?.path("githttp")?);
        // A port of our choice, so that the server comes back under the same URL.
        command.arg("-dir").arg(root).arg("-listen").arg(format!("127.0.0.1:{}", free_port()?));
        match &access {
            Access::Anonymous => {}
            Access::Basic { user, password } => {
                command.arg("-basic").arg(format!("{user}:{password}"));
            }
            Access::Bearer { token } => {
                command.arg("-bearer").arg(token);
            }
        }
        let mut process = Process::start_leashed("githttp", root, command)?;
        let url = process.wait_for_line("http://127.0.0.1:", START_DEADLINE).await?;
        let root = root.to_path_buf();
        Ok(Self { process, root, url, access })
    }

    /// `http://127.0.0.1:PORT`, without credentials.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL of a repository by its name, without credentials.
    #[must_use]
    pub fn repository_url(&self, name: &str) -> String {
        format!("{}/{name}.git", self.url)
    }

    /// Makes an empty bare repository `name.git` and a work tree that pushes to it.
    pub fn create(&self, name: &str) -> Result<GitRepo> {
        let bare = self.root.join(format!("{name}.git"));
        git(&self.root, &["init", "--quiet", "--bare", "--initial-branch=main", &path_text(&bare)?])?;
        let url = self.repository_url(name);
        let remote = match &self.access {
            Access::Basic { user, password } => {
                let (user, password) = (escape(user), escape(password));
                url.replacen("http://", &format!("http://{user}:{password}@"), 1)
            }
            Access::Anonymous | Access::Bearer { .. } => url.clone(),
        };
        let repo = GitRepo::init(&remote, url)?;
        if let Access::Bearer { token } = &self.access {
            repo.git(&["config", "http.extraHeader", &format!("Authorization: Bearer {token}")])?;
        }
        Ok(repo)
    }

    /// Every request so far, one line each: `ok` or `401`, method, path.
    pub fn requests(&self) -> Result<Vec<String>> {
        let log = self.process.log()?;
        Ok(log.lines().filter_map(|line| line.strip_prefix("githttp: ")).map(str::to_owned).collect())
    }

    /// The process, to be paused, killed and restarted; its URL stays.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl GitRepo {
    /// Makes an empty work tree that pushes to `remote`, which may hold credentials;
    /// `url` is the same without them, as a test gives it to a client.
    pub fn init(remote: &str, url: String) -> Result<Self> {
        let dir = Workdir::new("work-tree")?;
        git(dir.path(), &["init", "--quiet", "--initial-branch=main"])?;
        git(dir.path(), &["remote", "add", "origin", remote])?;
        let remote = remote.to_owned();
        Ok(Self { dir, remote, url })
    }

    /// The URL of the repository, without credentials.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL that it pushes to, with credentials if any.
    #[must_use]
    pub fn remote(&self) -> &str {
        &self.remote
    }

    /// The work tree.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file of the work tree; makes the directories above it.
    pub fn write(&self, path: &str, content: &str) -> Result<()> {
        self.dir.write(path, content).map(drop)
    }

    /// Removes a file or a directory of the work tree.
    pub fn remove(&self, path: &str) -> Result<()> {
        let path = self.dir.join(path);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("remove {}", path.display()))
    }

    /// Copies a directory of the file system into the work tree.
    pub fn copy_from(&self, source: &Path, into: &str) -> Result<()> {
        let target = self.dir.join(into);
        copy(source, &target).with_context(|| format!("copy {} into the work tree", source.display()))
    }

    /// Commits everything in the work tree, also when nothing changed; gives the SHA.
    pub fn commit(&self, message: &str) -> Result<String> {
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message])?;
        self.head()
    }

    /// Commits and pushes; gives the SHA.
    pub fn commit_and_push(&self, message: &str) -> Result<String> {
        let sha = self.commit(message)?;
        self.push()?;
        Ok(sha)
    }

    /// Pushes the current branch and all tags; a rewritten branch is forced through.
    pub fn push(&self) -> Result<()> {
        self.git(&["push", "--quiet", "--force", "--tags", "origin", "HEAD"]).map(drop)
    }

    /// The SHA of the current commit.
    pub fn head(&self) -> Result<String> {
        Ok(self.git(&["rev-parse", "HEAD"])?.trim().to_owned())
    }

    /// Runs git in the work tree; gives what it printed.
    pub fn git(&self, arguments: &[&str]) -> Result<String> {
        git(self.dir.path(), arguments)
    }
}

/// Runs git in a directory, with no configuration but what is set here.
pub(crate) fn git(directory: &Path, arguments: &[&str]) -> Result<String> {
    const FIXED: [(&str, &str); 3] = [
        ("http.proxy", ""),
        ("gc.auto", "0"), // a background process would outlive the test
        ("advice.detachedHead", "false"),
    ];
    let mut command = Command::new("git");
    command.env_clear().envs(std::env::vars_os().filter(|(name, _)| name == "PATH"));
    for (name, value) in FIXED {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    let output = command
        .current_dir(directory)
        .args(arguments)
        .envs([
            ("HOME", "/nonexistent"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_AUTHOR_NAME", "Windlass Tests"),
            ("GIT_AUTHOR_EMAIL", "tests@windlass.invalid"),
            ("GIT_COMMITTER_NAME", "Windlass Tests"),
            ("GIT_COMMITTER_EMAIL", "tests@windlass.invalid"),
        ])
        .stdin(Stdio::null())
        .output()
        .context("run git")?;
    ensure!(
        output.status.success(),
        "git {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8(output.stdout).context("git printed something else than UTF-8")
}

/// As the user part of a URL needs it.
fn escape(text: &str) -> String {
    let escape = |byte: u8| match char::from(byte) {
        letter if letter.is_ascii_alphanumeric() => letter.to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

fn path_text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).context("a path that is not UTF-8")
}

fn copy(source: &Path, target: &Path) -> std::io::Result<()> {
    if !source.is_dir() {
        return fs::copy(source, target).map(drop);
    }
    fs::create_dir_all(target)?;
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        copy(&entry.path(), &target.join(entry.file_name()))?;
    }
    Ok(())
}
