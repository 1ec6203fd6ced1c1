//! The pack file: `header, contents, footer, trailer`.
//!
//! Header: magic (8), version (4). Footer: per blob name (32), offset (8), length (4), blake3 of the stored bytes (32).
//! Trailer: count (4), blake3 of the footer and the count (32), magic (8). Integers are big-endian.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::super::{StoreError, disk};
use super::BlobDigest;

/// One file of blobs.
#[derive(Debug, Clone)]
pub(super) struct Pack {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file_bytes: u64,
    /// Bytes of the blobs for which the index points here.
    pub(super) live_bytes: u64,
    /// How many those are.
    pub(super) live_blobs: usize,
}

/// Where a blob lies, and what its bytes hash to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) pack: u64,
    pub(super) offset: u64,
    pub(super) length: u32,
    pub(super) sum: [u8; 32],
}

impl Pack {
    /// Writes a pack durably: when this returns, it is on disk under its final name.
    pub(super) fn write<'a>(
        directory: &Path,
        number: u64,
        blobs: impl Iterator<Item = (BlobDigest, &'a [u8])>,
    ) -> Result<(Self, Vec<(BlobDigest, Location)>), StoreError> {
        let path = directory.join(file_name(number));
        let aside = directory.join(format!("{}{UNFINISHED}", file_name(number)));
        let failed = || StoreError::io("write", &aside);
        let file = File::create(&aside).map_err(StoreError::io("create", &aside))?;
        let mut out = BufWriter::new(file);
        out.write_all(&header()).map_err(failed())?;
        let mut offset = HEADER_BYTES;
        let mut located = Vec::new();
        let mut footer = Vec::new();
        for (digest, content) in blobs {
            let size = content.len();
            let length = u32::try_from(size).map_err(|_| StoreError::TooLarge {
                what: "a blob",
                size,
                limit: "blobs.blob_bytes",
                maximum: u32::MAX as usize,
            })?;
            let location = Location { pack: number, offset, length, sum: *blake3::hash(content).as_bytes() };
            out.write_all(content).map_err(failed())?;
            footer.extend_from_slice(&encode(&digest, &location));
            located.push((digest, location));
            offset += u64::from(length);
        }
        let count = u32::try_from(located.len()).unwrap_or(u32::MAX).to_be_bytes();
        footer.extend_from_slice(&count);
        let sum = blake3::hash(&footer);
        footer.extend_from_slice(sum.as_bytes());
        footer.extend_from_slice(TRAILER_MAGIC);
        out.write_all(&footer).map_err(failed())?;
        let file = out.into_inner().map_err(|error| failed()(error.into_error()))?;
        disk::publish(&file, &aside, &path)?;
        let file_bytes = offset + u64::try_from(footer.len()).unwrap_or(u64::MAX);
        Ok((Self { number, path, file_bytes, live_bytes: 0, live_blobs: 0 }, located))
    }

    /// Reads the footer. The inner error says why the pack is not whole.
    pub(super) fn load(path: &Path, number: u64) -> Result<Result<Loaded, &'static str>, StoreError> {
        let failed = || StoreError::io("read", path);
        let mut file = File::open(path).map_err(failed())?;
        let file_bytes = file.metadata().map_err(failed())?.len();
        if file_bytes < HEADER_BYTES + TRAILER_BYTES {
            return Ok(Err("it is cut"));
        }
        let mut head = vec![0; HEADER_BYTES_USIZE];
        file.read_exact(&mut head).map_err(failed())?;
        if head != header() {
            return Ok(Err("its header is not that of a pack this release can read"));
        }
        let mut trailer = [0; TRAILER_BYTES_USIZE];
        file.read_exact_at(&mut trailer, file_bytes - TRAILER_BYTES).map_err(failed())?;
        let (count, rest) = trailer.split_at(4);
        let (sum, magic) = rest.split_at(32);
        if magic != TRAILER_MAGIC {
            return Ok(Err("its end is missing"));
        }
        let entries = u64::from(count.try_into().map_or(0, u32::from_be_bytes));
        let Some(start) =
            (file_bytes - TRAILER_BYTES).checked_sub(entries * ENTRY_BYTES).filter(|s| *s >= HEADER_BYTES)
        else {
            return Ok(Err("its footer does not fit into it"));
        };
        let mut footer = Vec::new();
        file.seek(SeekFrom::Start(start)).map_err(failed())?;
        file.take(entries * ENTRY_BYTES + 4).read_to_end(&mut footer).map_err(failed())?;
        if blake3::hash(&footer).as_bytes() != sum {
            return Ok(Err("the checksum of its footer does not match"));
        }
        let located: Option<Vec<_>> = footer
            .chunks_exact(ENTRY_BYTES_USIZE)
            .map(|entry| decode(entry, number).filter(|(_, l)| l.offset + u64::from(l.length) <= start))
            .collect();
        let Some(located) = located else {
            return Ok(Err("its footer names bytes outside of it"));
        };
        Ok(Ok((Self { number, path: path.into(), file_bytes, live_bytes: 0, live_blobs: 0 }, located)))
    }
}

type Loaded = (Pack, Vec<(BlobDigest, Location)>);

/// Reads and verifies one blob; `None` when its bytes do not match.
pub(super) fn read(path: &Path, location: &Location) -> Result<Option<Bytes>, StoreError> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    let mut content = vec![0; usize::try_from(location.length).unwrap_or(usize::MAX)];
    match file.read_exact_at(&mut content, location.offset) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    }
    Ok((blake3::hash(&content).as_bytes() == &location.sum).then(|| content.into()))
}

/// The number in a pack's file name.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("pack-")?.strip_suffix(".blobs")?;
    u64::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 16)
}

fn file_name(number: u64) -> String {
    format!("pack-{number:016x}.blobs")
}

fn header() -> Vec<u8> {
    [HEADER_MAGIC.as_slice(), &VERSION.to_be_bytes()].concat()
}

fn encode(digest: &BlobDigest, location: &Location) -> Vec<u8> {
    [digest.0.as_slice(), &location.offset.to_be_bytes(), &location.length.to_be_bytes(), &location.sum].concat()
}

fn decode(entry: &[u8], pack: u64) -> Option<(BlobDigest, Location)> {
    let (digest, rest) = entry.split_first_chunk::<32>()?;
    let (offset, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (sum, _) = rest.split_first_chunk::<32>()?;
    let location =
        Location { pack, offset: u64::from_be_bytes(*offset), length: u32::from_be_bytes(*length), sum: *sum };
    Some((BlobDigest(*digest), location))
}

/// Suffix of a pack that is being written.
pub(super) const UNFINISHED: &str = ".unfinished";
const HEADER_MAGIC: &[u8; 8] = b"WNDLPACK";
const TRAILER_MAGIC: &[u8; 8] = b"WNDLPEND";
const VERSION: u32 = 1;
const HEADER_BYTES: u64 = 12;
const HEADER_BYTES_USIZE: usize = 12;
const ENTRY_BYTES: u64 = 76;
const ENTRY_BYTES_USIZE: usize = 76;
const TRAILER_BYTES: u64 = 44;
const TRAILER_BYTES_USIZE: usize = 44;
