//! HTTP/1.1 and HTTP/2 over the TLS listener: bounded, timed, and drained at the end.

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use http::Request;
use hyper::{body::Incoming, service::Service as _};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use windlass_transport::https::{HttpsListener, HttpsStream};

/// A request's head must be here within this time; it also ends idle HTTP/1.1 connections.
const HEAD_TIME_MAX: Duration = Duration::from_secs(60);
/// Streams of one HTTP/2 connection: a client-go process with informers on every kind uses a few dozen.
const STREAMS_PER_CONNECTION: u32 = 250;
/// Bytes of all headers of one request.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// Buffered for one HTTP/2 stream whose client does not read: a slow watch must not hold more.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIME_MAX: Duration = Duration::from_secs(15);
/// Requests under way may finish within this time after shutdown began.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// Where a request came from; an extension of every request that [`serve`] hands over.
#[derive(Clone, Debug)]
pub struct Remote {
    /// The client's address.
    pub address: SocketAddr,
    /// Cancelled when the server stops: watches end then.
    pub stopping: CancellationToken,
}

/// Serves until `shutdown`, then lets requests finish for ten seconds.
pub async fn serve(mut listener: HttpsListener, router: Router, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Some((stream, address)) => {
                    let remote = Remote { address, stopping: shutdown.clone() };
                    connections.spawn(converse(stream, router.clone(), remote));
                }
                None => {
                    tracing::error!("the API accepts no more connections");
                    break;
                }
            },
            // Finished connections are reaped; the listener bounds their number.
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    // Connections watch the same token and drain by themselves.
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIME_MAX, drained).await.is_err() {
        tracing::warn!("some API requests did not finish in time and were cut");
    }
}

async fn converse(stream: HttpsStream, router: Router, remote: Remote) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIME_MAX);
    let (address, stopping) = (remote.address, remote.stopping.clone());
    let router = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(remote.clone());
        router.call(request)
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%address, error, "a connection of the API ended");
    }
}
