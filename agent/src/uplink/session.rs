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
    json::Json,
    message::{AgentControl, BlobReply, HubControl, ReceiptReply, StreamOpen},
    session::{AgentAction, AgentSession, DesiredChange},
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
    let mut session = Session {
        machine: AgentSession::new(handshake::hello(SOFTWARE), record.incarnation(), epoch, generation),
        uplink,
        record,
        hub,
        control: control.0,
        blobs: blobs.0,
        receipts: Some(receipts.0),
        uploads: None,
        connected: false,
        renewal_asked: false,
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
        let mut renewal = Instant::now();
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
                    self.tell_facts(answer.ok().and_then(Result::ok)).await?;
                }
                () = sleep_until(renewal), if self.connected => {
                    renewal = Instant::now() + RENEWAL_CHECK;
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
                }
                AgentAction::Trust { roots, hubs } => {
                    self.record.trust(roots, hubs)?;
                    self.uplink.place.write(self.record).await?;
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

    async fn tell_facts(&mut self, facts: Option<serde_json::Value>) -> anyhow::Result<()> {
        let mut facts = facts.unwrap_or_else(|| serde_json::json!({}));
        windlass_protocol::json::set(&mut facts, &["agentVersion"], env!("CARGO_PKG_VERSION").into());
        self.control.send(&AgentControl::Facts { facts: Json(facts) }).await?;
        Ok(())
    }

    async fn renew_when_due(&mut self) -> anyhow::Result<()> {
        let Some((identity, _)) = self.record.identity()? else { return Ok(()) };
        let due = Millis::from_secs(identity.describe().renew_at_unix());
        if self.renewal_asked || clock::wall() < due {
            return Ok(());
        }
        self.renewal_asked = true;
        let signing_request = identity.key().signing_request()?;
        self.control.send(&AgentControl::Renew { signing_request }).await?;
        Ok(())
    }
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
