//! The way to one peer: a cached connection, dialled when a call needs it, and bounded calls over it.
//!
//! ```text
//! Idle --call--> Dialling --hello--> Up --closed--> Idle
//!                   '---failed--> Down --call after 100 ms--> Dialling
//! ```
//!
//! While a peer is down, calls fail at once with the reason of the last attempt; nothing here backs off for longer,
//! since an election must not wait for it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncRead;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, timeout, timeout_at};
use windlass_protocol::codec::CodecError;
use windlass_transport::endpoint::{CloseCode, Connection};
use windlass_transport::stream::{FrameReceiver, FrameSender, StreamError};

use super::hello::{Greeted, Hello, Reply};
use super::limits::{self, BULK_CALLS_MAX, RAFT_CALLS_MAX, SERVICE_CALLS_MAX, SNAPSHOT_STREAMS_MAX};
use super::notes::Way;
use super::serve::REFUSED;
use super::wire::{Answer, Class};
use super::{Shared, serve};
use crate::raft::{LinkError, NodeId};

/// What is known of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer.
    pub node: NodeId,
    /// Whether there is a connection to it.
    pub connected: bool,
    /// Its round trip, when connected.
    pub rtt: Option<Duration>,
    /// Its build, when connected.
    pub software: Option<String>,
    /// Why it was not reached at the last attempt.
    pub problem: Option<String>,
}

/// One peer. Lives as long as the transport.
pub(super) struct Slot {
    node: NodeId,
    /// Also the lock of the state machine above.
    link: watch::Sender<Link>,
    addresses: Mutex<Addresses>,
    raft: Semaphore,
    service: Semaphore,
    bulk: Semaphore,
    snapshots: Semaphore,
}

#[derive(Debug)]
enum Link {
    Idle,
    Dialling { attempt: u64 },
    Up { attempt: u64, connection: Connection, software: String },
    Down { since: Instant, error: LinkError },
}

#[derive(Debug, Default)]
struct Addresses {
    /// From the membership entry, as Raft knows it.
    member: Option<String>,
    /// Where it answered last.
    good: Option<String>,
    /// Where it called from: hubs dial from the socket that they listen on.
    seen: Option<String>,
    attempts: u64,
}

/// What a call has to do next.
enum Step {
    Use(Connection),
    Fail(LinkError),
    Dial(u64),
    Wait,
}

impl Slot {
    pub(super) fn new(node: NodeId) -> Self {
        Self {
            node,
            link: watch::Sender::new(Link::Idle),
            addresses: Mutex::default(),
            raft: Semaphore::new(RAFT_CALLS_MAX),
            service: Semaphore::new(SERVICE_CALLS_MAX),
            bulk: Semaphore::new(BULK_CALLS_MAX),
            snapshots: Semaphore::new(SNAPSHOT_STREAMS_MAX),
        }
    }

    /// Notes where the peer is; a new address ends the connection to the old one.
    pub(super) fn move_to(&self, address: &str) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let moved = addresses.member.as_deref().is_some_and(|known| known != address);
        addresses.member = Some(address.to_owned());
        if moved {
            addresses.good = None;
            drop(addresses);
            tracing::info!(peer = self.node, address, "peer has a new address");
            self.redial("the peer has a new address");
        }
    }

    /// Notes where the peer called from, for a hub that has not heard of it otherwise.
    pub(super) fn seen_at(&self, address: SocketAddr) {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).seen = Some(address.to_string());
    }

    /// Ends the connection; the next call dials.
    pub(super) fn redial(&self, reason: &str) {
        self.link.send_modify(|link| {
            if let Link::Up { connection, .. } = std::mem::replace(link, Link::Idle) {
                connection.close(CloseCode::DONE, reason);
            }
        });
    }

    /// Lets go of the connection for good.
    pub(super) fn shut_down(&self) {
        let error = LinkError::Unreachable(SHUT_DOWN.to_owned());
        self.link.send_replace(Link::Down { since: Instant::now(), error });
    }

    pub(super) fn status(&self) -> PeerStatus {
        let (mut rtt, mut software, mut problem) = (None, None, None);
        match &*self.link.borrow() {
            Link::Up { connection, software: theirs, .. } if connection.close_reason().is_none() => {
                rtt = Some(connection.rtt());
                software = Some(theirs.clone());
            }
            Link::Down { error, .. } => problem = Some(error.to_string()),
            Link::Idle | Link::Dialling { .. } | Link::Up { .. } => {}
        }
        PeerStatus { node: self.node, connected: rtt.is_some(), rtt, software, problem }
    }

    /// One request, one answer, within `limit`.
    pub(super) async fn call(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        class: Class,
        request: &[u8],
        limit: Duration,
    ) -> Result<Bytes, LinkError> {
        let deadline = Instant::now() + limit;
        let _place = self.place(class, deadline).await?;
        let connection = self.connection(shared, deadline).await?;
        let exchange = async {
            let (mut send, mut receive) = connection.open_bi().await.map_err(failed)?;
            send.set_priority(class.priority());
            send.send(&class.request(request)).await.map_err(failed)?;
            send.finish().await.map_err(failed)?;
            answer(&mut receive).await
        };
        timeout_at(deadline, exchange)
            .await
            .unwrap_or_else(|_| Err(LinkError::Failed(format!("node {} did not answer within {limit:?}", self.node))))
    }

    /// One header with content, and the answer. Ends when it makes no progress.
    pub(super) async fn stream(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        header: &[u8],
        content: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<Bytes, LinkError> {
        let deadline = Instant::now() + limits::PROGRESS;
        let _place = self.place(Class::Snapshot, deadline).await?;
        let connection = self.connection(shared, deadline).await?;
        let (send, mut receive) = connection.open_bi().await.map_err(failed)?;
        let mut send = Unfinished(Some(send));
        let sending = async {
            let Some(stream) = send.0.as_mut() else { return Ok(()) };
            stream.set_priority(Class::Snapshot.priority());
            stream.send(&Class::Snapshot.request(header)).await?;
            stream.send_content(content).await?;
            // Delivered or not: it is whole, and no longer to be reset.
            send.0 = None;
            Ok(())
        };
        // Both at once: a peer that does not want the rest says so early.
        let answering = async {
            loop {
                match timeout(limits::PROGRESS, receive.recv::<Answer>()).await {
                    Ok(Ok(Some(Answer::Working))) => {}
                    Ok(frame) => return of_answer(frame),
                    Err(_) => {
                        let reason = format!("node {} makes no progress with the snapshot", self.node);
                        return Err(LinkError::Failed(reason));
                    }
                }
            }
        };
        tokio::pin!(sending, answering);
        tokio::select! {
            answered = &mut answering => answered,
            sent = &mut sending => match sent {
                // Stopped: the answer says why.
                Ok(()) | Err(StreamError::Stopped { .. }) => answering.await,
                Err(error) => Err(failed(error)),
            },
        }
    }

    async fn place(&self, class: Class, deadline: Instant) -> Result<SemaphorePermit<'_>, LinkError> {
        let (places, limit, most) = match class {
            Class::Raft => (&self.raft, "peers.raft_calls", RAFT_CALLS_MAX),
            Class::Service => (&self.service, "peers.service_calls", SERVICE_CALLS_MAX),
            Class::Bulk => (&self.bulk, "peers.bulk_calls", BULK_CALLS_MAX),
            Class::Snapshot => (&self.snapshots, "peers.snapshot_streams", SNAPSHOT_STREAMS_MAX),
        };
        match timeout_at(deadline, places.acquire()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(LinkError::Failed(format!("{most} calls to node {} are under way (limit {limit})", self.node))),
        }
    }

    async fn connection(self: &Arc<Self>, shared: &Arc<Shared>, deadline: Instant) -> Result<Connection, LinkError> {
        let mut changes = self.link.subscribe();
        loop {
            match self.step() {
                Step::Use(connection) => return Ok(connection),
                Step::Fail(error) => return Err(error),
                Step::Dial(_) if shared.socket().is_none() => self.shut_down(),
                Step::Dial(attempt) => {
                    // Not in this call's own task: an impatient caller must not cut the attempt short for others.
                    shared.runtime.spawn(Arc::clone(self).keep(Arc::clone(shared), attempt));
                }
                Step::Wait => {}
            }
            if !matches!(timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {
                return Err(LinkError::Unreachable(format!("node {} is still being dialled", self.node)));
            }
        }
    }

    fn step(&self) -> Step {
        let mut step = Step::Wait;
        self.link.send_if_modified(|link| {
            match link {
                Link::Up { connection, .. } if connection.close_reason().is_none() => {
                    step = Step::Use(connection.clone());
                    return false;
                }
                Link::Down { since, error } if since.elapsed() < limits::RETRY_AFTER => {
                    step = Step::Fail(error.clone());
                    return false;
                }
                Link::Dialling { .. } => return false,
                Link::Up { .. } | Link::Down { .. } | Link::Idle => {}
            }
            let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            addresses.attempts += 1;
            step = Step::Dial(addresses.attempts);
            *link = Link::Dialling { attempt: addresses.attempts };
            true
        });
        step
    }

    /// Dials once; when that succeeds, stays until the connection ends.
    async fn keep(self: Arc<Self>, shared: Arc<Shared>, attempt: u64) {
        let established = self.establish(&shared).await;
        let mut ours = false;
        let up = self.link.send_if_modified(|link| {
            // Else the address changed meanwhile.
            ours = matches!(link, Link::Dialling { attempt: current } if *current == attempt);
            if ours {
                *link = match &established {
                    Ok((connection, Greeted { software })) => {
                        Link::Up { attempt, connection: connection.clone(), software: software.clone() }
                    }
                    Err(error) => Link::Down { since: Instant::now(), error: error.clone() },
                };
            }
            ours
        });
        let connection = match established {
            Ok((connection, _)) if up => connection,
            Ok((connection, _)) => return connection.close(CloseCode::DONE, "the peer has a new address"),
            Err(error) if ours => return shared.notes.trouble(Way::Out, self.node, &error.to_string()),
            Err(_) => return,
        };
        shared.notes.fine(Way::Out, self.node);
        tracing::info!(peer = self.node, address = %connection.remote_address(), "connected to peer");
        let end = connection.closed().await;
        tracing::info!(peer = self.node, reason = %end, "connection to peer ended");
        self.link.send_if_modified(|link| {
            let current = matches!(link, Link::Up { attempt: current, .. } if *current == attempt);
            if current {
                *link = Link::Idle;
            }
            current
        });
    }

    /// Tries the peer's addresses, each once.
    async fn establish(&self, shared: &Arc<Shared>) -> Result<(Connection, Greeted), LinkError> {
        let mut error = LinkError::Unreachable(format!("the address of node {} is not known here", self.node));
        for address in self.candidates(shared) {
            let attempt = self.attempt(shared, &address);
            match timeout(limits::DIAL, attempt).await {
                Ok(Ok(greeted)) => {
                    self.addresses.lock().unwrap_or_else(PoisonError::into_inner).good = Some(address);
                    return Ok(greeted);
                }
                Ok(Err(refused)) => error = refused,
                Err(_) => {
                    error = LinkError::Unreachable(format!("no answer from node {} at {address} (udp)", self.node));
                }
            }
        }
        Err(error)
    }

    /// Where it answered last, where Raft knows it, where the directory knows it, where it called from.
    fn candidates(&self, shared: &Shared) -> Vec<String> {
        let listed = (shared.directory)(self.node);
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let mut candidates: Vec<String> = Vec::new();
        for address in [&addresses.good, &addresses.member, &listed, &addresses.seen].into_iter().flatten() {
            if !address.is_empty() && !candidates.contains(address) {
                candidates.push(address.clone());
            }
        }
        candidates
    }

    async fn attempt(&self, shared: &Shared, address: &str) -> Result<(Connection, Greeted), LinkError> {
        let tls = shared.client_tls().expecting(&self.node.to_string());
        let dialer = shared.socket().ok_or_else(|| LinkError::Unreachable(SHUT_DOWN.to_owned()))?.dialer;
        let connection = dialer.dial(address, &tls).await.map_err(|error| LinkError::Unreachable(chain(&error)))?;
        let (mut send, mut receive) = connection.open_bi().await.map_err(failed)?;
        send.send(&Hello::new(&shared.identity, &shared.software)).await.map_err(failed)?;
        send.finish().await.map_err(failed)?;
        let reply = receive.recv_within::<Reply>(limits::HELLO).await.map_err(failed)?;
        let theirs = match reply {
            Some(Reply::Welcome(theirs)) => theirs,
            Some(Reply::Refused(reason)) => return Err(LinkError::Refused(reason)),
            None => return Err(LinkError::Failed(format!("node {} did not say who it is", self.node))),
        };
        let expected = (shared.expectations)(self.node);
        match theirs.check(&shared.identity, &shared.software, self.node, expected) {
            Ok(greeted) => Ok((connection, greeted)),
            Err(reason) => {
                connection.close(REFUSED, serve::shortened(&reason));
                Err(LinkError::Refused(reason))
            }
        }
    }
}

const SHUT_DOWN: &str = "this hub shuts down";

/// A stream that is reset unless it was finished: cut content must not look whole.
struct Unfinished(Option<FrameSender>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.0 {
            stream.reset(CloseCode::DEADLINE);
        }
    }
}

async fn answer(receive: &mut FrameReceiver) -> Result<Bytes, LinkError> {
    loop {
        let frame = receive.recv::<Answer>().await;
        if !matches!(frame, Ok(Some(Answer::Working))) {
            return of_answer(frame);
        }
    }
}

fn of_answer(frame: Result<Option<Answer>, StreamError>) -> Result<Bytes, LinkError> {
    match frame {
        Ok(Some(Answer::Done(bytes))) => Ok(bytes.into()),
        Ok(Some(Answer::Refused(reason))) => Err(LinkError::Refused(reason)),
        Ok(Some(Answer::Working) | None) => {
            Err(LinkError::Failed("the peer ended the stream without an answer".into()))
        }
        Err(error) => Err(failed(error)),
    }
}

fn failed(error: StreamError) -> LinkError {
    match &error {
        StreamError::Codec(CodecError::TooLong { length, limit }) => LinkError::Refused(format!(
            "{length} bytes are too many for a peer, the limit peers.frame_bytes is {limit}"
        )),
        StreamError::Codec(_) => LinkError::Refused(chain(&error)),
        _ => LinkError::Failed(chain(&error)),
    }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
