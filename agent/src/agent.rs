//! Puts the parts of an agent together and takes them apart again.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use windlass_engine::Environment;

use crate::{
    checkpoint::Checkpoint,
    cluster::{self, ClusterPort, EmbeddedCluster, SecretStore},
    config::{ClusterConfig, Config, IdentityStore},
    executor::{Executor, Shared},
    identity::IdentityPlace,
    uplink::Uplink,
};

/// Commands of the hub that wait for the executor: one change of desired state is one command.
const COMMANDS: usize = 16;

/// Runs the agent of the configured cluster until `shutdown`.
///
/// # Errors
/// The data folder cannot be used, or there are no credentials for the cluster. That the cluster or the hub cannot be
/// reached is not an error: the agent waits for them.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    if config.cluster == ClusterConfig::Embedded {
        let port = Arc::new(EmbeddedCluster::new(0));
        return run_with_cluster(config, port, shutdown).await;
    }
    let kubernetes = cluster::connect(&config.cluster, &config.limits).await.context("no access to the cluster")?;
    let place = match &config.identity {
        IdentityStore::Folder => IdentityPlace::Folder(config.data.clone()),
        IdentityStore::Secret { namespace } => {
            IdentityPlace::Secret(SecretStore::new(kubernetes.clone(), namespace.clone()))
        }
    };
    assemble(config, place, Arc::new(kubernetes), shutdown).await
}

/// Runs an agent against a cluster of the caller, its identity in the data folder. For the demo, chaos and tests: many may
/// run in one process, each with a data folder of its own.
///
/// # Errors
/// The data folder cannot be used.
pub async fn run_with_cluster(
    config: Config,
    port: Arc<dyn ClusterPort>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let place = IdentityPlace::Folder(config.data.clone());
    assemble(config, place, port, shutdown).await
}

async fn assemble(
    config: Config,
    place: IdentityPlace,
    port: Arc<dyn ClusterPort>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (folder, cache) = (config.data.clone(), config.limits.checkpoint_cache_bytes);
    let (checkpoint, restored) = tokio::task::spawn_blocking(move || {
        let checkpoint = Checkpoint::open(&folder, cache)?;
        let restored = checkpoint.restore()?;
        anyhow::Ok((checkpoint, restored))
    })
    .await
    .context("the checkpoint could not be read")?
    .context("the checkpoint could not be read")?;
    tracing::info!(
        assignments = restored.assignments.len(),
        epoch = restored.position.epoch.0,
        generation = restored.position.generation.0,
        "starting from the checkpoint"
    );
    let shared = Arc::new(Shared::new(&config.limits));
    let (commands, received) = mpsc::channel(COMMANDS);
    let position = restored.position;
    let (mut executor, changes) = Executor::new(
        Arc::clone(&port),
        checkpoint.clone(),
        Arc::clone(&shared),
        config.limits.clone(),
        Environment::default(),
    );
    executor.restore(restored);
    // Ends with this call, also when the caller drops it.
    let mut executor = AbortOnDropHandle::new(tokio::spawn(executor.run(received, changes, shutdown.clone())));
    let uplink = Uplink::new(config, place, port, checkpoint, shared, commands, position);
    tokio::select! {
        ended = &mut executor => ended.context("the executor has failed")?,
        () = uplink.run(shutdown.clone()) => executor.await.context("the executor has failed")?,
    }
    tracing::info!("stopped");
    Ok(())
}
