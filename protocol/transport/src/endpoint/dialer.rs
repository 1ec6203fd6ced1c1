//! The dialling side: resolves, connects, verifies.
//!
//! A finished handshake does not mean that the hub admitted us; see the crate page. Retrying is for the caller,
//! with [`crate::backoff`].

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use quinn::{ClientConfig, Endpoint, EndpointConfig, TokioRuntime, crypto::rustls::QuicClientConfig};
use rustls::pki_types::ServerName;
use tokio::{net::lookup_host, time::timeout};

use super::{ClientTls, CloseCode, Closed, Connection, EndpointError, Tuning, udp_socket};
use crate::identity::IdentityError;

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// Resolving one name, and each handshake, may take this long: two retransmissions over a satellite link.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Not `host`, `host:port` or an IP address with or without port.
    #[error("{address:?} is not an address (host:port)")]
    Address {
        /// The text given.
        address: String,
    },
    /// The name has no address.
    #[error("cannot resolve {address}")]
    Resolve {
        /// The text given.
        address: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Our own certificates do not make a TLS configuration.
    #[error("cannot set up TLS")]
    Tls(#[source] IdentityError),
    /// A tuning value that QUIC cannot express, or a closed dialer.
    #[error("cannot dial {address}: {reason}")]
    Setup {
        /// The text given.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// The handshake failed. [`Closed::Untrusted`] means that the other end is not a hub we may talk to.
    #[error("cannot connect to {address} ({remote})")]
    Handshake {
        /// The text given.
        address: String,
        /// The last address tried.
        remote: SocketAddr,
        /// What happened.
        #[source]
        source: Closed,
    },
}

/// A bound QUIC socket for outgoing connections. One serves many.
#[derive(Debug, Clone)]
pub struct Dialer {
    endpoint: Endpoint,
    tuning: Tuning,
}

impl Dialer {
    /// Binds a free port on all interfaces, IPv6 and IPv4 where the system has both. To be called inside a tokio
    /// runtime.
    pub fn bind(tuning: Tuning) -> Result<Self, EndpointError> {
        let dual = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Self::bind_to(dual, tuning.clone()).or_else(|_| Self::bind_to(v4, tuning))
    }

    /// Binds a given local address.
    pub fn bind_to(address: SocketAddr, tuning: Tuning) -> Result<Self, EndpointError> {
        let failed = |source| EndpointError::Bind { address, source };
        let socket = udp_socket(address, tuning.socket_buffer).map_err(failed)?;
        let endpoint =
            Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime)).map_err(failed)?;
        Ok(Self { endpoint, tuning })
    }

    /// Dials from the socket of a listener.
    pub(super) fn beside(endpoint: Endpoint, tuning: Tuning) -> Self {
        Self { endpoint, tuning }
    }

    /// Connects to one hub given as `host:port` (the port of its protocol if none), trying up to four addresses of the name.
    pub async fn dial(&self, address: &str, tls: &ClientTls) -> Result<Connection, DialError> {
        let (host, port) = split_address(address, tls.protocol.port())?;
        let config = self.client_config(address, tls)?;
        let unresolved = |source| DialError::Resolve { address: address.to_owned(), source };
        let found = timeout(ATTEMPT, lookup_host((host, port)))
            .await
            .map_err(|_| unresolved(io::ErrorKind::TimedOut.into()))?
            .map_err(unresolved)?;
        let mut last = unresolved(io::ErrorKind::NotFound.into());
        for remote in found.take(MAX_ADDRESSES) {
            match self.connect(address, host, remote, config.clone()).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Tries hubs in the given order, each once. Returns the index of the one that answered, or all errors.
    pub async fn dial_first(
        &self,
        addresses: &[String],
        tls: &ClientTls,
    ) -> Result<(usize, Connection), Vec<DialError>> {
        let mut errors = Vec::new();
        for (index, address) in addresses.iter().enumerate() {
            match self.dial(address, tls).await {
                Ok(connection) => return Ok((index, connection)),
                Err(error) => errors.push(error),
            }
        }
        Err(errors)
    }

    /// The bound address.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Moves to another local socket while connections live on: what a change of network does to them.
    pub fn rebind(&self, address: SocketAddr) -> Result<(), EndpointError> {
        let failed = |source| EndpointError::Bind { address, source };
        let socket = udp_socket(address, self.tuning.socket_buffer).map_err(failed)?;
        self.endpoint.rebind(socket).map_err(failed)
    }

    /// Closes every connection of this dialer.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.endpoint.close(code.varint(), reason.as_bytes());
    }

    /// Waits until peers were told of closed connections, at most a few round trips.
    pub async fn wait_idle(&self) {
        self.endpoint.wait_idle().await;
    }

    fn client_config(&self, address: &str, tls: &ClientTls) -> Result<ClientConfig, DialError> {
        let crypto = tls.quic().map_err(DialError::Tls)?;
        let crypto = QuicClientConfig::try_from(crypto)
            .map_err(|error| DialError::Tls(IdentityError::crypto("QUIC setup", error)))?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        let transport = self
            .tuning
            .dialing()
            .map_err(|error| DialError::Setup { address: address.to_owned(), reason: error.to_string() })?;
        config.transport_config(transport);
        Ok(config)
    }

    async fn connect(
        &self,
        address: &str,
        host: &str,
        remote: SocketAddr,
        config: ClientConfig,
    ) -> Result<Connection, DialError> {
        // The name is sent (SNI) for proxies on the way; it is not what the hub is verified by.
        let name = match ServerName::try_from(host) {
            Ok(_) => host,
            Err(_) => "windlass.invalid",
        };
        let failed = |source| DialError::Handshake { address: address.to_owned(), remote, source };
        let connecting = self
            .endpoint
            .connect_with(config, remote, name)
            .map_err(|error| DialError::Setup { address: address.to_owned(), reason: error.to_string() })?;
        let inner = timeout(ATTEMPT, connecting)
            .await
            .map_err(|_| failed(Closed::TimedOut))?
            .map_err(|error| failed(error.into()))?;
        Connection::dialed(inner, &self.tuning).map_err(DialError::Tls)
    }
}

/// Splits `host`, `host:port`, `1.2.3.4`, `::1`, `[::1]` or `[::1]:port`.
fn split_address(address: &str, default_port: u16) -> Result<(&str, u16), DialError> {
    let refused = || DialError::Address { address: address.chars().take(300).collect() };
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(refused)?;
        match rest {
            "" => (host, None),
            rest => (host, Some(rest.strip_prefix(':').ok_or_else(refused)?)),
        }
    } else if address.parse::<Ipv6Addr>().is_ok() {
        (address, None)
    } else {
        match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        }
    };
    let port = match port {
        None => default_port,
        Some(port) => port.parse().map_err(|_| refused())?,
    };
    if host.is_empty() || host.len() > 253 || port == 0 {
        return Err(refused());
    }
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split() {
        for (address, expected) in [
            ("hub.example", ("hub.example", 7443)),
            ("hub.example:1", ("hub.example", 1)),
            ("10.0.0.1", ("10.0.0.1", 7443)),
            ("10.0.0.1:99", ("10.0.0.1", 99)),
            ("::1", ("::1", 7443)),
            ("[::1]", ("::1", 7443)),
            ("[::1]:8", ("::1", 8)),
        ] {
            assert_eq!(split_address(address, 7443).unwrap(), expected);
        }
        for address in ["", ":1", "a:b", "a:0", "a:70000", "[::1", "[::1]x", "a:1:2"] {
            assert!(split_address(address, 7443).is_err(), "{address} was accepted");
        }
    }
}
