//! What this hub answers to others about blobs.

use bytes::Bytes;
use windlass_protocol::{codec, ids::Digest};

use super::{
    BundleError, Bundles, blocking,
    group::Group,
    wire::{Answer, GET_DIGESTS_MAX, HOLD_DIGESTS_MAX, MESSAGE_BYTES_MAX, PIECES_BYTES, Piece, Request},
};
use crate::{raft::NodeId, store::blobs::BlobDigest};

impl Bundles {
    /// Answers a request of the authenticated hub `from` that came as [`crate::peers::CallKind::Bulk`].
    ///
    /// # Errors
    /// A sentence for the caller.
    pub async fn serve_peer(&self, from: NodeId, request: Bytes) -> Result<Bytes, String> {
        let request: Request = codec::from_bytes(&request, MESSAGE_BYTES_MAX)
            .map_err(|error| format!("the request about blobs cannot be decoded ({error}); upgrade the older hub"))?;
        let group = self.group().ok_or("this hub is starting; try again")?;
        let answer = match request {
            Request::Hold { digests } => self.hold_for(&group, from, digests).await?,
            Request::Get { digests, offset } => {
                let this = self.clone();
                blocking(move || this.pieces(&digests, offset)).await.map_err(|error| error.to_string())?
            }
            Request::Complete => {
                let complete = self.completeness().await.map_err(|error| error.to_string())?;
                let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
                let (missing, lost) = (count(complete.missing), count(complete.lost));
                Answer::Complete { revision: complete.revision, missing, lost }
            }
        };
        codec::to_bytes(&answer, MESSAGE_BYTES_MAX).map(Bytes::from).map_err(|error| error.to_string())
    }

    /// When this returns, all of them are on disk and leased.
    async fn hold_for(&self, group: &Group, from: NodeId, digests: Vec<Digest>) -> Result<Answer, String> {
        if digests.len() > HOLD_DIGESTS_MAX {
            return Err(format!("{} blobs in one request, the limit is {HOLD_DIGESTS_MAX}", digests.len()));
        }
        // Leased before looking: what is found present cannot be collected any more.
        self.keep(&digests);
        let missing = self.missing(&digests);
        let fetched = self.fetch(group, from, missing).await.map_err(|error| error.to_string())?;
        match fetched.absent.first() {
            None => Ok(Answer::Held),
            Some(digest) => Err(format!("node {from} does not have blob {digest} either")),
        }
    }

    /// Reads up to one answer's worth. Blocks.
    fn pieces(&self, digests: &[Digest], offset: u64) -> Result<Answer, BundleError> {
        let (mut pieces, mut room) = (Vec::new(), PIECES_BYTES);
        let mut offset = usize::try_from(offset).unwrap_or(usize::MAX);
        for digest in digests.iter().take(GET_DIGESTS_MAX) {
            if room == 0 {
                break;
            }
            let Some(content) = self.read(&BlobDigest(digest.0))? else {
                pieces.push(Piece::Absent);
                offset = 0;
                continue;
            };
            let rest = content.get(offset..).unwrap_or_default();
            let part = rest.get(..rest.len().min(room)).unwrap_or_default();
            room -= part.len();
            let whole = part.len() == rest.len();
            let total = u64::try_from(content.len()).unwrap_or(u64::MAX);
            pieces.push(Piece::Part { total, content: part.to_vec() });
            if !whole {
                break;
            }
            offset = 0;
        }
        Ok(Answer::Pieces(pieces))
    }
}
