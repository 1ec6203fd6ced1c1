//! A replicated state that notices what it must never see: a lost, repeated, reordered or changed command.
//!
//! Each client numbers its commands from zero; the state is how many of each client were applied. Whatever is wrong is
//! kept as a sentence, and the state never panics.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

use windlass_hub::raft::{Machine, RestoreError, SnapshotSource};

/// Counts the commands of each client.
#[derive(Debug, Default)]
pub struct Tally {
    state: Mutex<State>,
}

#[derive(Debug, Default, Clone)]
struct State {
    counts: BTreeMap<u64, u64>,
    violations: Vec<String>,
}

impl Tally {
    /// The command number `number` of `client`, `length` bytes long (at least 16).
    #[must_use]
    pub fn command(client: u64, number: u64, length: usize) -> Vec<u8> {
        let mut command = [client.to_be_bytes(), number.to_be_bytes()].concat();
        let head = command.len();
        command.resize(length.max(head), 0);
        let seed = blake3::hash(command.get(..head).unwrap_or_default());
        let filler = command.get_mut(head..).unwrap_or_default();
        blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(filler);
        command
    }

    /// How many commands of each client are part of the state.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<u64, u64> {
        self.state().counts.clone()
    }

    /// What must not have happened.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Machine for Tally {
    fn apply(&self, index: u64, _: u64, command: &[u8]) -> Vec<u8> {
        let mut state = self.state();
        let number = |at: usize| {
            let bytes = command.get(at..at + 8)?.try_into().ok()?;
            Some(u64::from_be_bytes(bytes))
        };
        let Some((client, number)) = number(0).zip(number(8)) else {
            state.violations.push(format!("entry {index}: a command of {} bytes", command.len()));
            return Vec::new();
        };
        if Self::command(client, number, command.len()) != command {
            state.violations.push(format!("entry {index}: command {number} of client {client} was changed"));
        }
        let count = state.counts.entry(client).or_default();
        let expected = *count;
        *count += 1;
        if number != expected {
            let violation = format!("entry {index}: command {number} of client {client} instead of {expected}");
            state.violations.push(violation);
        }
        expected.to_be_bytes().to_vec()
    }

    fn snapshot(&self) -> Box<dyn SnapshotSource> {
        Box::new(Picture(self.state().clone()))
    }

    fn restore(&self, input: &mut dyn Read) -> Result<(), RestoreError> {
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes)?;
        let filler = bytes.split_off(bytes.len().saturating_sub(FILLER_BYTES));
        let malformed = |error: serde_json::Error| RestoreError::Malformed(error.to_string());
        let (counts, violations) = serde_json::from_slice(&bytes).map_err(malformed)?;
        if filler != filler_of(&bytes) {
            return Err(RestoreError::Malformed("the filler was changed".into()));
        }
        *self.state() = State { counts, violations };
        Ok(())
    }
}

struct Picture(State);

impl SnapshotSource for Picture {
    fn write(self: Box<Self>, out: &mut dyn Write) -> std::io::Result<()> {
        let bytes = serde_json::to_vec(&(&self.0.counts, &self.0.violations)).map_err(std::io::Error::other)?;
        out.write_all(&bytes)?;
        // A snapshot of one block would be written by one call.
        out.write_all(&filler_of(&bytes))
    }
}

fn filler_of(bytes: &[u8]) -> Vec<u8> {
    let mut filler = vec![0; FILLER_BYTES];
    blake3::Hasher::new().update(bytes).finalize_xof().fill(&mut filler);
    filler
}

const FILLER_BYTES: usize = 400 << 10;
