//! From a path to what it names. Pure: no state, no account.

use windlass_protocol::resource::{KINDS, Kind};

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Version,
    /// The process answers.
    Health,
    /// The node knows a leader: writes and fresh reads can be served.
    Ready,
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/v1` and `/apis/GROUP/VERSION`
    GroupVersion {
        group: String,
        version: String,
    },
    OpenApiV2,
    OpenApiV3,
    OpenApiV3Of {
        group: String,
        version: String,
    },
    Resource(Target),
    Review(Review),
    HubStatus,
    /// `/apis/windlass.io/v1alpha1/hubbackup`
    HubBackup,
    HubToken,
    HubTrust(Rotation),
    HubAction {
        node: String,
        action: HubAction,
    },
    JoinToken {
        cluster: String,
    },
    Manifests {
        namespace: String,
        name: String,
    },
    Generate {
        namespace: String,
    },
    Webhook,
}

/// An object, a collection, or a part of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) kind: Kind,
    /// `None` for cluster-scoped kinds and for all namespaces.
    pub(super) namespace: Option<String>,
    /// `None` for the collection.
    pub(super) name: Option<String>,
    pub(super) part: TargetPart,
}

/// Which part of an object a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TargetPart {
    Whole,
    Status,
}

/// Steps of the replacement of a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rotation {
    Begin,
    Finish,
}

/// Questions about accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Review {
    /// `SelfSubjectAccessReview`
    Access,
    /// `SelfSubjectRulesReview`
    Rules,
    /// `SelfSubjectReview`
    Identity,
}

/// What can be done to a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HubAction {
    Remove,
    Lead,
}

/// Group and version of a core path.
const CORE: (&str, &str) = ("", "v1");

impl Route {
    /// `None` for a path that nothing lives at.
    pub(super) fn of(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            ["version"] => Some(Self::Version),
            ["healthz" | "livez", ..] => Some(Self::Health),
            ["readyz", ..] => Some(Self::Ready),
            ["api"] => Some(Self::CoreVersions),
            ["apis"] => Some(Self::Groups),
            ["apis", group] => Some(Self::Group((*group).to_owned())),
            ["api", "v1"] => Some(Self::group_version(CORE.0, CORE.1)),
            ["apis", group, version] => Some(Self::group_version(group, version)),
            ["openapi", "v2"] => Some(Self::OpenApiV2),
            ["openapi", "v3"] => Some(Self::OpenApiV3),
            ["openapi", "v3", "api", "v1"] => {
                Some(Self::OpenApiV3Of { group: CORE.0.to_owned(), version: CORE.1.to_owned() })
            }
            ["openapi", "v3", "apis", group, version] => {
                Some(Self::OpenApiV3Of { group: (*group).to_owned(), version: (*version).to_owned() })
            }
            ["api", "webhook"] => Some(Self::Webhook),
            ["hub", "status"] | ["apis", "windlass.io", "v1alpha1", "hubstatus"] => Some(Self::HubStatus),
            ["apis", "windlass.io", "v1alpha1", "hubbackup"] => Some(Self::HubBackup),
            ["apis", "windlass.io", "v1alpha1", "hubtokens"] => Some(Self::HubToken),
            ["apis", "windlass.io", "v1alpha1", "hubtrust", "rotate"] => Some(Self::HubTrust(Rotation::Begin)),
            ["apis", "windlass.io", "v1alpha1", "hubtrust", "finish"] => Some(Self::HubTrust(Rotation::Finish)),
            ["apis", "windlass.io", "v1alpha1", "hubs", node, "remove"] => {
                Some(Self::HubAction { node: (*node).to_owned(), action: HubAction::Remove })
            }
            ["apis", "windlass.io", "v1alpha1", "hubs", node, "lead"] => {
                Some(Self::HubAction { node: (*node).to_owned(), action: HubAction::Lead })
            }
            ["apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"] => Some(Self::Review(Review::Access)),
            ["apis", "authorization.k8s.io", "v1", "selfsubjectrulesreviews"] => Some(Self::Review(Review::Rules)),
            ["apis", "authentication.k8s.io", "v1", "selfsubjectreviews"] => Some(Self::Review(Review::Identity)),
            ["apis", "windlass.io", "v1alpha1", "clusters", cluster, "token"] => {
                Some(Self::JoinToken { cluster: (*cluster).to_owned() })
            }
            ["apis", "argoproj.io", "v1alpha1", "namespaces", namespace, "applications", name, "manifests"] => {
                Some(Self::Manifests { namespace: (*namespace).to_owned(), name: (*name).to_owned() })
            }
            ["apis", "argoproj.io", "v1alpha1", "namespaces", namespace, "applicationsets", "generate"] => {
                Some(Self::Generate { namespace: (*namespace).to_owned() })
            }
            ["api", "v1", rest @ ..] => resource(CORE.0, CORE.1, rest).map(Self::Resource),
            ["apis", group, version, rest @ ..] => resource(group, version, rest).map(Self::Resource),
            _ => None,
        }
    }

    fn group_version(group: &str, version: &str) -> Self {
        Self::GroupVersion { group: group.to_owned(), version: version.to_owned() }
    }

    /// Whether anybody may ask.
    pub(super) const fn is_public(&self) -> bool {
        matches!(self, Self::Version | Self::Health | Self::Ready | Self::Webhook)
    }
}

impl Target {
    /// Whether the path names the objects of all namespaces.
    pub(super) fn spans_namespaces(&self) -> bool {
        self.kind.info().namespaced && self.namespace.is_none()
    }
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Option<Target> {
    // `namespaces/NAME` is the Namespace itself, `namespaces/NAME/PLURAL` what is inside.
    if let ["namespaces", namespace, plural, rest @ ..] = rest
        && KINDS.iter().any(|info| info.namespaced && info.plural == *plural && info.group == group)
    {
        return target(group, version, plural, Some(namespace), rest).filter(|target| target.kind.info().namespaced);
    }
    let (plural, rest) = rest.split_first()?;
    let target = target(group, version, plural, None, rest)?;
    // An object of a namespaced kind has no address without its namespace.
    (target.name.is_none() || !target.kind.info().namespaced).then_some(target)
}

fn target(group: &str, version: &str, plural: &str, namespace: Option<&str>, rest: &[&str]) -> Option<Target> {
    let kind = Kind::of_path(group, version, plural)?;
    let (name, part) = match rest {
        [] => (None, TargetPart::Whole),
        [name] => (Some(*name), TargetPart::Whole),
        [name, "status"] if kind.info().status => (Some(*name), TargetPart::Status),
        _ => return None,
    };
    Some(Target { kind, namespace: namespace.map(str::to_owned), name: name.map(str::to_owned), part })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, kind: Kind, namespace: Option<&str>, name: Option<&str>, part: TargetPart) {
        let (namespace, name) = (namespace.map(str::to_owned), name.map(str::to_owned));
        assert_eq!(Route::of(path), Some(Route::Resource(Target { kind, namespace, name, part })), "{path}");
    }

    #[test]
    fn paths_name_objects() {
        let whole = TargetPart::Whole;
        check("/api/v1/namespaces", Kind::Namespace, None, None, whole);
        check("/api/v1/namespaces/a", Kind::Namespace, None, Some("a"), whole);
        check("/api/v1/namespaces/a/status", Kind::Namespace, None, Some("a"), TargetPart::Status);
        check("/api/v1/namespaces/a/secrets", Kind::Secret, Some("a"), None, whole);
        check("/api/v1/namespaces/a/secrets/b", Kind::Secret, Some("a"), Some("b"), whole);
        check("/api/v1/secrets", Kind::Secret, None, None, whole);
        check("/apis/argoproj.io/v1alpha1/applications", Kind::Application, None, None, whole);
        let status = "/apis/argoproj.io/v1alpha1/namespaces/a/applications/b/status";
        check(status, Kind::Application, Some("a"), Some("b"), TargetPart::Status);
        check("/apis/windlass.io/v1alpha1/clusters/c", Kind::Cluster, None, Some("c"), whole);
    }

    #[test]
    fn other_paths_name_nothing() {
        for path in [
            "/api/v1/secrets/b",
            "/api/v1/namespaces/a/secrets/b/status",
            "/apis/windlass.io/v1alpha1/namespaces/a/clusters",
            "/apis/argoproj.io/v1/applications",
            "/apis/windlass.io/v1alpha1/clusters/c/other",
            "/",
            "/api/v2",
        ] {
            assert!(!matches!(Route::of(path), Some(Route::Resource(_))), "{path}");
        }
        let token = Route::of("/apis/windlass.io/v1alpha1/clusters/c/token");
        assert_eq!(token, Some(Route::JoinToken { cluster: "c".to_owned() }));
    }
}
