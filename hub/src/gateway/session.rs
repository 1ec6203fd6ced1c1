//! One session: the protocol's machine between three streams, the state and the blob store.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use windlass_hub_core::{Command, command::SessionChange, desired};
use windlass_protocol::{
    handshake,
    ids::{Digest, Incarnation, ReceiptSeq},
    json::Json,
    message::{
        AgentControl, BlobReply, BlobRequest, CHUNK_BYTES, GoAway, HubControl, Receipt, ReceiptUpload, Retry,
        StreamOpen,
    },
    session::{HubAction, HubSession},
};
use windlass_transport::{
    endpoint::Connection,
    identity::SubjectKey,
    stream::{FrameReceiver, FrameSender},
};

use super::{GOODBYE, Gateway, SessionCommand, enrol::positive};
use crate::{
    replica::{CommandError, wall_clock},
    store::blobs::BlobLease,
};

/// Details kept from collection per session: far more than arrive between two receipts.
const DETAILS_LEASED_MAX: usize = 1_000;
/// The three streams must be open within this time.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);
/// Frames read ahead per stream: enough to keep the stream busy while a batch is committed.
const FRAMES_AHEAD: usize = 4;
/// Requests for blobs that wait for the sender.
const SERVES_WAITING_MAX: usize = 8;

enum Incoming {
    Control(AgentControl),
    Blobs(BlobRequest),
    Receipts(ReceiptUpload),
    Ended(String),
}

struct Streams {
    control: FrameSender,
    receipts: FrameSender,
    blobs: mpsc::Sender<Vec<Digest>>,
    incoming: mpsc::Receiver<Incoming>,
}

struct Session<'a> {
    gateway: &'a Gateway,
    cluster: &'a str,
    serial: [u8; 16],
    machine: HubSession,
    incarnation: Incarnation,
    source: String,
    admitted: bool,
    /// Details whose receipts are not committed yet: they must not be collected.
    details: VecDeque<BlobLease>,
}

/// Serves one agent until either side ends it.
pub(super) async fn serve(
    gateway: &Gateway,
    connection: &Connection,
    cluster: &str,
    serial: [u8; 16],
    not_after_unix: u64,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let tasks = CancellationToken::new();
    let _end_tasks = tasks.clone().drop_guard();
    let (registration, mut commands) = gateway.registry.register(cluster);
    let mut streams = tokio::time::timeout(OPEN_DEADLINE, open(gateway, connection, cluster, &tasks))
        .await
        .context("the streams of the session were not opened in time")??;
    let state = gateway.replica.state();
    let generation = state.cluster(cluster).map(|record| record.generation).unwrap_or_default();
    let hello = handshake::hello(concat!("windlass-hub/", env!("CARGO_PKG_VERSION")));
    let mut session = Session {
        gateway,
        cluster,
        serial,
        machine: HubSession::new(hello, gateway.node, state.meta().epoch, generation),
        incarnation: Incarnation::ZERO,
        source: connection.remote_address().to_string(),
        admitted: false,
        details: VecDeque::new(),
    };
    drop(state);
    // Nothing else ends a connection whose certificate runs out.
    let left = not_after_unix.saturating_sub(wall_clock().as_secs());
    let expiry = tokio::time::sleep(Duration::from_secs(left));
    tokio::pin!(expiry);
    let result = loop {
        let step = tokio::select! {
            biased;
            () = shutdown.cancelled() => {
                let _ = streams.control.send(&HubControl::GoAway { reason: GoAway::Drain }).await;
                break Ok(());
            }
            () = &mut expiry => break Err(anyhow::anyhow!("the agent's certificate has expired")),
            command = commands.recv() => session.command(command),
            incoming = streams.incoming.recv() => session.incoming(incoming),
        };
        if let Err(error) = step {
            break Err(error);
        }
        if let Err(error) = session.act(&mut streams).await {
            break Err(error);
        }
    };
    let refused = result.as_ref().err().map(|error| error.to_string());
    if let (Some(reason), false) = (refused, session.admitted) {
        let _ = streams.control.send(&HubControl::Refused { reason, retry: Retry::Never }).await;
    }
    let _ = streams.control.finish().await;
    let _ = tokio::time::timeout(GOODBYE, streams.control.delivered()).await;
    drop(registration);
    if session.admitted {
        let change = SessionChange::Disconnected { cluster: cluster.to_owned(), incarnation: session.incarnation };
        session.report(change).await;
    }
    result
}

async fn open(
    gateway: &Gateway,
    connection: &Connection,
    cluster: &str,
    tasks: &CancellationToken,
) -> anyhow::Result<Streams> {
    let (frames, incoming) = mpsc::channel(FRAMES_AHEAD * 3);
    let (blobs, serve) = mpsc::channel(SERVES_WAITING_MAX);
    let (mut control, mut receipts, mut blob_sender) = (None, None, None);
    while control.is_none() || receipts.is_none() || blob_sender.is_none() {
        let (sender, mut receiver) = connection.accept_bi().await?;
        match receiver.recv::<StreamOpen>().await?.context("a stream ended at once")? {
            StreamOpen::Control if control.is_none() => {
                control = Some(sender);
                read(receiver, frames.clone(), Incoming::Control, tasks);
            }
            StreamOpen::Blobs if blob_sender.is_none() => {
                blob_sender = Some(sender);
                read(receiver, frames.clone(), Incoming::Blobs, tasks);
            }
            StreamOpen::Receipts if receipts.is_none() => {
                receipts = Some(sender);
                read(receiver, frames.clone(), Incoming::Receipts, tasks);
            }
            other => bail!("stream {other:?} was opened twice, or has no place in a session"),
        }
    }
    let (Some(control), Some(receipts), Some(sender)) = (control, receipts, blob_sender) else {
        bail!("a stream is missing");
    };
    let server = BlobServer { gateway: gateway.clone(), cluster: cluster.to_owned(), frames };
    let tasks = tasks.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = tasks.cancelled() => {}
            () = server.run(sender, serve) => {}
        }
    });
    Ok(Streams { control, receipts, blobs, incoming })
}

/// Reads a stream into the session's queue until it ends.
fn read<T: serde::de::DeserializeOwned + Send + 'static>(
    mut receiver: FrameReceiver,
    frames: mpsc::Sender<Incoming>,
    wrap: fn(T) -> Incoming,
    tasks: &CancellationToken,
) {
    let tasks = tasks.clone();
    tokio::spawn(async move {
        loop {
            let frame = tokio::select! {
                () = tasks.cancelled() => return,
                frame = receiver.recv::<T>() => frame,
            };
            let (frame, last) = match frame {
                Ok(Some(frame)) => (wrap(frame), false),
                Ok(None) => (Incoming::Ended("the agent closed a stream".to_owned()), true),
                Err(error) => (Incoming::Ended(error.to_string()), true),
            };
            if frames.send(frame).await.is_err() || last {
                return;
            }
        }
    });
}

impl Session<'_> {
    fn command(&mut self, command: Option<SessionCommand>) -> anyhow::Result<()> {
        match command {
            None => bail!("the session did not keep up with its commands"),
            Some(SessionCommand::Disconnect { keep_serial, reason }) => {
                if keep_serial != Some(self.serial) {
                    bail!("{reason}");
                }
            }
            Some(SessionCommand::Look) => {
                let state = self.gateway.replica.state();
                if let Some(record) = state.cluster(self.cluster) {
                    self.machine.handle_changed(state.meta().epoch, record.generation);
                }
            }
            Some(SessionCommand::Refresh { application, hard }) => {
                self.machine.handle_refresh(application, hard);
            }
        }
        Ok(())
    }

    fn incoming(&mut self, incoming: Option<Incoming>) -> anyhow::Result<()> {
        match incoming {
            None => bail!("the streams ended"),
            Some(Incoming::Ended(reason)) => bail!("{reason}"),
            Some(Incoming::Control(message)) => self.machine.handle_control(message)?,
            Some(Incoming::Blobs(request)) => self.machine.handle_blob_request(request)?,
            Some(Incoming::Receipts(upload)) => self.machine.handle_receipts(upload)?,
        }
        Ok(())
    }

    /// Does what the machine asks for, until it asks for nothing.
    async fn act(&mut self, streams: &mut Streams) -> anyhow::Result<()> {
        while let Some(action) = self.machine.poll() {
            match action {
                HubAction::Control(message) => streams.control.send(&message).await?,
                HubAction::ReceiptReply(reply) => streams.receipts.send(&reply).await?,
                HubAction::Admit { incarnation, .. } => self.admit(incarnation).await?,
                HubAction::Acknowledged { epoch, generation } => {
                    let cluster = self.cluster.to_owned();
                    self.report(SessionChange::Acknowledged { cluster, epoch, generation }).await;
                }
                HubAction::Delta { epoch, generation } => {
                    let state = self.gateway.replica.state();
                    let parts = desired::delta(&state, self.cluster, epoch, generation);
                    self.machine.handle_delta(parts);
                }
                HubAction::Serve(digests) => {
                    streams.blobs.send(digests).await.context("the blobs stream ended")?;
                }
                HubAction::Commit(receipts) => self.commit(receipts).await?,
                HubAction::StoreDetail { digest, content } => {
                    let bundles = self.gateway.bundles.clone();
                    let lease = bundles.put_detail(digest, content).await.context("the detail could not be stored")?;
                    // The oldest have long been named by a receipt, or never will be.
                    if self.details.len() >= DETAILS_LEASED_MAX {
                        self.details.pop_front();
                    }
                    self.details.push_back(lease);
                }
                HubAction::Facts(facts) => self.facts(facts).await,
                HubAction::Renew(signing_request) => {
                    let chain = self.renew(&signing_request).await?;
                    streams.control.send(&HubControl::Certificate { chain }).await?;
                }
            }
        }
        Ok(())
    }

    async fn admit(&mut self, incarnation: Incarnation) -> anyhow::Result<()> {
        let state = self.gateway.replica.state();
        state.admit(self.cluster, &self.serial, incarnation)?;
        self.incarnation = incarnation;
        let (cluster, serial) = (self.cluster.to_owned(), self.serial);
        let change = SessionChange::Connected { cluster, incarnation, serial };
        let command = Command::Sessions { hub: self.gateway.node, changes: vec![change] };
        self.propose(command).await.context("the session could not be recorded")?;
        self.admitted = true;
        self.machine.handle_admitted();
        Ok(())
    }

    async fn commit(&mut self, receipts: Vec<(ReceiptSeq, Receipt)>) -> anyhow::Result<()> {
        let Some(up_to) = receipts.iter().map(|(seq, _)| *seq).max() else { return Ok(()) };
        let command = Command::Receipts {
            cluster: self.cluster.to_owned(),
            incarnation: self.incarnation,
            up_to,
            receipts: receipts.into_iter().map(|(_, receipt)| receipt).collect(),
        };
        match self.propose(command).await {
            Ok(()) => self.machine.handle_committed(up_to),
            Err(CommandError::Rejected(rejection)) => bail!("receipts were refused: {rejection}"),
            Err(error) => {
                tracing::debug!(cluster = self.cluster, %error, "receipts not committed");
                self.machine.handle_busy();
            }
        }
        Ok(())
    }

    async fn facts(&self, facts: Json) {
        self.report(SessionChange::Facts { cluster: self.cluster.to_owned(), facts }).await;
    }

    async fn renew(&self, signing_request: &[u8]) -> anyhow::Result<String> {
        let key = SubjectKey::from_signing_request(signing_request)?;
        let serial = positive(self.gateway.replica.random_bytes()?);
        let cluster = self.cluster.to_owned();
        let command = Command::RenewCertificate { cluster, key: Digest(key.digest()), serial };
        let reply = self.gateway.replica.propose(&self.subject(), &self.source, Vec::new(), command).await?;
        let (name, uid) = reply.cluster.context("the hub's answer names no cluster")?;
        Ok(self.gateway.trust.agent_certificate(&key, &name, &uid, serial, wall_clock())?)
    }

    /// What may be lost: the next one says it again.
    async fn report(&self, change: SessionChange) {
        let command = Command::Sessions { hub: self.gateway.node, changes: vec![change] };
        if let Err(error) = self.propose(command).await {
            tracing::debug!(cluster = self.cluster, %error, "session change not recorded");
        }
    }

    async fn propose(&self, command: Command) -> Result<(), CommandError> {
        self.gateway.replica.propose(&self.subject(), &self.source, Vec::new(), command).await.map(drop)
    }

    fn subject(&self) -> String {
        format!("cluster:{}", self.cluster)
    }
}

/// Sends blobs, so that a large one delays no other stream.
struct BlobServer {
    gateway: Gateway,
    cluster: String,
    frames: mpsc::Sender<Incoming>,
}

impl BlobServer {
    async fn run(self, mut sender: FrameSender, mut requests: mpsc::Receiver<Vec<Digest>>) {
        while let Some(digests) = requests.recv().await {
            if let Err(error) = self.serve(&mut sender, digests).await {
                let _ = self.frames.send(Incoming::Ended(format!("blobs: {error:#}"))).await;
                return;
            }
        }
    }

    async fn serve(&self, sender: &mut FrameSender, digests: Vec<Digest>) -> anyhow::Result<()> {
        let state = self.gateway.replica.state();
        let contents = self.gateway.bundles.clone().serve(state, self.cluster.clone(), digests).await?;
        for (digest, content) in contents {
            let Some(content) = content else {
                sender.send(&BlobReply::Unavailable { digest }).await?;
                continue;
            };
            send_blob(sender, digest, &content).await?;
        }
        Ok(())
    }
}

async fn send_blob(sender: &mut FrameSender, digest: Digest, content: &Arc<Vec<u8>>) -> anyhow::Result<()> {
    let total = content.len() as u64;
    let mut offset = 0;
    let mut chunks = content.chunks(CHUNK_BYTES);
    loop {
        // An empty blob is one empty chunk.
        let part = chunks.next().unwrap_or_default();
        sender.send(&BlobReply::Chunk { digest, offset, total, content: part.to_vec() }).await?;
        offset += part.len() as u64;
        if offset >= total {
            return Ok(());
        }
    }
}
