//! Schemas of the served kinds. Core kinds are complete, since clients merge lists by them; `spec` and `status` of the others
//! say what they are for and leave their fields to the server's own validation.

use serde_json::{Map, Value, json};
use windlass_protocol::resource::{Kind, KindInfo};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
/// The schema of `Status`.
pub(super) const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

/// Name of a kind's schema.
pub(super) fn name(info: &KindInfo) -> String {
    match info.group {
        "" => format!("io.k8s.api.core.v1.{}", info.name),
        "argoproj.io" => format!("io.argoproj.v1alpha1.{}", info.name),
        _ => format!("io.windlass.v1alpha1.{}", info.name),
    }
}

fn reference(name: &str) -> Value {
    json!({"allOf": [{"$ref": format!("#/components/schemas/{name}")}]})
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn texts(description: &str) -> Value {
    json!({"type": "object", "description": description, "additionalProperties": {"type": "string"}})
}

fn whole(description: &str) -> Value {
    json!({"type": "integer", "format": "int64", "description": description})
}

fn time(description: &str) -> Value {
    json!({"type": "string", "format": "date-time", "description": description})
}

fn open(description: &str) -> Value {
    json!({"type": "object", "description": description, "x-kubernetes-preserve-unknown-fields": true})
}

/// Schemas that every document refers to.
pub(super) fn shared() -> Map<String, Value> {
    let mut schemas = Map::new();
    schemas.insert(format!("{META}.ObjectMeta"), object_meta());
    schemas.insert(
        format!("{META}.ListMeta"),
        json!({"type": "object", "properties": {
            "continue": text("Token for the rest of the list."), "resourceVersion": text("Revision of the list."),
            "remainingItemCount": whole("Items that are not in the list."), "selfLink": text("Deprecated."),
        }}),
    );
    schemas.insert(
        format!("{META}.OwnerReference"),
        json!({"type": "object", "description": "An object that this object belongs to.",
            "required": ["apiVersion", "kind", "name", "uid"], "properties": {
                "apiVersion": text("API version of the owner."), "kind": text("Kind of the owner."),
                "name": text("Name of the owner."), "uid": text("UID of the owner."),
                "controller": {"type": "boolean"}, "blockOwnerDeletion": {"type": "boolean"},
        }}),
    );
    schemas.insert(
        format!("{META}.ManagedFieldsEntry"),
        json!({"type": "object", "properties": {
            "apiVersion": text(""), "fieldsType": text(""), "fieldsV1": {"type": "object"}, "manager": text(""),
            "operation": text(""), "subresource": text(""), "time": time(""),
        }}),
    );
    schemas.insert(STATUS.to_owned(), open("The outcome of a request."));
    schemas
}

fn object_meta() -> Value {
    let owners = json!({
        "type": "array", "items": reference(&format!("{META}.OwnerReference")), "description": "Owners of the object.",
        "x-kubernetes-patch-merge-key": "uid", "x-kubernetes-patch-strategy": "merge",
        "x-kubernetes-list-map-keys": ["uid"], "x-kubernetes-list-type": "map",
    });
    let finalizers = json!({
        "type": "array", "items": {"type": "string"}, "description": "Must be empty before the object goes away.",
        "x-kubernetes-patch-strategy": "merge", "x-kubernetes-list-type": "set",
    });
    let managed = json!({
        "type": "array", "items": reference(&format!("{META}.ManagedFieldsEntry")), "x-kubernetes-list-type": "atomic",
    });
    json!({"type": "object", "description": "Metadata that every object has.", "properties": {
        "name": text("Name, unique in its namespace."), "generateName": text("Prefix of a name that the server makes."),
        "namespace": text("Namespace of the object."), "uid": text("Unique over time; set by the server."),
        "resourceVersion": text("Revision of the hub's state at which the object last changed."),
        "generation": whole("Raised when the desired state changes."),
        "creationTimestamp": time("When the object was made."), "deletionTimestamp": time("When its deletion was asked for."),
        "deletionGracePeriodSeconds": whole("Always 0."), "labels": texts("Labels, for selectors."),
        "annotations": texts("Annotations, for tools and people."), "ownerReferences": owners,
        "finalizers": finalizers, "managedFields": managed, "selfLink": text("Deprecated."),
    }})
}

/// The schema of a kind.
pub(super) fn of_kind(info: &KindInfo) -> Value {
    let mut properties = match info.kind {
        Kind::ConfigMap => json!({
            "data": texts("Texts."), "binaryData": texts("Bytes in base64."),
            "immutable": {"type": "boolean", "description": "Nothing but metadata may change."},
        }),
        Kind::Secret => json!({
            "data": texts("Bytes in base64; sealed at rest."), "stringData": texts("Texts, written into data; never read."),
            "type": text("What the Secret is for."),
            "immutable": {"type": "boolean", "description": "Nothing but metadata may change."},
        }),
        Kind::Namespace => namespace(),
        Kind::Event => event(),
        Kind::Application => json!({
            "spec": open("What to deploy from where, to where, and how; as in Argo CD."),
            "status": open("Sync, health, operation, resources and history; as in Argo CD."),
            "operation": open("Starts an operation, such as a sync; as in Argo CD."),
        }),
        Kind::ApplicationSet => json!({
            "spec": open("Generators and the template of Applications; as in Argo CD."),
            "status": open("Conditions and the state of the Applications; as in Argo CD."),
        }),
        Kind::AppProject => json!({
            "spec": open("Which sources, destinations and kinds are allowed; as in Argo CD."),
            "status": open("As in Argo CD."),
        }),
        Kind::Cluster => cluster(),
        Kind::Rollout => json!({
            "spec": open("One change of digests, its steps and members; frozen at creation."),
            "status": open("Where the rollout stands."),
        }),
        Kind::RolloutPolicy => json!({"spec": open("Steps, gates and budgets.")}),
    };
    super::answer::put(&mut properties, "apiVersion", text("Version of the schema of this object."));
    super::answer::put(&mut properties, "kind", text("Kind of this object."));
    super::answer::put(&mut properties, "metadata", reference(&format!("{META}.ObjectMeta")));
    let kind = json!([{"group": info.group, "version": info.version, "kind": info.name}]);
    json!({
        "type": "object", "description": describe(info.kind), "properties": properties,
        "x-kubernetes-group-version-kind": kind,
    })
}

/// The schema of a kind's list.
pub(super) fn list_of(info: &KindInfo) -> Value {
    let list = format!("{}List", info.name);
    let kind = json!([{"group": info.group, "version": info.version, "kind": list}]);
    json!({
        "type": "object", "required": ["items"],
        "properties": {
            "apiVersion": text("Version of the schema."), "kind": text("Kind of the list."),
            "metadata": reference(&format!("{META}.ListMeta")),
            "items": {"type": "array", "items": reference(&name(info))},
        },
        "x-kubernetes-group-version-kind": kind,
    })
}

const fn describe(kind: Kind) -> &'static str {
    match kind {
        Kind::Namespace => "Namespace holds objects of the hub; it is no namespace of a managed cluster.",
        Kind::Secret => "Secret holds data that is sealed at rest: repository credentials, accounts.",
        Kind::ConfigMap => "ConfigMap holds settings of the hub, as Argo CD's argocd-cm does.",
        Kind::Event => "Event says what happened to an object of the hub.",
        Kind::Application => "Application is one set of manifests from Git on one cluster.",
        Kind::ApplicationSet => "ApplicationSet makes Applications from generators and a template.",
        Kind::AppProject => "AppProject says which sources, destinations and kinds its Applications may use.",
        Kind::Cluster => "Cluster is one managed cluster, set up by an administrator, reported on by its agent.",
        Kind::Rollout => "Rollout is one change of desired digests, released step by step.",
        Kind::RolloutPolicy => "RolloutPolicy says how changes are released.",
    }
}

fn namespace() -> Value {
    json!({
        "spec": {"type": "object", "properties": {
            "finalizers": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "atomic"},
        }},
        "status": {"type": "object", "properties": {
            "phase": text("Active or Terminating."),
            "conditions": {
                "type": "array", "items": {"type": "object", "properties": {
                    "type": text(""), "status": text(""), "reason": text(""), "message": text(""),
                    "lastTransitionTime": time(""),
                }},
                "x-kubernetes-patch-merge-key": "type", "x-kubernetes-patch-strategy": "merge",
                "x-kubernetes-list-map-keys": ["type"], "x-kubernetes-list-type": "map",
            },
        }},
    })
}

fn cluster() -> Value {
    json!({
        "spec": {"type": "object", "description": "Set by an administrator.", "properties": {
            "servers": {"type": "array", "items": {"type": "string"},
                "description": "API server URLs that Applications may name; no two Clusters share one."},
            "project": text("Project that the cluster is reserved for."),
        }},
        "status": {"type": "object", "description": "Set by the hub.", "properties": {
            "phase": text("Pending, Connected, Disconnected or Revoked."),
            "lastTransitionTime": time("When the phase changed."),
            "generation": whole("Newest generation that the agent has on its disk."),
            "assignments": whole("Number of assignments."), "hub": whole("Hub node that holds the agent's session."),
            "facts": open("What the agent says about itself."),
        }},
    })
}

fn event() -> Value {
    let object = json!({"type": "object", "properties": {
        "apiVersion": text(""), "kind": text(""), "namespace": text(""), "name": text(""), "uid": text(""),
        "resourceVersion": text(""), "fieldPath": text(""),
    }});
    json!({
        "involvedObject": object, "related": object, "reason": text("Why it happened."), "message": text("What happened."),
        "type": text("Normal or Warning."), "action": text(""), "count": whole("How often."),
        "firstTimestamp": time("When first."), "lastTimestamp": time("When last."), "eventTime": time("When."),
        "reportingComponent": text("Who says so."), "reportingInstance": text("Which of them."),
        "source": {"type": "object", "properties": {"component": text(""), "host": text("")}},
        "series": {"type": "object", "properties": {"count": whole(""), "lastObservedTime": time("")}},
    })
}
