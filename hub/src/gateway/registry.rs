//! Which agents are connected to this node, and how to reach their sessions.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;
use windlass_protocol::{
    ids::{Incarnation, NamespacedName},
    message::GoAway,
};

/// Refreshes and disconnections that a session may have waiting; a session that does not take them is ended.
const WAITING_MAX: usize = 64;
/// Sessions that are sent away together leave within this time.
const SPREAD: Duration = Duration::from_secs(1);

/// Something that a session should do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionCommand {
    /// The desired state may be newer: look at the state.
    Look,
    /// Roots or hubs may be others: look at the state.
    Trust,
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
    /// Send the agent to another hub.
    Leave {
        /// Why.
        reason: GoAway,
        /// After this time.
        after: Duration,
    },
}

/// The connected agents of this node.
#[derive(Debug, Default)]
pub struct Registry {
    sessions: Mutex<BTreeMap<String, Vec<Arc<Entry>>>>,
    next: AtomicU64,
}

/// One session, as others see it.
#[derive(Debug)]
pub(super) struct Entry {
    id: u64,
    /// Zero until the session is admitted.
    incarnation: AtomicU64,
    mail: Mutex<Mail>,
    wake: Notify,
}

/// What waits for a session: joined where only the newest counts, so that an idle session keeps no queue.
#[derive(Debug, Default)]
struct Mail {
    look: bool,
    trust: bool,
    leave: Option<(GoAway, Duration)>,
    others: Vec<SessionCommand>,
    is_full: bool,
}

/// Takes the session out of the registry when it ends.
#[derive(Debug)]
pub(super) struct Registration {
    registry: Arc<Registry>,
    cluster: String,
    entry: Arc<Entry>,
}

impl Registry {
    /// Number of sessions.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().values().map(Vec::len).sum()
    }

    /// Puts a session on the list.
    pub(super) fn register(self: &Arc<Self>, cluster: &str) -> Registration {
        let entry = Arc::new(Entry {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            incarnation: AtomicU64::new(0),
            mail: Mutex::default(),
            wake: Notify::new(),
        });
        self.lock().entry(cluster.to_owned()).or_default().push(Arc::clone(&entry));
        Registration { registry: Arc::clone(self), cluster: cluster.to_owned(), entry }
    }

    /// Whether an admitted session of the cluster is here.
    pub(super) fn holds(&self, cluster: &str) -> bool {
        self.lock().get(cluster).is_some_and(|entries| entries.iter().any(|entry| entry.incarnation().is_some()))
    }

    /// The admitted sessions: cluster and newest process of its agent.
    pub(super) fn held(&self) -> BTreeMap<String, Incarnation> {
        let sessions = self.lock();
        let newest = sessions.iter().filter_map(|(cluster, entries)| {
            let newest = entries.iter().filter_map(|entry| entry.incarnation()).max()?;
            Some((cluster.clone(), newest))
        });
        newest.collect()
    }

    /// Sends a command to every session of a cluster.
    pub fn send(&self, cluster: &str, command: &SessionCommand) {
        if let Some(entries) = self.lock().get(cluster) {
            entries.iter().for_each(|entry| entry.put(command.clone()));
        }
    }

    /// Sends a command to every session.
    pub fn send_all(&self, command: &SessionCommand) {
        self.lock().values().flatten().for_each(|entry| entry.put(command.clone()));
    }

    /// Tells sessions to leave, spread over a second; all of them, or the first `count` that are admitted.
    pub fn leave(&self, reason: GoAway, count: Option<usize>) -> usize {
        let sessions = self.lock();
        let entries: Vec<&Arc<Entry>> = match count {
            None => sessions.values().flatten().collect(),
            Some(count) => {
                sessions.values().flatten().filter(|entry| entry.incarnation().is_some()).take(count).collect()
            }
        };
        let total = u32::try_from(entries.len()).unwrap_or(u32::MAX).max(1);
        for (number, entry) in (0..total).zip(&entries) {
            entry.put(SessionCommand::Leave { reason, after: SPREAD * number / total });
        }
        entries.len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Arc<Entry>>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn incarnation(&self) -> Option<Incarnation> {
        let incarnation = self.incarnation.load(Ordering::Relaxed);
        (incarnation > 0).then_some(Incarnation(incarnation))
    }

    fn put(&self, command: SessionCommand) {
        let mut mail = self.mail.lock().unwrap_or_else(PoisonError::into_inner);
        match command {
            SessionCommand::Look => mail.look = true,
            SessionCommand::Trust => mail.trust = true,
            SessionCommand::Leave { reason, after } => {
                mail.leave.get_or_insert((reason, after));
            }
            other if mail.others.len() < WAITING_MAX => mail.others.push(other),
            _ => mail.is_full = true,
        }
        drop(mail);
        self.wake.notify_one();
    }
}

impl Registration {
    /// The session is admitted.
    pub(super) fn admitted(&self, incarnation: Incarnation) {
        self.entry.incarnation.store(incarnation.0, Ordering::Relaxed);
    }

    /// The next thing to do; `None` when the session did not keep up. Cancel-safe.
    pub(super) async fn next(&self) -> Option<SessionCommand> {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.entry.wake.notified().await;
        }
    }

    fn take(&self) -> Option<Option<SessionCommand>> {
        let mut mail = self.entry.mail.lock().unwrap_or_else(PoisonError::into_inner);
        if mail.is_full {
            return Some(None);
        }
        if !mail.others.is_empty() {
            let first = mail.others.remove(0);
            if mail.others.is_empty() {
                mail.others = Vec::new();
            }
            return Some(Some(first));
        }
        if std::mem::take(&mut mail.look) {
            return Some(Some(SessionCommand::Look));
        }
        if std::mem::take(&mut mail.trust) {
            return Some(Some(SessionCommand::Trust));
        }
        let (reason, after) = mail.leave.take()?;
        Some(Some(SessionCommand::Leave { reason, after }))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut sessions = self.registry.lock();
        if let Some(entries) = sessions.get_mut(&self.cluster) {
            entries.retain(|entry| entry.id != self.entry.id);
            if entries.is_empty() {
                sessions.remove(&self.cluster);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registered(registry: &Arc<Registry>, cluster: &str) -> Registration {
        let registration = registry.register(cluster);
        registration.admitted(Incarnation(1));
        registration
    }

    #[tokio::test]
    async fn sessions_leave_spread_over_a_second() {
        let registry = Arc::new(Registry::default());
        let sessions: Vec<Registration> = (0..10).map(|number| registered(&registry, &format!("c{number}"))).collect();
        assert_eq!(registry.leave(GoAway::NoQuorum, None), 10);
        let mut waits = Vec::new();
        for session in &sessions {
            match session.next().await {
                Some(SessionCommand::Leave { reason: GoAway::NoQuorum, after }) => waits.push(after),
                other => panic!("{other:?}"),
            }
        }
        let expected: Vec<Duration> = (0..10).map(|tenth| Duration::from_millis(100 * tenth)).collect();
        assert_eq!(waits, expected);
        assert_eq!(registry.leave(GoAway::Rebalance, Some(3)), 3);
    }

    #[tokio::test]
    async fn what_waits_is_joined_and_bounded() {
        let registry = Arc::new(Registry::default());
        let session = registered(&registry, "c");
        for _ in 0..1_000 {
            registry.send("c", &SessionCommand::Look);
        }
        assert_eq!(session.next().await, Some(SessionCommand::Look));
        assert!(session.take().is_none(), "looks are joined");
        let refresh = SessionCommand::Refresh { application: NamespacedName::new("argocd", "a"), hard: false };
        for _ in 0..=WAITING_MAX {
            registry.send("c", &refresh);
        }
        assert_eq!(session.next().await, None, "a session that takes nothing ends");
    }

    #[test]
    fn only_admitted_sessions_count_as_held() {
        let registry = Arc::new(Registry::default());
        let waiting = registry.register("c");
        assert!(!registry.holds("c"));
        let held = registered(&registry, "c");
        assert!(registry.holds("c"));
        assert_eq!(registry.held(), BTreeMap::from([("c".to_owned(), Incarnation(1))]));
        drop((waiting, held));
        assert_eq!(registry.count(), 0);
    }
}
