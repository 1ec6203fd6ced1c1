//! What the replicated state must offer to Raft.

use std::io::{Read, Write};

/// The replicated state. It lives in memory only: it is rebuilt from the newest snapshot and the log behind it.
pub trait Machine: Send + Sync + 'static {
    /// Applies one committed command and returns the answer for its proposer.
    ///
    /// Called in log order from one task, on every node with the same arguments, also again after a restart. Total: it
    /// must not panic, errors travel in the answer. Several commands may share one `index`: those of one entry, in
    /// their order. It runs on the async runtime, so it must be short (well below a millisecond).
    fn apply(&self, index: u64, term: u64, command: &[u8]) -> Vec<u8>;

    /// A cheap and consistent picture of the state after the last applied command, to be written while commands are
    /// applied. Called between two calls of [`Machine::apply`].
    fn snapshot(&self) -> Box<dyn SnapshotSource>;

    /// Replaces the whole state by what a [`SnapshotSource`] wrote, or leaves it untouched. The input was verified
    /// against its checksums before.
    fn restore(&self, input: &mut dyn Read) -> Result<(), RestoreError>;
}

/// A picture of the state that can be written to a file.
pub trait SnapshotSource: Send {
    /// Writes the state; the bytes may depend on nothing but the state. Runs on a thread that may block.
    fn write(self: Box<Self>, out: &mut dyn Write) -> std::io::Result<()>;
}

/// Why a state could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The state was written by a release that this one cannot read.
    #[error("the state has version {found}, this release reads up to {supported}; start the newer release")]
    Newer {
        /// Version in the snapshot.
        found: u32,
        /// Newest version that can be read.
        supported: u32,
    },
    /// The bytes make no sense.
    #[error("the state cannot be read: {0}")]
    Malformed(String),
    /// Reading failed.
    #[error("cannot read the snapshot")]
    Io(#[from] std::io::Error),
}
