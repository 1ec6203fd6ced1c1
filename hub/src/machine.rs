//! The replicated state in this process: applies what Raft commits, publishes the state and what followed from it.
//!
//! Readers get a cheap snapshot of the state and never hold a lock while they work with it.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use tokio::sync::{broadcast, watch};
use windlass_hub_core::{
    Effect, Envelope, Rejection, Reply, State,
    command::ENVELOPE_BYTES_MAX,
    snapshot::{self, SnapshotError},
};
use windlass_protocol::{
    codec,
    ids::{Digest, StateRevision},
};

use crate::{
    events::EventRing,
    group::compare::COMPARE_EVERY,
    raft::{Machine, RestoreError, SnapshotSource},
};

/// Batches of effects that a slow listener may be behind; beyond that it reads the state afresh.
const EFFECTS_BEHIND_MAX: usize = 4_096;
/// Largest encoded answer: bodies of [`windlass_hub_core::command::ENVELOPE_OBJECTS_MAX`] objects fit in twice the envelope.
const REPLY_BYTES_MAX: usize = 4 * ENVELOPE_BYTES_MAX;

/// The state machine behind Raft.
#[derive(Debug)]
pub struct StateMachine {
    state: RwLock<Arc<State>>,
    events: Mutex<EventRing>,
    effects: broadcast::Sender<Arc<Vec<Effect>>>,
    revision: watch::Sender<StateRevision>,
    /// The newest state that is to be hashed and compared.
    picked: watch::Sender<Option<Arc<State>>>,
    /// The newest hash, and after how many envelopes.
    hashed: Mutex<Option<(u64, Digest)>>,
}

impl Default for StateMachine {
    fn default() -> Self {
        Self {
            state: RwLock::default(),
            events: Mutex::default(),
            effects: broadcast::channel(EFFECTS_BEHIND_MAX).0,
            revision: watch::channel(StateRevision::ZERO).0,
            picked: watch::channel(None).0,
            hashed: Mutex::default(),
        }
    }
}

impl StateMachine {
    /// The state as of the newest applied entry.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What follows from each applied envelope; a listener that falls behind reads the state afresh.
    #[must_use]
    pub fn effects(&self) -> broadcast::Receiver<Arc<Vec<Effect>>> {
        self.effects.subscribe()
    }

    /// The revision of the state, at each change.
    #[must_use]
    pub fn revision(&self) -> watch::Receiver<StateRevision> {
        self.revision.subscribe()
    }

    /// The state at each point at which replicas are compared.
    pub(crate) fn picked(&self) -> watch::Receiver<Option<Arc<State>>> {
        self.picked.subscribe()
    }

    /// The newest hash of the state here, and after how many envelopes.
    #[must_use]
    pub fn hashed(&self) -> Option<(u64, Digest)> {
        *self.hashed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_hashed(&self, applied: u64, hash: Digest) {
        *self.hashed.lock().unwrap_or_else(PoisonError::into_inner) = Some((applied, hash));
    }

    /// Reads the ring of recent changes.
    pub fn with_events<T>(&self, read: impl FnOnce(&EventRing) -> T) -> T {
        read(&self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn publish(&self, state: State, effects: Vec<Effect>) {
        let revision = state.meta().revision;
        {
            let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
            for effect in &effects {
                if let Effect::Object(change) = effect {
                    events.push(change.clone());
                }
            }
            // The state and the ring change together: whoever lists at a revision can watch from it.
            *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
        }
        if !effects.is_empty() {
            // No listener is no error.
            let _ = self.effects.send(Arc::new(effects));
        }
        self.revision.send_if_modified(|current| std::mem::replace(current, revision) != revision);
    }
}

impl Machine for StateMachine {
    fn apply(&self, index: u64, _term: u64, command: &[u8]) -> Vec<u8> {
        let result = match codec::from_bytes::<Envelope>(command, ENVELOPE_BYTES_MAX) {
            Ok(envelope) => {
                let mut state = (*self.state()).clone();
                let applied = state.apply(&envelope);
                if let Err(rejection) = &applied.result {
                    tracing::debug!(index, %rejection, subject = envelope.subject, "command rejected");
                }
                let compare = state.meta().applied.is_multiple_of(COMPARE_EVERY);
                self.publish(state, applied.effects);
                if compare {
                    self.picked.send_replace(Some(self.state()));
                }
                applied.result
            }
            // The same on every replica: an entry that no build can read changes nothing.
            Err(error) => {
                tracing::error!(index, %error, "entry cannot be read, it changes nothing");
                Err(Rejection::Invalid(format!("entry {index} cannot be read: {error}")))
            }
        };
        encode_reply(&result)
    }

    fn snapshot(&self) -> Box<dyn SnapshotSource> {
        picture(self.state())
    }

    fn restore(&self, input: &mut dyn Read) -> Result<(), RestoreError> {
        let mut reader = snapshot::Reader::default();
        while let Some(record) = read_record(input)? {
            reader.record(&record).map_err(restore_error)?;
        }
        let state = reader.finish().map_err(restore_error)?;
        self.events.lock().unwrap_or_else(PoisonError::into_inner).restart(state.meta().revision);
        self.publish(state, Vec::new());
        Ok(())
    }
}

/// The bundles that the state in a snapshot references, without building the state. Blocks.
///
/// # Errors
/// [`RestoreError`] when the snapshot cannot be read.
pub(crate) fn bundles_of_snapshot(input: &mut dyn Read) -> Result<BTreeSet<Digest>, RestoreError> {
    let mut bundles = BTreeSet::new();
    while let Some(record) = read_record(input)? {
        bundles.extend(snapshot::bundles_in(&record).map_err(restore_error)?);
    }
    Ok(bundles)
}

/// Encodes the answer to a command.
fn encode_reply(result: &Result<Reply, Rejection>) -> Vec<u8> {
    codec::to_bytes(result, REPLY_BYTES_MAX).unwrap_or_else(|_| {
        // Only the bodies can be that large; the write itself stands.
        let short = result.as_ref().map(|reply| Reply { bodies: Vec::new(), ..reply.clone() }).map_err(Clone::clone);
        codec::to_bytes(&short, REPLY_BYTES_MAX).unwrap_or_default()
    })
}

/// Decodes the answer to a command.
///
/// # Errors
/// A text when the bytes are no answer.
pub(crate) fn decode_reply(bytes: &[u8]) -> Result<Result<Reply, Rejection>, String> {
    codec::from_bytes(bytes, REPLY_BYTES_MAX).map_err(|error| error.to_string())
}

/// A picture of a state, to be written as a snapshot.
pub(crate) fn picture(state: Arc<State>) -> Box<dyn SnapshotSource> {
    Box::new(Picture(state))
}

struct Picture(Arc<State>);

impl SnapshotSource for Picture {
    fn write(self: Box<Self>, out: &mut dyn Write) -> std::io::Result<()> {
        snapshot::write::<WriteError>(&self.0, |record| {
            let length = u32::try_from(record.len()).map_err(std::io::Error::other)?;
            out.write_all(&length.to_le_bytes())?;
            out.write_all(&record)?;
            Ok(())
        })
        .map_err(|WriteError(error)| error)
    }
}

struct WriteError(std::io::Error);

impl From<SnapshotError> for WriteError {
    fn from(error: SnapshotError) -> Self {
        Self(std::io::Error::other(error))
    }
}

impl From<std::io::Error> for WriteError {
    fn from(error: std::io::Error) -> Self {
        Self(error)
    }
}

/// The next length-prefixed record; `None` at the end.
fn read_record(input: &mut dyn Read) -> Result<Option<Vec<u8>>, RestoreError> {
    let mut length = [0; 4];
    match input.read(&mut length[..1])? {
        0 => return Ok(None),
        _ => input.read_exact(&mut length[1..])?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > snapshot::RECORD_BYTES_MAX {
        let limit = snapshot::RECORD_BYTES_MAX;
        return Err(RestoreError::Malformed(format!("a record of {length} bytes; the limit is {limit}")));
    }
    let mut record = vec![0; length];
    input.read_exact(&mut record)?;
    Ok(Some(record))
}

fn restore_error(error: SnapshotError) -> RestoreError {
    match error {
        SnapshotError::TooNew { found, known } => RestoreError::Newer { found, supported: known },
        other => RestoreError::Malformed(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use windlass_hub_core::Command;
    use windlass_protocol::{ids::RequestId, resource::Kind, time::Millis};

    use super::*;

    fn envelope(request: u8, command: Command) -> Vec<u8> {
        let envelope = Envelope {
            request: RequestId([request; 16]),
            subject: "test".to_owned(),
            source: "test".to_owned(),
            proposed_at: Millis::from_secs(1),
            preconditions: Vec::new(),
            command,
        };
        codec::to_bytes(&envelope, ENVELOPE_BYTES_MAX).unwrap()
    }

    fn bootstrap() -> Command {
        let uids = ["a", "b", "c"].map(str::to_owned).to_vec();
        Command::Bootstrap { cluster_id: "c".to_owned(), trust_domain: "t".to_owned(), uids }
    }

    #[test]
    fn a_snapshot_restores_to_the_same_state() {
        let machine = StateMachine::default();
        decode_reply(&machine.apply(1, 1, &envelope(1, bootstrap()))).unwrap().unwrap();
        let mut file = Vec::new();
        machine.snapshot().write(&mut file).unwrap();

        let other = StateMachine::default();
        other.restore(&mut file.as_slice()).unwrap();
        assert_eq!(snapshot::hash(&machine.state()), snapshot::hash(&other.state()));
        assert_eq!(other.state().objects(Kind::Namespace, None).count(), 2);

        let cut = file.len() - 3;
        assert!(StateMachine::default().restore(&mut &file[..cut]).is_err());
    }

    #[test]
    fn an_unreadable_entry_is_rejected_and_changes_nothing() {
        let machine = StateMachine::default();
        let before = snapshot::hash(&machine.state());
        assert!(decode_reply(&machine.apply(1, 1, b"poison")).unwrap().is_err());
        assert_eq!(snapshot::hash(&machine.state()), before);
    }
}
