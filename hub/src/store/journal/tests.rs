//! Every byte of the journal counts, and no space is kept for what does not.

use std::collections::BTreeMap;

use super::super::tests::{contents, copy, create, open, put};
use super::super::{Durability, Store, StoreOptions};
use super::*;
use crate::store::{Batch, Identity};

const TREE: &str = "test";

fn small(directory: &Path) -> Store {
    let options = StoreOptions { segment_bytes: 20_000, ..StoreOptions::default() };
    let id = StoreId::from_bytes([3; 16]);
    match Store::peek(directory).unwrap() {
        Some(_) => Store::open(directory, &options).unwrap(),
        None => Store::create(directory, Identity { cluster: id, node: 1, store: id }, &options).unwrap(),
    }
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(directory.join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "journal"))
        .collect();
    found.sort();
    found
}

fn filled(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let store = create(directory);
    for number in 0..12_u8 {
        put(&store, &format!("{number:02}"), vec![number; 10 + usize::from(number) * 30]);
    }
    contents(&store).unwrap()
}

/// What a directory holds, file by file.
fn bytes_of(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory.join("journal")).unwrap() {
        let path = entry.unwrap().path();
        found.insert(path.clone(), std::fs::read(&path).unwrap());
    }
    found
}

#[test]
fn no_flipped_bit_loses_or_changes_a_record_and_the_disk_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let expected = filled(directory.path());
    let segment = segments(directory.path()).remove(0);
    let whole = std::fs::read(&segment).unwrap();
    for at in (0..whole.len()).step_by(3) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x08;
        std::fs::write(&segment, bytes).unwrap();
        let before = bytes_of(directory.path());
        let error = open(directory.path()).and_then(|store| contents(&store)).unwrap_err();
        assert!(
            matches!(error, StoreError::Damaged { .. } | StoreError::LostCommits { .. }),
            "a flip at byte {at}: {error}"
        );
        assert!(before == bytes_of(directory.path()), "changed after a flip at byte {at}");
    }
    std::fs::write(&segment, whole).unwrap();
    assert_eq!(contents(&open(directory.path()).unwrap()).unwrap(), expected);
}

#[test]
fn a_tail_that_was_never_acknowledged_is_dropped_wherever_it_was_torn() {
    let directory = tempfile::tempdir().unwrap();
    let expected = filled(directory.path());
    let marker = directory.path().join("journal/ACKNOWLEDGED");
    let acknowledged = std::fs::read(&marker).unwrap();
    let segment = segments(directory.path()).remove(0);
    let before = std::fs::read(&segment).unwrap();
    put(&open(directory.path()).unwrap(), "torn", vec![9; 500]);
    let after = std::fs::read(&segment).unwrap();
    for end in before.len()..after.len() {
        let mut cut = after[..end].to_vec();
        if end % 2 == 0 {
            // A hole in the middle instead of a cut.
            cut.resize(after.len(), 0);
        }
        std::fs::write(&segment, cut).unwrap();
        std::fs::write(&marker, &acknowledged).unwrap();
        assert_eq!(contents(&open(directory.path()).unwrap()).unwrap(), expected, "torn at {end}");
        assert_eq!(std::fs::metadata(&segment).unwrap().len(), before.len() as u64);
    }
    // The same tail with the marker that its acknowledgement left is a loss.
    put(&open(directory.path()).unwrap(), "kept", vec![9; 500]);
    let bytes = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(open(directory.path()).unwrap_err(), StoreError::LostCommits { .. }));
}

#[test]
fn a_frame_inside_of_a_record_is_no_frame() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path());
    let segment = segments(directory.path()).remove(0);
    // The whole journal of another store as the content of a record that was torn.
    let content = std::fs::read(&segment).unwrap();
    let other = tempfile::tempdir().unwrap();
    let store = small(other.path());
    let before = segments(other.path()).remove(0);
    let length = std::fs::metadata(&before).unwrap().len();
    put(&store, "copy", content);
    drop(store);
    let bytes = std::fs::read(&before).unwrap();
    let mut torn = bytes;
    torn[usize::try_from(length).unwrap()] ^= 1;
    std::fs::write(&before, torn).unwrap();
    std::fs::remove_file(other.path().join("journal/ACKNOWLEDGED")).unwrap();
    assert!(contents(&small(other.path())).unwrap().is_empty());
}

#[test]
fn space_comes_back_and_what_counts_is_carried_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = small(directory.path());
    put(&store, "vote", b"kept from the beginning".to_vec());
    for number in 0..600_u64 {
        let mut batch = Batch::new();
        batch.put(TREE, format!("{number:04}").as_bytes(), vec![1; 1_000]);
        if number >= 10 {
            batch.remove(TREE, format!("{:04}", number - 10).as_bytes());
        }
        store.commit(batch).unwrap();
    }
    let size: usize = bytes_of(directory.path()).values().map(Vec::len).sum();
    assert!(size < 80_000, "{size} bytes for 10 records of 1,000");
    let expected = contents(&store).unwrap();
    assert_eq!((expected.len(), &expected["vote"]), (11, &b"kept from the beginning".to_vec()));
    drop(store);
    let store = small(directory.path());
    assert_eq!(contents(&store).unwrap(), expected);
    drop(store);

    // A segment that is missing is a hole; one that a crash left behind is not.
    let kept = segments(directory.path());
    std::fs::write(directory.path().join("journal/segment-0000000000000003.journal"), "left over").unwrap();
    assert_eq!(contents(&small(directory.path())).unwrap(), expected);
    assert_eq!(segments(directory.path()), kept);
    let copied = tempfile::tempdir().unwrap();
    for missing in 0..kept.len() {
        copy(directory.path(), copied.path());
        std::fs::remove_file(&segments(copied.path())[missing]).unwrap();
        let error = open(copied.path()).unwrap_err();
        assert!(
            matches!(error, StoreError::Damaged { .. } | StoreError::LostCommits { .. } | StoreError::Wiped { .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn what_may_wait_is_readable_at_once_and_kept_with_the_next_commit() {
    let directory = tempfile::tempdir().unwrap();
    let store = create(directory.path());
    let mut batch = Batch::new();
    batch.put(TREE, b"waits", b"1".to_vec());
    store.write(batch, Durability::Ordered).await.unwrap();
    assert_eq!(store.get(TREE, b"waits").unwrap().unwrap(), b"1");
    let copied = tempfile::tempdir().unwrap();
    copy(directory.path(), copied.path());
    assert_eq!(open(copied.path()).unwrap().get(TREE, b"waits").unwrap(), None);
    put(&store, "synced", b"2".to_vec());
    copy(directory.path(), copied.path());
    assert_eq!(open(copied.path()).unwrap().get(TREE, b"waits").unwrap().unwrap(), b"1");
}

#[test]
fn an_older_or_newer_segment_is_named_as_such() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path());
    let segment = segments(directory.path()).remove(0);
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[11] = 9;
    let body = frame::SEGMENT_HEAD_BYTES - frame::SUM_BYTES;
    let sum = frame::sum_of(&bytes[..body]);
    bytes[body..frame::SEGMENT_HEAD_BYTES].copy_from_slice(&sum);
    std::fs::write(&segment, bytes).unwrap();
    assert!(matches!(open(directory.path()).unwrap_err(), StoreError::Newer { found: 9, .. }));
}
