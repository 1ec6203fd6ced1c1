//! Backups that somebody asks for through the API: one at a time, streamed while they are made.

use std::{io, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::sync::Semaphore;
use windlass_protocol::backup::file_name;

use super::{Backup, BackupError, BackupSource, channel};
use crate::{
    api::{BackupStream, ProviderError},
    replica::wall_clock,
};

/// Backups being streamed at a time: each reads every blob.
const STREAMS_MAX: usize = 2;

/// Where backups are asked for.
#[derive(Clone, Debug)]
pub(crate) struct BackupDesk {
    source: BackupSource,
    places: Arc<Semaphore>,
}

impl BackupDesk {
    pub(crate) fn new(source: BackupSource) -> Self {
        Self { source, places: Arc::new(Semaphore::new(STREAMS_MAX)) }
    }

    /// A backup of what this node holds now.
    pub(crate) async fn stream(&self) -> Result<BackupStream, ProviderError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            ProviderError::Unavailable(format!("{STREAMS_MAX} backups are being made: try again when one is done"))
        })?;
        let taken = Backup::take(&self.source, wall_clock()).await;
        let backup = taken.map_err(|error| ProviderError::Internal(error.to_string()))?;
        let name = file_name(backup.header().created_at);
        let (out, pieces) = channel::writer();
        let writing = tokio::task::spawn_blocking(move || -> Result<(), BackupError> {
            // Held until the last byte is on its way, whoever asked for it is gone or not.
            let _place = place;
            let (_, summary) = backup.write(out)?;
            if summary.missing > 0 {
                tracing::warn!(missing = summary.missing, "blobs are missing in the backup");
            }
            Ok(())
        });
        let pieces = stream::unfold(pieces, |mut pieces| async move { Some((pieces.recv().await?, pieces)) }).map(Ok);
        // After the last piece: a client must not take a backup without its end for a short one.
        let end = stream::once(async move {
            match writing.await {
                Ok(Ok(())) => Ok(Bytes::new()),
                Ok(Err(error)) => Err(io::Error::other(error)),
                Err(error) => Err(io::Error::other(error)),
            }
        });
        Ok(BackupStream { name, pieces: Box::pin(pieces.chain(end)) })
    }
}
