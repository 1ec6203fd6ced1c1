//! Redeems the join token: one stream, one request, over a connection that is pinned to the hub's root.
//!
//! The key is on the disk before the token is sent, so that whatever dies in between, the same key asks again.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::sleep;
use windlass_protocol::message::{EnrolReply, EnrolRequest, Retry, StreamOpen};
use windlass_transport::{
    backoff::Backoff,
    endpoint::{ClientTls, CloseCode, Dialer},
    identity::RootPin,
};

use super::{SOFTWARE, Uplink};
use crate::identity::IdentityRecord;

/// The hub closes such a connection after 5 s.
const REPLY_DEADLINE: Duration = Duration::from_secs(5);

impl Uplink {
    /// Makes sure that there is an identity. Tries on until the hub answers.
    pub(super) async fn enrol(
        &self,
        dialer: &Dialer,
        record: &mut IdentityRecord,
        backoff: &mut Backoff,
    ) -> anyhow::Result<()> {
        if !record.must_enrol(self.config.token.as_ref()) {
            return Ok(());
        }
        let Some(token) = self.config.token.clone() else {
            bail!("this agent has no identity and no join token: run `windlass cluster add` and give --token");
        };
        let pin: RootPin = self
            .config
            .root_pin
            .as_deref()
            .context("a join token needs the pin of the hub's root: give --root-pin")?
            .parse()?;
        if self.config.hubs.is_empty() {
            bail!("no hub to dial: give --hub HOST:PORT");
        }
        let key = record.enrolment_key()?;
        self.place.write(record).await?;
        let request = EnrolRequest::V1 {
            token: token.reveal().to_owned(),
            signing_request: key.signing_request()?,
            software: SOFTWARE.to_owned(),
        };
        let tls = ClientTls::pinned(pin);
        loop {
            for hub in &self.config.hubs {
                match exchange(dialer, hub, &tls, &request).await {
                    Ok(EnrolReply::Accepted(enrolled)) => {
                        tracing::info!(hub, cluster = enrolled.cluster, "enrolled");
                        record.enrol(enrolled, &token).context("the hub's answer to the join token")?;
                        self.place.write(record).await?;
                        return Ok(());
                    }
                    Ok(EnrolReply::Refused { reason, retry: Retry::Never }) if record.enrolled.is_some() => {
                        tracing::warn!(hub, reason, "the join token is refused; the identity at hand stays");
                        record.give_up(&token);
                        self.place.write(record).await?;
                        return Ok(());
                    }
                    Ok(EnrolReply::Refused { reason, retry: Retry::Never }) => {
                        bail!("hub {hub} refuses the join token: {reason}");
                    }
                    Ok(EnrolReply::Refused { reason, retry: Retry::Later }) => {
                        tracing::warn!(hub, reason, "not enrolled yet");
                    }
                    Err(error) => tracing::warn!(hub, error = format!("{error:#}"), "not enrolled yet"),
                }
            }
            sleep(backoff.next_delay(self.number())).await;
        }
    }
}

/// One question of a stranger.
pub(super) async fn exchange(
    dialer: &Dialer,
    hub: &str,
    tls: &ClientTls,
    request: &EnrolRequest,
) -> anyhow::Result<EnrolReply> {
    let connection = dialer.dial(hub, tls).await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    send.send(&StreamOpen::Enrol).await?;
    send.send(request).await?;
    let reply = receive.recv_within::<EnrolReply>(REPLY_DEADLINE).await?.context("the hub ended the stream")?;
    connection.close(CloseCode::DONE, "done");
    Ok(reply)
}
