//! The way to the hubs: enrols, tries every hub once in random order, then stays and backs off; keeps one session running.
//!
//! A finished handshake means nothing: only the hub's hello does. That the hub cannot be reached, or refuses this agent, never
//! stops the executor.

mod enrol;
mod renew;
mod round;
mod session;

use std::{sync::Arc, time::Duration};

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use windlass_protocol::message::{GoAway, Retry};
use windlass_transport::{
    backoff::{Backoff, BackoffLimits},
    endpoint::{ClientTls, Connection, Dialer, Tuning},
};

use self::{
    renew::{Renewed, is_expired, is_untrusted},
    round::{Leaving, round},
};
use crate::{
    checkpoint::{Checkpoint, Position},
    cluster::ClusterPort,
    config::Config,
    executor::{Command, Shared},
    identity::{IdentityPlace, IdentityRecord},
    limits::Limits,
};

/// What the agent says about its program.
pub(crate) const SOFTWARE: &str = concat!("windlass-agent/", env!("CARGO_PKG_VERSION"));

/// Everything that a session needs.
#[derive(Debug)]
pub(crate) struct Uplink {
    config: Config,
    place: IdentityPlace,
    port: Arc<dyn ClusterPort>,
    checkpoint: Checkpoint,
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    position: Position,
    random: SystemRandom,
}

/// How a session ended.
#[derive(Debug)]
enum Ended {
    /// The process stops.
    Stopped,
    /// The hub sent us away.
    Away(GoAway),
    /// The hub does not admit us.
    Refused { reason: String, retry: Retry },
    /// Everything has to be sent again.
    Repair,
    /// The connection or the protocol failed; `connected` if the hub had admitted us.
    Failed { error: anyhow::Error, connected: bool },
}

/// What to do after a session, or an attempt.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// The process stops.
    Stop,
    /// Try the next hub; after the last one, wait.
    Wait,
    /// Dial the same hub at once.
    Again,
    /// Wait as after a first failure, then try all.
    Reset,
    /// Dial another hub at once.
    Leave,
}

impl Uplink {
    pub(crate) fn new(
        config: Config,
        place: IdentityPlace,
        port: Arc<dyn ClusterPort>,
        checkpoint: Checkpoint,
        shared: Arc<Shared>,
        commands: mpsc::Sender<Command>,
        position: Position,
    ) -> Self {
        let random = SystemRandom::new();
        Self { config, place, port, checkpoint, shared, commands, position, random }
    }

    /// Runs until told to stop, or until the hub says that this identity never comes back.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let stop = shutdown.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            result = self.dial_on(&stop) => {
                if let Err(error) = result {
                    tracing::error!(error = format!("{error:#}"), "the agent works on without a hub");
                }
                shutdown.cancelled().await;
            }
        }
    }

    fn tuning(&self) -> Tuning {
        let keep_alive = Limits::seconds(self.config.limits.keep_alive_seconds);
        // Three lost pings and a second for the answer to the last one.
        let idle_timeout = keep_alive * 3 + Duration::from_secs(1);
        Tuning { keep_alive, idle_timeout, ..Tuning::default() }
    }

    async fn dial_on(&mut self, shutdown: &CancellationToken) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(BackoffLimits::default());
        let mut record = self.identity(&mut backoff).await;
        let dialer = Dialer::bind(self.tuning())?;
        self.enrol(&dialer, &mut record, &mut backoff).await?;
        backoff.reset();
        let mut leaving = Leaving::default();
        let (mut prefer, mut avoid) = (None, None);
        loop {
            let hubs = self.hubs(&record);
            let mut next = Next::Wait;
            for hub in round(&hubs, self.number(), prefer.take().as_deref(), avoid.as_deref()) {
                // A dead hub must not hold up an agent that has others.
                let patience = if backoff.failures() == 0 && hubs.len() > 1 { FIRST_ATTEMPT } else { LATER_ATTEMPT };
                let ended = self.session(&dialer, &hub, &mut record, shutdown, patience).await;
                next = self.judge(&dialer, &hub, &mut record, ended).await?;
                match next {
                    Next::Stop => {
                        dialer.wait_idle().await;
                        return Ok(());
                    }
                    Next::Wait => continue,
                    Next::Again => prefer = Some(hub),
                    Next::Reset => backoff.reset(),
                    Next::Leave => {
                        backoff.reset();
                        if hubs.len() == 1 || !leaving.is_calm(Instant::now()) {
                            next = Next::Reset;
                        }
                        avoid = Some(hub);
                    }
                }
                break;
            }
            if matches!(next, Next::Wait | Next::Reset) {
                let delay = backoff.next_delay(self.number());
                tracing::debug!(seconds = delay.as_secs_f32(), "dialling again later");
                sleep(delay).await;
            }
        }
    }

    /// What follows from the end of a session.
    async fn judge(
        &self,
        dialer: &Dialer,
        hub: &str,
        record: &mut IdentityRecord,
        ended: Ended,
    ) -> anyhow::Result<Next> {
        match ended {
            Ended::Stopped => Ok(Next::Stop),
            Ended::Refused { reason, retry: Retry::Never } => {
                anyhow::bail!("hub {hub} refuses this agent for good: {reason}");
            }
            Ended::Refused { reason, retry: Retry::Later } => {
                tracing::warn!(hub, reason, "not admitted now");
                Ok(Next::Wait)
            }
            Ended::Away(reason) => {
                tracing::info!(hub, ?reason, "leaving this hub");
                Ok(Next::Leave)
            }
            Ended::Repair => Ok(Next::Again),
            Ended::Failed { error, connected } => {
                tracing::warn!(hub, error = format!("{error:#}"), "no session");
                if connected {
                    return Ok(Next::Reset);
                }
                if !is_expired(record) && !is_untrusted(&error) {
                    return Ok(Next::Wait);
                }
                match self.renew_as_stranger(dialer, hub, record).await {
                    Ok(Renewed::Yes) => Ok(Next::Again),
                    Ok(Renewed::Never(reason)) => {
                        anyhow::bail!("hub {hub} renews no certificate of this key: {reason}")
                    }
                    Err(error) => {
                        tracing::warn!(hub, error = format!("{error:#}"), "certificate not renewed");
                        Ok(Next::Wait)
                    }
                }
            }
        }
    }

    /// Reads the identity; a cluster that keeps it in a Secret may be away for a while.
    async fn identity(&self, backoff: &mut Backoff) -> IdentityRecord {
        loop {
            match self.place.begin().await {
                Ok(record) => return record,
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    tracing::error!(error = format!("{error:#}"), "no identity yet");
                    sleep(backoff.next_delay(self.number())).await;
                }
            }
        }
    }

    /// Configured hubs first, then those that the hub named.
    fn hubs(&self, record: &IdentityRecord) -> Vec<String> {
        let named = record.enrolled.iter().flat_map(|enrolled| enrolled.hubs.iter());
        let mut hubs: Vec<String> = Vec::new();
        for hub in self.config.hubs.iter().chain(named) {
            if !hubs.contains(hub) {
                hubs.push(hub.clone());
            }
        }
        hubs
    }

    async fn session(
        &mut self,
        dialer: &Dialer,
        hub: &str,
        record: &mut IdentityRecord,
        shutdown: &CancellationToken,
        patience: Duration,
    ) -> Ended {
        let connection = match timeout(patience, connect(dialer, hub, record)).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Ended::Failed { error, connected: false },
            Err(_) => {
                let error = anyhow::anyhow!("{hub} did not answer within {} s", patience.as_secs());
                return Ended::Failed { error, connected: false };
            }
        };
        session::run(self, &connection, hub, record, shutdown).await
    }

    fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        if self.random.fill(&mut bytes).is_err() {
            tracing::warn!("the system gives no random numbers");
        }
        u64::from_le_bytes(bytes)
    }
}

async fn connect(dialer: &Dialer, hub: &str, record: &IdentityRecord) -> anyhow::Result<Connection> {
    let Some((identity, bundle)) = record.identity()? else {
        anyhow::bail!("this agent has no identity");
    };
    Ok(dialer.dial(hub, &ClientTls::enrolled(bundle, identity)).await?)
}

/// A hub that accepted the connection but says nothing is left after this.
const HELLO_DEADLINE: Duration = Duration::from_secs(15);
/// A handshake with the first hubs that are tried, while there are others.
const FIRST_ATTEMPT: Duration = Duration::from_secs(3);
/// Beyond the dialer's own limits: a name with several addresses is tried with all.
const LATER_ATTEMPT: Duration = Duration::from_secs(40);
