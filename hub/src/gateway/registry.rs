//! Which agents are connected to this node, and how to reach their sessions.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use tokio::sync::mpsc;
use windlass_protocol::ids::NamespacedName;

/// Commands that a session may have waiting; a session that does not take them is ended.
const COMMANDS_WAITING_MAX: usize = 64;

/// Something that a session should do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionCommand {
    /// The desired state may be newer: look at the state.
    Look,
    /// End, unless the session uses this certificate.
    Disconnect {
        /// Serial of the certificate that may stay.
        keep_serial: Option<[u8; 16]>,
        /// Why.
        reason: String,
    },
    /// Tell the agent to compare an application again.
    Refresh {
        /// Which.
        application: NamespacedName,
        /// Forget cached discovery too.
        hard: bool,
    },
}

/// The connected agents of this node.
#[derive(Debug, Default)]
pub struct Registry {
    sessions: Mutex<BTreeMap<String, Vec<Entry>>>,
    next: std::sync::atomic::AtomicU64,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    commands: mpsc::Sender<SessionCommand>,
}

/// Takes the session out of the registry when it ends.
#[derive(Debug)]
pub(super) struct Registration<'a> {
    registry: &'a Registry,
    cluster: String,
    id: u64,
}

impl Registry {
    /// Number of sessions.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().values().map(Vec::len).sum()
    }

    /// Puts a session on the list; commands come out of the receiver.
    pub(super) fn register(&self, cluster: &str) -> (Registration<'_>, mpsc::Receiver<SessionCommand>) {
        let (commands, receiver) = mpsc::channel(COMMANDS_WAITING_MAX);
        let id = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.lock().entry(cluster.to_owned()).or_default().push(Entry { id, commands });
        (Registration { registry: self, cluster: cluster.to_owned(), id }, receiver)
    }

    /// Sends a command to every session of a cluster.
    pub fn send(&self, cluster: &str, command: SessionCommand) {
        if let Some(entries) = self.lock().get_mut(cluster) {
            // A session that takes nothing for so long is dropped: its receiver closes and it ends.
            entries.retain(|entry| {
                !matches!(entry.commands.try_send(command.clone()), Err(mpsc::error::TrySendError::Full(_)))
                    || command == SessionCommand::Look
            });
        }
    }

    /// Tells every session to look at the state.
    pub fn wake_all(&self) {
        for entry in self.lock().values().flatten() {
            // A full queue holds a Look already, or other commands that end in one.
            let _ = entry.commands.try_send(SessionCommand::Look);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<Entry>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        let mut sessions = self.registry.lock();
        if let Some(entries) = sessions.get_mut(&self.cluster) {
            entries.retain(|entry| entry.id != self.id);
            if entries.is_empty() {
                sessions.remove(&self.cluster);
            }
        }
    }
}
