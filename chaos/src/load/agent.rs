//! One agent without a cluster: enrols, dials, keeps a session with the protocol's own machine.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::timeout;
use windlass_protocol::{
    handshake,
    ids::{Epoch, Generation, Incarnation},
    message::{BlobReply, EnrolReply, EnrolRequest, Enrolled, HubControl, ReceiptReply, StreamOpen},
    session::{AgentAction, AgentSession, trust_capability},
};
use windlass_transport::{
    backoff::{Backoff, BackoffLimits},
    endpoint::{ClientTls, CloseCode, Connection, Dialer},
    identity::{Identity, KeyMaterial, RootPin, TrustBundle},
    stream::{FrameReceiver, FrameSender},
};

use super::crowd::Seen;

/// As agents give themselves.
const SOFTWARE: &str = "windlass-chaos/load";
/// A handshake with the first hubs that are tried, while there are others.
const PATIENCE: Duration = Duration::from_secs(3);
/// Any other.
const PATIENCE_MAX: Duration = Duration::from_secs(40);
/// From the handshake to the hub's hello.
const HELLO: Duration = Duration::from_secs(15);

/// An enrolled agent.
#[derive(Debug)]
pub struct Agent {
    key: KeyMaterial,
    enrolled: Enrolled,
    hubs: Vec<String>,
    epoch: Epoch,
    generation: Generation,
    incarnation: Incarnation,
    /// Which agent of its crowd.
    index: u64,
    random: u64,
}

struct Streams {
    control: (FrameSender, FrameReceiver),
    blobs: (FrameSender, FrameReceiver),
    receipts: (FrameSender, FrameReceiver),
}

impl Agent {
    /// Redeems a token.
    ///
    /// # Errors
    /// When the hub does not take it.
    pub async fn enrol(dialer: &Dialer, hubs: Vec<String>, token: &str, pin: RootPin, number: u64) -> Result<Self> {
        let key = KeyMaterial::generate()?;
        let request = EnrolRequest::V1 {
            token: token.to_owned(),
            signing_request: key.signing_request()?,
            software: SOFTWARE.to_owned(),
        };
        let hub = hubs.first().context("no hub")?;
        let connection = dialer.dial(hub, &ClientTls::pinned(pin)).await?;
        let (mut send, mut receive) = connection.open_bi().await?;
        send.send(&StreamOpen::Enrol).await?;
        send.send(&request).await?;
        let reply = receive.recv_within::<EnrolReply>(HELLO).await?.context("the hub ended the stream")?;
        connection.close(CloseCode::DONE, "enrolled");
        let EnrolReply::Accepted(enrolled) = reply else { bail!("{reply:?}") };
        let random = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        Ok(Self {
            key,
            enrolled,
            hubs,
            epoch: Epoch::ZERO,
            generation: Generation::ZERO,
            incarnation: Incarnation(1),
            index: number,
            random,
        })
    }

    /// Dials until it is dropped.
    pub async fn run(mut self, dialer: Dialer, seen: Seen) {
        let mut backoff = Backoff::new(BackoffLimits::default());
        loop {
            let mut hubs = self.hubs.clone();
            let mut left_at_once = false;
            while !hubs.is_empty() {
                let count = u64::try_from(hubs.len()).unwrap_or(1);
                let index = usize::try_from(self.number() % count).unwrap_or_default();
                let hub = hubs.swap_remove(index);
                match self.session(&dialer, &hub, &seen, &mut backoff).await {
                    Ok(()) => left_at_once = !hubs.is_empty(),
                    Err(error) => seen.failed(&error),
                }
            }
            if !left_at_once {
                let delay = backoff.next_delay(self.number());
                tokio::time::sleep(delay).await;
            }
        }
    }

    /// One session; ends well when the hub sends the agent away.
    async fn session(&mut self, dialer: &Dialer, hub: &str, seen: &Seen, backoff: &mut Backoff) -> Result<()> {
        let identity = Identity::new(&self.enrolled.chain, self.key.clone())?;
        let tls = ClientTls::enrolled(TrustBundle::from_pem(&self.enrolled.roots)?, identity);
        let patience = if backoff.failures() == 0 && self.hubs.len() > 1 { PATIENCE } else { PATIENCE_MAX };
        let connection = timeout(patience, dialer.dial(hub, &tls)).await.context("no answer")??;
        let mut streams = open(&connection).await?;
        let mut hello = handshake::hello(SOFTWARE);
        hello.capabilities.push(trust_capability(&self.enrolled.roots, &self.enrolled.hubs));
        let mut machine = AgentSession::new(hello, self.incarnation, self.epoch, self.generation);
        let present = timeout(HELLO, self.greet(&mut machine, &mut streams, seen, &connection)).await;
        let _present = present.context("no hello")??;
        backoff.reset();
        let ended = self.stay(&mut machine, &mut streams).await;
        connection.close(CloseCode::DONE, "session ended");
        ended
    }

    /// Until the hub has admitted the agent and knows what it has.
    async fn greet(
        &mut self,
        machine: &mut AgentSession,
        streams: &mut Streams,
        seen: &Seen,
        connection: &Connection,
    ) -> Result<super::crowd::Present> {
        loop {
            if self.perform(machine, streams).await? {
                return Ok(seen.connected(self.index, connection));
            }
            let frame = streams.control.1.recv::<HubControl>().await?.context("the hub ended the control stream")?;
            machine.handle_control(frame)?;
        }
    }

    async fn stay(&mut self, machine: &mut AgentSession, streams: &mut Streams) -> Result<()> {
        loop {
            tokio::select! {
                frame = streams.control.1.recv::<HubControl>() => {
                    let frame = frame?.context("the hub ended the control stream")?;
                    if matches!(frame, HubControl::GoAway { .. }) {
                        return Ok(());
                    }
                    machine.handle_control(frame)?;
                }
                frame = streams.blobs.1.recv::<BlobReply>() => {
                    machine.handle_blob(frame?.context("the hub ended the blobs stream")?)?;
                }
                frame = streams.receipts.1.recv::<ReceiptReply>() => {
                    machine.handle_receipt_reply(&frame?.context("the hub ended the receipts stream")?);
                }
            }
            self.perform(machine, streams).await?;
        }
    }

    /// Performs what the machine wants; whether the hub has just said hello.
    async fn perform(&mut self, machine: &mut AgentSession, streams: &mut Streams) -> Result<bool> {
        let mut connected = false;
        while let Some(action) = machine.poll() {
            match action {
                AgentAction::Control(message) => streams.control.0.send(&message).await?,
                AgentAction::Blobs(request) => streams.blobs.0.send(&request).await?,
                AgentAction::Connected { .. } => connected = true,
                AgentAction::Load(digest) => machine.handle_loaded(digest, None)?,
                AgentAction::Lookup(digests) => machine.handle_missing(digests),
                AgentAction::Checkpoint(change) => {
                    (self.epoch, self.generation) = (change.epoch, change.to);
                    machine.handle_checkpointed();
                }
                AgentAction::Trust { roots, hubs } => {
                    (self.enrolled.roots, self.enrolled.hubs) = (roots, hubs);
                }
                AgentAction::Refused { reason, .. } => bail!("refused: {reason}"),
                AgentAction::Store { .. }
                | AgentAction::Refresh { .. }
                | AgentAction::Certificate(_)
                | AgentAction::Committed(_)
                | AgentAction::Busy
                | AgentAction::Leave(_) => {}
            }
        }
        Ok(connected)
    }

    fn number(&mut self) -> u64 {
        // xorshift64.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

async fn open(connection: &Connection) -> Result<Streams> {
    let one = async |kind: StreamOpen| {
        let (mut send, receive) = connection.open_bi().await?;
        send.send(&kind).await?;
        anyhow::Ok((send, receive))
    };
    Ok(Streams {
        control: one(StreamOpen::Control).await?,
        blobs: one(StreamOpen::Blobs).await?,
        receipts: one(StreamOpen::Receipts).await?,
    })
}
