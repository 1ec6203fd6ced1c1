//! The store keeps what it acknowledged, or refuses with a sentence that helps.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const TREE: &str = "test";

fn id(byte: u8) -> StoreId {
    StoreId::from_bytes([byte; 16])
}

fn identity() -> Identity {
    Identity { cluster: id(1), node: 7, store: id(2) }
}

pub(super) fn create(directory: &Path) -> Store {
    Store::create(directory, identity(), &StoreOptions::default()).unwrap()
}

pub(super) fn open(directory: &Path) -> Result<Store, StoreError> {
    Store::open(directory, &StoreOptions::default())
}

pub(super) fn put(store: &Store, key: &str, content: Vec<u8>) {
    let mut batch = Batch::new();
    batch.put(TREE, key.as_bytes(), content);
    store.commit(batch).unwrap();
}

pub(super) fn contents(store: &Store) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
    let mut found = BTreeMap::new();
    store.scan(TREE, Vec::new()..=vec![0xff], &mut |key, content| {
        found.insert(String::from_utf8_lossy(key).into_owned(), content);
        Ok(())
    })?;
    Ok(found)
}

pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn message(result: Result<Store, StoreError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn records_of_any_size_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = create(directory.path());
    let sizes = [0, 1, 4_096, 100_000, 1 << 20, 2 << 20];
    let content = |size: usize, seed: usize| {
        (0..size).map(|at| u8::try_from((at * 31 + seed) % 253).unwrap()).collect::<Vec<u8>>()
    };
    for size in sizes {
        put(&store, &format!("{size}"), content(size, 1));
        put(&store, &format!("{size}"), content(size, 2));
    }
    put(&store, "shrinks", content(50_000, 1));
    put(&store, "shrinks", content(10, 1));
    put(&store, "goes", content(50_000, 1));
    let mut batch = Batch::new();
    batch.remove(TREE, b"goes");
    batch.remove(TREE, b"never was");
    store.commit(batch).unwrap();
    drop(store);

    let store = open(directory.path()).unwrap();
    for size in sizes {
        assert!(store.get(TREE, size.to_string().as_bytes()).unwrap().unwrap() == content(size, 2), "{size} bytes");
    }
    assert_eq!(store.get(TREE, b"shrinks").unwrap().unwrap(), content(10, 1));
    assert_eq!(store.get(TREE, b"goes").unwrap(), None);
    assert_eq!(contents(&store).unwrap().len(), sizes.len() + 1);
}

#[test]
fn a_record_that_breaks_a_limit_is_refused_and_the_store_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = create(directory.path());
    let mut batch = Batch::new();
    batch.put(TREE, b"key", vec![0; (2 << 20) + 1]);
    let error = store.commit(batch).unwrap_err().to_string();
    assert!(error.contains("the limit store.record_bytes is 2097152"), "{error}");
    put(&store, "key", b"fine".to_vec());
}

/// A store whose syncs fail while `broken` is set.
fn breakable(directory: &Path) -> (Store, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&broken);
    let sync = move || {
        if seen.load(Ordering::Relaxed) { Err(std::io::Error::other("the cable is loose")) } else { Ok(()) }
    };
    let options = StoreOptions { before_sync: Some(SyncHook(Arc::new(sync))), ..StoreOptions::default() };
    (Store::create(directory, identity(), &options).unwrap(), broken)
}

#[test]
fn after_a_failed_write_nothing_is_acknowledged_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let (store, broken) = breakable(directory.path());
    put(&store, "before", b"1".to_vec());
    broken.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let mut batch = Batch::new();
        batch.put(TREE, b"after", b"2".to_vec());
        let error = store.commit(batch).unwrap_err().to_string();
        assert!(error.contains("the store stopped after a failed write (cannot sync"), "{error}");
        // Also when the cause is gone: what a failed sync left behind is unknown.
        broken.store(false, Ordering::Relaxed);
    }
    assert_eq!(store.get(TREE, b"before").unwrap().unwrap(), b"1");
    assert_eq!(store.get(TREE, b"after").unwrap(), None);
    drop(store);
    assert_eq!(open(directory.path()).unwrap().get(TREE, b"before").unwrap().unwrap(), b"1");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_share_commits_and_each_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let store = create(directory.path());
    let writes = (0..500).map(|number: usize| {
        let mut batch = Batch::new();
        batch.put(TREE, format!("{number:03}").as_bytes(), number.to_be_bytes().to_vec());
        let durability = if number.is_multiple_of(2) { Durability::Synced } else { Durability::Ordered };
        store.write(batch, durability)
    });
    for outcome in futures::future::join_all(writes).await {
        outcome.unwrap();
    }
    store.close();
    assert!(matches!(store.get(TREE, b"000"), Err(StoreError::Closed)));
    assert!(matches!(store.write(Batch::new(), Durability::Synced).await, Err(StoreError::Closed)));
    let again = open(directory.path()).unwrap();
    assert_eq!(contents(&again).unwrap().len(), 500);
}

#[test]
fn a_directory_belongs_to_one_process_one_node_one_cluster() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    assert!(message(open(&path.join("nothing"))).contains("holds no store; run `windlass-hub init`"));
    assert!(!path.join("nothing").exists(), "an unchanged disk");
    assert_eq!(Store::peek(path).unwrap(), None);
    let store = create(path);
    assert!(message(open(path)).contains("is in use by another process"));
    drop(store);
    assert_eq!(Store::peek(path).unwrap(), Some(identity()));
    assert!(message(Store::create(path, identity(), &StoreOptions::default())).contains("already holds a store"));
    let other_node = StoreOptions { expect_node: Some(8), ..StoreOptions::default() };
    assert!(message(Store::open(path, &other_node)).contains("belongs to node 7, but node 8 was expected"));
    let other_cluster = StoreOptions { expect_cluster: Some(id(9)), ..StoreOptions::default() };
    assert!(message(Store::open(path, &other_cluster)).contains("belongs to cluster 0101"));
    assert_eq!(open(path).unwrap().identity(), identity());
}

#[test]
fn a_newer_or_changed_identity_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(create(directory.path()));
    let file = directory.path().join("STORE");
    let text = std::fs::read_to_string(&file).unwrap();
    for (changed, expected) in [
        (text.replace("format 2", "format 3"), "has store format 3, this release reads up to 2"),
        (text.replace("node 7", "node 8"), "is damaged"),
        (text.replace("checksum", "checksun"), "is damaged"),
        (String::new(), "is damaged"),
    ] {
        std::fs::write(&file, changed).unwrap();
        let error = message(open(directory.path()));
        assert!(error.contains(expected), "{error}");
    }
    std::fs::write(&file, text).unwrap();
    open(directory.path()).unwrap();
}

#[test]
fn a_wiped_swapped_or_half_made_store_is_recognised() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(create(first.path()));
    let other = Identity { store: id(5), ..identity() };
    drop(Store::create(second.path(), other, &StoreOptions::default()).unwrap());
    std::fs::remove_dir_all(first.path().join("journal")).unwrap();
    assert!(message(open(first.path())).contains("the disk was wiped"));
    copy(&second.path().join("journal"), &first.path().join("journal"));
    assert!(message(open(first.path())).contains("belongs to another store than the file STORE says"));
    std::fs::remove_file(second.path().join("STORE")).unwrap();
    assert!(message(open(second.path())).contains("holds no store"));
    assert!(message(Store::create(second.path(), other, &StoreOptions::default())).contains("interrupted `init`"));
}

#[test]
fn a_journal_behind_its_acknowledgements_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = create(directory.path());
    put(&store, "a", b"1".to_vec());
    let segment = directory.path().join("journal/segment-0000000000000000.journal");
    let whole = std::fs::metadata(&segment).unwrap().len();
    put(&store, "b", b"2".to_vec());
    drop(store);
    File::options().write(true).open(&segment).unwrap().set_len(whole).unwrap();
    let error = message(open(directory.path()));
    assert!(error.contains("ends at commit 2, but commit 3 was acknowledged"), "{error}");
    assert_eq!(std::fs::metadata(&segment).unwrap().len(), whole, "an unchanged disk");
}
