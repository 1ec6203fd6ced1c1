//! Whose store this is: the file `STORE` and its copy inside of the journal.
//!
//! Two copies because they tell different stories: the file says what the directory should hold before anything is
//! opened; the record says what the journal really is. A node whose disk was wiped must not come back under its old
//! id, since it would deny votes and entries that it has acknowledged.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use ring::rand::{SecureRandom, SystemRandom};

use super::{StoreError, StoreOptions, disk};

/// A random 128-bit name of a cluster or of a store, written as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId([u8; 16]);

impl StoreId {
    /// A new id from the operating system's randomness.
    pub fn random() -> Result<Self, StoreError> {
        let mut bytes = [0; 16];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| StoreError::Stopped { reason: "the operating system gives no random numbers".into() })?;
        Ok(Self(bytes))
    }

    /// An id from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for StoreId {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let bad = || StoreError::Damaged { what: format!("the id {text:?}") };
        if text.len() != 32 || !text.is_ascii() {
            return Err(bad());
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| bad())?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// Cluster, node and store: together they name one disk of one member of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster, made at its `init`.
    pub cluster: StoreId,
    /// The Raft node id, never given twice.
    pub node: u64,
    /// This directory; a wiped and re-joined node has another.
    pub store: StoreId,
}

impl Identity {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        [self.cluster.0.as_slice(), &self.node.to_be_bytes(), self.store.0.as_slice()].concat()
    }

    /// Whether the directory was written by a release that kept its records in the database.
    pub(super) fn is_legacy(directory: &Path) -> Result<bool, StoreError> {
        let path = directory.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(StoreError::io("read", &path))?;
        Ok(text.starts_with("windlass store format 1\n"))
    }

    /// Reads `STORE`; `None` when the directory or the file does not exist.
    pub(super) fn load(directory: &Path) -> Result<Option<Self>, StoreError> {
        let path = directory.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("read", &path)(error)),
        };
        let damaged = || StoreError::Damaged { what: path.display().to_string() };
        let (body, sum) = text.rsplit_once("checksum ").ok_or_else(damaged)?;
        let mut lines = body.lines();
        let mut field = |name: &str| {
            lines.next().and_then(|line| line.strip_prefix(name)).map(str::trim).map(str::to_owned).ok_or_else(damaged)
        };
        // The format comes first and before the checksum, so that a newer layout is named as such.
        let format: u32 = field("windlass store format ")?.parse().map_err(|_| damaged())?;
        if format > FORMAT {
            return Err(StoreError::Newer { directory: directory.into(), found: format, supported: FORMAT });
        }
        if sum.trim() != checksum(body) {
            return Err(damaged());
        }
        Ok(Some(Self {
            cluster: field("cluster ")?.parse()?,
            node: field("node ")?.parse().map_err(|_| damaged())?,
            store: field("store ")?.parse()?,
        }))
    }

    pub(super) fn save(&self, directory: &Path) -> Result<(), StoreError> {
        let body = format!(
            "windlass store format {FORMAT}\ncluster {}\nnode {}\nstore {}\n",
            self.cluster, self.node, self.store
        );
        let text = format!("{body}checksum {}\n", checksum(&body));
        disk::replace_file(&directory.join(FILE), text.as_bytes())
    }

    pub(super) fn expect(&self, directory: &Path, options: &StoreOptions) -> Result<(), StoreError> {
        let foreign =
            |found: String, expected: String| Err(StoreError::Foreign { directory: directory.into(), found, expected });
        match (options.expect_cluster, options.expect_node) {
            (Some(cluster), _) if cluster != self.cluster => {
                foreign(format!("cluster {}", self.cluster), format!("cluster {cluster}"))
            }
            (_, Some(node)) if node != self.node => foreign(format!("node {}", self.node), format!("node {node}")),
            _ => Ok(()),
        }
    }
}

fn checksum(body: &str) -> String {
    blake3::hash(body.as_bytes()).to_hex().to_string()
}

const FILE: &str = "STORE";
/// Format of the directory: raised when an older release could not read it any more.
/// 1 was the database, 2 is the journal.
const FORMAT: u32 = 2;
