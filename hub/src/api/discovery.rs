//! What there is: `/version`, legacy discovery, and aggregated discovery (`apidiscovery.k8s.io/v2`).

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use windlass_protocol::resource::{KINDS, KindInfo};

use super::{answer, error::ApiError, media};

/// The version of Kubernetes whose API conventions are followed; clients compare it with their own.
const KUBERNETES_MAJOR: &str = "1";
const KUBERNETES_MINOR: &str = "36";
const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const STATUS_VERBS: [&str; 3] = ["get", "patch", "update"];

/// A resource that is only ever created: a question about accounts.
#[derive(Clone, Copy)]
struct ReviewInfo {
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
}

const REVIEWS: [ReviewInfo; 3] = [
    ReviewInfo { group: "authentication.k8s.io", plural: "selfsubjectreviews", kind: "SelfSubjectReview" },
    ReviewInfo { group: "authorization.k8s.io", plural: "selfsubjectaccessreviews", kind: "SelfSubjectAccessReview" },
    ReviewInfo { group: "authorization.k8s.io", plural: "selfsubjectrulesreviews", kind: "SelfSubjectRulesReview" },
];

/// Groups with their version, core aside.
const GROUPS: [(&str, &str); 4] = [
    ("argoproj.io", "v1alpha1"),
    ("windlass.io", "v1alpha1"),
    ("authentication.k8s.io", "v1"),
    ("authorization.k8s.io", "v1"),
];

pub(super) fn version() -> Value {
    json!({
        "major": KUBERNETES_MAJOR, "minor": KUBERNETES_MINOR,
        "gitVersion": format!("v{KUBERNETES_MAJOR}.{KUBERNETES_MINOR}.0+windlass.{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// `/api`
pub(super) fn core_versions(headers: &HeaderMap) -> Response<Body> {
    if let Some(version) = aggregated(headers) {
        return aggregate(version, &[("", "v1")]);
    }
    let addresses = json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}]);
    answer::json(
        StatusCode::OK,
        &json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses}),
    )
}

/// `/apis`
pub(super) fn groups(headers: &HeaderMap) -> Response<Body> {
    if let Some(version) = aggregated(headers) {
        return aggregate(version, &GROUPS);
    }
    let groups: Vec<Value> = GROUPS.iter().map(|(group, version)| api_group(group, version)).collect();
    answer::json(StatusCode::OK, &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
}

/// `/apis/GROUP`
pub(super) fn group(name: &str) -> Result<Response<Body>, ApiError> {
    let (group, version) = GROUPS.iter().find(|(group, _)| *group == name).ok_or_else(ApiError::no_such_path)?;
    let mut found = api_group(group, version);
    answer::put(&mut found, "kind", json!("APIGroup"));
    answer::put(&mut found, "apiVersion", json!("v1"));
    Ok(answer::json(StatusCode::OK, &found))
}

/// `/api/v1` and `/apis/GROUP/VERSION`
pub(super) fn group_version(group: &str, version: &str) -> Result<Response<Body>, ApiError> {
    if !is_served(group, version) {
        return Err(ApiError::no_such_path());
    }
    let mut resources = Vec::new();
    for info in KINDS.iter().filter(|info| info.group == group) {
        let mut resource = json!({
            "name": info.plural, "singularName": info.singular, "namespaced": info.namespaced, "kind": info.name,
            "verbs": VERBS, "categories": categories(info),
        });
        if !info.short.is_empty() {
            answer::put(&mut resource, "shortNames", json!(info.short));
        }
        resources.push(resource);
        if info.status {
            resources.push(json!({
                "name": format!("{}/status", info.plural), "singularName": "", "namespaced": info.namespaced,
                "kind": info.name, "verbs": STATUS_VERBS,
            }));
        }
    }
    resources.extend(REVIEWS.iter().filter(|review| review.group == group).map(|review| {
        json!({"name": review.plural, "singularName": "", "namespaced": false, "kind": review.kind, "verbs": ["create"]})
    }));
    let group_version = group_version_text(group, version);
    let list = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources,
    });
    Ok(answer::json(StatusCode::OK, &list))
}

/// Every served group and version, core first.
pub(super) fn served() -> impl Iterator<Item = (&'static str, &'static str)> {
    std::iter::once(("", "v1")).chain(GROUPS)
}

pub(super) fn is_served(group: &str, version: &str) -> bool {
    served().any(|one| one == (group, version))
}

fn group_version_text(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn api_group(group: &str, version: &str) -> Value {
    let version = json!({"groupVersion": group_version_text(group, version), "version": version});
    json!({"name": group, "versions": [version], "preferredVersion": version})
}

/// `kubectl get argocd` and `kubectl get windlass` list what people look for; nothing joins `all`, as in Argo CD.
fn categories(info: &KindInfo) -> &'static [&'static str] {
    match info.group {
        "argoproj.io" => &["argocd", "windlass"],
        "windlass.io" => &["windlass"],
        _ => &[],
    }
}

/// The version of aggregated discovery that the client asks for before plain JSON.
fn aggregated(headers: &HeaderMap) -> Option<&'static str> {
    for media in media::accepted(headers) {
        if media.name != "application/json" {
            continue;
        }
        match (media.parameter("g"), media.parameter("v"), media.parameter("as")) {
            (Some("apidiscovery.k8s.io"), Some("v2"), Some("APIGroupDiscoveryList")) => return Some("v2"),
            (None, None, None) => return None,
            _ => {}
        }
    }
    None
}

fn aggregate(version: &str, groups: &[(&str, &str)]) -> Response<Body> {
    let items: Vec<Value> = groups.iter().map(|(group, version)| aggregate_group(group, version)).collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {},
        "items": items,
    });
    let media = HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    answer::typed(StatusCode::OK, media, list.to_string().into())
}

fn aggregate_group(group: &str, version: &str) -> Value {
    let kind_of = |kind: &str| json!({"group": group, "version": version, "kind": kind});
    let scope = |namespaced: bool| if namespaced { "Namespaced" } else { "Cluster" };
    let kinds = KINDS.iter().filter(|info| info.group == group).map(|info| {
        let mut resource = json!({
            "resource": info.plural, "responseKind": kind_of(info.name), "scope": scope(info.namespaced),
            "singularResource": info.singular, "verbs": VERBS, "shortNames": info.short,
            "categories": categories(info),
        });
        if info.status {
            let status = json!({
                "subresource": "status", "responseKind": kind_of(info.name), "verbs": STATUS_VERBS,
            });
            answer::put(&mut resource, "subresources", json!([status]));
        }
        resource
    });
    let reviews = REVIEWS.iter().filter(|review| review.group == group).map(|review| {
        json!({
            "resource": review.plural, "responseKind": kind_of(review.kind), "scope": "Cluster",
            "singularResource": review.kind.to_lowercase(), "verbs": ["create"],
        })
    });
    let resources: Vec<Value> = kinds.chain(reviews).collect();
    let mut metadata = json!({"creationTimestamp": null});
    if !group.is_empty() {
        answer::put(&mut metadata, "name", json!(group));
    }
    json!({
        "metadata": metadata,
        "versions": [{"version": version, "resources": resources, "freshness": "Current"}],
    })
}
