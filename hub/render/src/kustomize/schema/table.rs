//! The built-in table: lists that merge, reached from the kinds of Kubernetes 1.21 as Kustomize 5.8 carries it.
//!
//! Generated from that schema: types of equal content are one, and types and fields below which nothing merges are
//! left out, since a list without merge keys and a list of an unknown type are both replaced.

use super::{FieldType, TypeRef};

/// A field of a type.
pub(super) struct Field {
    pub(super) name: &'static str,
    shape: Shape,
}

enum Shape {
    Object(usize),
    List(usize),
    Merge(&'static [&'static str], Option<usize>),
}

impl Field {
    pub(super) fn to_type(&self) -> FieldType {
        match &self.shape {
            Shape::Object(index) => FieldType::Object(TypeRef(*index)),
            Shape::List(index) => FieldType::List(Some(TypeRef(*index))),
            Shape::Merge(keys, items) => FieldType::MergeList {
                keys: keys.iter().map(|key| (*key).to_owned()).collect(),
                items: items.map(TypeRef),
            },
        }
    }
}

const fn object(name: &'static str, index: usize) -> Field {
    Field { name, shape: Shape::Object(index) }
}

const fn list(name: &'static str, index: usize) -> Field {
    Field { name, shape: Shape::List(index) }
}

const fn merge(name: &'static str, keys: &'static [&'static str], items: Option<usize>) -> Field {
    Field { name, shape: Shape::Merge(keys, items) }
}

/// Whether a kind certainly has no namespace.
pub(super) fn is_cluster_scoped(group: &str, version: &str, kind: &str) -> bool {
    let v1_or_beta = matches!(version, "v1" | "v1beta1");
    match kind {
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => {
            group == "admissionregistration.k8s.io" && v1_or_beta
        }
        "CustomResourceDefinition" => group == "apiextensions.k8s.io" && v1_or_beta,
        "APIService" => group == "apiregistration.k8s.io" && v1_or_beta,
        "CertificateSigningRequest" => group == "certificates.k8s.io" && v1_or_beta,
        "FlowSchema" | "PriorityLevelConfiguration" => group == "flowcontrol.apiserver.k8s.io" && version == "v1beta1",
        "IngressClass" => group == "networking.k8s.io" && v1_or_beta,
        "RuntimeClass" => group == "node.k8s.io" && v1_or_beta,
        "PodSecurityPolicy" => group == "policy" && version == "v1beta1",
        "ClusterRole" | "ClusterRoleBinding" => group == "rbac.authorization.k8s.io" && v1_or_beta,
        "PriorityClass" => group == "scheduling.k8s.io" && v1_or_beta,
        "CSIDriver" | "StorageClass" | "VolumeAttachment" => group == "storage.k8s.io" && v1_or_beta,
        "CSINode" => group == "storage.k8s.io" && version == "v1",
        "ComponentStatus" | "Namespace" | "Node" | "NodeProxyOptions" | "PersistentVolume" => {
            group.is_empty() && version == "v1"
        }
        _ => false,
    }
}

/// Kinds and the index of their type, sorted by API version and kind.
pub(super) const KINDS: &[(&str, &str, usize)] = &[
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", 0),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", 0),
    ("admissionregistration.k8s.io/v1beta1", "MutatingWebhookConfiguration", 0),
    ("admissionregistration.k8s.io/v1beta1", "ValidatingWebhookConfiguration", 0),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition", 1),
    ("apiextensions.k8s.io/v1beta1", "CustomResourceDefinition", 1),
    ("apiregistration.k8s.io/v1", "APIService", 15),
    ("apiregistration.k8s.io/v1beta1", "APIService", 15),
    ("apps/v1", "ControllerRevision", 1),
    ("apps/v1", "DaemonSet", 2),
    ("apps/v1", "Deployment", 2),
    ("apps/v1", "ReplicaSet", 2),
    ("apps/v1", "StatefulSet", 6),
    ("authentication.k8s.io/v1", "TokenRequest", 1),
    ("authentication.k8s.io/v1", "TokenReview", 1),
    ("authentication.k8s.io/v1beta1", "TokenReview", 1),
    ("authorization.k8s.io/v1", "LocalSubjectAccessReview", 1),
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview", 1),
    ("authorization.k8s.io/v1", "SelfSubjectRulesReview", 1),
    ("authorization.k8s.io/v1", "SubjectAccessReview", 1),
    ("authorization.k8s.io/v1beta1", "LocalSubjectAccessReview", 1),
    ("authorization.k8s.io/v1beta1", "SelfSubjectAccessReview", 1),
    ("authorization.k8s.io/v1beta1", "SelfSubjectRulesReview", 1),
    ("authorization.k8s.io/v1beta1", "SubjectAccessReview", 1),
    ("autoscaling/v1", "HorizontalPodAutoscaler", 1),
    ("autoscaling/v1", "Scale", 1),
    ("autoscaling/v2beta1", "HorizontalPodAutoscaler", 1),
    ("autoscaling/v2beta2", "HorizontalPodAutoscaler", 1),
    ("batch/v1", "CronJob", 8),
    ("batch/v1", "Job", 2),
    ("batch/v1beta1", "CronJob", 8),
    ("certificates.k8s.io/v1", "CertificateSigningRequest", 1),
    ("certificates.k8s.io/v1beta1", "CertificateSigningRequest", 1),
    ("coordination.k8s.io/v1", "Lease", 1),
    ("coordination.k8s.io/v1beta1", "Lease", 1),
    ("discovery.k8s.io/v1", "EndpointSlice", 1),
    ("discovery.k8s.io/v1beta1", "EndpointSlice", 1),
    ("events.k8s.io/v1", "Event", 1),
    ("events.k8s.io/v1beta1", "Event", 1),
    ("extensions/v1beta1", "Ingress", 1),
    ("flowcontrol.apiserver.k8s.io/v1beta1", "FlowSchema", 1),
    ("flowcontrol.apiserver.k8s.io/v1beta1", "PriorityLevelConfiguration", 1),
    ("kustomize.config.k8s.io/v1beta1", "Kustomization", 5),
    ("networking.k8s.io/v1", "Ingress", 1),
    ("networking.k8s.io/v1", "IngressClass", 1),
    ("networking.k8s.io/v1", "NetworkPolicy", 1),
    ("networking.k8s.io/v1beta1", "Ingress", 1),
    ("networking.k8s.io/v1beta1", "IngressClass", 1),
    ("node.k8s.io/v1", "RuntimeClass", 1),
    ("node.k8s.io/v1beta1", "RuntimeClass", 1),
    ("policy/v1", "PodDisruptionBudget", 15),
    ("policy/v1beta1", "Eviction", 1),
    ("policy/v1beta1", "PodDisruptionBudget", 15),
    ("policy/v1beta1", "PodSecurityPolicy", 1),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", 1),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", 1),
    ("rbac.authorization.k8s.io/v1", "Role", 1),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", 1),
    ("rbac.authorization.k8s.io/v1beta1", "ClusterRole", 1),
    ("rbac.authorization.k8s.io/v1beta1", "ClusterRoleBinding", 1),
    ("rbac.authorization.k8s.io/v1beta1", "Role", 1),
    ("rbac.authorization.k8s.io/v1beta1", "RoleBinding", 1),
    ("scheduling.k8s.io/v1", "PriorityClass", 1),
    ("scheduling.k8s.io/v1beta1", "PriorityClass", 1),
    ("storage.k8s.io/v1", "CSIDriver", 1),
    ("storage.k8s.io/v1", "CSINode", 28),
    ("storage.k8s.io/v1", "StorageClass", 1),
    ("storage.k8s.io/v1", "VolumeAttachment", 1),
    ("storage.k8s.io/v1beta1", "CSIDriver", 1),
    ("storage.k8s.io/v1beta1", "CSINode", 28),
    ("storage.k8s.io/v1beta1", "CSIStorageCapacity", 1),
    ("storage.k8s.io/v1beta1", "StorageClass", 1),
    ("storage.k8s.io/v1beta1", "VolumeAttachment", 1),
    ("v1", "Binding", 1),
    ("v1", "ComponentStatus", 11),
    ("v1", "ConfigMap", 1),
    ("v1", "Endpoints", 1),
    ("v1", "Event", 1),
    ("v1", "LimitRange", 1),
    ("v1", "Namespace", 15),
    ("v1", "Node", 16),
    ("v1", "PersistentVolume", 1),
    ("v1", "PersistentVolumeClaim", 15),
    ("v1", "Pod", 19),
    ("v1", "PodTemplate", 22),
    ("v1", "ReplicationController", 2),
    ("v1", "ResourceQuota", 1),
    ("v1", "Secret", 1),
    ("v1", "Service", 24),
    ("v1", "ServiceAccount", 25),
];

/// Types; a comment names one that has this content.
pub(super) const TYPES: &[&[Field]] = &[
    // 0: admissionregistration.v1.MutatingWebhookConfiguration
    &[object("metadata", 30), merge("webhooks", &["name"], None)],
    // 1: apps.v1.ControllerRevision
    &[object("metadata", 30)],
    // 2: apps.v1.DaemonSet
    &[object("metadata", 30), object("spec", 3), object("status", 4)],
    // 3: apps.v1.DaemonSetSpec
    &[object("template", 23)],
    // 4: apps.v1.DaemonSetStatus
    &[merge("conditions", &["type"], None)],
    // 5: apps.v1.Kustomization
    &[merge("configMapGenerator", &["name"], None), merge("secretGenerator", &["name"], None)],
    // 6: apps.v1.StatefulSet
    &[object("metadata", 30), object("spec", 7), object("status", 4)],
    // 7: apps.v1.StatefulSetSpec
    &[object("template", 23), list("volumeClaimTemplates", 15)],
    // 8: batch.v1.CronJob
    &[object("metadata", 30), object("spec", 9)],
    // 9: batch.v1.CronJobSpec
    &[object("jobTemplate", 10)],
    // 10: batch.v1.JobTemplateSpec
    &[object("metadata", 30), object("spec", 3)],
    // 11: core.v1.ComponentStatus
    &[merge("conditions", &["type"], None), object("metadata", 30)],
    // 12: core.v1.Container
    &[
        merge("env", &["name"], None),
        merge("ports", &["containerPort", "protocol"], None),
        merge("volumeDevices", &["devicePath"], None),
        merge("volumeMounts", &["mountPath"], None),
    ],
    // 13: core.v1.EphemeralContainer
    &[
        merge("env", &["name"], None),
        merge("volumeDevices", &["devicePath"], None),
        merge("volumeMounts", &["mountPath"], None),
    ],
    // 14: core.v1.EphemeralVolumeSource
    &[object("volumeClaimTemplate", 1)],
    // 15: core.v1.Namespace
    &[object("metadata", 30), object("status", 4)],
    // 16: core.v1.Node
    &[object("metadata", 30), object("spec", 17), object("status", 18)],
    // 17: core.v1.NodeSpec
    &[merge("podCIDRs", &[], None)],
    // 18: core.v1.NodeStatus
    &[merge("addresses", &["type"], None), merge("conditions", &["type"], None)],
    // 19: core.v1.Pod
    &[object("metadata", 30), object("spec", 20), object("status", 21)],
    // 20: core.v1.PodSpec
    &[
        merge("containers", &["name"], Some(12)),
        merge("ephemeralContainers", &["name"], Some(13)),
        merge("hostAliases", &["ip"], None),
        merge("imagePullSecrets", &["name"], None),
        merge("initContainers", &["name"], Some(12)),
        merge("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"], None),
        merge("volumes", &["name"], Some(27)),
    ],
    // 21: core.v1.PodStatus
    &[merge("conditions", &["type"], None), merge("podIPs", &["ip"], None)],
    // 22: core.v1.PodTemplate
    &[object("metadata", 30), object("template", 23)],
    // 23: core.v1.PodTemplateSpec
    &[object("metadata", 30), object("spec", 20)],
    // 24: core.v1.Service
    &[object("metadata", 30), object("spec", 26), object("status", 4)],
    // 25: core.v1.ServiceAccount
    &[object("metadata", 30), merge("secrets", &["name"], None)],
    // 26: core.v1.ServiceSpec
    &[merge("ports", &["port", "protocol"], None)],
    // 27: core.v1.Volume
    &[object("ephemeral", 14)],
    // 28: storage.v1.CSINode
    &[object("metadata", 30), object("spec", 29)],
    // 29: storage.v1.CSINodeSpec
    &[merge("drivers", &["name"], None)],
    // 30: meta.v1.ObjectMeta
    &[merge("finalizers", &[], None), merge("ownerReferences", &["uid"], None)],
];
