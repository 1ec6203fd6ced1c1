//! A certificate that no hub accepts any more: it ran out while this agent was offline, or was issued below a root that is
//! gone. Such an agent comes as a stranger and may only renew: the key, which a signing request proves, is still the one that
//! the hubs know.

use anyhow::{Context as _, bail};
use windlass_protocol::message::{EnrolReply, EnrolRequest, Retry};
use windlass_transport::endpoint::{ClientTls, Closed, Dialer};

use super::{SOFTWARE, Uplink, enrol::exchange};
use crate::{clock, identity::IdentityRecord};

/// What became of a renewal.
#[derive(Debug)]
pub(super) enum Renewed {
    /// The record holds a new certificate.
    Yes,
    /// This key is not the current one.
    Never(String),
}

impl Uplink {
    /// Asks one hub for a new certificate.
    pub(super) async fn renew_as_stranger(
        &self,
        dialer: &Dialer,
        hub: &str,
        record: &mut IdentityRecord,
    ) -> anyhow::Result<Renewed> {
        let (identity, bundle) = record.identity()?.context("this agent has no identity")?;
        let enrolled = record.enrolled.as_ref().context("this agent has no identity")?;
        let request = EnrolRequest::Renew {
            cluster_uid: enrolled.cluster_uid.clone(),
            signing_request: identity.key().signing_request()?,
            software: SOFTWARE.to_owned(),
        };
        let tls = ClientTls { identity: None, ..ClientTls::enrolled(bundle, identity) };
        match exchange(dialer, hub, &tls, &request).await? {
            EnrolReply::Accepted(enrolled) => {
                record.renewed(enrolled)?;
                self.place.write(record).await?;
                tracing::info!(hub, "certificate renewed as a stranger");
                Ok(Renewed::Yes)
            }
            EnrolReply::Refused { reason, retry: Retry::Never } => Ok(Renewed::Never(reason)),
            EnrolReply::Refused { reason, retry: Retry::Later } => bail!("not renewed now: {reason}"),
        }
    }
}

/// Whether this agent's own certificate has run out.
pub(super) fn is_expired(record: &IdentityRecord) -> bool {
    let expires = |identity: &windlass_transport::identity::Identity| identity.describe().not_after_unix;
    match record.identity() {
        Ok(Some((identity, _))) => clock::wall().as_secs() > expires(&identity),
        _ => false,
    }
}

/// Whether a session failed because one side does not believe the other's certificate.
pub(super) fn is_untrusted(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref::<Closed>(), Some(Closed::Untrusted { .. })))
}
