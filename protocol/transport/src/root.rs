//! Fetching the root certificate of a hub that is known by its pin alone, over the API's own port.
//!
//! For `windlass login`: afterwards the root stands in a kubeconfig and any HTTPS client verifies with it. Nothing is sent
//! here but the handshake.

use std::{io, sync::Arc, time::Duration};

use rustls::pki_types::ServerName;
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
    /// No connection, or a handshake that failed: the chain does not end in the pinned root, or is not a hub's.
    #[error("cannot shake hands with {address}: {source}")]
    Handshake {
        /// The text given.
        address: String,
        /// The reason.
        source: io::Error,
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
    let failed = |source| RootError::Handshake { address: address.to_owned(), source };
    let (host, _) = address.rsplit_once(':').ok_or_else(bad)?;
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|_| bad())?;
    let config = ClientTls::pinned(pin).https().map_err(RootError::Tls)?;
    let tcp = TcpStream::connect(address).await.map_err(failed)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(failed)?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let root = chain.iter().find(|der| RootPin::of_der(der).as_ref() == Ok(&pin));
    // The verifier has found it in this very chain.
    root.map(|der| der.to_vec()).ok_or_else(|| failed(io::Error::other("the chain holds no such root")))
}
