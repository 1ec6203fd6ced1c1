//! One session: the protocol's machine between three streams, the state and the blob store.
//!
//! One task reads all three streams: an idle session is nothing but that task and what QUIC keeps for it. Only sending blobs
//! has a task of its own while there are some, so that a large one delays nothing else. While the outbox works on receipts the
//! receipts stream is not read: that is the back-pressure.

mod blobs;

use std::{collections::VecDeque, time::Duration};

use anyhow::{Context as _, bail};
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use windlass_hub_core::{Command, command::ReceiptBatch, desired};
use windlass_protocol::{
    handshake,
    ids::{Digest, Incarnation, ReceiptSeq},
    message::{AgentControl, BlobRequest, GoAway, HubControl, Receipt, ReceiptUpload, Retry, StreamOpen},
    session::{HubAction, HubSession},
};
use windlass_transport::{
    endpoint::Connection,
    identity::{PeerIdentity, SubjectKey},
    stream::{FrameReceiver, FrameSender},
};

use self::blobs::BlobStream;
use super::{
    GOODBYE, Gateway, SessionCommand,
    enrol::positive,
    outbox::{Admission, Verdict},
    registry::Registration,
};
use crate::{replica::wall_clock, store::blobs::BlobLease};

/// Details kept from collection per session: far more than arrive between two receipts.
const DETAILS_LEASED_MAX: usize = 1_000;
/// The three streams must be open within this time.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);
/// An agent that was sent away has this long to go.
const LEAVE_DEADLINE: Duration = Duration::from_secs(5);
/// A fresh read, before an agent is refused for good.
const BARRIER: Duration = Duration::from_secs(2);
/// Longest timer: beyond every certificate.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

struct Streams {
    control: FrameSender,
    receipts: FrameSender,
    from_control: FrameReceiver,
    from_blobs: FrameReceiver,
    from_receipts: FrameReceiver,
}

/// What the outbox has answered.
enum Answer {
    Admitted(Verdict),
    Committed(ReceiptSeq, Verdict),
}

/// The agent is not admitted.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
struct Refusal {
    reason: String,
    retry: Retry,
}

struct Session {
    gateway: Gateway,
    registration: Registration,
    cluster: String,
    serial: [u8; 16],
    key: Digest,
    source: String,
    machine: HubSession,
    incarnation: Incarnation,
    admitted: bool,
    /// The outbox works on something for this session; at most one thing at a time.
    waiting: Option<BoxFuture<'static, Answer>>,
    blobs: BlobStream,
    /// Details whose receipts are not committed yet: they must not be collected.
    details: VecDeque<BlobLease>,
    /// Nothing else ends a connection whose certificate runs out.
    expiry: Instant,
    leave: Option<(Instant, GoAway)>,
    gone_by: Option<Instant>,
}

/// Serves one agent until either side ends it, or `force`.
pub(super) async fn serve(
    gateway: &Gateway,
    connection: &Connection,
    cluster: &str,
    identity: &PeerIdentity,
    force: CancellationToken,
) -> anyhow::Result<()> {
    let registration = gateway.registry.register(cluster);
    let (mut streams, blobs) = tokio::time::timeout(OPEN_DEADLINE, open(connection))
        .await
        .context("the streams were not opened in time")??;
    let left = Duration::from_secs(identity.not_after_unix.saturating_sub(wall_clock().as_secs())).min(FOREVER);
    let mut session = Session {
        machine: machine(gateway, cluster),
        gateway: gateway.clone(),
        registration,
        cluster: cluster.to_owned(),
        serial: identity.serial.to_be_bytes(),
        key: Digest(identity.key_digest),
        source: connection.remote_address().to_string(),
        incarnation: Incarnation::ZERO,
        admitted: false,
        waiting: None,
        blobs: BlobStream::new(blobs),
        details: VecDeque::new(),
        expiry: Instant::now() + left,
        leave: None,
        gone_by: None,
    };
    let result = session.drive(&mut streams, &force).await;
    if let (Err(error), false) = (&result, session.admitted) {
        let (reason, retry) = match error.downcast_ref::<Refusal>() {
            Some(refusal) => (refusal.reason.clone(), refusal.retry),
            None => (error.to_string(), Retry::Later),
        };
        let _ = streams.control.send(&HubControl::Refused { reason, retry }).await;
    }
    let (admitted, incarnation) = (session.admitted, session.incarnation);
    drop(session);
    if admitted && !gateway.registry.holds(cluster) {
        gateway.outbox.disconnected(cluster, incarnation);
    }
    let _ = streams.control.finish().await;
    let _ = tokio::time::timeout(GOODBYE, streams.control.delivered()).await;
    result
}

fn machine(gateway: &Gateway, cluster: &str) -> HubSession {
    let state = gateway.replica.state();
    let generation = state.cluster(cluster).map(|record| record.generation).unwrap_or_default();
    let hello = handshake::hello(concat!("windlass-hub/", env!("CARGO_PKG_VERSION")));
    HubSession::new(hello, gateway.node, state.meta().epoch, generation)
}

async fn open(connection: &Connection) -> anyhow::Result<(Streams, FrameSender)> {
    let (mut control, mut receipts, mut blobs) = (None, None, None);
    while control.is_none() || receipts.is_none() || blobs.is_none() {
        let (sender, mut receiver) = connection.accept_bi().await?;
        match receiver.recv::<StreamOpen>().await?.context("a stream ended at once")? {
            StreamOpen::Control if control.is_none() => control = Some((sender, receiver)),
            StreamOpen::Blobs if blobs.is_none() => blobs = Some((sender, receiver)),
            StreamOpen::Receipts if receipts.is_none() => receipts = Some((sender, receiver)),
            other => bail!("stream {other:?} was opened twice, or has no place in a session"),
        }
    }
    let (Some((control, from_control)), Some((receipts, from_receipts)), Some((blobs, from_blobs))) =
        (control, receipts, blobs)
    else {
        bail!("a stream is missing");
    };
    Ok((Streams { control, receipts, from_control, from_blobs, from_receipts }, blobs))
}

impl Session {
    async fn drive(&mut self, streams: &mut Streams, force: &CancellationToken) -> anyhow::Result<()> {
        loop {
            self.act(streams).await?;
            let timer = self.timer();
            tokio::select! {
                biased;
                () = force.cancelled() => {
                    if !self.admitted {
                        return Err(refused("the hub shuts down"));
                    }
                    streams.control.send(&HubControl::GoAway { reason: GoAway::Drain }).await?;
                    return Ok(());
                }
                () = sleep_until(timer) => self.time_passed()?,
                command = self.registration.next() => {
                    self.command(command.context("the session did not keep up with its commands")?)?;
                }
                answer = answer(&mut self.waiting), if self.waiting.is_some() => {
                    self.waiting = None;
                    self.answered(answer).await?;
                }
                sent = self.blobs.sent(), if self.blobs.is_sending() => sent.context("blobs")?,
                frame = streams.from_control.recv::<AgentControl>() => {
                    // An agent that was sent away ends the session by closing.
                    let Some(frame) = frame? else { bail!("the agent closed the control stream") };
                    self.machine.handle_control(frame)?;
                }
                frame = streams.from_blobs.recv::<BlobRequest>(), if self.blobs.has_room() => {
                    self.machine.handle_blob_request(frame?.context("the agent closed the blobs stream")?)?;
                }
                frame = streams.from_receipts.recv::<ReceiptUpload>(), if self.waiting.is_none() => {
                    self.machine.handle_receipts(frame?.context("the agent closed the receipts stream")?)?;
                }
            }
        }
    }

    fn timer(&self) -> Instant {
        let leave = self.leave.map(|(at, _)| at);
        [Some(self.expiry), leave, self.gone_by].into_iter().flatten().min().unwrap_or(self.expiry)
    }

    fn time_passed(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        if self.expiry <= now {
            bail!("the agent's certificate has expired");
        }
        if self.gone_by.is_some_and(|by| by <= now) {
            bail!("the agent was sent away and did not go");
        }
        if let Some((_, reason)) = self.leave.take_if(|(at, _)| *at <= now) {
            if !self.admitted {
                return Err(refused("this hub sends its agents to others"));
            }
            self.machine.handle_leave(reason);
            self.gone_by = Some(now + LEAVE_DEADLINE);
        }
        Ok(())
    }

    fn command(&mut self, command: SessionCommand) -> anyhow::Result<()> {
        match command {
            SessionCommand::Disconnect { keep_serial, reason } => {
                if keep_serial != Some(self.serial) {
                    bail!("{reason}");
                }
            }
            SessionCommand::Look => {
                let state = self.gateway.replica.state();
                if let Some(record) = state.cluster(&self.cluster) {
                    self.machine.handle_changed(state.meta().epoch, record.generation);
                }
            }
            SessionCommand::Trust => self.tell_trust(),
            SessionCommand::Refresh { application, hard } => self.machine.handle_refresh(application, hard),
            SessionCommand::Leave { reason, after } => {
                self.leave.get_or_insert_with(|| (Instant::now() + after, reason));
            }
        }
        Ok(())
    }

    fn tell_trust(&mut self) {
        let (roots, hubs) = self.gateway.trusted(&self.gateway.replica.state());
        self.machine.handle_trust(&roots, &hubs);
    }

    async fn answered(&mut self, answer: Answer) -> anyhow::Result<()> {
        match answer {
            Answer::Admitted(Verdict::Taken) => {
                self.admitted = true;
                self.registration.admitted(self.incarnation);
                self.machine.handle_admitted();
                self.tell_trust();
                // What changed since the session began.
                self.command(SessionCommand::Look)
            }
            Answer::Admitted(Verdict::Refused(_)) => self.admissible().await,
            Answer::Admitted(Verdict::Unknown(reason)) => Err(refused(&reason)),
            Answer::Committed(up_to, Verdict::Taken) => {
                self.machine.handle_committed(up_to);
                Ok(())
            }
            Answer::Committed(_, Verdict::Refused(reason) | Verdict::Unknown(reason)) => {
                // Later receipts are on their way already, and committing them would acknowledge these. Only a new session
                // begins again with everything that waits.
                bail!("receipts were not taken: {reason}")
            }
        }
    }

    /// Does what the machine asks for, until it asks for nothing.
    async fn act(&mut self, streams: &mut Streams) -> anyhow::Result<()> {
        while let Some(action) = self.machine.poll() {
            match action {
                HubAction::Control(message) => streams.control.send(&message).await?,
                HubAction::ReceiptReply(reply) => streams.receipts.send(&reply).await?,
                HubAction::Admit { incarnation, .. } => self.admit(incarnation).await?,
                HubAction::Acknowledged { epoch, generation } => {
                    self.gateway.outbox.acknowledged(&self.cluster, epoch, generation);
                }
                HubAction::Delta { epoch, generation } => {
                    let state = self.gateway.replica.state();
                    let parts = desired::delta(&state, &self.cluster, epoch, generation);
                    self.machine.handle_delta(parts);
                }
                HubAction::Serve(digests) => self.blobs.serve(&self.gateway, &self.cluster, digests),
                HubAction::Commit(receipts) => self.commit(receipts),
                HubAction::StoreDetail { digest, content } => {
                    let bundles = self.gateway.bundles.clone();
                    let lease = bundles.put_detail(digest, content).await.context("the detail could not be stored")?;
                    // The oldest have long been named by a receipt, or never will be.
                    if self.details.len() >= DETAILS_LEASED_MAX {
                        self.details.pop_front();
                    }
                    self.details.push_back(lease);
                }
                HubAction::Facts(facts) => self.gateway.outbox.facts(&self.cluster, facts),
                HubAction::Renew(signing_request) => {
                    let chain = self.renew(&signing_request).await?;
                    streams.control.send(&HubControl::Certificate { chain }).await?;
                }
            }
        }
        Ok(())
    }

    async fn admit(&mut self, incarnation: Incarnation) -> anyhow::Result<()> {
        if self.gateway.is_cut_off() {
            return Err(refused("this hub has lost the others"));
        }
        self.incarnation = incarnation;
        self.admissible().await?;
        let (outbox, cluster) = (self.gateway.outbox.clone(), self.cluster.clone());
        let admission = Admission { cluster, incarnation, serial: self.serial, key: self.key };
        self.waiting = Some(Box::pin(async move { Answer::Admitted(outbox.connected(admission).await) }));
        Ok(())
    }

    /// "Never" is final for the agent: a replica that is behind may not know yet what another hub has signed.
    async fn admissible(&mut self) -> anyhow::Result<()> {
        let look = || {
            let state = self.gateway.replica.state();
            state.admit_key(&self.cluster, &self.serial, &self.key, self.incarnation)
        };
        if look().is_ok() {
            return Ok(());
        }
        match tokio::time::timeout(BARRIER, self.gateway.replica.read_barrier()).await {
            Ok(Ok(())) => {
                look().map_err(|refusal| Refusal { reason: refusal.to_string(), retry: refusal.retry() }.into())
            }
            Ok(Err(error)) => Err(refused(&error.to_string())),
            Err(_) => Err(refused("the hub could not read what is current in time")),
        }
    }

    fn commit(&mut self, receipts: Vec<(ReceiptSeq, Receipt)>) {
        let Some(up_to) = receipts.iter().map(|(seq, _)| *seq).max() else { return };
        let batch = ReceiptBatch {
            cluster: self.cluster.clone(),
            incarnation: self.incarnation,
            up_to,
            receipts: receipts.into_iter().map(|(_, receipt)| receipt).collect(),
        };
        let outbox = self.gateway.outbox.clone();
        self.waiting = Some(Box::pin(async move { Answer::Committed(up_to, outbox.receipts(batch).await) }));
    }

    async fn renew(&mut self, signing_request: &[u8]) -> anyhow::Result<String> {
        let key = SubjectKey::from_signing_request(signing_request)?;
        let serial = positive(self.gateway.replica.random_bytes()?);
        let (cluster, subject) = (self.cluster.clone(), format!("cluster:{}", self.cluster));
        let command = Command::RenewCertificate { cluster, key: Digest(key.digest()), serial };
        let reply = self.gateway.replica.propose(&subject, &self.source, Vec::new(), command).await?;
        let (name, uid) = reply.cluster.context("the hub's answer names no cluster")?;
        Ok(self.gateway.trust.agent_certificate(&key, &name, &uid, serial, wall_clock())?)
    }
}

/// The agent should try another hub, or come again.
fn refused(reason: &str) -> anyhow::Error {
    Refusal { reason: reason.to_owned(), retry: Retry::Later }.into()
}

async fn answer(waiting: &mut Option<BoxFuture<'static, Answer>>) -> Answer {
    match waiting {
        Some(waiting) => waiting.await,
        None => std::future::pending().await,
    }
}
