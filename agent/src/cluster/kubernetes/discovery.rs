//! Which types the API server serves: aggregated discovery in two requests, cached, the slow way as a fallback.

use std::sync::Arc;

use kube::core::discovery::v2::{APIGroupDiscovery, APIGroupDiscoveryList, APIResourceDiscovery, APIVersionDiscovery};

use super::KubernetesCluster;
use crate::cluster::{ClusterError, Discovery, Freshness, ResourceType};

impl KubernetesCluster {
    /// The served types. One refresh at a time: those who wait take its answer if they asked for a cached one.
    pub(super) async fn discover(&self, freshness: Freshness) -> Result<Arc<Discovery>, ClusterError> {
        let mut cached = self.shared.discovery.lock().await;
        if let (Some(discovery), Freshness::Cached) = (cached.as_ref(), freshness) {
            return Ok(Arc::clone(discovery));
        }
        let discovery = Arc::new(self.aggregated().await?);
        *cached = Some(Arc::clone(&discovery));
        Ok(discovery)
    }

    async fn aggregated(&self) -> Result<Discovery, ClusterError> {
        let core = self.bounded(self.client.list_core_api_versions_aggregated()).await?;
        let groups = self.bounded(self.client.list_api_groups_aggregated()).await?;
        let unavailable =
            groups.items.iter().filter(|group| group.versions.iter().any(is_stale)).map(name_of).collect();
        let types: Vec<ResourceType> = flatten(core).chain(flatten(groups)).collect();
        if types.is_empty() {
            return Err(ClusterError::Unreadable(
                "aggregated discovery is empty: Kubernetes 1.26 or newer is needed".to_owned(),
            ));
        }
        Ok(Discovery::new(types, unavailable))
    }
}

fn flatten(list: APIGroupDiscoveryList) -> impl Iterator<Item = ResourceType> {
    list.items.into_iter().flat_map(|group| {
        let name = name_of(&group);
        group.versions.into_iter().flat_map(move |version| {
            let name = name.clone();
            let number = version.version.unwrap_or_default();
            version.resources.into_iter().filter_map(move |resource| served(&name, &number, resource))
        })
    })
}

fn name_of(group: &APIGroupDiscovery) -> String {
    group.metadata.as_ref().and_then(|metadata| metadata.name.clone()).unwrap_or_default()
}

/// An aggregated API server that does not answer: its kinds may exist although they are not listed.
fn is_stale(version: &APIVersionDiscovery) -> bool {
    version.freshness.as_deref() == Some("Stale")
}

/// Types that cannot be read or patched (reviews, bindings) are left out: nothing can be applied to them.
fn served(group: &str, version: &str, resource: APIResourceDiscovery) -> Option<ResourceType> {
    let has = |verb: &str| resource.verbs.iter().any(|known| known == verb);
    if !has("get") {
        return None;
    }
    let watchable = has("list") && has("watch");
    Some(ResourceType {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: resource.response_kind.and_then(|kind| kind.kind)?,
        plural: resource.resource?,
        namespaced: resource.scope.as_deref() == Some("Namespaced"),
        watchable,
    })
}
