//! Strangers: a connection without a certificate may redeem a join token, or renew the certificate of a key that is known.

use std::time::Duration;

use anyhow::{Context as _, bail};
use windlass_hub_core::Command;
use windlass_protocol::{
    ids::Digest,
    message::{EnrolReply, EnrolRequest, Enrolled, Retry, StreamOpen},
};
use windlass_transport::{endpoint::Connection, identity::SubjectKey};

use super::{GOODBYE, Gateway};
use crate::replica::{CommandError, wall_clock};

/// A stranger has this long for everything (DESIGN.md section 10).
const DEADLINE: Duration = Duration::from_secs(5);

pub(super) async fn serve(gateway: &Gateway, connection: &Connection) -> anyhow::Result<()> {
    tokio::time::timeout(DEADLINE, exchange(gateway, connection))
        .await
        .context("the deadline for enrolment has passed")?
}

async fn exchange(gateway: &Gateway, connection: &Connection) -> anyhow::Result<()> {
    let (mut sender, mut receiver) = connection.accept_bi().await?;
    match receiver.recv::<StreamOpen>().await?.context("the stream ended")? {
        StreamOpen::Enrol => {}
        other => bail!("a stranger may only enrol, not open {other:?}"),
    }
    let request = receiver.recv::<EnrolRequest>().await?.context("the stream ended")?;
    let source = connection.remote_address().to_string();
    let (reply, software) = match request {
        EnrolRequest::V1 { token, signing_request, software } => {
            let hash = Digest::of(token.trim().as_bytes());
            let command = |key, serial| Command::RedeemToken { hash, key, serial };
            (certify(gateway, "agent:unknown", &source, &signing_request, command).await, software)
        }
        EnrolRequest::Renew { cluster_uid, signing_request, software } => {
            let subject = format!("cluster:{cluster_uid}");
            let command = |key, serial| Command::RenewCertificate { cluster: cluster_uid, key, serial };
            (certify(gateway, &subject, &source, &signing_request, command).await, software)
        }
    };
    match &reply {
        EnrolReply::Accepted(enrolled) => tracing::info!(cluster = enrolled.cluster, software, "agent certified"),
        EnrolReply::Refused { reason, .. } => {
            tracing::warn!(remote = source, reason, "a stranger was refused");
        }
    }
    sender.send(&reply).await?;
    sender.finish().await?;
    // The last frame must arrive before the connection goes.
    let _ = tokio::time::timeout(GOODBYE, sender.delivered()).await;
    Ok(())
}

/// A certificate for the key of a signing request, if the state takes the command about it.
async fn certify(
    gateway: &Gateway,
    subject: &str,
    source: &str,
    signing_request: &[u8],
    command: impl FnOnce(Digest, [u8; 16]) -> Command,
) -> EnrolReply {
    let refused = |reason: String, retry| EnrolReply::Refused { reason, retry };
    if gateway.is_cut_off() {
        return refused("this hub has lost the others".to_owned(), Retry::Later);
    }
    let key = match SubjectKey::from_signing_request(signing_request) {
        Ok(key) => key,
        Err(error) => return refused(format!("the signing request is not usable: {error}"), Retry::Never),
    };
    let serial = match gateway.replica.random_bytes::<16>() {
        Ok(serial) => positive(serial),
        Err(error) => return refused(error.to_string(), Retry::Later),
    };
    let command = command(Digest(key.digest()), serial);
    let reply = match gateway.replica.propose(subject, source, Vec::new(), command).await {
        Ok(reply) => reply,
        Err(CommandError::Rejected(rejection)) => return refused(rejection.to_string(), Retry::Never),
        Err(error) => return refused(error.to_string(), Retry::Later),
    };
    let Some((cluster, cluster_uid)) = reply.cluster else {
        return refused("the hub's answer names no cluster".to_owned(), Retry::Later);
    };
    match gateway.trust.agent_certificate(&key, &cluster, &cluster_uid, serial, wall_clock()) {
        Ok(chain) => {
            let (roots, hubs) = gateway.trusted(&gateway.replica.state());
            EnrolReply::Accepted(Enrolled { cluster, cluster_uid, chain, roots, hubs })
        }
        Err(error) => refused(error.to_string(), Retry::Later),
    }
}

/// RFC 5280, section 4.1.2.2: serial numbers are positive, and at most 20 octets.
pub(super) fn positive(mut serial: [u8; 16]) -> [u8; 16] {
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x01;
    }
    serial
}
