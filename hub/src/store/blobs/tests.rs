//! Blobs come back whole or not at all, and a kept one is never lost.

use super::*;

fn blob(number: usize) -> (BlobDigest, Bytes) {
    sized(number, 1_000)
}

fn sized(number: usize, length: usize) -> (BlobDigest, Bytes) {
    let mut content = number.to_string().into_bytes();
    content.resize(length, b'.');
    let content = Bytes::from(content);
    (BlobDigest::of(&content), content)
}

fn open(directory: &Path) -> BlobStore {
    BlobStore::open(directory, BlobOptions::default()).unwrap()
}

fn stored(store: &BlobStore, numbers: std::ops::Range<usize>) -> BlobLease {
    store.put_batch(numbers.map(blob).collect()).unwrap()
}

fn packs(directory: &Path) -> Vec<PathBuf> {
    let mut packs: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "blobs"))
        .collect();
    packs.sort();
    packs
}

fn expect(store: &BlobStore, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let (digest, content) = blob(number);
        assert_eq!(store.get(&digest).unwrap().as_ref(), Some(&content), "blob {number}");
    }
}

#[test]
fn a_batch_is_one_file_and_comes_back_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let lease = stored(&store, 0..50);
    assert_eq!((lease.stored(), packs(directory.path()).len()), (50, 1));
    assert_eq!(stored(&store, 0..50).stored(), 0, "what is here is not written again");
    assert_eq!(stored(&store, 40..60).stored(), 10);
    let empty = (BlobDigest::of(b""), Bytes::new());
    assert_eq!(store.put_batch(vec![empty.clone(), empty.clone()]).unwrap().stored(), 1);

    let store = open(directory.path());
    expect(&store, 0..60);
    assert_eq!(store.get(&empty.0).unwrap(), Some(empty.1));
    assert_eq!(store.get(&blob(60).0).unwrap(), None);
    assert_eq!(store.missing(&[blob(70).0, blob(1).0, blob(60).0]), [blob(70).0, blob(60).0]);
    assert!(store.has(&blob(59).0) && !store.has(&blob(60).0));
    assert_eq!((store.usage().blobs, store.usage().packs), (61, 3));
}

#[test]
fn sealed_content_keeps_the_name_it_was_given() {
    let directory = tempfile::tempdir().unwrap();
    let name = BlobDigest([9; 32]);
    drop(open(directory.path()).put_batch(vec![(name, Bytes::from_static(b"sealed"))]).unwrap());
    assert_eq!(open(directory.path()).get(&name).unwrap().unwrap(), "sealed");
}

#[test]
fn limits_are_refused_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let options = BlobOptions { blob_bytes_max: 1_000, batch_bytes_max: 2_500 };
    let store = BlobStore::open(directory.path(), options).unwrap();
    let large = store.put_batch(vec![blob(1), sized(2, 1_001)]).unwrap_err().to_string();
    assert!(large.contains("has 1001 bytes, the limit blobs.blob_bytes is 1000"), "{large}");
    let many = store.put_batch((0..3).map(blob).collect()).unwrap_err().to_string();
    assert!(many.contains("has 3000 bytes, the limit blobs.batch_bytes is 2500"), "{many}");
    assert!(packs(directory.path()).is_empty());
}

#[test]
fn a_flipped_bit_is_an_error_and_the_blob_can_be_stored_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    drop(stored(&store, 0..3));
    let pack = packs(directory.path()).remove(0);
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&pack, bytes).unwrap();

    let store = open(directory.path());
    let damaged: Vec<usize> = (0..3).filter(|number| store.get(&blob(*number).0).is_err()).collect();
    assert_eq!(damaged.len(), 1, "the others are not touched by it");
    let (digest, content) = blob(damaged[0]);
    assert_eq!(store.missing(&[digest]), [digest]);
    assert_eq!(store.put_batch(vec![(digest, content)]).unwrap().stored(), 1);
    expect(&store, 0..3);
    expect(&open(directory.path()), 0..3);
}

#[test]
fn a_cut_or_damaged_pack_is_set_aside_and_the_others_stay() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    drop((stored(&store, 0..3), stored(&store, 3..6)));
    drop(store);
    let pack = packs(directory.path()).remove(0);
    let whole = std::fs::read(&pack).unwrap();
    std::fs::write(directory.path().join("pack-00000000000000ff.blobs.unfinished"), "half").unwrap();
    let footer = whole.len() - 3 * 76 - 44;
    let mut variants: Vec<Vec<u8>> = [0, 5, 100, footer, whole.len() - 1].map(|cut| whole[..cut].to_vec()).into();
    for at in (0..12).chain(footer..whole.len()) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        variants.push(flipped);
    }
    for variant in variants {
        std::fs::write(&pack, &variant).unwrap();
        let store = open(directory.path());
        assert_eq!(store.usage(), BlobUsage { blobs: 3, packs: 1, bytes: store.usage().bytes });
        expect(&store, 3..6);
        assert!(pack.with_extension("damaged").exists());
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "half-written packs are gone");
}

#[test]
fn collection_frees_what_nobody_keeps_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let large = |number| sized(number, 100_000);
    drop(store.put_batch((0..10).map(large).collect()).unwrap());
    drop(store.put_batch((10..20).map(large).collect()).unwrap());
    let leased = store.put_batch(vec![large(5), large(30)]).unwrap();
    let kept: BTreeSet<BlobDigest> = [1, 2].map(|number| large(number).0).into();
    let collected = store.collect(&|digest| kept.contains(digest)).unwrap();
    assert_eq!((collected.blobs_removed, collected.packs_removed), (17, 2));
    assert!(collected.bytes_freed > 1_600_000);
    for number in [1, 2, 5, 30] {
        assert_eq!(store.get(&large(number).0).unwrap(), Some(large(number).1), "blob {number}");
    }
    assert_eq!(store.get(&large(3).0).unwrap(), None);

    drop(leased);
    assert_eq!(store.collect(&|digest| kept.contains(digest)).unwrap().blobs_removed, 2);
    let store = open(directory.path());
    // Blob 5 still lies in a pack that was not worth a rewrite; it is back until the next collection.
    assert_eq!(store.missing(&[1, 2, 5, 30].map(|number| large(number).0)), [large(30).0]);
    assert_eq!(store.get(&large(2).0).unwrap(), Some(large(2).1));
    assert_eq!(store.collect(&|digest| kept.contains(digest)).unwrap().blobs_removed, 1);
}

#[test]
fn what_is_found_present_is_leased_like_what_is_new() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    drop(stored(&store, 0..1));
    let lease = stored(&store, 0..1);
    assert_eq!((lease.stored(), store.collect(&|_| false).unwrap().blobs_removed), (0, 0));
    expect(&store, 0..1);
    drop(lease);
    assert_eq!(store.collect(&|_| false).unwrap().packs_removed, 1);
    assert!(packs(directory.path()).is_empty());
}

#[test]
fn many_small_packs_become_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for number in 0..260 {
        drop(stored(&store, number..number + 1));
    }
    assert_eq!(store.collect(&|_| true).unwrap().packs_removed, 260);
    assert_eq!(packs(directory.path()).len(), 1);
    expect(&store, 0..260);
    expect(&open(directory.path()), 0..260);
}

#[test]
fn readers_and_writers_go_on_during_collections() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let large = |number| sized(number, 70_000);
    std::thread::scope(|scope| {
        let store = &store;
        let writer = scope.spawn(move || {
            (0..30)
                .map(|round| store.put_batch(vec![large(2 * round), large(2 * round + 1)]).unwrap())
                .collect::<Vec<_>>()
        });
        let kept = large(0).0;
        while !writer.is_finished() {
            store.collect(&|digest| *digest == kept).unwrap();
            if store.has(&kept) {
                assert_eq!(store.get(&kept).unwrap(), Some(large(0).1));
            }
        }
        let leases = writer.join().unwrap();
        store.collect(&|_| false).unwrap();
        assert_eq!(store.usage().blobs, 60);
        for number in 0..60 {
            assert_eq!(store.get(&large(number).0).unwrap(), Some(large(number).1));
        }
        drop(leases);
    });
}
