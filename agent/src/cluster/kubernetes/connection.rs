//! Finds the API server: a kubeconfig file or the ServiceAccount of the Pod.

use std::path::PathBuf;

use kube::{
    Client, Config as KubeConfig,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::KubernetesCluster;
use crate::{config::ClusterConfig, limits::Limits};

/// Why there is no cluster to connect to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be used.
    #[error("cannot use kubeconfig {path}")]
    Kubeconfig {
        /// The file, or where it was looked for.
        path: String,
        /// The cause.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// The process does not run in a Pod with a ServiceAccount.
    #[error("cannot use the ServiceAccount of this Pod")]
    InCluster(#[source] Box<kube::config::InClusterError>),
    /// The client cannot be built.
    #[error("cannot build a client of the API server")]
    Client(#[source] Box<kube::Error>),
    /// The configuration asks for a simulated cluster.
    #[error("the configuration names no real cluster")]
    Embedded,
}

/// A client of the configured cluster. Does not talk to it yet.
///
/// # Errors
/// Missing or unusable credentials; the message names the file.
pub async fn connect(cluster: &ClusterConfig, limits: &Limits) -> Result<KubernetesCluster, ConnectError> {
    let mut config = match cluster {
        ClusterConfig::Embedded => return Err(ConnectError::Embedded),
        ClusterConfig::InCluster => {
            KubeConfig::incluster().map_err(|error| ConnectError::InCluster(Box::new(error)))?
        }
        ClusterConfig::Kubeconfig { path, context } => from_file(path.as_ref(), context.clone()).await?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // Watches are quiet for minutes; they have a deadline of their own.
    config.read_timeout = None;
    // The executor retries by reading everything afresh; a retry below it would only hide the delay.
    config.default_retry = false;
    let client = Client::try_from(config).map_err(|error| ConnectError::Client(Box::new(error)))?;
    Ok(KubernetesCluster::new(client, limits))
}

async fn from_file(path: Option<&PathBuf>, context: Option<String>) -> Result<KubeConfig, ConnectError> {
    let shown = path.map_or_else(|| "of the environment".to_owned(), |path| path.display().to_string());
    let failed = |source| ConnectError::Kubeconfig { path: shown.clone(), source: Box::new(source) };
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    match path {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
            KubeConfig::from_custom_kubeconfig(kubeconfig, &options).await.map_err(failed)
        }
        None => KubeConfig::from_kubeconfig(&options).await.map_err(failed),
    }
}

const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
