//! The first call of a hub that has no certificate yet.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use windlass_transport::endpoint::{ClientTls, CloseCode, Closed, DialError, Dialer, EndpointError, Protocol};
use windlass_transport::identity::RootPin;
use windlass_transport::stream::StreamError;

use super::limits::{self, JOIN_LIFETIME, JOIN_REQUEST_BYTES_MAX};

/// Why a join request has no answer. The request may have been carried out: repeat it with the same key.
#[derive(Debug, thiserror::Error)]
pub enum JoinCallError {
    /// No socket.
    #[error("cannot dial other hubs")]
    Socket(#[from] EndpointError),
    /// Nobody there, or not a hub below the pinned root.
    #[error("cannot reach a hub to join")]
    Dial(#[from] DialError),
    /// The request breaks the limit.
    #[error("the request to join has {size} bytes, the limit is {JOIN_REQUEST_BYTES_MAX}")]
    TooLarge {
        /// Its bytes.
        size: usize,
    },
    /// The hub said no, or not now.
    #[error("the hub at {address} refused: {reason}")]
    Refused {
        /// Who was asked.
        address: String,
        /// Its words.
        reason: String,
    },
    /// The connection or the stream broke.
    #[error("the hub at {address} did not answer")]
    Stream {
        /// Who was asked.
        address: String,
        /// How it broke.
        #[source]
        source: StreamError,
    },
    /// No answer in time.
    #[error("the hub at {address} did not answer within {after:?}")]
    Timeout {
        /// Who was asked.
        address: String,
        /// The limit.
        after: Duration,
    },
}

/// Sends one request to [`super::PeerService::stranger`] of the hub at `address` (`host:port`), which must show a
/// certificate below the pinned root, and returns its answer. To be called inside a tokio runtime.
///
/// # Errors
/// [`JoinCallError`]; whether the request was carried out is then open.
pub async fn join_call(address: &str, pin: RootPin, request: Bytes) -> Result<Bytes, JoinCallError> {
    if request.len() > JOIN_REQUEST_BYTES_MAX {
        return Err(JoinCallError::TooLarge { size: request.len() });
    }
    let dialer = Dialer::bind(limits::tuning())?;
    let tls = ClientTls::pinned(pin).speaking(Protocol::Peers);
    let connection = dialer.dial(address, &tls).await?;
    let exchange = async {
        let (mut send, mut receive) = connection.open_bi().await?;
        send.send_payload(&request).await?;
        send.finish().await?;
        receive.recv_payload().await
    };
    let answer = timeout(JOIN_LIFETIME, exchange).await;
    let address = address.to_owned();
    let answer = match answer {
        Err(_) => Err(JoinCallError::Timeout { address, after: JOIN_LIFETIME }),
        Ok(Ok(Some(answer))) => Ok(answer.into()),
        // The hub closes without an answer when it says no: its words come with the end.
        Ok(Ok(None)) => Err(refused(address, timeout(limits::GOODBYE, connection.closed()).await.ok())),
        Ok(Err(StreamError::Connection(closed @ Closed::Peer { .. }))) => Err(refused(address, Some(closed))),
        Ok(Err(source)) => Err(JoinCallError::Stream { address, source }),
    };
    connection.close(CloseCode::DONE, "done");
    answer
}

fn refused(address: String, closed: Option<Closed>) -> JoinCallError {
    let reason = match closed {
        Some(Closed::Peer { reason, .. }) => reason,
        Some(other) => other.to_string(),
        None => "it gave no answer".to_owned(),
    };
    JoinCallError::Refused { address, reason }
}
