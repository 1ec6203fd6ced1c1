//! What a log must look like to be started from.

use openraft::storage::RaftLogStorageExt;
use openraft::{CommittedLeaderId, EntryPayload};
use tempfile::TempDir;

use super::*;
use crate::store::{Identity, StoreId, StoreOptions};

fn store() -> (TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let id = StoreId::from_bytes([1; 16]);
    let identity = Identity { cluster: id, node: 1, store: id };
    let store = Store::create(directory.path(), identity, &StoreOptions::default()).unwrap();
    (directory, store)
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

fn entry(term: u64, index: u64) -> Entry {
    Entry { log_id: id(term, index), payload: EntryPayload::Blank }
}

/// A log of `(term, index)` written behind the back of the log store.
fn written(entries: &[(u64, u64)], meta: &[(&'static [u8], LogId)]) -> (TempDir, Store) {
    let (directory, store) = store();
    let mut batch = Batch::new();
    for (term, index) in entries {
        batch.put(LOG, &key(*index), codec::encode_entry(&entry(*term, *index)));
    }
    for (name, id) in meta {
        batch.put(META, name, codec::encode_log_id(Some(id)));
    }
    store.commit(batch).unwrap();
    (directory, store)
}

#[test]
fn a_hole_is_refused_and_named() {
    let (_directory, store) = written(&[(1, 0), (1, 1), (1, 3)], &[]);
    let error = LogStore::load(store).unwrap_err();
    assert!(matches!(error, LogError::Hole { expected: 2, found: 3 }), "{error}");
    let (_directory, store) = written(&[(1, 5)], &[(PURGED, id(1, 3))]);
    assert!(matches!(LogStore::load(store).unwrap_err(), LogError::Hole { expected: 4, found: 5 }));
    let (_directory, store) = written(&[(1, 1)], &[]);
    assert!(matches!(LogStore::load(store).unwrap_err(), LogError::Hole { expected: 0, found: 1 }));
}

#[test]
fn terms_that_go_back_are_refused() {
    let (_directory, store) = written(&[(2, 0), (1, 1)], &[]);
    assert!(matches!(LogStore::load(store).unwrap_err(), LogError::Unordered { at: 1 }));
}

#[test]
fn an_entry_that_means_nothing_is_refused() {
    let (_directory, store) = written(&[(1, 0)], &[]);
    let mut batch = Batch::new();
    batch.put(LOG, &key(1), b"from the future".to_vec());
    store.commit(batch).unwrap();
    assert!(matches!(LogStore::load(store).unwrap_err(), LogError::Malformed { .. }));
}

#[test]
fn a_log_shorter_than_committed_is_refused_unless_a_snapshot_reaches_further() {
    let (_directory, store) = written(&[(1, 0), (1, 1)], &[(COMMITTED, id(1, 4))]);
    let log = LogStore::load(store).unwrap();
    let error = log.check_against(None).unwrap_err();
    assert!(matches!(error, LogError::Short { last: 1, committed: 4 }), "{error}");
    log.check_against(Some(&id(1, 4))).unwrap();
}

#[test]
fn a_log_that_starts_behind_the_snapshot_is_refused() {
    let (_directory, store) = written(&[(1, 6)], &[(PURGED, id(1, 5))]);
    let log = LogStore::load(store).unwrap();
    assert!(matches!(log.check_against(Some(&id(1, 4))).unwrap_err(), LogError::Hole { expected: 5, found: 6 }));
    log.check_against(Some(&id(1, 5))).unwrap();
}

#[tokio::test]
async fn what_a_crash_left_of_a_purge_is_removed() {
    let (_directory, store) = written(&[(1, 1), (1, 2), (1, 3)], &[(PURGED, id(1, 2))]);
    let mut log = LogStore::load(store.clone()).unwrap();
    let state = log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(1, 2)), Some(id(1, 3))));
    assert_eq!(store.get(LOG, &key(2)).unwrap(), None);
}

#[tokio::test]
async fn a_reopened_log_continues_and_counts_its_bytes() {
    let (_directory, store) = store();
    let mut log = LogStore::load(store.clone()).unwrap();
    log.blocking_append((0..10).map(|index| entry(1, index))).await.unwrap();
    log.truncate(id(1, 8)).await.unwrap();
    log.blocking_append([entry(2, 8)]).await.unwrap();
    log.purge(id(1, 3)).await.unwrap();
    let one = codec::encode_entry(&entry(1, 0)).len() as u64;
    assert_eq!(log.bytes_after(None), 5 * one);
    assert_eq!(log.bytes_after(Some(6)), 2 * one);
    assert_eq!(log.bytes_after(Some(8)), 0);

    let mut again = LogStore::load(store).unwrap();
    assert_eq!(again.bytes_after(None), 5 * one);
    let entries = again.try_get_log_entries(0..100).await.unwrap();
    assert_eq!(
        entries.iter().map(|entry| entry.log_id).collect::<Vec<_>>(),
        [id(1, 4), id(1, 5), id(1, 6), id(1, 7), id(2, 8)]
    );
    assert!(again.blocking_append([entry(2, 10)]).await.is_err(), "no hole is ever written");
}

#[tokio::test]
async fn a_message_is_bounded_in_bytes_but_never_empty() {
    let (_directory, store) = store();
    let mut log = LogStore::load(store).unwrap();
    let large = |index| Entry {
        log_id: id(1, index),
        payload: EntryPayload::Normal(super::super::types::Commands(vec![vec![7; 700_000].into()])),
    };
    log.blocking_append((0..4).map(large)).await.unwrap();
    assert_eq!(log.limited_get_log_entries(0, 4).await.unwrap().len(), 1);
    assert_eq!(log.limited_get_log_entries(2, 3).await.unwrap(), [large(2)]);
    assert_eq!(log.try_get_log_entries(0..4).await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_log_that_a_snapshot_of_another_leader_replaces_is_given_up() {
    let (_directory, store) = written(&[(1, 0), (1, 1), (1, 2), (1, 3), (1, 4)], &[(COMMITTED, id(1, 1))]);
    let mut log = LogStore::load(store.clone()).unwrap();
    log.reconcile(Some(&id(1, 3))).unwrap();
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(id(1, 4)), "this one leads to it");
    log.reconcile(Some(&id(2, 3))).unwrap();
    for mut log in [log, LogStore::load(store).unwrap()] {
        let state = log.get_log_state().await.unwrap();
        assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(2, 3)), Some(id(2, 3))));
        log.check_against(Some(&id(2, 3))).unwrap();
    }
}

#[tokio::test]
async fn a_leader_that_restarts_has_to_be_elected_again() {
    let (_directory, store) = store();
    let mut log = LogStore::load(store).unwrap();
    for (saved, read) in [
        (Vote::new_committed(3, 1), Vote::new(3, 1)),
        (Vote::new(3, 1), Vote::new(3, 1)),
        (Vote::new_committed(4, 2), Vote::new_committed(4, 2)),
    ] {
        log.save_vote(&saved).await.unwrap();
        assert_eq!(log.read_vote().await.unwrap(), Some(read));
    }
}
