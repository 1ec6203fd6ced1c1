//! Puts chunks of content together, in order and within a limit.

use super::SessionError;
use crate::ids::Digest;

/// Largest blob on the wire: the index of 10,000 resources and every manifest fit.
pub const BLOB_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One blob on its way.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    current: Option<(Digest, u64, Vec<u8>)>,
}

impl Assembly {
    /// Nothing on its way.
    pub(super) const fn new() -> Self {
        Self { current: None }
    }

    /// Adds a part; gives the whole content with the last one. Memory grows with what arrived, never with what was announced.
    pub(super) fn add(
        &mut self,
        digest: Digest,
        offset: u64,
        total: u64,
        content: Vec<u8>,
    ) -> Result<Option<(Digest, Vec<u8>)>, SessionError> {
        if total > BLOB_BYTES_MAX as u64 {
            return Err(SessionError::TooLarge { what: "blob", size: total, limit: BLOB_BYTES_MAX as u64 });
        }
        let (expected, announced, mut whole) = match self.current.take() {
            Some(current) => current,
            None => (digest, total, Vec::new()),
        };
        let arrived = whole.len() as u64;
        if expected != digest || announced != total || offset != arrived {
            return Err(SessionError::OutOfOrder { what: "blob" });
        }
        if content.is_empty() && total > arrived {
            return Err(SessionError::OutOfOrder { what: "blob" });
        }
        if whole.is_empty() {
            whole = content;
        } else {
            whole.extend_from_slice(&content);
        }
        let arrived = whole.len() as u64;
        if arrived > total {
            return Err(SessionError::TooLarge { what: "blob", size: arrived, limit: total });
        }
        if arrived == total {
            return Ok(Some((digest, whole)));
        }
        self.current = Some((digest, total, whole));
        Ok(None)
    }
}
