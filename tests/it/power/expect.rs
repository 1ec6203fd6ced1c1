//! What was promised up to a moment, and whether a disk keeps it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use windlass_chaos::shim::Event;
use windlass_hub::store::blobs::{BlobOptions, BlobStore};
use windlass_tests::power::{Group, Member, blob};

use super::ELECTION;

/// Everything that was acknowledged to somebody.
#[derive(Debug, Default, Clone)]
pub(super) struct Promises {
    /// Members whose store was made.
    created: BTreeSet<u64>,
    /// Commands acknowledged for each client: all numbers below.
    commands: BTreeMap<u64, u64>,
    /// Newest term a member was in: it may have voted there.
    terms: BTreeMap<u64, u64>,
    /// Newest entry a member told its leader that it has.
    held: BTreeMap<u64, u64>,
    blobs: BTreeSet<u64>,
    unwanted: BTreeSet<u64>,
}

impl Promises {
    /// Takes note of a mark; other events promise nothing.
    pub(super) fn note(&mut self, event: &Event) -> Result<()> {
        let Event::Mark { text } = event else {
            return Ok(());
        };
        let mut words = text.split(' ');
        let kind = words.next().unwrap_or_default();
        let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
        match (kind, numbers.as_slice()) {
            ("created", [member]) => drop(self.created.insert(*member)),
            ("ack", [client, number]) => drop(self.commands.insert(*client, number + 1)),
            ("term", [member, term]) => raise(&mut self.terms, *member, *term),
            ("held", [member, index]) => raise(&mut self.held, *member, *index),
            ("blob", [number]) => drop(self.blobs.insert(*number)),
            ("unwanted", [number]) => drop(self.unwanted.insert(*number)),
            ("blobs" | "streams" | "api", _) => {}
            _ => anyhow::bail!("a mark that nobody knows: {text}"),
        }
        Ok(())
    }
}

fn raise(map: &mut BTreeMap<u64, u64>, key: u64, value: u64) {
    let entry = map.entry(key).or_default();
    *entry = (*entry).max(value);
}

/// Opens what lies in `image` with the real code.
///
/// # Errors
/// The first promise that is broken.
pub(super) async fn check(image: PathBuf, promises: Promises) -> Result<()> {
    check_blobs(&image, &promises)?;
    let group = Group::new(&image);
    // Each for itself first: what it says of its log must not come from the others.
    group.isolate(&[1, 2, 3]);
    let result = check_members(&group, &promises).await;
    for member in group.running() {
        group.stop(member.node.identity().node).await;
    }
    result
}

async fn check_members(group: &Group, promises: &Promises) -> Result<()> {
    for id in &promises.created {
        let member = group.start(*id).await.with_context(|| format!("member {id} does not open"))?;
        check_member(*id, &member, promises).await?;
    }
    if promises.commands.is_empty() {
        return Ok(());
    }
    group.isolate(&[]);
    let leader = group.elected(ELECTION).await?;
    ensure!(leader.machine.violations().is_empty(), "{:?}", leader.machine.violations());
    let found = leader.machine.counts();
    for (client, acknowledged) in &promises.commands {
        let count = found.get(client).copied().unwrap_or_default();
        ensure!(count >= *acknowledged, "client {client}: {count} of {acknowledged} acknowledged commands are there");
    }
    Ok(())
}

async fn check_member(id: u64, member: &Member, promises: &Promises) -> Result<()> {
    if let Some(held) = promises.held.get(&id) {
        let mut status = member.node.status();
        // Alone it gets no new entries: it only has to read what it has.
        let read = status.wait_for(|status| status.last_log.max(status.snapshot) >= Some(*held));
        let read = tokio::time::timeout(LOOK, read).await.is_ok();
        let status = member.node.status().borrow().clone();
        ensure!(read, "member {id} said that it holds entry {held}; now: {status:?}");
    }
    if let Some(term) = promises.terms.get(&id) {
        ensure!(vote_term(member)? >= *term, "member {id} was in term {term}, its vote is of {}", vote_term(member)?);
    }
    Ok(())
}

/// The term of the vote on disk. A member that stands for election raises it, which only makes this weaker.
fn vote_term(member: &Member) -> Result<u64> {
    let record = member.store.get("raft-meta", b"vote")?;
    Ok(record.and_then(|bytes| Some(u64::from_be_bytes(bytes.get(1..9)?.try_into().ok()?))).unwrap_or_default())
}

fn check_blobs(image: &Path, promises: &Promises) -> Result<()> {
    let store = BlobStore::open(&image.join("blobs"), BlobOptions::default())?;
    for number in &promises.blobs {
        let (digest, content) = blob(*number);
        let found = store.get(&digest).with_context(|| format!("blob {number}"))?;
        if promises.unwanted.contains(number) {
            ensure!(found.is_none_or(|found| found == content), "blob {number} is there with other bytes");
        } else {
            ensure!(found.as_ref() == Some(&content), "blob {number} was acknowledged and is gone");
        }
    }
    for entry in std::fs::read_dir(image.join("blobs"))? {
        let name = entry?.file_name();
        ensure!(!name.to_string_lossy().ends_with(".damaged"), "{} was set aside", name.display());
    }
    Ok(())
}

/// How long a member may take to say what it has.
const LOOK: Duration = Duration::from_secs(10);
