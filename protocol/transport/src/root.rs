//! Fetching the root certificate of a hub that is known by its pin alone, over the API's own port.
//!
//! For `windlass login`: afterwards the root stands in a kubeconfig and any HTTPS client verifies with it. Nothing is sent
//! here but the handshake.

use std::{io, sync::Arc, time::Duration};

use rustls::{CertificateError, OtherError, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{
    endpoint::ClientTls,
    identity::{IdentityError, RootPin},
};

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// Not `host:port`.
    #[error("{address:?} is not an address (host:port)")]
    Address {
        /// The text given.
        address: String,
    },
    /// No connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// The text given.
        address: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The handshake failed: the chain does not end in the pinned root, or is not a hub's.
    #[error("{address} is refused: {reason}")]
    Refused {
        /// The text given.
        address: String,
        /// What is wrong with the other end.
        reason: String,
    },
    /// Not done in time.
    #[error("{address} did not answer within {} s", within.as_secs())]
    Timeout {
        /// The text given.
        address: String,
        /// The bound.
        within: Duration,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] IdentityError),
}

/// The root certificate (DER) with the given pin, from the hub at `address` (`host:port`), after a handshake that verified
/// the hub's chain up to it. The host name is not looked at.
///
/// # Errors
/// [`RootError`]; the whole takes at most `within`.
pub async fn fetch_root(address: &str, pin: RootPin, within: Duration) -> Result<Vec<u8>, RootError> {
    match timeout(within, fetch(address, pin)).await {
        Ok(result) => result,
        Err(_) => Err(RootError::Timeout { address: address.to_owned(), within }),
    }
}

async fn fetch(address: &str, pin: RootPin) -> Result<Vec<u8>, RootError> {
    let bad = || RootError::Address { address: address.to_owned() };
    let refused = |reason| RootError::Refused { address: address.to_owned(), reason };
    let (host, _) = address.rsplit_once(':').ok_or_else(bad)?;
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|_| bad())?;
    let config = ClientTls::pinned(pin).https().map_err(RootError::Tls)?;
    let connected = TcpStream::connect(address).await;
    let tcp = connected.map_err(|source| RootError::Connect { address: address.to_owned(), source })?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
    let stream = handshake.map_err(|error| refused(reason(&error)))?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let root = chain.iter().find(|der| RootPin::of_der(der).as_ref() == Ok(&pin));
    // The verifier has found it in this very chain.
    root.map(|der| der.to_vec()).ok_or_else(|| refused("its chain holds no such root".to_owned()))
}

/// Our own verifier's words, which rustls wraps twice.
fn reason(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(own)))) => own.to_string(),
        _ => error.to_string(),
    }
}
