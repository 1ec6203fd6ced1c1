//! Small records in sled: the only module of the agent that names it.
//!
//! A value is cut into chunks of at most 4,000 bytes, because sled moves larger pages to files that it never syncs. Its
//! `flush` alone is not durable on Linux either: the database file is synced besides. `flush_async` is never called (it
//! deadlocks under load). Every record has a checksum.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use super::CheckpointError;

/// Bytes of a record in one value of the store.
const CHUNK: usize = 4_000;
/// Between the key of a record and the number of its chunk; sorts below every character of a key.
const SEPARATOR: u8 = 0;
/// Checksum and length in front of a record.
const HEADER: usize = 16 + 8;

/// A record of a scan, with its own verdict: one that is damaged does not hide the others.
#[derive(Debug)]
pub(super) struct Scanned<T> {
    pub(super) key: String,
    pub(super) record: Result<T, CheckpointError>,
}

/// Records by text key.
#[derive(Debug)]
pub(super) struct Store {
    database: sled::Db,
    file: File,
    path: PathBuf,
}

impl Store {
    pub(super) fn open(path: &Path, cache_bytes: u64) -> Result<Self, CheckpointError> {
        let failed = |what, source: Box<dyn std::error::Error + Send + Sync>| CheckpointError::Store {
            what,
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(path).map_err(|error| failed("cannot make the folder of the checkpoint", error.into()))?;
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(cache_bytes)
            .mode(sled::Mode::LowSpace)
            // Every commit syncs by itself.
            .flush_every_ms(None);
        let database = open_patiently(&config)
            .map_err(|error| failed("cannot open the checkpoint (is another agent using it?)", error.into()))?;
        let file = File::options()
            .read(true)
            .write(true)
            .open(path.join("db"))
            .map_err(|error| failed("cannot open the file of the checkpoint", error.into()))?;
        Ok(Self { database, file, path: path.to_owned() })
    }

    /// Writes (or with `None` removes) records in one atomic batch; durable on return.
    pub(super) fn commit(&self, records: &[(String, Option<Vec<u8>>)]) -> Result<(), CheckpointError> {
        let mut batch = sled::Batch::default();
        for (key, record) in records {
            let chunks: Vec<Vec<u8>> = record.as_deref().map(sealed).unwrap_or_default();
            for (number, chunk) in chunks.iter().enumerate() {
                batch.insert(chunk_key(key, number), chunk.as_slice());
            }
            for old in self.database.scan_prefix(chunk_prefix(key)).keys() {
                let old = old.map_err(|error| self.failed("cannot read the checkpoint", error))?;
                let number = chunk_number(&old);
                if number.is_none_or(|number| number >= chunks.len()) {
                    batch.remove(old);
                }
            }
        }
        self.database.apply_batch(batch).map_err(|error| self.failed("cannot write the checkpoint", error))?;
        self.database.flush().map_err(|error| self.failed("cannot write the checkpoint", error))?;
        self.file.sync_data().map_err(|error| self.failed("cannot sync the checkpoint", error))
    }

    pub(super) fn read(&self, key: &str) -> Result<Option<Vec<u8>>, CheckpointError> {
        let mut whole = Vec::new();
        for chunk in self.database.scan_prefix(chunk_prefix(key)).values() {
            whole.extend_from_slice(&chunk.map_err(|error| self.failed("cannot read the checkpoint", error))?);
        }
        if whole.is_empty() { Ok(None) } else { opened(key, &whole).map(Some) }
    }

    /// All records whose keys begin with a prefix, sorted; each with its own verdict.
    pub(super) fn scan(&self, prefix: &str) -> Result<Vec<Scanned<Vec<u8>>>, CheckpointError> {
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        for entry in self.database.scan_prefix(prefix) {
            let (key, chunk) = entry.map_err(|error| self.failed("cannot read the checkpoint", error))?;
            let name = key.split(|byte| *byte == SEPARATOR).next().unwrap_or_default();
            let name = String::from_utf8_lossy(name).into_owned();
            match records.last_mut() {
                Some((last, whole)) if *last == name => whole.extend_from_slice(&chunk),
                _ => records.push((name, chunk.to_vec())),
            }
        }
        let checked = records.into_iter().map(|(key, whole)| {
            let record = opened(&key, &whole);
            Scanned { key, record }
        });
        Ok(checked.collect())
    }

    fn failed(
        &self,
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> CheckpointError {
        CheckpointError::Store { what, path: self.path.clone(), source: source.into() }
    }
}

/// A predecessor may need a moment to let go of its lock.
fn open_patiently(config: &sled::Config) -> sled::Result<sled::Db> {
    for _ in 1..LOCK_ATTEMPTS {
        match config.open() {
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                std::thread::sleep(LOCK_WAIT);
            }
            opened => return opened,
        }
    }
    config.open()
}

/// Together 10 s, the time that a Pod has to stop.
const LOCK_ATTEMPTS: u32 = 40;
const LOCK_WAIT: std::time::Duration = std::time::Duration::from_millis(250);

/// Checksum, length and content, in chunks.
fn sealed(record: &[u8]) -> Vec<Vec<u8>> {
    let mut whole = Vec::with_capacity(HEADER.saturating_add(record.len()));
    let length = u64::try_from(record.len()).unwrap_or(u64::MAX).to_le_bytes();
    whole.extend(blake3::hash(record).as_bytes().iter().take(16));
    whole.extend_from_slice(&length);
    whole.extend_from_slice(record);
    whole.chunks(CHUNK).map(<[u8]>::to_vec).collect()
}

fn opened(key: &str, whole: &[u8]) -> Result<Vec<u8>, CheckpointError> {
    let damaged = |reason: &str| CheckpointError::Damaged { record: key.to_owned(), reason: reason.to_owned() };
    let (header, record) = whole.split_at_checked(HEADER).ok_or_else(|| damaged("it is too short"))?;
    let (sum, length) = header.split_at(16);
    if length != u64::try_from(record.len()).unwrap_or(u64::MAX).to_le_bytes() {
        return Err(damaged("its length is wrong"));
    }
    if !blake3::hash(record).as_bytes().starts_with(sum) {
        return Err(damaged("its checksum is wrong"));
    }
    Ok(record.to_vec())
}

fn chunk_prefix(key: &str) -> Vec<u8> {
    let mut prefix = key.as_bytes().to_vec();
    prefix.push(SEPARATOR);
    prefix
}

fn chunk_key(key: &str, number: usize) -> Vec<u8> {
    let mut bytes = chunk_prefix(key);
    bytes.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes());
    bytes
}

fn chunk_number(key: &[u8]) -> Option<usize> {
    let bytes: [u8; 4] = *key.last_chunk::<4>()?;
    usize::try_from(u32::from_be_bytes(bytes)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_any_size_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let large: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
        {
            let store = Store::open(folder.path(), 1 << 20).unwrap();
            store.commit(&[("a/x".into(), Some(large.clone())), ("a/y".into(), Some(vec![]))]).unwrap();
            store.commit(&[("b".into(), Some(vec![7]))]).unwrap();
        }
        let store = Store::open(folder.path(), 1 << 20).unwrap();
        assert_eq!(store.read("a/x").unwrap(), Some(large));
        store.commit(&[("a/x".into(), Some(vec![1, 2]))]).unwrap();
        let all: Vec<_> =
            store.scan("a/").unwrap().into_iter().map(|found| (found.key, found.record.unwrap())).collect();
        assert_eq!(all, [("a/x".to_owned(), vec![1, 2]), ("a/y".to_owned(), vec![])]);
        store.commit(&[("a/x".into(), None)]).unwrap();
        assert_eq!(store.read("a/x").unwrap(), None);
        assert_eq!(store.read("b").unwrap(), Some(vec![7]));
    }

    #[test]
    fn damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), 1 << 20).unwrap();
        store.commit(&[("a".into(), Some(vec![1, 2, 3]))]).unwrap();
        let mut chunk = store.database.get(chunk_key("a", 0)).unwrap().unwrap().to_vec();
        *chunk.last_mut().unwrap() ^= 1;
        store.database.insert(chunk_key("a", 0), chunk).unwrap();
        assert!(store.read("a").unwrap_err().to_string().contains("checksum"));
    }
}
