//! File, environment and flags become one validated [`Config`]; every default says why. Later wins: default, file (TOML),
//! environment (`WINDLASS_HUB_*`), flag.

mod backup;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use serde::Deserialize;

use crate::backup::{S3Settings, Settings as BackupSettings};

/// Port of agents (UDP) and of the API (TCP).
pub const DEFAULT_PORT: u16 = 7443;
/// Port of the other hubs (UDP).
pub const DEFAULT_PEER_PORT: u16 = 7444;

/// What `windlass-hub init` and `serve` take from the command line and the environment.
#[derive(Args, Clone, Debug, Default)]
pub struct Flags {
    /// Configuration file (TOML).
    #[arg(long, env = "WINDLASS_HUB_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of everything that this node keeps.
    #[arg(long, env = "WINDLASS_HUB_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Address for agents, UDP [default: 0.0.0.0:7443].
    #[arg(long, env = "WINDLASS_HUB_LISTEN_AGENTS", value_name = "ADDR")]
    pub listen_agents: Option<SocketAddr>,
    /// Address of the API, TCP [default: 0.0.0.0:7443].
    #[arg(long, env = "WINDLASS_HUB_LISTEN_API", value_name = "ADDR")]
    pub listen_api: Option<SocketAddr>,
    /// `host:port` under which agents and users reach this hub; may be repeated.
    #[arg(long, env = "WINDLASS_HUB_ADVERTISE", value_name = "HOST:PORT", value_delimiter = ',')]
    pub advertise: Vec<String>,
    /// Address for the other hubs, UDP [default: 0.0.0.0:7444].
    #[arg(long, env = "WINDLASS_HUB_LISTEN_PEERS", value_name = "ADDR")]
    pub listen_peers: Option<SocketAddr>,
    /// `host:port` under which the other hubs reach this hub.
    #[arg(long, env = "WINDLASS_HUB_ADVERTISE_PEERS", value_name = "HOST:PORT")]
    pub advertise_peers: Option<String>,
    /// Refuse a data directory that is not this node's.
    #[arg(long, env = "WINDLASS_HUB_NODE", value_name = "ID")]
    pub node: Option<u64>,
    /// Name of this hub for people [default: hub-<node>].
    #[arg(long, env = "WINDLASS_HUB_NAME", value_name = "NAME")]
    pub name: Option<String>,
    /// File with the operator key (64 hex digits): seals secrets and the root key at rest.
    #[arg(long, env = "WINDLASS_HUB_OPERATOR_KEY_FILE", value_name = "FILE")]
    pub operator_key_file: Option<PathBuf>,
    /// File with the secret of the GitHub webhook.
    #[arg(long, env = "WINDLASS_HUB_WEBHOOK_SECRET_FILE", value_name = "FILE")]
    pub webhook_secret_file: Option<PathBuf>,
    /// Form of the logs on stderr: text or json.
    #[arg(long, env = "WINDLASS_HUB_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Form of the logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// The file, before anything is checked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    data: Option<PathBuf>,
    listen_agents: Option<SocketAddr>,
    listen_api: Option<SocketAddr>,
    advertise: Vec<String>,
    listen_peers: Option<SocketAddr>,
    advertise_peers: Option<String>,
    node: Option<u64>,
    name: Option<String>,
    operator_key_file: Option<PathBuf>,
    webhook_secret_file: Option<PathBuf>,
    log_format: Option<LogFormat>,
    trust_domain: Option<String>,
    agent_certificate_seconds: Option<u64>,
    git: GitFile,
    limits: Limits,
    backup: backup::BackupFile,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GitFile {
    poll_seconds: Option<u64>,
    jitter_seconds: Option<u64>,
    local: Option<bool>,
}

/// Every limit of the hub that can be changed. A value of zero is refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of one source file, 16 MiB: more is data, not a manifest.
    pub source_file_bytes: u64,
    /// Files of one tree, 200,000: a monorepo fits.
    pub tree_files: usize,
    /// Bytes read for one rendering, 256 MiB.
    pub render_bytes: u64,
    /// Seconds for one rendering, 10: the rest of the fleet must not wait for one overlay.
    pub render_seconds: u64,
    /// Resources of one bundle, 10,000.
    pub bundle_resources: usize,
    /// Bytes of one bundle, 64 MiB.
    pub bundle_bytes: usize,
    /// Bytes of one manifest, 3 MiB: twice what etcd takes.
    pub manifest_bytes: usize,
    /// Renderings at a time; as many as there are processors when unset.
    pub renderers: usize,
    /// Bytes of an API object, 1 MiB: an entry of the log.
    pub object_bytes: usize,
    /// Watches at a time, 2,000.
    pub watches: usize,
    /// API requests in flight, 400, as a kube-apiserver.
    pub requests: usize,
    /// Sessions of agents, 10,000.
    pub sessions: usize,
    /// Connections without a certificate at a time, 256: enrolment only.
    pub strangers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            source_file_bytes: 16 << 20,
            tree_files: 200_000,
            render_bytes: 256 << 20,
            render_seconds: 10,
            bundle_resources: 10_000,
            bundle_bytes: 64 << 20,
            manifest_bytes: 3 << 20,
            renderers: std::thread::available_parallelism().map_or(2, usize::from),
            object_bytes: 1 << 20,
            watches: 2_000,
            requests: 400,
            sessions: 10_000,
            strangers: 256,
        }
    }
}

/// The validated configuration of a hub.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of everything that this node keeps.
    pub data: PathBuf,
    /// Address for agents, UDP.
    pub listen_agents: SocketAddr,
    /// Address of the API, TCP.
    pub listen_api: SocketAddr,
    /// `host:port` under which agents and users reach this hub.
    pub advertise: Vec<String>,
    /// Address for the other hubs, UDP.
    pub listen_peers: SocketAddr,
    /// `host:port` under which the other hubs reach this hub; without it, where it listens, if that is one address.
    pub advertise_peers: Option<String>,
    /// The node whose data directory this must be, if that is to be checked.
    pub node: Option<u64>,
    /// Name of this hub for people.
    pub name: Option<String>,
    /// File of the operator key; `<data>/operator.key` unless it is kept elsewhere.
    pub operator_key_file: PathBuf,
    /// File with the secret of the GitHub webhook; without it the webhook is closed.
    pub webhook_secret_file: Option<PathBuf>,
    /// Form of the logs.
    pub log_format: LogFormat,
    /// Name in all certificates; made at `init` when unset.
    pub trust_domain: Option<String>,
    /// Between two polls of a repository's ref, 120 s as Argo CD.
    pub git_poll: Duration,
    /// Random addition to it, up to 60 s: refs of one server are not asked at once.
    pub git_jitter: Duration,
    /// Whether `file://` repositories may be read; a hub for many tenants says no.
    pub git_local: bool,
    /// Every other limit.
    pub limits: Limits,
    /// Life of an agent's certificate, 24 h: a lost disk is worth a day. Renewed at two thirds.
    pub agent_certificate: Duration,
    /// Scheduled backups, if any.
    pub backup: Option<BackupSettings>,
    /// The S3 of `[backup.s3]`, for a restore too.
    pub backup_s3: S3Settings,
    /// Between two looks at everything, 10 s, besides the signals: what a signal missed is found then.
    pub plan_period: Duration,
}

/// The configuration is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not TOML, or has an unknown field or a wrong type.
    #[error("configuration file {}: {message}", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// With line and column.
        message: String,
    },
    /// A value is missing or out of range.
    #[error("{name}: {message}")]
    Value {
        /// Name in the file.
        name: &'static str,
        /// What is wrong and what to do.
        message: String,
    },
}

impl Config {
    /// Reads the file, if one is named, and puts environment and flags over it.
    ///
    /// # Errors
    /// [`ConfigError`] naming file, line or value.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let file = match &flags.config {
            Some(path) => read(path)?,
            None => File::default(),
        };
        Self::resolve(flags, file)
    }

    /// Where agents and users are told to find this hub, once it is known where it listens; before, as far as the
    /// configuration says.
    #[must_use]
    pub fn agent_addresses(&self) -> Vec<String> {
        match &self.advertise {
            given if !given.is_empty() => given.clone(),
            _ if self.listen_agents.ip().is_unspecified() || self.listen_agents.port() == 0 => Vec::new(),
            _ => vec![self.listen_agents.to_string()],
        }
    }

    fn resolve(flags: &Flags, file: File) -> Result<Self, ConfigError> {
        let data = flags.data.clone().or(file.data).ok_or_else(|| ConfigError::Value {
            name: "data",
            message: "the directory of this node is not given: use --data DIR or WINDLASS_HUB_DATA".to_owned(),
        })?;
        let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
        let listen_agents = flags.listen_agents.or(file.listen_agents).unwrap_or_else(|| any(DEFAULT_PORT));
        let listen_api = flags.listen_api.or(file.listen_api).unwrap_or_else(|| any(DEFAULT_PORT));
        let advertise = if flags.advertise.is_empty() { file.advertise } else { flags.advertise.clone() };
        let listen_peers = flags.listen_peers.or(file.listen_peers).unwrap_or_else(|| any(DEFAULT_PEER_PORT));
        let advertise_peers = flags.advertise_peers.clone().or(file.advertise_peers).or_else(|| {
            let fixed = !listen_peers.ip().is_unspecified() && listen_peers.port() != 0;
            let beside = advertise.first().and_then(|address| address.rsplit_once(':'));
            match beside {
                _ if fixed => Some(listen_peers.to_string()),
                Some((host, _)) if listen_peers.port() != 0 => Some(format!("{host}:{}", listen_peers.port())),
                _ => None,
            }
        });
        check_addresses("advertise", &advertise)?;
        check_addresses("advertise_peers", advertise_peers.as_slice())?;
        check_limits(&file.limits)?;
        let agent_certificate = match file.agent_certificate_seconds {
            None => Duration::from_secs(24 * 3600),
            Some(seconds @ 60..=31_536_000) => Duration::from_secs(seconds),
            Some(seconds) => {
                let message = format!("{seconds} is out of range: 60 (a minute) to 31536000 (a year)");
                return Err(ConfigError::Value { name: "agent_certificate_seconds", message });
            }
        };
        let operator_key_file =
            flags.operator_key_file.clone().or(file.operator_key_file).unwrap_or_else(|| data.join("operator.key"));
        let (backup, backup_s3) = backup::resolve(file.backup)?;
        Ok(Self {
            listen_agents,
            listen_api,
            advertise,
            listen_peers,
            advertise_peers,
            node: flags.node.or(file.node),
            name: flags.name.clone().or(file.name),
            operator_key_file,
            webhook_secret_file: flags.webhook_secret_file.clone().or(file.webhook_secret_file),
            log_format: flags.log_format.or(file.log_format).unwrap_or_default(),
            trust_domain: file.trust_domain,
            git_poll: Duration::from_secs(file.git.poll_seconds.unwrap_or(120).max(1)),
            git_jitter: Duration::from_secs(file.git.jitter_seconds.unwrap_or(60)),
            git_local: file.git.local.unwrap_or(true),
            limits: file.limits,
            agent_certificate,
            backup,
            backup_s3,
            plan_period: Duration::from_secs(10),
            data,
        })
    }
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text)
        .map_err(|error| ConfigError::Parse { path: path.to_owned(), message: error.to_string().trim_end().to_owned() })
}

fn check_addresses(name: &'static str, addresses: &[String]) -> Result<(), ConfigError> {
    for address in addresses {
        let port = address.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
        if port.is_none_or(|port| port.parse::<u16>().is_err()) {
            let message = format!("{address:?} is no host:port, such as hub.example.com:7443");
            return Err(ConfigError::Value { name, message });
        }
    }
    Ok(())
}

fn check_limits(limits: &Limits) -> Result<(), ConfigError> {
    let zero = |name: &'static str, is_zero: bool| {
        let message = "zero would refuse everything: leave it out for the default".to_owned();
        if is_zero { Err(ConfigError::Value { name, message }) } else { Ok(()) }
    };
    zero("limits.source_file_bytes", limits.source_file_bytes == 0)?;
    zero("limits.tree_files", limits.tree_files == 0)?;
    zero("limits.render_bytes", limits.render_bytes == 0)?;
    zero("limits.render_seconds", limits.render_seconds == 0)?;
    zero("limits.bundle_resources", limits.bundle_resources == 0)?;
    zero("limits.bundle_bytes", limits.bundle_bytes == 0)?;
    zero("limits.manifest_bytes", limits.manifest_bytes == 0)?;
    zero("limits.renderers", limits.renderers == 0)?;
    zero("limits.object_bytes", limits.object_bytes == 0)?;
    zero("limits.watches", limits.watches == 0)?;
    zero("limits.requests", limits.requests == 0)?;
    zero("limits.sessions", limits.sessions == 0)?;
    zero("limits.strangers", limits.strangers == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str, flags: &Flags, expect: Result<&str, &str>) {
        let parsed = toml::from_str::<File>(file).map_err(|error| error.to_string());
        let result = parsed.and_then(|file| Config::resolve(flags, file).map_err(|error| error.to_string()));
        match (result, expect) {
            (Ok(config), Ok(expect)) => assert!(format!("{config:?}").contains(expect), "{config:?}"),
            (Err(error), Err(expect)) => assert!(error.contains(expect), "{error}"),
            (result, expect) => panic!("{result:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn flags_win_over_the_file_and_errors_name_the_field() {
        let none = Flags::default();
        check("data = '/x'\nlisten_api = '127.0.0.1:1'", &none, Ok("listen_api: 127.0.0.1:1"));
        let flags = Flags { listen_api: Some(SocketAddr::from(([127, 0, 0, 1], 2))), ..Flags::default() };
        check("data = '/x'\nlisten_api = '127.0.0.1:1'", &flags, Ok("listen_api: 127.0.0.1:2"));
        check("", &none, Err("--data DIR"));
        check("data = '/x'\ndta = 1", &none, Err("unknown field `dta`"));
        check("data = '/x'\nadvertise = ['hub']", &none, Err("host:port"));
        check("data = '/x'\n[limits]\nwatches = 0", &none, Err("limits.watches"));
        check("data = '/x'\n[limits]\nwatches = 'many'", &none, Err("watches"));
        for (section, expect) in [
            ("directory = '/b'", Err("0 3 * * *")),
            ("schedule = '0 3 * * *'", Err("backup.directory")),
            ("schedule = 'nightly'\ndirectory = '/b'", Err("no cron pattern")),
            ("every_seconds = 0\ndirectory = '/b'", Err("backup.every_seconds")),
            ("every_seconds = 5\ndirectory = '/b'\nkeep = 0", Err("backup.keep")),
            ("every_seconds = 5\n[backup.s3]\nprefix = 'x'", Err("backup.s3.bucket")),
            ("every_seconds = 5\n[backup.s3]\nbucket = 'b'\nendpoint = 's3'", Err("backup.s3.endpoint")),
            ("every_seconds = 5\n[backup.s3]\nbucket = 'b'\nprefix = '/a/'", Ok("prefix: \"a\"")),
            ("schedule = '0 3 * * *'\ndirectory = '/b'", Ok("keep: 30")),
        ] {
            check(&format!("data = '/x'\n[backup]\n{section}"), &none, expect);
        }
        check("data = '/x'\nagent_certificate_seconds = 5", &none, Err("agent_certificate_seconds"));
    }
}
