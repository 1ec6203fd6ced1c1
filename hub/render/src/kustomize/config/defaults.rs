//! Kustomize's default configuration, written as the products it consists of: owners of a pod template times the
//! fields of a pod.

use super::{Config, NameReference, of_kind};
use crate::kustomize::{
    fieldspec::{FieldSpec, FieldSpecs},
    id::Gvk,
};

/// Kinds that hold a pod template, and where.
const TEMPLATES: [(&str, &str); 6] = [
    ("Deployment", "spec/template/"),
    ("ReplicaSet", "spec/template/"),
    ("DaemonSet", "spec/template/"),
    ("StatefulSet", "spec/template/"),
    ("Job", "spec/template/"),
    ("CronJob", "spec/jobTemplate/spec/template/"),
];

const CONFIG_MAP_FIELDS: [&str; 6] = [
    "spec/volumes/configMap/name",
    "spec/containers/env/valueFrom/configMapKeyRef/name",
    "spec/initContainers/env/valueFrom/configMapKeyRef/name",
    "spec/containers/envFrom/configMapRef/name",
    "spec/initContainers/envFrom/configMapRef/name",
    "spec/volumes/projected/sources/configMap/name",
];

const SECRET_FIELDS: [&str; 7] = [
    "spec/volumes/secret/secretName",
    "spec/containers/env/valueFrom/secretKeyRef/name",
    "spec/initContainers/env/valueFrom/secretKeyRef/name",
    "spec/containers/envFrom/secretRef/name",
    "spec/initContainers/envFrom/secretRef/name",
    "spec/imagePullSecrets/name",
    "spec/volumes/projected/sources/secret/name",
];

const VARIABLE_FIELDS: [&str; 8] = [
    "spec/containers/args",
    "spec/containers/command",
    "spec/containers/env/value",
    "spec/containers/volumeMounts/mountPath",
    "spec/initContainers/args",
    "spec/initContainers/command",
    "spec/initContainers/env/value",
    "spec/initContainers/volumeMounts/mountPath",
];

pub(super) fn config() -> Config {
    Config {
        name_prefix: FieldSpecs(vec![FieldSpec::everywhere("metadata/name", false)]),
        name_suffix: FieldSpecs(vec![FieldSpec::everywhere("metadata/name", false)]),
        namespace: namespace(),
        common_labels: common_labels(),
        labels: FieldSpecs::default(),
        template_labels: FieldSpecs(metadata("labels")),
        common_annotations: common_annotations(),
        name_reference: name_references(),
        var_reference: var_references(),
        images: FieldSpecs(images()),
        replicas: FieldSpecs(
            ["Deployment", "ReplicationController", "ReplicaSet", "StatefulSet"]
                .iter()
                .map(|kind| of_kind(kind, "spec/replicas", true))
                .collect(),
        ),
    }
}

fn of(group: &str, kind: &str, path: &str, create: bool) -> FieldSpec {
    let gvk = Gvk { group: group.to_owned(), kind: kind.to_owned(), ..Gvk::default() };
    FieldSpec::new(gvk, path, create)
}

fn of_v1(kind: &str, path: impl Into<String>, create: bool) -> FieldSpec {
    let gvk = Gvk { version: "v1".to_owned(), kind: kind.to_owned(), ..Gvk::default() };
    FieldSpec::new(gvk, path, create)
}

fn namespace() -> FieldSpecs {
    FieldSpecs(vec![
        of_kind("Namespace", "metadata/name", true),
        of("apiregistration.k8s.io", "APIService", "spec/service/namespace", true),
        of(
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "spec/conversion/webhook/clientConfig/service/namespace",
            false,
        ),
    ])
}

/// Labels (or annotations) of objects and of the pod templates in them.
fn metadata(field: &str) -> Vec<FieldSpec> {
    let template = format!("spec/template/metadata/{field}");
    vec![
        FieldSpec::everywhere(&format!("metadata/{field}"), true),
        of_v1("ReplicationController", template.as_str(), true),
        of_kind("Deployment", template.as_str(), true),
        of_kind("ReplicaSet", template.as_str(), true),
        of_kind("DaemonSet", template.as_str(), true),
        of("apps", "StatefulSet", &template, true),
        of("apps", "StatefulSet", &format!("spec/volumeClaimTemplates[]/metadata/{field}"), true),
        of("batch", "Job", &template, true),
        of("batch", "CronJob", &format!("spec/jobTemplate/metadata/{field}"), true),
        of("batch", "CronJob", &format!("spec/jobTemplate/spec/template/metadata/{field}"), true),
    ]
}

fn common_annotations() -> FieldSpecs {
    let mut specs = metadata("annotations");
    // Claims of a StatefulSet get labels, but no annotations, and its group does not matter here.
    specs.retain(|spec| !spec.path.starts_with("spec/volumeClaimTemplates"));
    for spec in &mut specs {
        if spec.gvk.kind == "StatefulSet" {
            spec.gvk.group.clear();
        }
    }
    FieldSpecs(specs)
}

fn common_labels() -> FieldSpecs {
    const AFFINITY: [&str; 5] = [
        "affinity/podAffinity/preferredDuringSchedulingIgnoredDuringExecution/podAffinityTerm/labelSelector/matchLabels",
        "affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/labelSelector/matchLabels",
        "affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/podAffinityTerm/labelSelector/matchLabels",
        "affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/labelSelector/matchLabels",
        "topologySpreadConstraints/labelSelector/matchLabels",
    ];
    let mut specs = vec![
        of_v1("Service", "spec/selector", true),
        of_v1("ReplicationController", "spec/selector", true),
        of_kind("Deployment", "spec/selector/matchLabels", true),
        of_kind("ReplicaSet", "spec/selector/matchLabels", true),
        of_kind("DaemonSet", "spec/selector/matchLabels", true),
        of("apps", "StatefulSet", "spec/selector/matchLabels", true),
        of("batch", "Job", "spec/selector/matchLabels", false),
        of("batch", "CronJob", "spec/jobTemplate/spec/selector/matchLabels", false),
        of("policy", "PodDisruptionBudget", "spec/selector/matchLabels", false),
        of("networking.k8s.io", "NetworkPolicy", "spec/podSelector/matchLabels", false),
        of("networking.k8s.io", "NetworkPolicy", "spec/ingress/from/podSelector/matchLabels", false),
        of("networking.k8s.io", "NetworkPolicy", "spec/egress/to/podSelector/matchLabels", false),
    ];
    for kind in ["Deployment", "StatefulSet"] {
        specs.extend(AFFINITY.iter().map(|path| of("apps", kind, &format!("spec/template/spec/{path}"), false)));
    }
    specs.extend(metadata("labels"));
    FieldSpecs(specs)
}

fn images() -> Vec<FieldSpec> {
    let mut specs = Vec::new();
    for prefix in ["spec/", "spec/template/spec/"] {
        for path in ["containers[]/image", "initContainers[]/image", "volumes[]/image/reference"] {
            specs.push(FieldSpec::everywhere(&format!("{prefix}{path}"), true));
        }
    }
    specs
}

/// The fields of a pod in a Pod, a PodTemplate and every owner of a template.
fn pod_fields(fields: &[&str]) -> Vec<FieldSpec> {
    let mut specs: Vec<FieldSpec> = fields.iter().map(|path| of_v1("Pod", *path, false)).collect();
    specs.extend(fields.iter().map(|path| of_kind("PodTemplate", format!("template/{path}"), false)));
    for (kind, prefix) in TEMPLATES {
        specs.extend(fields.iter().map(|path| of_kind(kind, format!("{prefix}{path}"), false)));
    }
    specs
}

/// A field of a pod's spec that names one object, where Kustomize looks for it.
fn pod_spec_field(field: &str) -> Vec<FieldSpec> {
    let mut specs = vec![of_kind("Pod", format!("spec/{field}"), false)];
    for kind in ["StatefulSet", "Deployment", "ReplicationController", "Job", "DaemonSet"] {
        specs.push(of_kind(kind, format!("spec/template/spec/{field}"), false));
    }
    specs.push(of_kind("CronJob", format!("spec/jobTemplate/spec/template/spec/{field}"), false));
    specs
}

fn reference(group: &str, version: &str, kind: &str, referrers: Vec<FieldSpec>) -> NameReference {
    let target = Gvk { group: group.to_owned(), version: version.to_owned(), kind: kind.to_owned() };
    NameReference { target, referrers: FieldSpecs(referrers) }
}

fn name_references() -> Vec<NameReference> {
    const RBAC: &str = "rbac.authorization.k8s.io";
    let scaled = || vec![of_kind("HorizontalPodAutoscaler", "spec/scaleTargetRef/name", false)];
    let mut all: Vec<NameReference> = ["Deployment", "ReplicationController", "ReplicaSet", "StatefulSet"]
        .iter()
        .map(|kind| reference("", "", kind, scaled()))
        .collect();
    all.push(reference("", "v1", "ConfigMap", config_map_referrers()));
    all.push(reference("", "v1", "Secret", secret_referrers()));
    all.push(reference("", "v1", "Service", service_referrers()));
    all.push(reference(RBAC, "", "Role", vec![of(RBAC, "RoleBinding", "roleRef/name", false)]));
    let cluster_role =
        vec![of(RBAC, "RoleBinding", "roleRef/name", false), of(RBAC, "ClusterRoleBinding", "roleRef/name", false)];
    all.push(reference(RBAC, "", "ClusterRole", cluster_role));
    let mut accounts =
        vec![of(RBAC, "RoleBinding", "subjects", false), of(RBAC, "ClusterRoleBinding", "subjects", false)];
    accounts.extend(pod_spec_field("serviceAccountName"));
    all.push(reference("", "v1", "ServiceAccount", accounts));
    all.push(reference("", "v1", "PersistentVolumeClaim", pod_spec_field("volumes/persistentVolumeClaim/claimName")));
    let volume = vec![
        of_kind("PersistentVolumeClaim", "spec/volumeName", false),
        of_kind("ClusterRole", "rules/resourceNames", false),
    ];
    all.push(reference("", "v1", "PersistentVolume", volume));
    let class = vec![
        of_kind("PersistentVolume", "spec/storageClassName", false),
        of_kind("PersistentVolumeClaim", "spec/storageClassName", false),
        of_kind("StatefulSet", "spec/volumeClaimTemplates/spec/storageClassName", false),
    ];
    all.push(reference("storage.k8s.io", "v1", "StorageClass", class));
    all.push(reference("scheduling.k8s.io", "v1", "PriorityClass", pod_spec_field("priorityClassName")));
    // The group is what Kustomize has, version and all: it matches nothing.
    let ingress = vec![of_kind("Ingress", "spec/ingressClassName", false)];
    all.push(reference("networking.k8s.io/v1", "v1", "IngressClass", ingress));
    let policy = vec![of("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding", "spec/policyName", false)];
    all.push(reference("admissionregistration.k8s.io", "", "ValidatingAdmissionPolicy", policy));
    all
}

fn config_map_referrers() -> Vec<FieldSpec> {
    let mut specs = pod_fields(&CONFIG_MAP_FIELDS);
    specs.extend([
        of_kind("Node", "spec/configSource/configMap", false),
        of_kind("Role", "rules/resourceNames", false),
        of_kind("ClusterRole", "rules/resourceNames", false),
        of_kind("Ingress", "metadata/annotations/nginx.ingress.kubernetes.io\\/fastcgi-params-configmap", false),
    ]);
    specs
}

fn secret_referrers() -> Vec<FieldSpec> {
    let mut specs = pod_fields(&SECRET_FIELDS);
    specs.extend([
        of_kind("Ingress", "spec/tls/secretName", false),
        of_kind("Ingress", "metadata/annotations/ingress.kubernetes.io\\/auth-secret", false),
        of_kind("Ingress", "metadata/annotations/nginx.ingress.kubernetes.io\\/auth-secret", false),
        of_kind("Ingress", "metadata/annotations/nginx.ingress.kubernetes.io\\/auth-tls-secret", false),
        of_kind("ServiceAccount", "imagePullSecrets/name", false),
        of_kind("StorageClass", "parameters/secretName", false),
        of_kind("StorageClass", "parameters/adminSecretName", false),
        of_kind("StorageClass", "parameters/userSecretName", false),
        of_kind("StorageClass", "parameters/secretRef", false),
        of_kind("Role", "rules/resourceNames", false),
        of_kind("ClusterRole", "rules/resourceNames", false),
        FieldSpec::new(
            Gvk::new("serving.knative.dev/v1", "Service"),
            "spec/template/spec/containers/env/valueFrom/secretKeyRef/name",
            false,
        ),
        of_kind("PersistentVolume", "spec/azureFile/secretName", false),
    ]);
    specs
}

fn service_referrers() -> Vec<FieldSpec> {
    const ADMISSION: &str = "admissionregistration.k8s.io";
    vec![
        of("apps", "StatefulSet", "spec/serviceName", false),
        of_kind("Ingress", "spec/rules/http/paths/backend/serviceName", false),
        of_kind("Ingress", "spec/backend/serviceName", false),
        of_kind("Ingress", "spec/rules/http/paths/backend/service/name", false),
        of_kind("Ingress", "spec/defaultBackend/service/name", false),
        of("apiregistration.k8s.io", "APIService", "spec/service/name", false),
        of(ADMISSION, "ValidatingWebhookConfiguration", "webhooks/clientConfig/service", false),
        of(ADMISSION, "MutatingWebhookConfiguration", "webhooks/clientConfig/service", false),
    ]
}

fn var_references() -> FieldSpecs {
    let mut specs: Vec<FieldSpec> = VARIABLE_FIELDS.iter().map(|path| of_kind("Pod", *path, false)).collect();
    specs.push(of_kind("Pod", "spec/volumes/nfs/server", false));
    for (kind, prefix) in TEMPLATES {
        specs.extend(VARIABLE_FIELDS.iter().map(|path| of_kind(kind, format!("{prefix}{path}"), false)));
    }
    for kind in ["DaemonSet", "Deployment", "Job", "ReplicaSet"] {
        specs.push(of_kind(kind, "spec/template/spec/volumes/nfs/server", false));
    }
    specs.extend([
        // Without `spec`, as in Kustomize: it matches nothing.
        of_kind("CronJob", "spec/jobTemplate/spec/template/volumes/nfs/server", false),
        of_kind("Deployment", "spec/template/metadata/annotations", false),
        of_kind("Ingress", "spec/rules/host", false),
        of_kind("Ingress", "spec/tls/hosts", false),
        of_kind("Ingress", "spec/tls/secretName", false),
        of_kind("Service", "spec/ports/port", false),
        of_kind("Service", "spec/ports/targetPort", false),
        of_kind("StatefulSet", "spec/volumeClaimTemplates/spec/nfs/server", false),
        of_kind("PersistentVolume", "spec/nfs/server", false),
        FieldSpec::everywhere("metadata/labels", false),
        FieldSpec::everywhere("metadata/annotations", false),
    ]);
    FieldSpecs(specs)
}
