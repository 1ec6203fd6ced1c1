//! The agent's side: says what it has, fetches what a delta needs, hands out one checkpoint when all of it is there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{SessionError, assembly::Assembly};
use crate::{
    codec,
    handshake::{self, Agreed},
    ids::{Digest, Epoch, Generation, Incarnation, NamespacedName, ReceiptSeq},
    message::{
        AgentControl, Assignment, BlobReply, BlobRequest, BundleIndex, Delta, GoAway, Hello, HubControl, ReceiptReply,
        Retry, Tombstone, WANT_MAX,
    },
    time::Millis,
};

/// Wait before asking again when the hub could not serve what its delta references.
const UNAVAILABLE_WAIT: Millis = Millis(2_000);
/// Assignments of one delta (DESIGN.md section 10: 1,000 per cluster, with room for a whole exchange of them).
const DELTA_ASSIGNMENTS_MAX: usize = 4_000;

/// What the shell does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentAction {
    /// Send on the control stream.
    Control(AgentControl),
    /// Send on the blobs stream.
    Blobs(BlobRequest),
    /// The hub has admitted this agent.
    Connected {
        /// Node id of the hub.
        hub: u64,
        /// What both speak.
        agreed: Agreed,
    },
    /// Read content from the disk and answer with [`AgentSession::handle_loaded`].
    Load(Digest),
    /// Say with [`AgentSession::handle_missing`] which of these are not on the disk.
    Lookup(Vec<Digest>),
    /// Put content on the disk; it needs to be durable only at the next [`Self::Checkpoint`].
    Store {
        /// Its address.
        digest: Digest,
        /// The content.
        content: Vec<u8>,
    },
    /// Make the change durable together with everything stored, then call [`AgentSession::handle_checkpointed`].
    Checkpoint(DesiredChange),
    /// Compare an application again.
    Refresh {
        /// Which one.
        application: NamespacedName,
        /// Forget cached discovery too.
        hard: bool,
    },
    /// A new certificate chain (PEM).
    Certificate(String),
    /// Roots to trust from now on, and the hubs to dial.
    Trust {
        /// PEM.
        roots: String,
        /// `host:port`.
        hubs: Vec<String>,
    },
    /// Receipts up to this number need not be kept.
    Committed(ReceiptSeq),
    /// Receipts could not be committed; send them again later.
    Busy,
    /// Leave this hub for another.
    Leave(GoAway),
    /// This agent is not admitted.
    Refused {
        /// Why.
        reason: String,
        /// Whether trying again can help.
        retry: Retry,
    },
}

/// A change of desired state whose content is all on the agent's side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredChange {
    /// Epoch of `to`.
    pub epoch: Epoch,
    /// The generation that the agent has afterwards.
    pub to: Generation,
    /// New and changed assignments.
    pub assignments: BTreeMap<NamespacedName, Assignment>,
    /// Assignments that end.
    pub tombstones: Vec<Tombstone>,
    /// Everything the epoch knows; `None` for a partial change.
    pub known: Option<BTreeSet<NamespacedName>>,
    /// Addresses of the manifests of every bundle that the change names.
    pub content: BTreeSet<Digest>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    AwaitHello,
    Ready,
    Ended,
}

/// The agent's half of a session.
#[derive(Debug)]
pub struct AgentSession {
    hello: Hello,
    phase: Phase,
    have: (Epoch, Generation),
    /// Parts of a delta that is not complete yet.
    parts: Option<Delta>,
    /// A complete delta whose content is being fetched.
    pending: Option<Fetch>,
    checkpointing: bool,
    assembly: Assembly,
    /// Replies to what was asked for a delta that was given up: they come before all others, and are of no use.
    abandoned: usize,
    retry_at: Option<Millis>,
    now: Millis,
    actions: VecDeque<AgentAction>,
}

#[derive(Debug, Default)]
struct Fetch {
    change: DesiredChange,
    indexes_open: BTreeSet<Digest>,
    indexes_done: BTreeSet<Digest>,
    sealed: BTreeSet<Digest>,
    lookups: usize,
    want: VecDeque<Digest>,
    asked: BTreeSet<Digest>,
}

impl AgentSession {
    /// A session over fresh streams; `epoch` and `generation` are what is on the agent's disk.
    #[must_use]
    pub fn new(hello: Hello, incarnation: Incarnation, epoch: Epoch, generation: Generation) -> Self {
        let actions = VecDeque::from([AgentAction::Control(AgentControl::Hello { hello: hello.clone(), incarnation })]);
        Self {
            hello,
            phase: Phase::AwaitHello,
            have: (epoch, generation),
            parts: None,
            pending: None,
            checkpointing: false,
            assembly: Assembly::default(),
            abandoned: 0,
            retry_at: None,
            now: Millis::default(),
            actions,
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<AgentAction> {
        self.actions.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Millis> {
        self.retry_at
    }

    /// Time has passed; asks again after content was unavailable.
    pub fn handle_timeout(&mut self, now: Millis) {
        self.now = self.now.max(now);
        if self.retry_at.is_some_and(|at| at <= self.now) {
            self.retry_at = None;
            self.say_have();
        }
    }

    /// A control message of the hub.
    ///
    /// # Errors
    /// [`SessionError`] when the hub breaks the protocol.
    pub fn handle_control(&mut self, message: HubControl) -> Result<(), SessionError> {
        if let HubControl::Refused { reason, retry } = message {
            self.phase = Phase::Ended;
            self.actions.push_back(AgentAction::Refused { reason, retry });
            return Ok(());
        }
        if self.phase == Phase::AwaitHello {
            let HubControl::Hello { hello, hub, epoch: _ } = message else {
                return Err(SessionError::Unexpected {
                    message: "control message",
                    phase: "waiting for the hub's hello",
                });
            };
            let agreed = handshake::agree(&self.hello, &hello)?;
            self.phase = Phase::Ready;
            self.actions.push_back(AgentAction::Connected { hub, agreed });
            self.say_have();
            return Ok(());
        }
        if self.phase == Phase::Ended {
            return Ok(());
        }
        match message {
            HubControl::Hello { .. } | HubControl::Refused { .. } => {
                Err(SessionError::Unexpected { message: "hello", phase: "in session" })
            }
            HubControl::Desired(delta) => self.handle_delta(delta),
            HubControl::GoAway { reason } => {
                self.actions.push_back(AgentAction::Leave(reason));
                Ok(())
            }
            HubControl::Certificate { chain } => {
                self.actions.push_back(AgentAction::Certificate(chain));
                Ok(())
            }
            HubControl::Trust { roots, hubs } => {
                self.actions.push_back(AgentAction::Trust { roots, hubs });
                Ok(())
            }
            HubControl::Refresh { application, hard } => {
                self.actions.push_back(AgentAction::Refresh { application, hard });
                Ok(())
            }
        }
    }

    fn handle_delta(&mut self, delta: Delta) -> Result<(), SessionError> {
        if self.pending.is_some() {
            return Err(SessionError::Unexpected { message: "delta", phase: "fetching the one before" });
        }
        let whole = match self.parts.take() {
            None => delta,
            Some(mut whole) => {
                if (whole.epoch, whole.from, whole.to) != (delta.epoch, delta.from, delta.to) {
                    return Err(SessionError::OutOfOrder { what: "delta" });
                }
                whole.assignments.extend(delta.assignments);
                whole.tombstones.extend(delta.tombstones);
                if let Some(known) = delta.known {
                    whole.known.get_or_insert_default().extend(known);
                }
                whole.complete = delta.complete;
                whole
            }
        };
        let size = whole.assignments.len();
        if size > DELTA_ASSIGNMENTS_MAX {
            let limit = DELTA_ASSIGNMENTS_MAX as u64;
            return Err(SessionError::TooLarge { what: "assignments of a delta", size: size as u64, limit });
        }
        if !whole.complete {
            self.parts = Some(whole);
            return Ok(());
        }
        let older = (whole.epoch, whole.to) < self.have;
        let applies_here = whole.known.is_some() || (whole.epoch, whole.from) == self.have;
        if older || !applies_here {
            // A late answer to an earlier Have, or a hub that is behind: it hears again what is here, but never in a tight loop.
            self.retry_at = Some(self.now.plus(UNAVAILABLE_WAIT));
            return Ok(());
        }
        self.begin(whole);
        Ok(())
    }

    fn begin(&mut self, delta: Delta) {
        let mut fetch = Fetch {
            change: DesiredChange {
                epoch: delta.epoch,
                to: delta.to,
                assignments: BTreeMap::new(),
                tombstones: delta.tombstones,
                known: delta.known.map(|known| known.into_iter().collect()),
                content: BTreeSet::new(),
            },
            ..Fetch::default()
        };
        for assignment in delta.assignments {
            let operation = assignment.operation.as_ref().and_then(|operation| operation.bundle.as_ref());
            for bundle in [assignment.target.as_ref(), assignment.released.as_ref(), operation].into_iter().flatten() {
                if fetch.indexes_open.insert(bundle.digest) {
                    self.actions.push_back(AgentAction::Load(bundle.digest));
                }
            }
            fetch.change.assignments.insert(assignment.application.clone(), assignment);
        }
        self.pending = Some(fetch);
        self.advance();
    }

    /// Answer to [`AgentAction::Load`].
    ///
    /// # Errors
    /// [`SessionError`] when the content on disk is no index; the shell should remove it.
    pub fn handle_loaded(&mut self, digest: Digest, content: Option<&[u8]>) -> Result<(), SessionError> {
        let Some(fetch) = &mut self.pending else { return Ok(()) };
        match content {
            Some(content) => self.index(digest, content)?,
            None => fetch.want.push_back(digest),
        }
        self.advance();
        Ok(())
    }

    /// Answer to [`AgentAction::Lookup`]: those that are not on the disk.
    pub fn handle_missing(&mut self, missing: Vec<Digest>) {
        let Some(fetch) = &mut self.pending else { return };
        fetch.lookups = fetch.lookups.saturating_sub(1);
        fetch.want.extend(missing);
        self.advance();
    }

    /// A frame of the blobs stream.
    ///
    /// # Errors
    /// [`SessionError`] when content was not asked for, is too large, or does not match its address.
    pub fn handle_blob(&mut self, reply: BlobReply) -> Result<(), SessionError> {
        if self.abandoned > 0 {
            let is_last = match &reply {
                BlobReply::Chunk { offset, total, content, .. } => {
                    offset.saturating_add(content.len() as u64) >= *total
                }
                BlobReply::Unavailable { .. } => true,
            };
            self.abandoned -= usize::from(is_last);
            return Ok(());
        }
        let (digest, offset, total, content) = match reply {
            BlobReply::Chunk { digest, offset, total, content } => (digest, offset, total, content),
            BlobReply::Unavailable { digest } => {
                return self.unavailable(digest);
            }
        };
        let asked = self.pending.as_ref().is_some_and(|fetch| fetch.asked.contains(&digest));
        if !asked {
            return Err(SessionError::Unexpected { message: "blob", phase: "not asked for it" });
        }
        let Some((digest, content)) = self.assembly.add(digest, offset, total, content)? else { return Ok(()) };
        let Some(fetch) = &mut self.pending else { return Ok(()) };
        fetch.asked.remove(&digest);
        // A sealed address is keyed by the hub: only the hub can check it, and the frame's checksum covers the way.
        if !fetch.sealed.contains(&digest) && Digest::of(&content) != digest {
            return Err(SessionError::WrongContent(digest));
        }
        if fetch.indexes_open.contains(&digest) {
            self.index(digest, &content)?;
        }
        self.actions.push_back(AgentAction::Store { digest, content });
        self.advance();
        Ok(())
    }

    fn unavailable(&mut self, digest: Digest) -> Result<(), SessionError> {
        let Some(fetch) = &self.pending else { return Ok(()) };
        if !fetch.asked.contains(&digest) {
            return Err(SessionError::Unexpected { message: "unavailable", phase: "not asked for it" });
        }
        // The hub's desired state has moved on while this delta travelled: start over from what is on disk.
        self.abandoned = fetch.asked.len().saturating_sub(1);
        self.pending = None;
        self.assembly = Assembly::default();
        self.retry_at = Some(self.now.plus(UNAVAILABLE_WAIT));
        Ok(())
    }

    fn index(&mut self, digest: Digest, content: &[u8]) -> Result<(), SessionError> {
        let Some(fetch) = &mut self.pending else { return Ok(()) };
        if !fetch.indexes_open.remove(&digest) {
            return Ok(());
        }
        fetch.indexes_done.insert(digest);
        let decoded = codec::from_bytes::<BundleIndex>(content, super::BLOB_BYTES_MAX);
        let BundleIndex::V1 { resources } =
            decoded.map_err(|error| SessionError::BadIndex { digest, message: error.to_string() })?;
        let mut lookup = Vec::new();
        for resource in resources {
            if resource.sealed {
                fetch.sealed.insert(resource.digest);
            }
            if fetch.change.content.insert(resource.digest) {
                lookup.push(resource.digest);
            }
        }
        if !lookup.is_empty() {
            fetch.lookups += 1;
            self.actions.push_back(AgentAction::Lookup(lookup));
        }
        Ok(())
    }

    /// Asks for the next batch, or hands out the checkpoint when nothing is missing.
    fn advance(&mut self) {
        let Some(fetch) = &mut self.pending else { return };
        if self.checkpointing || !fetch.asked.is_empty() {
            return;
        }
        if !fetch.want.is_empty() {
            let count = fetch.want.len().min(WANT_MAX);
            let digests: Vec<Digest> = fetch.want.drain(..count).collect();
            fetch.asked.extend(digests.iter().copied());
            self.actions.push_back(AgentAction::Blobs(BlobRequest::Want { digests }));
            return;
        }
        if fetch.indexes_open.is_empty() && fetch.lookups == 0 {
            fetch.change.content.extend(fetch.indexes_done.iter().copied());
            self.checkpointing = true;
            self.actions.push_back(AgentAction::Checkpoint(fetch.change.clone()));
        }
    }

    /// The change of [`AgentAction::Checkpoint`] is durable.
    pub fn handle_checkpointed(&mut self) {
        let Some(fetch) = self.pending.take() else { return };
        self.checkpointing = false;
        self.have = (fetch.change.epoch, fetch.change.to);
        self.say_have();
    }

    /// A frame of the receipts stream.
    pub fn handle_receipt_reply(&mut self, reply: &ReceiptReply) {
        self.actions.push_back(match reply {
            ReceiptReply::Committed { up_to } => AgentAction::Committed(*up_to),
            ReceiptReply::Busy => AgentAction::Busy,
        });
    }

    fn say_have(&mut self) {
        let (epoch, generation) = self.have;
        self.actions.push_back(AgentAction::Control(AgentControl::Have { epoch, generation }));
    }
}
