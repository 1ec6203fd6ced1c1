//! Configuration: defaults, then a TOML file, then the environment (`WINDLASS_AGENT_*`), then flags; validated once.
//!
//! Nothing else in the agent reads the environment or a flag. Secrets (the join token) never show in `Debug`.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use clap::{Parser, ValueEnum};
use serde::Deserialize;

use crate::limits::{LimitError, Limits};

/// Where the agent keeps its identity and its checkpoint when nothing else is said.
pub const DATA_DEFAULT: &str = "/var/lib/windlass-agent";

/// The validated configuration of one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Hubs to dial, `host:port`; hubs learnt at enrolment are dialled too.
    pub hubs: Vec<String>,
    /// The join token; needed until the agent has an identity.
    pub token: Option<Token>,
    /// Pin of the hub's root certificate, `sha256:<hex>`; needed until the agent has an identity.
    pub root_pin: Option<String>,
    /// Folder of identity and checkpoint.
    pub data: PathBuf,
    /// Which cluster to work on.
    pub cluster: ClusterConfig,
    /// Where the identity is kept.
    pub identity: IdentityStore,
    /// Form of the log on standard error.
    pub log_format: LogFormat,
    /// Limits in force.
    pub limits: Limits,
}

/// The cluster that the agent applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterConfig {
    /// A simulated cluster inside of the process.
    Embedded,
    /// A real one, through a kubeconfig file (the usual places when no path is given).
    Kubeconfig {
        /// The file.
        path: Option<PathBuf>,
        /// The context, when not the current one.
        context: Option<String>,
    },
    /// The one that the agent runs in, as its ServiceAccount.
    InCluster,
}

/// Where key and certificate are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityStore {
    /// In the data folder.
    Folder,
    /// In the Secret `windlass-agent-identity` of this namespace, so that a Pod on another node is the same agent.
    Secret {
        /// Namespace of the Secret.
        namespace: String,
    },
}

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A join token; `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// From its text; surrounding blanks are dropped.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// The secret itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

impl std::str::FromStr for Token {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(text))
    }
}

/// Why the configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The configuration file is not valid; the cause has line and column.
    #[error("cannot read configuration {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A limit is refused.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// A setting is refused.
    #[error("{0}")]
    Invalid(String),
}

/// Flags and environment of `windlass-agent`.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "windlass-agent", version, about = "Applies what the Windlass hub assigns to this cluster")]
pub struct Flags {
    /// Configuration file (TOML); flags and environment win over it.
    #[arg(long, env = "WINDLASS_AGENT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A hub to dial; repeatable.
    #[arg(long = "hub", env = "WINDLASS_AGENT_HUBS", value_name = "HOST:PORT", value_delimiter = ',')]
    pub hubs: Vec<String>,
    /// The join token printed by `windlass cluster add`.
    #[arg(long, env = "WINDLASS_TOKEN", hide_env_values = true, conflicts_with = "token_file")]
    pub token: Option<Token>,
    /// File that holds the join token.
    #[arg(long, env = "WINDLASS_AGENT_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Pin of the hub's root certificate, printed beside the token.
    #[arg(long, env = "WINDLASS_AGENT_ROOT_PIN", value_name = "sha256:HEX")]
    pub root_pin: Option<String>,
    /// Folder of identity and checkpoint.
    #[arg(long, env = "WINDLASS_AGENT_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Which cluster to apply to.
    #[arg(long, env = "WINDLASS_AGENT_CLUSTER")]
    pub cluster: Option<ClusterChoice>,
    /// Kubeconfig of the cluster.
    #[arg(long, env = "WINDLASS_AGENT_KUBECONFIG", value_name = "FILE", conflicts_with = "in_cluster")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig, when not the current one.
    #[arg(long, env = "WINDLASS_AGENT_CONTEXT")]
    pub context: Option<String>,
    /// Apply to the cluster that this process runs in; keep the identity in a Secret of its namespace.
    #[arg(long, env = "WINDLASS_AGENT_IN_CLUSTER")]
    pub in_cluster: bool,
    /// Namespace of the identity Secret, with --in-cluster.
    #[arg(long, env = "WINDLASS_AGENT_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,
    /// Form of the log on standard error.
    #[arg(long, env = "WINDLASS_AGENT_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
    /// A limit, as NAME=NUMBER; repeatable.
    #[arg(long = "limit", env = "WINDLASS_AGENT_LIMITS", value_name = "NAME=NUMBER", value_delimiter = ',')]
    pub limits: Vec<String>,
}

/// `--cluster`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ClusterChoice {
    /// Simulated, in this process.
    Embedded,
    /// Real.
    Kubernetes,
}

/// The configuration file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    hubs: Vec<String>,
    token: Option<Token>,
    token_file: Option<PathBuf>,
    root_pin: Option<String>,
    data: Option<PathBuf>,
    cluster: Option<ClusterChoice>,
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    in_cluster: bool,
    namespace: Option<String>,
    log_format: Option<LogFormat>,
    limits: BTreeMap<String, u64>,
}

impl Config {
    /// A configuration with defaults, for a process that brings its own cluster (demo, tests).
    #[must_use]
    pub fn embedded(data: PathBuf, hubs: Vec<String>, token: Option<Token>, root_pin: Option<String>) -> Self {
        Self {
            hubs,
            token,
            root_pin,
            data,
            cluster: ClusterConfig::Embedded,
            identity: IdentityStore::Folder,
            log_format: LogFormat::default(),
            limits: Limits::default(),
        }
    }

    /// Reads the files that the flags name and validates everything.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown field, a value out of range; the message names it.
    pub fn load(flags: Flags) -> Result<Self, ConfigError> {
        let file = match &flags.config {
            Some(path) => parse_file(path)?,
            None => File::default(),
        };
        let token = match (flags.token, flags.token_file.or(file.token_file)) {
            (Some(token), _) => Some(token),
            (None, Some(path)) => Some(Token::new(&read(&path)?)),
            (None, None) => file.token,
        };
        let mut limits = Limits::default();
        limits.apply(&file.limits)?;
        for entry in &flags.limits {
            let (name, value) = parse_limit(entry)?;
            limits.set(name, value)?;
        }
        let in_cluster = flags.in_cluster || (file.in_cluster && flags.kubeconfig.is_none());
        let namespace = flags.namespace.or(file.namespace).unwrap_or_else(|| "windlass-system".to_owned());
        let config = Self {
            hubs: if flags.hubs.is_empty() { file.hubs } else { flags.hubs },
            token: token.filter(|token| !token.reveal().is_empty()),
            root_pin: flags.root_pin.or(file.root_pin),
            data: flags.data.or(file.data).unwrap_or_else(|| PathBuf::from(DATA_DEFAULT)),
            cluster: match (flags.cluster.or(file.cluster), in_cluster) {
                (Some(ClusterChoice::Embedded), true) => {
                    return Err(ConfigError::Invalid("--in-cluster and --cluster embedded exclude each other".into()));
                }
                (Some(ClusterChoice::Embedded), false) => ClusterConfig::Embedded,
                (_, true) => ClusterConfig::InCluster,
                (_, false) => ClusterConfig::Kubeconfig {
                    path: flags.kubeconfig.or(file.kubeconfig),
                    context: flags.context.or(file.context),
                },
            },
            identity: if in_cluster { IdentityStore::Secret { namespace } } else { IdentityStore::Folder },
            log_format: flags.log_format.or(file.log_format).unwrap_or_default(),
            limits,
        };
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        for hub in &self.hubs {
            let port = hub.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(1..))) {
                return Err(ConfigError::Invalid(format!("hub {hub:?} is not of the form HOST:PORT")));
            }
        }
        if let Some(pin) = &self.root_pin {
            let digits = pin.strip_prefix("sha256:").unwrap_or_default();
            if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(ConfigError::Invalid(format!("root pin {pin:?} is not sha256: and 64 hexadecimal digits")));
            }
        }
        Ok(())
    }
}

fn parse_file(path: &PathBuf) -> Result<File, ConfigError> {
    toml::from_str(&read(path)?).map_err(|source| ConfigError::Parse { path: path.clone(), source: Box::new(source) })
}

fn read(path: &PathBuf) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.clone(), source })
}

fn parse_limit(entry: &str) -> Result<(&str, u64), ConfigError> {
    let invalid = || ConfigError::Invalid(format!("limit {entry:?} is not of the form NAME=NUMBER"));
    let (name, value) = entry.split_once('=').ok_or_else(invalid)?;
    Ok((name.trim(), value.trim().parse().map_err(|_| invalid())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, flags: Flags) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        std::fs::write(&path, file).unwrap();
        Config::load(Flags { config: Some(path), ..flags })
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = "hubs = ['a:1']\ndata = '/d'\nlog_format = 'json'\ncluster = 'embedded'\n[limits]\nlist_page = 50\n";
        let flags = Flags { hubs: vec!["b:2".into()], limits: vec!["api_requests=4".into()], ..Flags::default() };
        let config = load(file, flags).unwrap();
        assert_eq!(config.hubs, ["b:2"]);
        assert_eq!(config.data, PathBuf::from("/d"));
        assert_eq!(config.cluster, ClusterConfig::Embedded);
        assert_eq!((config.limits.list_page, config.limits.api_requests), (50, 4));
        assert_eq!(config.log_format, LogFormat::Json);
    }

    #[test]
    fn wrong_settings_are_named() {
        let check = |file: &str, expected: &str| {
            let error = load(file, Flags::default()).unwrap_err();
            let text = format!("{:#}", anyhow::Error::from(error));
            assert!(text.contains(expected), "{text:?} lacks {expected:?}");
        };
        check("hubs = ['nowhere']", "HOST:PORT");
        check("root_pin = 'sha256:12'", "64 hexadecimal digits");
        check("hub = 'x'", "unknown field `hub`");
        check("[limits]\nlist_page = 1", "limit list_page must be between");
        check("in_cluster = true\ncluster = 'embedded'", "exclude each other");
    }

    #[test]
    fn tokens_do_not_show() {
        let config = load("token = ' s3cret\\n'", Flags::default());
        assert!(config.is_ok());
        let config = load("token = \"s3cret\"", Flags::default()).unwrap();
        assert_eq!(config.token.as_ref().map(Token::reveal), Some("s3cret"));
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    #[test]
    fn the_flags_are_consistent() {
        use clap::CommandFactory as _;
        Flags::command().debug_assert();
    }
}
