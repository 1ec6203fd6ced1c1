//! How a record lies in the database: a checksummed head, and parts for what does not fit into it.
//!
//! The database moves pages that grow large to files which it never syncs, so no value here is larger than 4 KiB. A
//! record of more bytes is cut: its parts go to the sibling tree `<tree>.parts` under a fresh number, and the head that
//! names the number is written last. Until then the record does not exist, or still has its old content.
//!
//! Head: version (1), kind (1), content length (4), parts number (8), checksum (16), content when it fits.
//! The checksum covers tree, key and content, so a record that turns up under another key is damage too.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::{StoreError, Visit};

/// Refuses what is too large to be a record.
pub(super) fn check(key: &[u8], content: &[u8]) -> Result<(), StoreError> {
    check_size("the key of a record", key.len(), "store.key_bytes", KEY_MAX)?;
    check_size("a record", content.len(), "store.record_bytes", RECORD_MAX)
}

/// Writes `content` under `key`, which [`check`] accepted. The caller is the committer thread.
pub(super) fn put(db: &sled::Db, tree: &'static str, key: &[u8], content: &[u8]) -> Result<(), StoreError> {
    let heads = open(db, tree)?;
    let mut parts_number = 0;
    if content.len() > INLINE_MAX {
        parts_number = db.generate_id().map_err(failed(tree))?;
        let parts = open_parts(db, tree)?;
        for (part, bytes) in (0_u32..).zip(content.chunks(PART_BYTES)) {
            parts.insert(part_key(parts_number, part), bytes).map_err(failed(tree))?;
        }
    }
    let head = Head { length: content.len(), parts_number, sum: checksum(tree, key, content) };
    let old = heads.insert(key, head.encode(content)).map_err(failed(tree))?;
    remove_parts(db, tree, old.as_deref())
}

/// Removes `key`; a record that is not there is fine.
pub(super) fn remove(db: &sled::Db, tree: &'static str, key: &[u8]) -> Result<(), StoreError> {
    let old = open(db, tree)?.remove(key).map_err(failed(tree))?;
    remove_parts(db, tree, old.as_deref())
}

pub(super) fn get(db: &sled::Db, tree: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    match open(db, tree)?.get(key).map_err(failed(tree))? {
        Some(head) => read(db, tree, key, &head).map(Some),
        None => Ok(None),
    }
}

pub(super) fn scan(
    db: &sled::Db,
    tree: &'static str,
    keys: RangeInclusive<Vec<u8>>,
    visit: Visit<'_>,
) -> Result<(), StoreError> {
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

/// Removes parts that no head names. Returns how many records they belonged to.
pub(super) fn sweep(db: &sled::Db, tree: &'static str) -> Result<usize, StoreError> {
    let mut named = BTreeSet::new();
    for item in open(db, tree)?.iter() {
        let (key, bytes) = item.map_err(failed(tree))?;
        let head = Head::decode(&bytes).ok_or_else(|| damaged(tree, &key))?.0;
        if head.length > INLINE_MAX {
            named.insert(head.parts_number);
        }
    }
    let parts = open_parts(db, tree)?;
    let mut orphans = BTreeSet::new();
    for key in parts.iter().keys() {
        let key = key.map_err(failed(tree))?;
        let Some((number, _)) = key.split_first_chunk::<8>() else {
            return Err(damaged(tree, &key));
        };
        let number = u64::from_be_bytes(*number);
        if !named.contains(&number) {
            orphans.insert(number);
            parts.remove(&key).map_err(failed(tree))?;
        }
    }
    Ok(orphans.len())
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

fn remove_parts(db: &sled::Db, tree: &'static str, old: Option<&[u8]>) -> Result<(), StoreError> {
    // A damaged old head is not an error here: it goes away, and its parts are swept at the next open.
    let Some((head, _)) = old.and_then(Head::decode) else {
        return Ok(());
    };
    if head.length > INLINE_MAX {
        let parts = open_parts(db, tree)?;
        for part in 0..part_count(head.length) {
            parts.remove(part_key(head.parts_number, part)).map_err(failed(tree))?;
        }
    }
    Ok(())
}

struct Head {
    length: usize,
    parts_number: u64,
    sum: [u8; SUM_BYTES],
}

impl Head {
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
    move |error| StoreError::from_database(std::path::Path::new(tree), error)
}

fn damaged(tree: &str, key: &[u8]) -> StoreError {
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    StoreError::Damaged { what: format!("record {key} of tree {tree}") }
}

fn check_size(what: &'static str, size: usize, limit: &'static str, maximum: usize) -> Result<(), StoreError> {
    if size > maximum {
        return Err(StoreError::TooLarge { what, size, limit, maximum });
    }
    Ok(())
}

const VERSION: u8 = 1;
const KIND_INLINE: u8 = 0;
const KIND_PARTS: u8 = 1;
const SUM_BYTES: usize = 16;
const HEAD_BYTES: usize = 2 + 4 + 8 + SUM_BYTES;
/// Largest value ever handed to the database. A leaf holds up to 16 values, which stays below the 128 KiB from which
/// the database would write a page to a file of its own.
const VALUE_MAX: usize = 4_096;
const INLINE_MAX: usize = VALUE_MAX - HEAD_BYTES;
const PART_BYTES: usize = VALUE_MAX;
/// Keys are counted into pages as well.
const KEY_MAX: usize = 256;
/// A log entry (1 MiB) with room for its frame.
const RECORD_MAX: usize = 2 << 20;
