//! The outbox over a real state and a log that takes time or fails, under paused time.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use serde_json::json;
use windlass_hub_core::{Envelope, ObjectKey, command::Write};
use windlass_protocol::{
    ids::{Digest, NamespacedName, ReceiptSeq, RequestId},
    message::Receipt,
    resource::Kind,
    time::Millis,
};

use super::*;
use crate::raft::ProposeError;

const NODE: u64 = 2;
const KEY: Digest = Digest([7; 32]);
const SERIAL: [u8; 16] = [9; 16];

/// A log of one replica.
struct Log {
    state: Mutex<Arc<State>>,
    entries: Mutex<Vec<(Instant, Command)>>,
    requests: AtomicU64,
    has_leader: AtomicBool,
    /// How long a commit takes.
    commit: Duration,
}

impl Log {
    fn new(clusters: usize) -> Arc<Self> {
        let log = Arc::new(Self {
            state: Mutex::default(),
            entries: Mutex::default(),
            requests: AtomicU64::new(0),
            has_leader: AtomicBool::new(true),
            commit: Duration::from_millis(5),
        });
        let uids = ["1", "2", "3"].map(str::to_owned).to_vec();
        log.apply(Command::Bootstrap { cluster_id: "c".to_owned(), trust_domain: "t".to_owned(), uids });
        for number in 0..clusters {
            let name = format!("c{number}");
            let body = json!({"apiVersion": "windlass.io/v1alpha1", "kind": "Cluster", "metadata": {"name": name}});
            let key = ObjectKey::new(Kind::Cluster, "", name.as_str());
            let write = Write::Create { key, uid: uid(number), body: body.to_string(), sealed: None };
            log.apply(Command::Write { writes: vec![write] });
            let hash = Digest::of(name.as_bytes());
            log.apply(Command::AddToken { hash, cluster: name, expires_at: Millis::from_secs(9_000) });
            log.apply(Command::RedeemToken { hash, key: KEY, serial: SERIAL });
        }
        log
    }

    fn apply(&self, command: Command) {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&request.to_le_bytes());
        let envelope = Envelope {
            request: RequestId(id),
            subject: "test".to_owned(),
            source: "test".to_owned(),
            proposed_at: Millis::from_secs(1),
            preconditions: Vec::new(),
            command,
        };
        let mut state = self.state.lock().unwrap();
        let mut next = (**state).clone();
        next.apply(&envelope).result.unwrap();
        *state = Arc::new(next);
    }

    fn entries(&self) -> Vec<(Instant, Command)> {
        self.entries.lock().unwrap().clone()
    }

    fn record(&self, cluster: usize) -> windlass_hub_core::state::ClusterRecord {
        (**self.state.lock().unwrap().cluster(&uid(cluster)).unwrap()).clone()
    }
}

impl Ledger for Arc<Log> {
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<(), CommandError>> {
        Box::pin(async move {
            tokio::time::sleep(self.commit).await;
            if !self.has_leader.load(Ordering::Relaxed) {
                return Err(ProposeError::NotLeader { leader: None, address: None }.into());
            }
            self.entries.lock().unwrap().push((Instant::now(), command.clone()));
            self.apply(command);
            Ok(())
        })
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.lock().unwrap())
    }
}

fn uid(cluster: usize) -> String {
    format!("uid-{cluster}")
}

fn start(log: &Arc<Log>) -> (Arc<Outbox>, Arc<Registry>, CancellationToken) {
    let registry = Arc::new(Registry::default());
    let outbox = Arc::new(Outbox::new(NODE, Box::new(Arc::clone(log)), Arc::clone(&registry)));
    let stop = CancellationToken::new();
    tokio::spawn(Arc::clone(&outbox).run(stop.clone()));
    (outbox, registry, stop)
}

fn admission(cluster: usize) -> Admission {
    Admission { cluster: uid(cluster), incarnation: Incarnation(5), serial: SERIAL, key: KEY }
}

fn receipts(cluster: usize, incarnation: u64, up_to: u64) -> ReceiptBatch {
    let application = NamespacedName::new("argocd", "app");
    let receipts = vec![Receipt::Orphaned { application, uid: "u".to_owned() }];
    ReceiptBatch { cluster: uid(cluster), incarnation: Incarnation(incarnation), up_to: ReceiptSeq(up_to), receipts }
}

#[tokio::test(start_paused = true)]
async fn a_first_session_does_not_wait_and_a_storm_makes_few_entries() {
    let log = Log::new(1_200);
    let (outbox, _, _stop) = start(&log);
    let begin = Instant::now();
    assert_eq!(outbox.connected(admission(0)).await, Verdict::Taken);
    assert!(begin.elapsed() < Duration::from_millis(10), "the first waited {:?}", begin.elapsed());
    assert_eq!(log.record(0).session, Some(NODE));

    let storm: Vec<_> = (1..1_200)
        .map(|cluster| {
            let outbox = Arc::clone(&outbox);
            tokio::spawn(async move { outbox.connected(admission(cluster)).await })
        })
        .collect();
    for one in storm {
        assert_eq!(one.await.unwrap(), Verdict::Taken);
    }
    let entries = log.entries();
    assert!(entries.len() <= 5, "{} entries for 1,200 sessions", entries.len());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_comes_back_makes_no_entry_and_one_that_stays_away_makes_one() {
    let log = Log::new(2);
    let (outbox, registry, _stop) = start(&log);
    for cluster in 0..2 {
        assert_eq!(outbox.connected(admission(cluster)).await, Verdict::Taken);
        outbox.disconnected(&uid(cluster), Incarnation(5));
    }
    let entries = log.entries().len();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let registration = registry.register(&uid(0));
    registration.admitted(Incarnation(5));
    assert_eq!(outbox.connected(admission(0)).await, Verdict::Taken);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(log.record(0).session, Some(NODE));
    assert_eq!(log.record(1).session, None);
    assert_eq!(log.entries().len(), entries + 1, "one for the agent that stayed away");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_went_to_another_hub_is_not_reported_as_gone() {
    let log = Log::new(1);
    let (outbox, _, _stop) = start(&log);
    assert_eq!(outbox.connected(admission(0)).await, Verdict::Taken);
    outbox.disconnected(&uid(0), Incarnation(5));
    let (cluster, incarnation, serial) = (uid(0), Incarnation(5), SERIAL);
    log.apply(Command::Sessions { hub: 3, changes: vec![SessionChange::Connected { cluster, incarnation, serial }] });
    let entries = log.entries().len();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(log.record(0).session, Some(3));
    assert_eq!(log.entries().len(), entries);
}

#[tokio::test(start_paused = true)]
async fn a_refused_part_holds_up_nobody() {
    let log = Log::new(3);
    let (outbox, _, _stop) = start(&log);
    for cluster in 0..3 {
        assert_eq!(outbox.connected(admission(cluster)).await, Verdict::Taken);
    }
    // Another process of agent 1 has taken over.
    let (cluster, serial) = (uid(1), SERIAL);
    let newer = SessionChange::Connected { cluster, incarnation: Incarnation(6), serial };
    log.apply(Command::Sessions { hub: 3, changes: vec![newer] });
    let before = log.entries().len();
    let (first, second, third) = tokio::join!(
        outbox.receipts(receipts(0, 5, 1)),
        outbox.receipts(receipts(1, 5, 1)),
        outbox.receipts(receipts(2, 5, 1)),
    );
    assert_eq!((first, third), (Verdict::Taken, Verdict::Taken));
    assert!(matches!(second, Verdict::Refused(reason) if reason.contains("the newest is 6")));
    assert_eq!(log.record(0).receipts, ReceiptSeq(1));
    assert_eq!(log.record(1).receipts, ReceiptSeq(0));
    assert!(log.entries().len() <= before + 2, "receipts of several agents share entries");
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_receipts_wait_and_are_committed_once_there_is_one() {
    let log = Log::new(2);
    let (outbox, _, _stop) = start(&log);
    assert_eq!(outbox.connected(admission(0)).await, Verdict::Taken);
    log.has_leader.store(false, Ordering::Relaxed);
    let waiting = tokio::spawn({
        let outbox = Arc::clone(&outbox);
        async move { outbox.receipts(receipts(0, 5, 3)).await }
    });
    // A session that gives up meanwhile is not recorded afterwards.
    let gone = tokio::time::timeout(Duration::from_secs(2), outbox.connected(admission(1))).await;
    assert!(gone.is_err());
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!waiting.is_finished());
    log.has_leader.store(true, Ordering::Relaxed);
    assert_eq!(waiting.await.unwrap(), Verdict::Taken);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(log.record(0).receipts, ReceiptSeq(3));
    assert_eq!(log.record(1).session, None);
}

#[tokio::test(start_paused = true)]
async fn what_the_state_knows_is_not_said_again() {
    let log = Log::new(1);
    let (outbox, _, _stop) = start(&log);
    assert_eq!(outbox.connected(admission(0)).await, Verdict::Taken);
    let facts = Json(json!({"agentVersion": "1"}));
    outbox.facts(&uid(0), facts.clone());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let entries = log.entries().len();
    outbox.facts(&uid(0), facts);
    outbox.acknowledged(&uid(0), log.state().meta().epoch, log.record(0).acknowledged);
    assert_eq!(outbox.connected(admission(0)).await, Verdict::Taken);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(log.entries().len(), entries);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_says_goodbye_for_those_who_went() {
    let log = Log::new(2);
    let (outbox, _, stop) = start(&log);
    for cluster in 0..2 {
        assert_eq!(outbox.connected(admission(cluster)).await, Verdict::Taken);
        outbox.disconnected(&uid(cluster), Incarnation(5));
    }
    stop.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(log.record(0).session, None);
    assert_eq!(log.record(1).session, None);
}
