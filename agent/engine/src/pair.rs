//! Whose an object is. The proof is the tracking annotation that names its own object; the inventory stands in where the
//! annotation was removed from the very object that we applied. The owner label is never a proof.

use serde_json::Value;
use windlass_protocol::{
    json,
    manifest::{self, ResourceKey, TRACKING_ANNOTATION},
};

/// Who manages a live object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This application.
    Ours,
    /// Another application, by its tracking name.
    Other(String),
    /// Nobody says so.
    Nobody,
}

/// The application that a live object's tracking annotation names; `None` unless the annotation names this very object.
///
/// Argo CD writes the destination namespace into the annotation of cluster-scoped objects; any namespace is accepted there.
#[must_use]
pub fn tracked_by(live: &Value) -> Option<&str> {
    names_itself(manifest::annotation(live, TRACKING_ANNOTATION)?, &ResourceKey::of(live))
}

/// The application of a tracking annotation, if it names the object with this key.
#[must_use]
pub fn names_itself<'a>(tracking: &'a str, key: &ResourceKey) -> Option<&'a str> {
    let mut parts = tracking.splitn(3, ':');
    let (application, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
    let (group, kind) = kind.split_once('/')?;
    let (namespace, name) = name.split_once('/')?;
    let same = group == key.group && kind == key.kind && name == key.name;
    let same_namespace = key.namespace.is_empty() || namespace == key.namespace;
    (same && same_namespace && !application.is_empty()).then_some(application)
}

/// Whose a live object is. `known_uid` is the uid that the inventory holds for its key.
#[must_use]
pub fn owner(live: &Value, tracking_name: &str, known_uid: Option<&str>) -> Owner {
    match tracked_by(live) {
        Some(name) if name == tracking_name => Owner::Ours,
        Some(name) => Owner::Other(name.to_owned()),
        None if known_uid.is_some_and(|known| !known.is_empty() && known == uid(live)) => Owner::Ours,
        None => Owner::Nobody,
    }
}

/// `metadata.uid`, or "".
#[must_use]
pub fn uid(live: &Value) -> &str {
    json::text(live, &["metadata", "uid"])
}

/// Whether another object controls this one (a Pod of a ReplicaSet): such objects are never pruned, their owner is.
#[must_use]
pub fn is_controlled(live: &Value) -> bool {
    let owners = json::at(live, &["metadata", "ownerReferences"]).and_then(Value::as_array);
    owners.is_some_and(|owners| owners.iter().any(|owner| owner.get("controller") == Some(&Value::Bool(true))))
}

/// Whether the object is on its way out.
#[must_use]
pub fn is_terminating(live: &Value) -> bool {
    json::at(live, &["metadata", "deletionTimestamp"]).is_some_and(|time| !time.is_null())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tracked(id: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n", "uid": "1",
            "annotations": {TRACKING_ANNOTATION: id}}})
    }

    #[test]
    fn tracking_must_name_its_own_object() {
        assert_eq!(owner(&tracked("shop:/ConfigMap:n/a"), "shop", None), Owner::Ours);
        assert_eq!(owner(&tracked("other:/ConfigMap:n/a"), "shop", Some("1")), Owner::Other("other".to_owned()));
        assert_eq!(owner(&tracked("shop:/ConfigMap:n/b"), "shop", None), Owner::Nobody);
        assert_eq!(owner(&tracked("nonsense"), "shop", Some("1")), Owner::Ours);
        assert_eq!(owner(&tracked("nonsense"), "shop", Some("2")), Owner::Nobody);
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "system:x",
            "annotations": {TRACKING_ANNOTATION: "shop:rbac.authorization.k8s.io/ClusterRole:default/system:x"}}});
        assert_eq!(tracked_by(&role), Some("shop"));
    }

    #[test]
    fn controlled_objects_are_recognised() {
        assert!(is_controlled(&json!({"metadata": {"ownerReferences": [{"controller": true}]}})));
        assert!(!is_controlled(&json!({"metadata": {"ownerReferences": [{"kind": "Deployment"}]}})));
        assert!(is_terminating(&json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})));
    }
}
