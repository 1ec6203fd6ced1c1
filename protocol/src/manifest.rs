//! A Kubernetes object as desired or live state: its key, and the parts of it that every crate asks for.
//!
//! Manifests are JSON values with sorted keys. This module never validates against a schema and never reaches a cluster.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json;

/// Annotation that says which application applied an object (Argo CD's annotation tracking).
pub const TRACKING_ANNOTATION: &str = "argocd.argoproj.io/tracking-id";
/// Label for cheap filtered watches; never a proof of ownership.
pub const OWNER_LABEL: &str = "windlass.io/owner";
/// Field manager of all server-side applies.
pub const FIELD_MANAGER: &str = "windlass";

/// Names one object of a cluster, whatever its API version.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResourceKey {
    /// API group; empty for the core group.
    pub group: String,
    /// Kind, as in the manifest.
    pub kind: String,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl ResourceKey {
    /// The key of a manifest, with the namespace exactly as it stands there.
    #[must_use]
    pub fn of(manifest: &Value) -> Self {
        let (group, _) = group_version(manifest);
        Self {
            group: group.to_owned(),
            kind: kind(manifest).to_owned(),
            namespace: namespace(manifest).to_owned(),
            name: name(manifest).to_owned(),
        }
    }

    /// The value of Argo CD's tracking annotation for this object: `<app>:<group>/<Kind>:<ns>/<name>`.
    #[must_use]
    pub fn tracking_id(&self, application: &str) -> String {
        format!("{application}:{}/{}:{}/{}", self.group, self.kind, self.namespace, self.name)
    }
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, kind, namespace, name } = self;
        if !group.is_empty() {
            write!(f, "{group}/")?;
        }
        write!(f, "{kind} ")?;
        if !namespace.is_empty() {
            write!(f, "{namespace}/")?;
        }
        f.write_str(name)
    }
}

/// `kind`, or "".
#[must_use]
pub fn kind(manifest: &Value) -> &str {
    json::text(manifest, &["kind"])
}

/// `metadata.name`, or "".
#[must_use]
pub fn name(manifest: &Value) -> &str {
    json::text(manifest, &["metadata", "name"])
}

/// `metadata.namespace`, or "".
#[must_use]
pub fn namespace(manifest: &Value) -> &str {
    json::text(manifest, &["metadata", "namespace"])
}

/// `apiVersion`, or "".
#[must_use]
pub fn api_version(manifest: &Value) -> &str {
    json::text(manifest, &["apiVersion"])
}

/// Group and version of `apiVersion`; the group of core objects is "".
#[must_use]
pub fn group_version(manifest: &Value) -> (&str, &str) {
    let api_version = api_version(manifest);
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// An annotation, if present and a text.
#[must_use]
pub fn annotation<'a>(manifest: &'a Value, key: &str) -> Option<&'a str> {
    json::at(manifest, &["metadata", "annotations", key])?.as_str()
}

/// A label, if present and a text.
#[must_use]
pub fn label<'a>(manifest: &'a Value, key: &str) -> Option<&'a str> {
    json::at(manifest, &["metadata", "labels", key])?.as_str()
}

/// Whether an annotation that holds a comma-separated list has this entry (`argocd.argoproj.io/sync-options` and its kin).
#[must_use]
pub fn annotation_has(manifest: &Value, key: &str, entry: &str) -> bool {
    annotation(manifest, key).is_some_and(|list| list.split(',').any(|item| item.trim() == entry))
}

/// Whether the object is a core Secret, whose content is sealed wherever it is stored.
#[must_use]
pub fn is_secret(manifest: &Value) -> bool {
    kind(manifest) == "Secret" && api_version(manifest) == "v1"
}

/// The canonical bytes of a manifest: JSON with sorted keys and no blanks. Digests are taken of these.
#[must_use]
pub fn canonical(manifest: &Value) -> Vec<u8> {
    manifest.to_string().into_bytes()
}

/// Whether a built-in kind is cluster-scoped; `None` for kinds that are not built in (a discovery must say).
///
/// From the API reference of Kubernetes 1.36.
#[must_use]
pub fn is_cluster_scoped(group: &str, kind: &str) -> Option<bool> {
    let cluster = match group {
        "" => matches!(kind, "Namespace" | "Node" | "PersistentVolume" | "ComponentStatus"),
        "apps" | "batch" | "autoscaling" | "policy" | "events.k8s.io" | "coordination.k8s.io" | "discovery.k8s.io" => {
            false
        }
        "rbac.authorization.k8s.io" => kind.starts_with("Cluster"),
        "networking.k8s.io" => matches!(kind, "IngressClass" | "IPAddress" | "ServiceCIDR"),
        "storage.k8s.io" => kind != "CSIStorageCapacity",
        "apiextensions.k8s.io"
        | "apiregistration.k8s.io"
        | "admissionregistration.k8s.io"
        | "node.k8s.io"
        | "scheduling.k8s.io"
        | "flowcontrol.apiserver.k8s.io" => true,
        "certificates.k8s.io" => matches!(kind, "CertificateSigningRequest" | "ClusterTrustBundle"),
        "resource.k8s.io" => matches!(kind, "DeviceClass" | "ResourceSlice"),
        "argoproj.io" => false,
        _ => return None,
    };
    Some(cluster)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_and_tracking_ids_follow_argo() {
        let manifest =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"}});
        let key = ResourceKey::of(&manifest);
        assert_eq!(key.to_string(), "apps/Deployment shop/web");
        assert_eq!(key.tracking_id("store"), "store:apps/Deployment:shop/web");
        let core = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        assert_eq!(ResourceKey::of(&core).tracking_id("store"), "store:/Namespace:/shop");
        assert_eq!(is_cluster_scoped("", "Namespace"), Some(true));
        assert_eq!(is_cluster_scoped("example.com", "Widget"), None);
    }
}
