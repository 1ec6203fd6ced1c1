//! The agent's identity as a Secret of its own namespace, so that a Pod on another node is the same agent.
//!
//! That one agent acts at a time is the Deployment's strategy (`Recreate`) and the hub's rule that the newer incarnation wins.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use windlass_protocol::manifest::FIELD_MANAGER;

use super::KubernetesCluster;
use crate::cluster::ClusterError;

/// Name of the Secret.
const NAME: &str = "windlass-agent-identity";
/// Key of the record inside the Secret.
const ENTRY: &str = "identity";

/// One record of bytes in a Secret.
#[derive(Debug)]
pub struct SecretStore {
    cluster: KubernetesCluster,
    namespace: String,
}

impl SecretStore {
    /// In a namespace of the cluster.
    #[must_use]
    pub const fn new(cluster: KubernetesCluster, namespace: String) -> Self {
        Self { cluster, namespace }
    }

    /// The record, if there is one.
    ///
    /// # Errors
    /// The API server's refusal, or that it cannot be reached.
    pub async fn read(&self) -> Result<Option<Vec<u8>>, ClusterError> {
        let secret = self.cluster.bounded(self.secrets().get_opt(NAME)).await?;
        Ok(secret.and_then(|secret| secret.data).and_then(|mut data| data.remove(ENTRY)).map(|bytes| bytes.0))
    }

    /// Writes the record.
    ///
    /// # Errors
    /// The API server's refusal, or that it cannot be reached.
    pub async fn write(&self, record: &[u8]) -> Result<(), ClusterError> {
        let mut secret = Secret {
            data: Some(BTreeMap::from([(ENTRY.to_owned(), ByteString(record.to_vec()))])),
            type_: Some("windlass.io/agent-identity".to_owned()),
            ..Secret::default()
        };
        secret.metadata.name = Some(NAME.to_owned());
        let params = PatchParams::apply(FIELD_MANAGER).force();
        self.cluster.bounded(self.secrets().patch(NAME, &params, &Patch::Apply(&secret))).await?;
        Ok(())
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }
}
