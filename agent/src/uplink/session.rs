//! One session: three streams, the session machine of the protocol, and the disk.
//!
//! The machine owns the order of things; this file performs its actions. Receipts have a task of their own, so that a large
//! detail never delays what the hub wants.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use windlass_protocol::{
    handshake,
    ids::ReceiptSeq,
    json::{self, Json},
    message::{AgentControl, BlobReply, HubControl, ReceiptReply, StreamOpen},
    session::{AgentAction, AgentSession, DesiredChange, trust_capability},
    time::Millis,
};
use windlass_transport::{
    endpoint::{CloseCode, Connection},
    stream::{FrameReceiver, FrameSender},
};

use super::{Ended, HELLO_DEADLINE, SOFTWARE, Uplink};
use crate::{
    checkpoint::{Checkpoint, Position},
    clock::{self, Clock},
    executor::{Command, Shared},
    identity::IdentityRecord,
    reporter::Cursor,
};

/// After the hub could not commit receipts.
const BUSY_WAIT: Duration = Duration::from_secs(2);
/// Between two looks at the age of the certificate: the clock may be set, so it is never slept through.
const RENEWAL_CHECK: Duration = Duration::from_secs(10);
/// After new roots, agents renew within this time.
const RENEWAL_SPREAD: Duration = Duration::from_secs(3);
/// The cluster has this long to tell its facts.
const FACTS_DEADLINE: Duration = Duration::from_secs(10);

struct Session<'a> {
    uplink: &'a mut Uplink,
    record: &'a mut IdentityRecord,
    hub: &'a str,
    machine: AgentSession,
    control: FrameSender,
    blobs: FrameSender,
    /// Present until the hub has admitted us: receipts are not sent before.
    receipts: Option<FrameSender>,
    uploads: Option<Uploads>,
    connected: bool,
    renewal_asked: bool,
    /// A renewal was asked for the sake of a new root.
    root_asked: bool,
    /// When to look at the certificate.
    renewal: Instant,
    /// What was told about the cluster; told again when the agent's own trust changes.
    facts: Option<serde_json::Value>,
}

/// The task that sends receipts; ends with the session.
struct Uploads {
    task: AbortHandle,
    again: Arc<Notify>,
}

impl Drop for Uploads {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs a session over a fresh connection until it ends.
pub(super) async fn run(
    uplink: &mut Uplink,
    connection: &Connection,
    hub: &str,
    record: &mut IdentityRecord,
    shutdown: &CancellationToken,
) -> Ended {
    let opened = async {
        let control = open(connection, StreamOpen::Control).await?;
        let blobs = open(connection, StreamOpen::Blobs).await?;
        let receipts = open(connection, StreamOpen::Receipts).await?;
        anyhow::Ok((control, blobs, receipts))
    };
    let (control, blobs, receipts) = match opened.await {
        Ok(streams) => streams,
        Err(error) => return Ended::Failed { error, connected: false },
    };
    let Position { epoch, generation } = uplink.position;
    let mut hello = handshake::hello(SOFTWARE);
    if let Some(enrolled) = &record.enrolled {
        hello.capabilities.push(trust_capability(&enrolled.roots, &enrolled.hubs));
    }
    let mut session = Session {
        machine: AgentSession::new(hello, record.incarnation(), epoch, generation),
        uplink,
        record,
        hub,
        control: control.0,
        blobs: blobs.0,
        receipts: Some(receipts.0),
        uploads: None,
        connected: false,
        renewal_asked: false,
        root_asked: false,
        renewal: Instant::now(),
        facts: None,
    };
    let ended = match session.drive(control.1, blobs.1, receipts.1, shutdown).await {
        Ok(ended) => ended,
        Err(error) => Ended::Failed { error, connected: session.connected },
    };
    connection.close(CloseCode::DONE, "session ended");
    ended
}

async fn open(connection: &Connection, kind: StreamOpen) -> anyhow::Result<(FrameSender, FrameReceiver)> {
    let (mut send, receive) = connection.open_bi().await?;
    send.send(&kind).await?;
    if kind == StreamOpen::Control {
        send.set_priority(1);
    }
    Ok((send, receive))
}

impl Session<'_> {
    async fn drive(
        &mut self,
        mut control: FrameReceiver,
        mut blobs: FrameReceiver,
        mut receipts: FrameReceiver,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Ended> {
        let clock = Clock::start();
        let shared = Arc::clone(&self.uplink.shared);
        let hello_by = Instant::now() + HELLO_DEADLINE;
        let port = Arc::clone(&self.uplink.port);
        let facts = async move { timeout(FACTS_DEADLINE, port.facts()).await };
        tokio::pin!(facts);
        let mut facts_known = false;
        loop {
            if let Some(ended) = self.perform().await? {
                return Ok(ended);
            }
            let timer = self.machine.poll_timeout().map(|at| clock.instant(at));
            tokio::select! {
                () = shutdown.cancelled() => return Ok(Ended::Stopped),
                () = shared.repair.notified() => {
                    self.uplink.checkpoint.run(Checkpoint::reset_position).await?;
                    self.uplink.position = Position::default();
                    return Ok(Ended::Repair);
                }
                frame = control.recv::<HubControl>() => {
                    let frame = frame?.context("the hub ended the control stream")?;
                    self.machine.handle_control(frame)?;
                }
                frame = blobs.recv::<BlobReply>() => {
                    let frame = frame?.context("the hub ended the blobs stream")?;
                    self.machine.handle_blob(frame)?;
                }
                frame = receipts.recv::<ReceiptReply>() => {
                    let frame = frame?.context("the hub ended the receipts stream")?;
                    self.machine.handle_receipt_reply(&frame);
                }
                () = sleep_until(timer.unwrap_or(hello_by)), if timer.is_some() => {
                    self.machine.handle_timeout(clock.now());
                }
                () = sleep_until(hello_by), if !self.connected => {
                    return Err(anyhow!("the hub did not say hello within {} s", HELLO_DEADLINE.as_secs()));
                }
                answer = &mut facts, if self.connected && !facts_known => {
                    facts_known = true;
                    self.facts = Some(answer.ok().and_then(Result::ok).unwrap_or_else(|| serde_json::json!({})));
                    self.tell_facts().await?;
                }
                () = sleep_until(self.renewal), if self.connected => {
                    self.renewal = Instant::now() + RENEWAL_CHECK;
                    self.renew_when_due().await?;
                }
            }
        }
    }

    /// Performs what the machine wants; gives how the session ends, if it does.
    async fn perform(&mut self) -> anyhow::Result<Option<Ended>> {
        while let Some(action) = self.machine.poll() {
            match action {
                AgentAction::Control(message) => self.control.send(&message).await?,
                AgentAction::Blobs(request) => self.blobs.send(&request).await?,
                AgentAction::Connected { hub, agreed } => {
                    tracing::info!(hub = self.hub, node = hub, version = agreed.version, "connected");
                    self.connected = true;
                    if let Some(sender) = self.receipts.take() {
                        self.uploads = Some(Uploads::start(sender, Arc::clone(&self.uplink.shared)));
                    }
                }
                AgentAction::Load(digest) => {
                    let content = self.uplink.checkpoint.run(move |disk| disk.blob(digest)).await?;
                    self.machine.handle_loaded(digest, content.as_deref())?;
                }
                AgentAction::Lookup(digests) => {
                    let missing = self.uplink.checkpoint.run(move |disk| Ok(disk.missing(&digests))).await?;
                    self.machine.handle_missing(missing);
                }
                AgentAction::Store { digest, content } => {
                    self.uplink.checkpoint.run(move |disk| disk.put_blob(digest, &content)).await?;
                }
                AgentAction::Checkpoint(change) => self.accept(change).await?,
                AgentAction::Refresh { application, hard } => {
                    self.command(Command::Refresh { application, hard }).await?;
                }
                AgentAction::Certificate(chain) => {
                    self.record.renew(chain)?;
                    self.uplink.place.write(self.record).await?;
                    self.renewal_asked = false;
                    tracing::info!("certificate renewed");
                    self.tell_facts().await?;
                }
                AgentAction::Trust { roots, hubs } => {
                    self.record.trust(roots, hubs)?;
                    self.uplink.place.write(self.record).await?;
                    tracing::info!("roots and hubs updated");
                    // A new root wants new certificates, but not of all agents in one instant.
                    self.renewal = Instant::now() + RENEWAL_SPREAD.mul_f64(fraction(self.uplink.number()));
                    self.tell_facts().await?;
                }
                AgentAction::Committed(up_to) => self.committed(up_to).await?,
                AgentAction::Busy => {
                    if let Some(uploads) = &self.uploads {
                        uploads.again.notify_one();
                    }
                }
                AgentAction::Leave(reason) => return Ok(Some(Ended::Away(reason))),
                AgentAction::Refused { reason, retry } => return Ok(Some(Ended::Refused { reason, retry })),
            }
        }
        Ok(None)
    }

    /// Disk first, then the executor, then the hub may know.
    async fn accept(&mut self, change: DesiredChange) -> anyhow::Result<()> {
        let position = Position { epoch: change.epoch, generation: change.to };
        let (change, orphaned) =
            self.uplink.checkpoint.run(move |disk| disk.accept(&change).map(|orphaned| (change, orphaned))).await?;
        self.uplink.position = position;
        tracing::info!(
            epoch = position.epoch.0,
            generation = position.generation.0,
            assignments = change.assignments.len(),
            tombstones = change.tombstones.len(),
            "desired state accepted"
        );
        self.command(Command::Desired(Box::new(change), orphaned)).await?;
        self.machine.handle_checkpointed();
        Ok(())
    }

    async fn command(&self, command: Command) -> anyhow::Result<()> {
        self.uplink.commands.send(command).await.map_err(|_| anyhow!("the executor has stopped"))
    }

    async fn committed(&self, up_to: ReceiptSeq) -> anyhow::Result<()> {
        let ended = self.uplink.shared.reporter().committed(up_to);
        for (application, uid) in ended {
            self.uplink.checkpoint.run(move |disk| disk.forget_tombstone(&application, &uid)).await?;
        }
        Ok(())
    }

    /// What the hub may know of the cluster, and what this agent trusts: whether a root may be dropped depends on it.
    async fn tell_facts(&mut self) -> anyhow::Result<()> {
        let Some(mut facts) = self.facts.clone() else { return Ok(()) };
        json::set(&mut facts, &["agentVersion"], env!("CARGO_PKG_VERSION").into());
        if let Some((identity, bundle)) = self.record.identity()? {
            let pins: Vec<String> = bundle.pins()?.iter().map(ToString::to_string).collect();
            json::set(&mut facts, &["trust", "roots"], pins.into());
            if let Some(root) = identity.root_among(&bundle) {
                json::set(&mut facts, &["trust", "issuedBelow"], root.to_string().into());
            }
        }
        self.control.send(&AgentControl::Facts { facts: Json(facts) }).await?;
        Ok(())
    }

    async fn renew_when_due(&mut self) -> anyhow::Result<()> {
        let Some((identity, bundle)) = self.record.identity()? else { return Ok(()) };
        let due = Millis::from_secs(identity.describe().renew_at_unix());
        // The first root is the one that signs; certificates below another one will not be accepted for ever.
        let outdated = identity.root_among(&bundle) != bundle.pins()?.first().copied();
        if self.renewal_asked || (clock::wall() < due && (!outdated || self.root_asked)) {
            return Ok(());
        }
        self.renewal_asked = true;
        // Once: a hub that has not got the new root itself must not be asked again and again.
        self.root_asked |= outdated;
        let signing_request = identity.key().signing_request()?;
        self.control.send(&AgentControl::Renew { signing_request }).await?;
        Ok(())
    }
}

/// A number between 0 and 1.
fn fraction(random: u64) -> f64 {
    f64::from(u32::try_from(random >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

impl Uploads {
    fn start(mut sender: FrameSender, shared: Arc<Shared>) -> Self {
        let again = Arc::new(Notify::new());
        let restart = Arc::clone(&again);
        let task = tokio::spawn(async move {
            let mut cursor = Cursor::default();
            loop {
                let uploads = shared.reporter().next_upload(&mut cursor);
                if let Some(uploads) = uploads {
                    for upload in uploads {
                        if let Err(error) = sender.send(&upload).await {
                            tracing::debug!(%error, "receipts not sent");
                            return;
                        }
                    }
                    continue;
                }
                tokio::select! {
                    () = shared.reports.notified() => {}
                    () = restart.notified() => {
                        sleep(BUSY_WAIT).await;
                        cursor = Cursor::default();
                    }
                }
            }
        });
        Self { task: task.abort_handle(), again }
    }
}
