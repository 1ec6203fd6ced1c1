//! The program that the power-loss and kill tests end at bad moments: three Raft members and a blob store on one disk,
//! under load. What it was promised it marks in the trace, after the promise was given and never before.
//!
//! With `hub` as first argument it is `windlass-hub` with the others. Else: data directory, trace, seed, commands per client. Started on what an earlier run left, it goes on there.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use windlass_chaos::shim::Marker;
use windlass_hub::{
    raft::{ProposeError, Role},
    store::{
        Store,
        blobs::{BlobDigest, BlobOptions, BlobStore},
    },
};
use windlass_tests::power::{Group, Member, Random, Tally, blob};

const MEMBERS: [u64; 3] = [1, 2, 3];
const CLIENTS: u64 = 4;
const ELECTION: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [program, rest @ ..] = arguments.as_slice()
        && program == "hub"
    {
        // The hub itself, in a program that is there before the test runs.
        windlass_transport::install_crypto_provider();
        let line = ["windlass-hub".to_owned()].into_iter().chain(rest.iter().cloned());
        let code = windlass_hub::command::run(windlass_hub::command::Cli::parse_from(line));
        std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
    }
    let [data, trace, seed, commands] = arguments.as_slice() else {
        anyhow::bail!("usage: windlass-power-child DATA TRACE SEED COMMANDS");
    };
    let marks = Marks(Arc::new(Mutex::new(Marker::open(Path::new(trace))?)));
    let load = Load { data: data.into(), seed: seed.parse()?, commands: commands.parse()?, marks };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(load.run())?;
    // No orderly end: a power cut has none either.
    std::process::exit(0);
}

#[derive(Clone)]
struct Marks(Arc<Mutex<Marker>>);

impl Marks {
    fn mark(&self, text: &str) {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).mark(text).is_err() {
            // An unmarked promise would only weaken the test; a broken trace must not look like a good one.
            std::process::exit(3);
        }
    }
}

struct Load {
    data: PathBuf,
    seed: u64,
    commands: u64,
    marks: Marks,
}

impl Load {
    async fn run(&self) -> Result<()> {
        let group = Group::new(&self.data);
        for id in MEMBERS {
            let store = self.data.join(id.to_string()).join("store");
            if Store::peek(&store)?.is_none() {
                if store.exists() {
                    // An interrupted creation: an operator is told to delete it, and so it is deleted.
                    std::fs::remove_dir_all(&store)?;
                }
                group.create(id)?;
            }
            self.marks.mark(&format!("created {id}"));
            self.watch(id, &group.start(id).await?);
        }
        // Refused when an earlier run has founded it.
        drop(group.bootstrap(&MEMBERS).await);
        let leader = group.elected(ELECTION).await?;
        let used = leader.machine.counts().last_key_value().map_or(0, |(client, _)| client + 1);
        let clients = Arc::new(AtomicU64::new(used));
        let ended = Arc::new(AtomicBool::new(false));
        let blobs = self.blobs(Arc::clone(&ended));
        let writers: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (group, clients, marks) = (group.clone(), Arc::clone(&clients), self.marks.clone());
                let random = Random::new(self.seed ^ (number << 32));
                tokio::spawn(write(group, clients, self.commands, random, marks))
            })
            .collect();
        self.disturb(&group).await?;
        for writer in writers {
            writer.await.context("a writer")??;
        }
        ended.store(true, Ordering::Relaxed);
        blobs.join().map_err(|_| anyhow::anyhow!("the blob writer panicked"))??;
        self.marks.mark(&format!("streams {}", group.streams()));
        Ok(())
    }

    /// A follower goes until it needs a snapshot; then the leader goes.
    async fn disturb(&self, group: &Group) -> Result<()> {
        let mut random = Random::new(self.seed.wrapping_add(99));
        let leader = group.elected(ELECTION).await?;
        let leader_id = leader.node.identity().node;
        let follower = MEMBERS.into_iter().filter(|id| *id != leader_id).nth(random.below(2)).context("a follower")?;
        group.stop(follower).await;
        let purged = leader.node.status().borrow().purged;
        let mut status = leader.node.status();
        let beyond = status.wait_for(|status| status.purged > purged.map(|at| at + 5) || status.role != Role::Leader);
        // With few commands left it may never come to that.
        let waited = tokio::time::timeout(Duration::from_secs(5), beyond).await;
        drop(waited);
        self.watch(follower, &group.start(follower).await?);
        let leader_id = group.elected(ELECTION).await?.node.identity().node;
        group.stop(leader_id).await;
        group.elected(ELECTION).await?;
        self.watch(leader_id, &group.start(leader_id).await?);
        Ok(())
    }

    /// Marks what a member says: the term it is in, and, as leader, what the others hold.
    fn watch(&self, id: u64, member: &Member) {
        let (marks, mut status) = (self.marks.clone(), member.node.status());
        tokio::spawn(async move {
            let mut term = 0;
            let mut held = std::collections::BTreeMap::new();
            loop {
                let now = status.borrow_and_update().clone();
                if now.term > term {
                    term = now.term;
                    marks.mark(&format!("term {id} {term}"));
                }
                if now.role == Role::Leader {
                    for (follower, index) in now.replicated {
                        // What is not committed may have to give way to the entries of another leader.
                        let index = index.min(now.applied);
                        if index > held.get(&follower).copied().flatten() {
                            held.insert(follower, index);
                            marks.mark(&format!("held {follower} {}", index.unwrap_or_default()));
                        }
                    }
                }
                if status.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// Stores blobs, and collects some, until the rest has ended.
    fn blobs(&self, ended: Arc<AtomicBool>) -> std::thread::JoinHandle<Result<()>> {
        let (marks, folder, seed) = (self.marks.clone(), self.data.join("blobs"), self.seed);
        std::thread::spawn(move || {
            let mut random = Random::new(seed.wrapping_mul(31));
            let store = BlobStore::open(&folder, BlobOptions::default())?;
            marks.mark("blobs open");
            // Numbers of different runs must not meet: a run starts far behind the one before it.
            let mut next = store.usage().blobs as u64 * 1_000_000;
            let mut kept = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                let batch: Vec<u64> = (0..=random.below(5)).map(|at| next + at as u64).collect();
                next += batch.len() as u64;
                drop(store.put_batch(batch.iter().map(|number| blob(*number)).collect())?);
                for number in &batch {
                    marks.mark(&format!("blob {number}"));
                    kept.push(*number);
                }
                if random.below(12) == 0 {
                    let (stay, go): (Vec<u64>, Vec<u64>) = kept.iter().partition(|number| **number % 3 != 0);
                    go.iter().for_each(|number| marks.mark(&format!("unwanted {number}")));
                    let unwanted: std::collections::BTreeSet<BlobDigest> =
                        go.iter().map(|number| blob(*number).0).collect();
                    store.collect(&|digest| !unwanted.contains(digest))?;
                    kept = stay;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        })
    }
}

/// One client: commands in order, each marked when it was answered.
async fn write(group: Group, clients: Arc<AtomicU64>, commands: u64, mut random: Random, marks: Marks) -> Result<()> {
    let mut client = clients.fetch_add(1, Ordering::Relaxed);
    let mut number = 0;
    for _ in 0..commands {
        let length = match random.below(100) {
            0..70 => 20 + random.below(2_000),
            70..90 => 4_000 + random.below(40_000),
            90..98 => 100_000 + random.below(200_000),
            _ => (1 << 20) - random.below(100_000),
        };
        loop {
            let Some(leader) = group.leader() else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            match leader.node.propose(Tally::command(client, number, length)).await {
                Ok(_) => {
                    marks.mark(&format!("ack {client} {number}"));
                    number += 1;
                    break;
                }
                Err(ProposeError::NotLeader { .. } | ProposeError::Overloaded { .. }) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error @ ProposeError::TooLarge { .. }) => return Err(error.into()),
                // It may or may not have happened: nobody asks for it again.
                Err(_) => {
                    client = clients.fetch_add(1, Ordering::Relaxed);
                    number = 0;
                    break;
                }
            }
        }
    }
    Ok(())
}
