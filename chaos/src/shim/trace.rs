//! The trace of a disk: what a program changed and synced, in an order that happened, with marks of whoever watches.
//!
//! Reading never changes the trace; a record that was cut by the death of the program ends it.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// One record. A file is its inode number; a number comes back with [`Event::Create`] for another file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A file was made.
    Create { file: u64, path: PathBuf },
    /// A file was emptied while it was opened.
    Truncate { file: u64 },
    /// Bytes were written.
    Write { file: u64, at: u64, data: Vec<u8> },
    /// The length was set; a longer file reads as zeros behind its old end.
    SetLength { file: u64, length: u64 },
    /// Space was allocated, which may make the file longer.
    Allocate { file: u64, at: u64, length: u64 },
    /// Everything of a file is on disk.
    Sync { file: u64 },
    /// The names in a folder are on disk.
    SyncFolder { path: PathBuf },
    /// A file or folder got another name.
    Rename { from: PathBuf, to: PathBuf },
    /// A name of a file went.
    Unlink { path: PathBuf },
    /// A folder was made.
    MakeFolder { path: PathBuf },
    /// A folder went.
    RemoveFolder { path: PathBuf },
    /// A file got a second name.
    Link { from: PathBuf, to: PathBuf },
    /// Somebody marked this moment.
    Mark { text: String },
}

/// Appends marks to a trace. Anything recorded before the mark was asked for lies before it.
#[derive(Debug)]
pub struct Marker {
    file: File,
}

impl Marker {
    /// Opens a trace, which is made when missing.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(trace: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(trace)
            .with_context(|| format!("open the trace {}", trace.display()))?;
        Ok(Self { file })
    }

    /// Marks this moment.
    ///
    /// # Errors
    /// When the trace cannot be written, or the text is longer than 4 GiB.
    pub fn mark(&mut self, text: &str) -> Result<()> {
        let length = u32::try_from(text.len()).context("a mark is short")?;
        let mut record = vec![0; HEAD_BYTES];
        if let Some(kind) = record.first_mut() {
            *kind = b'M';
        }
        record.truncate(HEAD_BYTES - 4);
        record.extend_from_slice(&length.to_ne_bytes());
        record.extend_from_slice(text.as_bytes());
        // One write: no record of the program can land inside.
        self.file.write_all(&record).context("write a mark")
    }
}

/// Reads a whole trace.
///
/// # Errors
/// When it cannot be read, or is no trace.
pub fn read_trace(trace: &Path) -> Result<Vec<Event>> {
    let bytes = std::fs::read(trace).with_context(|| format!("read the trace {}", trace.display()))?;
    let mut rest = bytes.as_slice();
    let mut events = Vec::new();
    while let Some((event, tail)) = next(rest)? {
        events.push(event);
        rest = tail;
    }
    Ok(events)
}

fn next(bytes: &[u8]) -> Result<Option<(Event, &[u8])>> {
    let record = || {
        let ([kind], rest) = bytes.split_first_chunk::<1>()?;
        let (file, rest) = number(rest)?;
        let (a, rest) = number(rest)?;
        let (b, rest) = number(rest)?;
        let (path_bytes, rest) = size(rest)?;
        let (other_bytes, rest) = size(rest)?;
        let (data_bytes, rest) = size(rest)?;
        let (path, rest) = rest.split_at_checked(path_bytes)?;
        let (other, rest) = rest.split_at_checked(other_bytes)?;
        let (data, rest) = rest.split_at_checked(data_bytes)?;
        Some((*kind, file, a, b, path, other, data, rest))
    };
    let Some((kind, file, a, b, path, other, data, rest)) = record() else {
        return Ok(None);
    };
    let path_of = |bytes: &[u8]| PathBuf::from(String::from_utf8_lossy(bytes).into_owned());
    let path = path_of(path);
    let event = match kind {
        b'C' => Event::Create { file, path },
        b'T' => Event::Truncate { file },
        b'W' => Event::Write { file, at: a, data: data.to_vec() },
        b'Z' => Event::SetLength { file, length: a },
        b'A' => Event::Allocate { file, at: a, length: b },
        b'S' => Event::Sync { file },
        b'D' => Event::SyncFolder { path },
        b'R' => Event::Rename { from: path, to: path_of(other) },
        b'U' => Event::Unlink { path },
        b'K' => Event::MakeFolder { path },
        b'X' => Event::RemoveFolder { path },
        b'L' => Event::Link { from: path, to: path_of(other) },
        b'M' => Event::Mark { text: String::from_utf8_lossy(data).into_owned() },
        other => bail!("the trace holds a record of the unknown kind {other}"),
    };
    Ok(Some((event, rest)))
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_ne_bytes(*number), rest))
}

fn size(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_ne_bytes(*number)).ok()?, rest))
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { path, .. } => write!(f, "create {}", path.display()),
            Self::Truncate { .. } => f.write_str("truncate"),
            Self::Write { at, data, .. } => write!(f, "write +{at} {}", data.len()),
            Self::SetLength { length, .. } => write!(f, "length {length}"),
            Self::Allocate { at, length, .. } => write!(f, "allocate +{at} {length}"),
            Self::Sync { .. } => f.write_str("sync"),
            Self::SyncFolder { path } => write!(f, "sync folder {}", path.display()),
            Self::Rename { from, to } => write!(f, "rename {} {}", from.display(), to.display()),
            Self::Unlink { path } => write!(f, "unlink {}", path.display()),
            Self::MakeFolder { path } => write!(f, "mkdir {}", path.display()),
            Self::RemoveFolder { path } => write!(f, "rmdir {}", path.display()),
            Self::Link { from, to } => write!(f, "link {} {}", from.display(), to.display()),
            Self::Mark { text } => write!(f, "mark {text}"),
        }
    }
}

/// Bytes of a record before its path.
const HEAD_BYTES: usize = 1 + 3 * 8 + 3 * 4;
