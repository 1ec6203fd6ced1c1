//! The answering side: who comes in, and what is done with each stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use windlass_transport::endpoint::{CloseCode, Closed, Connection, Listener, Peer};
use windlass_transport::identity::Subject;
use windlass_transport::stream::{FrameReceiver, FrameSender, StreamError};

use super::Shared;
use super::hello::{self, Hello, Reply};
use super::limits;
use super::notes::Way;
use super::service::{CallKind, Expected, PeerService};
use super::wire::{AnswerRef, Class, Request};
use crate::raft::NodeId;

/// A peer was refused at the hello; the reason is a sentence.
pub(super) const REFUSED: CloseCode = CloseCode(CloseCode::FIRST_FREE);

/// A hub that has not finished starting.
const STARTING: &str = "this hub is starting; try again";

/// Accepts until the listener closes.
pub(super) async fn accept(shared: Arc<Shared>, mut listener: Listener) {
    let numbers = AtomicU64::new(0);
    while let Some(connection) = listener.accept().await {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(admit(Arc::clone(&shared), connection, number));
    }
}

async fn admit(shared: Arc<Shared>, connection: Connection, number: u64) {
    match connection.peer().clone() {
        Peer::Unauthenticated => stranger(&shared, &connection).await,
        Peer::Authenticated(identity) => match identity.subject {
            Subject::Hub { node } => match node.parse() {
                Ok(node) => {
                    if let Err(reason) = greet(&shared, &connection, node).await {
                        shared.notes.trouble(Way::In, node, &reason);
                        connection.close(REFUSED, shortened(&reason));
                        return;
                    }
                    shared.slot(node).seen_at(connection.remote_address());
                    shared.accepted().insert((node, number), connection.clone());
                    let end = serve(&shared, &connection, node).await;
                    shared.accepted().remove(&(node, number));
                    match end {
                        // The dialler checks us after we have checked it.
                        Closed::Peer { code: REFUSED, reason } => shared.notes.trouble(Way::In, node, &reason),
                        end => tracing::debug!(peer = node, reason = %end, "connection of peer ended"),
                    }
                }
                Err(_) => connection.close(CloseCode::IDENTITY, "the certificate names no node number"),
            },
            Subject::Cluster { name, .. } => {
                tracing::debug!(cluster = name, "an agent dialled the port of hubs");
                connection.close(CloseCode::IDENTITY, "this port is for hubs; agents use the agents' port (7443/udp)");
            }
        },
    }
}

/// Lets the peer say who it is, and answers in kind. The error is a sentence that the peer was told, too.
async fn greet(shared: &Shared, connection: &Connection, node: NodeId) -> Result<(), String> {
    let unclear = |error: StreamError| format!("node {node} did not say who it is: {}", super::link::chain(&error));
    let (mut send, mut receive) = timeout(limits::HELLO, connection.accept_bi())
        .await
        .map_err(|_| format!("node {node} did not say who it is in time"))?
        .map_err(unclear)?;
    let theirs = receive.recv_within::<Hello>(limits::HELLO).await.map_err(unclear)?;
    let theirs = theirs.ok_or_else(|| format!("node {node} ended the stream instead of saying who it is"))?;
    let expected = (shared.expectations)(node);
    match theirs.check(&shared.identity, &shared.software, node, expected) {
        Ok(greeted) => {
            let own = Hello::new(&shared.identity, &shared.software);
            send.send(&Reply::Welcome(own)).await.map_err(unclear)?;
            send.finish().await.map_err(unclear)?;
            shared.notes.fine(Way::In, node);
            tracing::debug!(peer = node, software = greeted.software, "peer connected");
            Ok(())
        }
        Err(reason) => {
            send.send(&Reply::Refused(reason.clone())).await.map_err(unclear)?;
            send.finish().await.map_err(unclear)?;
            // Closing earlier would lose the sentence.
            let _ = timeout(limits::GOODBYE, send.delivered()).await;
            Err(reason)
        }
    }
}

/// Serves streams until the connection ends, or the peer is no member any more; what is under way then is given up. QUIC
/// bounds the number of streams.
async fn serve(shared: &Arc<Shared>, connection: &Connection, node: NodeId) -> Closed {
    let (mut streams, mut removed) = (JoinSet::new(), 0);
    let mut look = interval(shared.look_every);
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept_bi() => accepted,
            _ = look.tick() => {
                removed = if (shared.expectations)(node) == Expected::Removed { removed + 1 } else { 0 };
                if removed >= limits::LOOKS {
                    let reason = hello::removed(node);
                    shared.notes.trouble(Way::In, node, &reason);
                    connection.close(REFUSED, shortened(&reason));
                }
                continue;
            }
        };
        match accepted {
            Ok((send, receive)) => {
                while streams.try_join_next().is_some() {}
                streams.spawn(stream(Arc::clone(shared), node, send, receive));
            }
            Err(_) => return connection.closed().await,
        }
    }
}

async fn stream(shared: Arc<Shared>, node: NodeId, mut send: FrameSender, mut receive: FrameReceiver) {
    let served = async {
        let Some(request) = receive.recv_within::<Request>(limits::REQUEST).await? else { return Ok(()) };
        let Some(service) = shared.current_service() else {
            return reply(&mut send, Err(STARTING.to_owned())).await;
        };
        let (kind, class, bytes) = match request {
            Request::Raft(bytes) => (CallKind::Raft, Class::Raft, bytes),
            Request::Service(bytes) => (CallKind::Service, Class::Service, bytes),
            Request::Bulk(bytes) => (CallKind::Bulk, Class::Bulk, bytes),
            Request::Snapshot(header) => {
                return snapshot(service.as_ref(), node, header.into(), &mut send, &mut receive).await;
            }
        };
        send.set_priority(class.priority());
        let answer = timeout(limits::ANSWER, service.call(node, kind, bytes.into())).await;
        let answer = answer.unwrap_or_else(|_| Err("this hub did not find an answer in time".to_owned()));
        reply(&mut send, answer).await
    };
    if let Err(error) = served.await {
        tracing::debug!(peer = node, error = super::link::chain(&error), "stream of peer ended");
    }
}

/// Receives a snapshot, and says from time to time that it is still at it: verifying and installing take long.
async fn snapshot(
    service: &dyn PeerService,
    node: NodeId,
    header: Bytes,
    send: &mut FrameSender,
    receive: &mut FrameReceiver,
) -> Result<(), StreamError> {
    let answer = {
        let mut content = receive.content();
        let mut installing = service.snapshot(node, header, &mut content);
        let mut progress = interval(limits::PROGRESS_EVERY);
        loop {
            tokio::select! {
                answer = &mut installing => break answer,
                _ = progress.tick() => send.send(&AnswerRef::Working).await?,
            }
        }
    };
    reply(send, answer).await
}

async fn reply(send: &mut FrameSender, answer: Result<Bytes, String>) -> Result<(), StreamError> {
    match &answer {
        Ok(bytes) => match send.send(&AnswerRef::Done(bytes)).await {
            // Nothing was sent: the stream can still say why.
            Err(StreamError::Codec(error)) => send.send(&AnswerRef::Refused(&error.to_string())).await?,
            sent => sent?,
        },
        Err(reason) => send.send(&AnswerRef::Refused(reason)).await?,
    }
    send.finish().await
}

/// One request of somebody without a certificate.
async fn stranger(shared: &Shared, connection: &Connection) {
    let remote = connection.remote_address();
    let exchange = async {
        let (mut send, mut receive) = connection.accept_bi().await?;
        let request = timeout(limits::JOIN_REQUEST, receive.recv_payload()).await;
        let Ok(request) = request else {
            connection.close(CloseCode::DEADLINE, "the request to join took too long");
            return Ok(());
        };
        let Some(request) = request? else { return Ok(()) };
        if request.len() > limits::JOIN_REQUEST_BYTES_MAX {
            connection.close(CloseCode::LIMIT, "the request to join is too long");
            return Ok(());
        }
        let Some(service) = shared.current_service() else {
            connection.close(CloseCode::BUSY, STARTING);
            return Ok(());
        };
        let Ok(answer) = timeout(limits::JOIN_ANSWER, service.stranger(remote, request.into())).await else {
            connection.close(CloseCode::BUSY, "the cluster did not answer in time; try again");
            return Ok(());
        };
        send.send_payload(&answer).await?;
        send.finish().await?;
        send.delivered().await
    };
    match exchange.await {
        Ok::<(), StreamError>(()) => connection.close(CloseCode::DONE, "done"),
        Err(error) => tracing::debug!(%remote, error = super::link::chain(&error), "request to join ended"),
    }
}

/// The start of a sentence that must fit into a close frame.
pub(super) fn shortened(reason: &str) -> &str {
    let mut end = reason.len().min(limits::REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.get(..end).unwrap_or_default()
}
