//! Stores of format 1, whose records lay in an embedded database: carried over to the journal at the first start.
//!
//! The database is only read. Until the file `STORE` says format 2, all of it counts and whatever there is of a journal
//! does not, so a crash in between costs a repetition. Afterwards it is removed.
//!
//! A record there: a checksummed head, and parts in the sibling tree `<tree>.parts` for what did not fit into it. Head:
//! version (1), kind (1), content length (4), parts number (8), checksum (16), content when it fits. The checksum covers
//! tree, key and content.

use std::ops::RangeInclusive;
use std::path::Path;

use super::marker::Marker;
use super::{Batch, Identity, META, StoreError, StoreOptions, Visit};

/// Writes what the database holds to a new journal and raises the format.
pub(super) fn carry_over(directory: &Path, identity: Identity, options: &StoreOptions) -> Result<(), StoreError> {
    let path = directory.join(DATABASE);
    let wiped = || StoreError::Wiped { directory: directory.into(), store: identity.store };
    if !path.join("db").exists() {
        return Err(wiped());
    }
    let db = open_database(&path)?;
    check(&db, directory, identity)?;
    let mut records = Batch::new();
    for tree in TREES {
        scan(&db, tree, Vec::new()..=vec![u8::MAX; 9], &mut |key, content| {
            records.put(tree, key, content);
            Ok(())
        })?;
    }
    drop(db);
    let journal = directory.join(super::JOURNAL);
    if journal.exists() {
        std::fs::remove_dir_all(&journal).map_err(StoreError::io("remove", &journal))?;
    }
    // The log is bounded by compaction, so it fits into memory and into one frame.
    drop(super::create_journal(directory, identity, records, options)?);
    super::disk::sync_directory(directory)?;
    identity.save(directory)?;
    tracing::info!(store = %identity.store, "the store was carried over from the database to the journal");
    std::fs::remove_dir_all(&path).map_err(StoreError::io("remove", &path))?;
    super::disk::remove_file(&directory.join(MARKER))
}

/// A database that lost its identity or its newest commits must not become a store that votes.
fn check(db: &sled::Db, directory: &Path, identity: Identity) -> Result<(), StoreError> {
    match get(db, META, super::IDENTITY)? {
        Some(bytes) if bytes == identity.to_bytes() => {}
        Some(_) => return Err(StoreError::Swapped { directory: directory.into() }),
        None => return Err(StoreError::Wiped { directory: directory.into(), store: identity.store }),
    }
    let commit = get(db, META, COMMIT)?.and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    let (found, acknowledged) = (commit.map_or(0, u64::from_be_bytes), Marker::peek(&directory.join(MARKER))?);
    if found < acknowledged {
        return Err(StoreError::LostCommits { directory: directory.into(), found, acknowledged });
    }
    Ok(())
}

fn open_database(path: &Path) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new().path(path).flush_every_ms(None).use_compression(false);
    // The database asserts on some kinds of damage; a refusal with a reason is worth more than a crash.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| config.open())) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(source)) => Err(StoreError::from_database(path, source)),
        Err(_) => Err(StoreError::Damaged { what: format!("the database in {}", path.display()) }),
    }
}

fn get(db: &sled::Db, tree: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    match open(db, tree)?.get(key).map_err(failed(tree))? {
        Some(head) => read(db, tree, key, &head).map(Some),
        None => Ok(None),
    }
}

fn scan(db: &sled::Db, tree: &'static str, keys: RangeInclusive<Vec<u8>>, visit: Visit<'_>) -> Result<(), StoreError> {
    if keys.is_empty() {
        return Ok(());
    }
    for item in open(db, tree)?.range(keys) {
        let (key, head) = item.map_err(failed(tree))?;
        let content = read(db, tree, &key, &head)?;
        visit(&key, content)?;
    }
    Ok(())
}

fn read(db: &sled::Db, tree: &'static str, key: &[u8], bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
    let (head, inline) = Head::decode(bytes).ok_or_else(|| damaged(tree, key))?;
    let content = if head.length <= INLINE_MAX {
        inline.to_vec()
    } else {
        let parts = open_parts(db, tree)?;
        let mut content = Vec::with_capacity(head.length);
        for part in 0..part_count(head.length) {
            let bytes = parts.get(part_key(head.parts_number, part)).map_err(failed(tree))?;
            content.extend_from_slice(&bytes.ok_or_else(|| damaged(tree, key))?);
        }
        content
    };
    if content.len() != head.length || checksum(tree, key, &content) != head.sum {
        return Err(damaged(tree, key));
    }
    Ok(content)
}

struct Head {
    length: usize,
    parts_number: u64,
    sum: [u8; SUM_BYTES],
}

impl Head {
    #[cfg(test)]
    fn encode(&self, content: &[u8]) -> Vec<u8> {
        let inline = content.len() <= INLINE_MAX;
        let mut bytes = Vec::with_capacity(HEAD_BYTES + if inline { content.len() } else { 0 });
        bytes.push(VERSION);
        bytes.push(if inline { KIND_INLINE } else { KIND_PARTS });
        // RECORD_MAX was checked, so the length fits.
        bytes.extend_from_slice(&u32::try_from(self.length).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(&self.parts_number.to_be_bytes());
        bytes.extend_from_slice(&self.sum);
        if inline {
            bytes.extend_from_slice(content);
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let ([version, kind], rest) = bytes.split_first_chunk::<2>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (parts_number, rest) = rest.split_first_chunk::<8>()?;
        let (sum, inline) = rest.split_first_chunk::<SUM_BYTES>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let kind_fits = *kind == if length <= INLINE_MAX { KIND_INLINE } else { KIND_PARTS };
        if *version != VERSION || !kind_fits || length > RECORD_MAX {
            return None;
        }
        Some((Self { length, parts_number: u64::from_be_bytes(*parts_number), sum: *sum }, inline))
    }
}

fn checksum(tree: &str, key: &[u8], content: &[u8]) -> [u8; SUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    for field in [tree.as_bytes(), key] {
        // Lengths first: no two (tree, key) pairs may read as the same bytes.
        hasher.update(&u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes()).update(field);
    }
    let mut sum = [0; SUM_BYTES];
    hasher.update(content).finalize_xof().fill(&mut sum);
    sum
}

fn part_key(number: u64, part: u32) -> [u8; 12] {
    let mut key = [0; 12];
    let (head, tail) = key.split_at_mut(8);
    head.copy_from_slice(&number.to_be_bytes());
    tail.copy_from_slice(&part.to_be_bytes());
    key
}

fn part_count(length: usize) -> u32 {
    u32::try_from(length.div_ceil(PART_BYTES)).unwrap_or(u32::MAX)
}

fn open(db: &sled::Db, tree: &'static str) -> Result<sled::Tree, StoreError> {
    db.open_tree(tree).map_err(failed(tree))
}

fn open_parts(db: &sled::Db, tree: &'static str) -> Result<sled::Tree, StoreError> {
    db.open_tree(format!("{tree}.parts")).map_err(failed(tree))
}

fn failed(tree: &'static str) -> impl FnOnce(sled::Error) -> StoreError {
    move |error| StoreError::from_database(Path::new(tree), error)
}

fn damaged(tree: &str, key: &[u8]) -> StoreError {
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    StoreError::Damaged { what: format!("record {key} of tree {tree}") }
}

/// Folder of the database inside of the store's directory.
pub(super) const DATABASE: &str = "sled";
const MARKER: &str = "ACKNOWLEDGED";
const COMMIT: &[u8] = b"commit";
/// What a hub keeps.
const TREES: [&str; 2] = ["raft-log", "raft-meta"];
const VERSION: u8 = 1;
const KIND_INLINE: u8 = 0;
const KIND_PARTS: u8 = 1;
const SUM_BYTES: usize = 16;
const HEAD_BYTES: usize = 2 + 4 + 8 + SUM_BYTES;
const VALUE_MAX: usize = 4_096;
const INLINE_MAX: usize = VALUE_MAX - HEAD_BYTES;
const PART_BYTES: usize = VALUE_MAX;
const RECORD_MAX: usize = 2 << 20;

#[cfg(test)]
pub(super) mod tests {
    //! A store as format 1 wrote it.

    use super::super::{Store, StoreId};
    use super::*;

    fn put(db: &sled::Db, tree: &'static str, key: &[u8], content: &[u8]) {
        let parts_number = db.generate_id().unwrap();
        if content.len() > INLINE_MAX {
            for (part, bytes) in (0_u32..).zip(content.chunks(PART_BYTES)) {
                open_parts(db, tree).unwrap().insert(part_key(parts_number, part), bytes).unwrap();
            }
        }
        let head = Head { length: content.len(), parts_number, sum: checksum(tree, key, content) };
        open(db, tree).unwrap().insert(key, head.encode(content)).unwrap();
    }

    fn legacy(directory: &Path, commit: u64, acknowledged: u64) -> Identity {
        let id = StoreId::from_bytes([3; 16]);
        let identity = Identity { cluster: id, node: 2, store: id };
        let db = open_database(&directory.join(DATABASE)).unwrap();
        put(&db, META, super::super::IDENTITY, &identity.to_bytes());
        put(&db, META, COMMIT, &commit.to_be_bytes());
        for index in 0..20_u64 {
            put(&db, "raft-log", &index.to_be_bytes(), &vec![7; 3_000 * usize::try_from(index).unwrap()]);
        }
        put(&db, "raft-meta", b"vote", b"a vote");
        db.flush().unwrap();
        drop(db);
        Marker::open(&directory.join(MARKER)).unwrap().write(acknowledged).unwrap();
        identity.save(directory).unwrap();
        let path = directory.join("STORE");
        let text = std::fs::read_to_string(&path).unwrap();
        let body = text.rsplit_once("checksum ").unwrap().0.replace("format 2", "format 1");
        std::fs::write(&path, format!("{body}checksum {}\n", blake3::hash(body.as_bytes()).to_hex())).unwrap();
        identity
    }

    #[test]
    fn a_store_in_the_database_is_carried_over_once() {
        let directory = tempfile::tempdir().unwrap();
        let identity = legacy(directory.path(), 9, 9);
        // An earlier attempt was cut off.
        std::fs::create_dir(directory.path().join("journal")).unwrap();
        std::fs::write(directory.path().join("journal/segment-0000000000000000.journal"), "half").unwrap();
        for _ in 0..2 {
            let store = Store::open(directory.path(), &StoreOptions::default()).unwrap();
            assert_eq!(store.identity(), identity);
            assert_eq!(store.get("raft-meta", b"vote").unwrap().unwrap(), b"a vote");
            for index in 0..20_u64 {
                let content = store.get("raft-log", &index.to_be_bytes()).unwrap().unwrap();
                assert_eq!(content, vec![7; 3_000 * usize::try_from(index).unwrap()]);
            }
            assert!(!directory.path().join(DATABASE).exists());
        }
    }

    #[test]
    fn a_database_behind_its_acknowledgements_is_not_carried_over() {
        let directory = tempfile::tempdir().unwrap();
        legacy(directory.path(), 8, 9);
        let error = Store::open(directory.path(), &StoreOptions::default()).unwrap_err().to_string();
        assert!(error.contains("ends at commit 8, but commit 9 was acknowledged"), "{error}");
        assert!(directory.path().join(DATABASE).exists());
    }
}
