//! The hub's side: admits, answers what the agent has with what it lacks, takes receipts. One delta is in flight at a time.

use std::collections::VecDeque;

use super::{SessionError, assembly::Assembly};
use crate::{
    handshake::{self, Agreed},
    ids::{Digest, Epoch, Generation, Incarnation, NamespacedName, ReceiptSeq},
    json::Json,
    message::{
        AgentControl, BlobRequest, Delta, GoAway, Hello, HubControl, Receipt, ReceiptReply, ReceiptUpload, WANT_MAX,
    },
};

/// Receipts in one upload (DESIGN.md section 5: at most 500 per entry).
const RECEIPTS_MAX: usize = 500;

/// What the shell does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HubAction {
    /// Send on the control stream.
    Control(HubControl),
    /// Send on the receipts stream.
    ReceiptReply(ReceiptReply),
    /// The agent has said hello; check its identity against the state, then call [`HubSession::handle_admitted`] or close.
    Admit {
        /// Of this process of the agent.
        incarnation: Incarnation,
        /// What both speak.
        agreed: Agreed,
    },
    /// The agent has this on its disk.
    Acknowledged {
        /// Epoch.
        epoch: Epoch,
        /// Generation.
        generation: Generation,
    },
    /// Compute the delta from here and answer with [`HubSession::handle_delta`].
    Delta {
        /// What the agent has.
        epoch: Epoch,
        /// What the agent has.
        generation: Generation,
    },
    /// Send these blobs, in this order, on the blobs stream: only what the agent's assignments reference.
    Serve(Vec<Digest>),
    /// Propose these; answer with [`HubSession::handle_committed`] or [`HubSession::handle_busy`].
    Commit(Vec<(ReceiptSeq, Receipt)>),
    /// Store a detail whose content has its address.
    StoreDetail {
        /// Its address.
        digest: Digest,
        /// JSON of [`crate::message::Detail`].
        content: Vec<u8>,
    },
    /// What the agent says about its cluster.
    Facts(Json),
    /// Sign a new certificate for this request (DER), if the key is still the agent's.
    Renew(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    AwaitHello,
    Admitting,
    Ready,
}

/// The hub's half of a session.
#[derive(Debug)]
pub struct HubSession {
    hello: Hello,
    hub: u64,
    phase: Phase,
    /// What the agent last said it has.
    have: Option<(Epoch, Generation)>,
    /// The newest that the state has for this cluster.
    current: (Epoch, Generation),
    /// A delta is being computed or is on its way.
    in_flight: bool,
    detail: Assembly,
    /// Of the roots and hubs that the agent has, as far as this session knows.
    trust: Option<Digest>,
    actions: VecDeque<HubAction>,
}

impl HubSession {
    /// A session over fresh streams of hub node `hub`; `current` is the newest desired state of the cluster.
    #[must_use]
    pub const fn new(hello: Hello, hub: u64, epoch: Epoch, generation: Generation) -> Self {
        Self {
            hello,
            hub,
            phase: Phase::AwaitHello,
            have: None,
            current: (epoch, generation),
            in_flight: false,
            detail: Assembly::new(),
            trust: None,
            actions: VecDeque::new(),
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<HubAction> {
        self.actions.pop_front()
    }

    /// A control message of the agent.
    ///
    /// # Errors
    /// [`SessionError`] when the agent breaks the protocol.
    pub fn handle_control(&mut self, message: AgentControl) -> Result<(), SessionError> {
        match (self.phase, message) {
            (Phase::AwaitHello, AgentControl::Hello { hello, incarnation }) => {
                let agreed = handshake::agree(&self.hello, &hello)?;
                self.trust = super::known_trust(&hello);
                self.phase = Phase::Admitting;
                self.actions.push_back(HubAction::Admit { incarnation, agreed });
                Ok(())
            }
            (Phase::AwaitHello | Phase::Admitting, _) => {
                Err(SessionError::Unexpected { message: "control message", phase: "waiting for the hello" })
            }
            (Phase::Ready, AgentControl::Hello { .. }) => {
                Err(SessionError::Unexpected { message: "hello", phase: "in session" })
            }
            (Phase::Ready, AgentControl::Have { epoch, generation }) => {
                self.have = Some((epoch, generation));
                self.in_flight = false;
                self.actions.push_back(HubAction::Acknowledged { epoch, generation });
                self.advance();
                Ok(())
            }
            (Phase::Ready, AgentControl::Facts { facts }) => {
                self.actions.push_back(HubAction::Facts(facts));
                Ok(())
            }
            (Phase::Ready, AgentControl::Renew { signing_request }) => {
                self.actions.push_back(HubAction::Renew(signing_request));
                Ok(())
            }
        }
    }

    /// The state admits the agent.
    pub fn handle_admitted(&mut self) {
        if self.phase == Phase::Admitting {
            self.phase = Phase::Ready;
            let hello = HubControl::Hello { hello: self.hello.clone(), hub: self.hub, epoch: self.current.0 };
            self.actions.push_back(HubAction::Control(hello));
        }
    }

    /// The state has a newer desired state for the cluster.
    pub fn handle_changed(&mut self, epoch: Epoch, generation: Generation) {
        self.current = self.current.max((epoch, generation));
        self.advance();
    }

    /// What everybody trusts, and where the hubs are: told unless the agent has exactly this. Ignored before admission.
    pub fn handle_trust(&mut self, roots: &str, hubs: &[String]) {
        let digest = super::trust_digest(roots, hubs);
        if self.phase == Phase::Ready && self.trust != Some(digest) {
            self.trust = Some(digest);
            let trust = HubControl::Trust { roots: roots.to_owned(), hubs: hubs.to_vec() };
            self.actions.push_back(HubAction::Control(trust));
        }
    }

    /// The agent should leave for another hub. Ignored before admission: such an agent is refused instead.
    pub fn handle_leave(&mut self, reason: GoAway) {
        if self.phase == Phase::Ready {
            self.actions.push_back(HubAction::Control(HubControl::GoAway { reason }));
        }
    }

    /// Somebody asked that the agent compares an application again.
    pub fn handle_refresh(&mut self, application: NamespacedName, hard: bool) {
        if self.phase == Phase::Ready {
            self.actions.push_back(HubAction::Control(HubControl::Refresh { application, hard }));
        }
    }

    /// Answer to [`HubAction::Delta`]: the parts, the last one complete.
    pub fn handle_delta(&mut self, parts: Vec<Delta>) {
        if parts.is_empty() {
            self.in_flight = false;
        }
        self.actions.extend(parts.into_iter().map(|part| HubAction::Control(HubControl::Desired(part))));
    }

    /// A frame of the blobs stream.
    ///
    /// # Errors
    /// [`SessionError`] before admission, or when too much is asked at once.
    pub fn handle_blob_request(&mut self, request: BlobRequest) -> Result<(), SessionError> {
        self.admitted("blob request")?;
        let BlobRequest::Want { digests } = request;
        if digests.len() > WANT_MAX {
            let (size, limit) = (digests.len() as u64, WANT_MAX as u64);
            return Err(SessionError::TooLarge { what: "blob request", size, limit });
        }
        self.actions.push_back(HubAction::Serve(digests));
        Ok(())
    }

    /// A frame of the receipts stream.
    ///
    /// # Errors
    /// [`SessionError`] before admission, when too much comes at once, or when a detail does not match its address.
    pub fn handle_receipts(&mut self, upload: ReceiptUpload) -> Result<(), SessionError> {
        self.admitted("receipts")?;
        match upload {
            ReceiptUpload::Receipts { receipts } => {
                if receipts.len() > RECEIPTS_MAX {
                    let (size, limit) = (receipts.len() as u64, RECEIPTS_MAX as u64);
                    return Err(SessionError::TooLarge { what: "receipts", size, limit });
                }
                self.actions.push_back(HubAction::Commit(receipts));
            }
            ReceiptUpload::Detail { digest, offset, total, content } => {
                if let Some((digest, content)) = self.detail.add(digest, offset, total, content)? {
                    if Digest::of(&content) != digest {
                        return Err(SessionError::WrongContent(digest));
                    }
                    self.actions.push_back(HubAction::StoreDetail { digest, content });
                }
            }
        }
        Ok(())
    }

    /// Receipts up to this number are committed.
    pub fn handle_committed(&mut self, up_to: ReceiptSeq) {
        self.actions.push_back(HubAction::ReceiptReply(ReceiptReply::Committed { up_to }));
    }

    /// Receipts could not be committed now.
    pub fn handle_busy(&mut self) {
        self.actions.push_back(HubAction::ReceiptReply(ReceiptReply::Busy));
    }

    const fn admitted(&self, message: &'static str) -> Result<(), SessionError> {
        match self.phase {
            Phase::Ready => Ok(()),
            _ => Err(SessionError::Unexpected { message, phase: "not admitted" }),
        }
    }

    fn advance(&mut self) {
        let Some((epoch, generation)) = self.have else { return };
        if self.phase == Phase::Ready && !self.in_flight && (epoch, generation) != self.current {
            self.in_flight = true;
            self.actions.push_back(HubAction::Delta { epoch, generation });
        }
    }
}
