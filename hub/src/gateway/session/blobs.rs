//! The sending side of the blobs stream: a task while there is something to send, nothing but the stream otherwise.

use std::{collections::VecDeque, sync::Arc};

use anyhow::Context as _;
use tokio_util::task::AbortOnDropHandle;
use windlass_protocol::{
    ids::Digest,
    message::{BlobReply, CHUNK_BYTES},
};
use windlass_transport::stream::FrameSender;

use super::super::Gateway;

/// Requests that wait; the stream is not read further.
const WAITING_MAX: usize = 8;

/// Sends what was asked for, in order.
pub(super) struct BlobStream {
    idle: Option<FrameSender>,
    sending: Option<AbortOnDropHandle<anyhow::Result<FrameSender>>>,
    waiting: VecDeque<(Gateway, String, Vec<Digest>)>,
}

impl BlobStream {
    pub(super) const fn new(sender: FrameSender) -> Self {
        Self { idle: Some(sender), sending: None, waiting: VecDeque::new() }
    }

    pub(super) const fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }

    pub(super) fn serve(&mut self, gateway: &Gateway, cluster: &str, digests: Vec<Digest>) {
        self.waiting.push_back((gateway.clone(), cluster.to_owned(), digests));
        self.next();
    }

    /// Waits for the end of the request in hand. Cancel-safe.
    pub(super) async fn sent(&mut self) -> anyhow::Result<()> {
        let Some(sending) = &mut self.sending else { return std::future::pending().await };
        let sender = sending.await.context("sending ended");
        self.sending = None;
        self.idle = Some(sender??);
        self.next();
        Ok(())
    }

    fn next(&mut self) {
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
            return;
        }
        let Some(sender) = self.idle.take() else { return };
        let Some((gateway, cluster, digests)) = self.waiting.pop_front() else { return };
        self.sending = Some(AbortOnDropHandle::new(tokio::spawn(send(gateway, cluster, digests, sender))));
    }
}

async fn send(
    gateway: Gateway,
    cluster: String,
    digests: Vec<Digest>,
    mut sender: FrameSender,
) -> anyhow::Result<FrameSender> {
    let state = gateway.replica.state();
    let contents = gateway.bundles.serve(state, cluster, digests).await?;
    for (digest, content) in contents {
        match content {
            None => sender.send(&BlobReply::Unavailable { digest }).await?,
            Some(content) => send_blob(&mut sender, digest, &content).await?,
        }
    }
    Ok(sender)
}

async fn send_blob(sender: &mut FrameSender, digest: Digest, content: &Arc<Vec<u8>>) -> anyhow::Result<()> {
    let total = content.len() as u64;
    let mut offset = 0;
    let mut chunks = content.chunks(CHUNK_BYTES);
    loop {
        // An empty blob is one empty chunk.
        let part = chunks.next().unwrap_or_default();
        sender.send(&BlobReply::Chunk { digest, offset, total, content: part.to_vec() }).await?;
        offset += part.len() as u64;
        if offset >= total {
            return Ok(());
        }
    }
}
