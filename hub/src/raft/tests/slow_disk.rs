//! A disk whose syncs take a second: it may cost its own node the lead, but nobody else's, and nothing acknowledged.

use std::sync::atomic::AtomicU64;
use std::time::Instant;

use super::*;

/// How long each sync takes, in milliseconds, by node.
struct Slow {
    three: Three,
    delays: Vec<Arc<AtomicU64>>,
}

impl Slow {
    async fn start() -> Self {
        let directories: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let mut three = Three { network: Arc::default(), directories, nodes: BTreeMap::new() };
        let mut delays = Vec::new();
        for node in 1..=3 {
            let delay = Arc::new(AtomicU64::new(0));
            let seen = Arc::clone(&delay);
            let wait = move || {
                std::thread::sleep(Duration::from_millis(seen.load(Ordering::Relaxed)));
                Ok(())
            };
            let options = StoreOptions { before_sync: Some(SyncHook(Arc::new(wait))), ..StoreOptions::default() };
            let directory = three.directories[usize::try_from(node - 1).unwrap()].path();
            let store = Store::create(&directory.join("store"), identity(node), &options).unwrap();
            let machine = Arc::new(History::default());
            let network = three.network.of(node);
            let started = RaftNode::start(config(directory), store, Arc::clone(&machine) as _, network).await.unwrap();
            three.network.join(&started);
            three.nodes.insert(node, (started, machine));
            delays.push(delay);
        }
        three.nodes[&1].0.bootstrap(members(&[1, 2, 3])).await.unwrap();
        Self { three, delays }
    }

    fn delay(&self, node: NodeId, length: Duration) {
        let delay = &self.delays[usize::try_from(node - 1).unwrap()];
        delay.store(u64::try_from(length.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_on_a_slow_disk_does_not_unseat_the_leader() {
    let slow = Slow::start().await;
    let leader = slow.three.leader(&[1, 2, 3]).await;
    let leader_id = leader.identity().node;
    let follower = (1..=3).find(|node| *node != leader_id).unwrap();
    write(&leader, 0..1).await;
    let term = leader.status().borrow().term;
    slow.delay(follower, SECOND);
    let start = Instant::now();
    let mut written = 1;
    while start.elapsed() < 5 * SECOND {
        write(&leader, written..written + 1).await;
        written += 1;
    }
    let status = leader.status().borrow().clone();
    assert_eq!((status.role, status.term), (Role::Leader, term), "{written} writes");
    slow.delay(follower, Duration::ZERO);
    for node in 1..=3 {
        slow.three.caught_up(node, &commands(0..written)).await;
    }
    assert_eq!(leader.status().borrow().term, term);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_on_a_slow_disk_loses_nothing_acknowledged() {
    let slow = Slow::start().await;
    let leader = slow.three.leader(&[1, 2, 3]).await;
    write(&leader, 0..1).await;
    slow.delay(leader.identity().node, SECOND);
    let mut acknowledged = commands(0..1);
    for number in 1..40 {
        // An attempt that ends unclear is never repeated.
        let leader = slow.three.leader(&[1, 2, 3]).await;
        if leader.propose(command(number)).await.is_ok() {
            acknowledged.push(command(number));
        }
    }
    assert!(acknowledged.len() > 20, "{} of 40 got through", acknowledged.len());
    for node in 1..=3 {
        slow.delay(node, Duration::ZERO);
    }
    slow.three.leader(&[1, 2, 3]).await.propose(b"last".to_vec()).await.unwrap();
    for (node, machine) in slow.three.nodes.values() {
        until(node, "catches up", |_| machine.commands().last().is_some_and(|last| last == b"last")).await;
        let found = machine.commands();
        let lost: Vec<_> = acknowledged.iter().filter(|command| !found.contains(command)).collect();
        assert!(lost.is_empty(), "{} are lost", lost.len());
        let mut once = found.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), found.len(), "nothing twice");
    }
}
