//! Snapshot files: equal, whole, or refused.

use std::collections::BTreeMap;

use openraft::CommittedLeaderId;

use super::super::types::{LogId, Membership, Peer, StoredMembership};
use super::*;

struct Bytes(Vec<u8>);

impl SnapshotSource for Bytes {
    fn write(self: Box<Self>, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        // In odd pieces: the file must not show them.
        self.0.chunks(1_013).try_for_each(|piece| out.write_all(piece))
    }
}

fn meta(index: u64) -> SnapshotMeta {
    let peer = Peer { name: "a".into(), address: "a:7444".into() };
    let membership = Membership::new(vec![[1].into()], BTreeMap::from([(1, peer)]));
    let id = LogId::new(CommittedLeaderId::new(3, 1), index);
    SnapshotMeta {
        last_log_id: Some(id),
        last_membership: StoredMembership::new(Some(id), membership),
        snapshot_id: format!("3-{index}-1"),
    }
}

fn state(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

fn written(folder: &SnapshotFolder, index: u64, length: usize) -> SnapshotFile {
    folder.write(meta(index), Box::new(Bytes(state(length)))).unwrap()
}

#[test]
fn a_state_of_any_size_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let folder = SnapshotFolder::open(directory.path()).unwrap();
    for (index, length) in [(1, 0), (2, 1), (3, 256 << 10), (4, (256 << 10) + 1), (5, 3_000_000)] {
        let file = written(&folder, index, length);
        let (found, mut input) = open(&file.path).unwrap();
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes).unwrap();
        assert_eq!(found, meta(index));
        assert!(bytes == state(length), "{length} bytes");
        assert_eq!(std::fs::metadata(&file.path).unwrap().len(), file.length);
    }
}

#[test]
fn every_flipped_byte_and_every_cut_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let folder = SnapshotFolder::open(directory.path()).unwrap();
    let file = written(&folder, 1, 300);
    let whole = std::fs::read(&file.path).unwrap();
    let copy = directory.path().join("copy");
    let refused = |bytes: &[u8]| {
        std::fs::write(&copy, bytes).unwrap();
        let error = verify(&copy).unwrap_err();
        assert!(matches!(error, SnapshotError::Damaged { .. }), "{error}");
    };
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x40;
        refused(&flipped);
        refused(&whole[..at]);
    }
    refused(&[whole, vec![0]].concat());
}

#[test]
fn two_are_kept_and_leftovers_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let folder = SnapshotFolder::open(directory.path()).unwrap();
    assert!(folder.newest().is_none());
    written(&folder, 1, 10);
    assert_eq!(folder.purgeable(), None, "one snapshot alone must not cost the log behind it");
    written(&folder, 2, 10);
    written(&folder, 3, 10);
    assert_eq!(folder.purgeable().unwrap().index, 2);
    std::fs::write(directory.path().join("x.unfinished"), "half").unwrap();

    let folder = SnapshotFolder::open(directory.path()).unwrap();
    assert_eq!(folder.newest().unwrap().0, meta(3));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
}

#[test]
fn an_installed_snapshot_is_the_only_one() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sent = written(&SnapshotFolder::open(from.path()).unwrap(), 9, 1_000);
    let folder = SnapshotFolder::open(to.path()).unwrap();
    written(&folder, 1, 10);
    let (mut partial, mut incoming) = folder.resume("id").unwrap();
    assert_eq!(incoming.length, 0);
    std::io::copy(&mut File::open(&sent.path).unwrap(), &mut partial).unwrap();
    incoming.length = sent.length;
    assert_eq!(folder.resume("id").unwrap().1.length, sent.length, "a broken stream is continued");
    let accepted = folder.accept(&incoming).unwrap();
    assert_eq!(SnapshotFolder::open(to.path()).unwrap().newest().unwrap().0, meta(9), "safe before it is installed");
    let (installed, file) = folder.install(&accepted).unwrap();
    assert_eq!((installed, file.length), (meta(9), sent.length));
    assert_eq!(std::fs::read_dir(to.path()).unwrap().count(), 1);
}

#[test]
fn a_closed_folder_writes_nothing_more() {
    let directory = tempfile::tempdir().unwrap();
    let folder = SnapshotFolder::open(directory.path()).unwrap();
    folder.close();
    assert!(folder.write(meta(1), Box::new(Bytes(state(10)))).is_err());
    assert!(SnapshotFolder::open(directory.path()).unwrap().newest().is_none());
}
