//! What a project permits inside one cluster: the rule that the hub's policy and the agent's engine both enforce.
//!
//! The hub asks when it renders, with the scope of built-in kinds; the agent asks again before it applies, when discovery has said
//! which kinds are cluster-scoped. Neither ever widens the rule.

use crate::{
    glob::{self, Dialect},
    message::{KindPattern, Permitted},
};

/// An object that the project does not permit, in Argo CD's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPermitted {
    /// The kind is not on the white list, or is on the black list.
    #[error("resource {group}:{kind} is not permitted in project {project}")]
    Kind {
        /// API group; empty for core.
        group: String,
        /// Kind.
        kind: String,
        /// Name of the project.
        project: String,
    },
    /// The namespace is not among the project's destinations on this cluster.
    #[error("namespace {namespace} is not permitted in project '{project}'")]
    Namespace {
        /// Namespace of the object.
        namespace: String,
        /// Name of the project.
        project: String,
    },
}

impl Permitted {
    /// Checks one object: its kind, and for a namespaced one its namespace.
    ///
    /// # Errors
    /// [`NotPermitted`] with the first rule that denies: the kind before the namespace, as Argo CD asks.
    pub fn check(&self, group: &str, kind: &str, cluster_scoped: bool, namespace: &str) -> Result<(), NotPermitted> {
        if !self.permits_kind(group, kind, cluster_scoped) {
            let project = self.project.clone();
            return Err(NotPermitted::Kind { group: group.to_owned(), kind: kind.to_owned(), project });
        }
        if !cluster_scoped && !self.permits_namespace(namespace) {
            return Err(NotPermitted::Namespace { namespace: namespace.to_owned(), project: self.project.clone() });
        }
        Ok(())
    }

    /// Cluster-scoped kinds must be on the white list; namespaced kinds only if there is one. The black lists win.
    #[must_use]
    pub fn permits_kind(&self, group: &str, kind: &str, cluster_scoped: bool) -> bool {
        let listed = |list: &[KindPattern]| list.iter().any(|pattern| pattern.matches(group, kind));
        if cluster_scoped {
            listed(&self.cluster_allow) && !listed(&self.cluster_deny)
        } else {
            self.namespace_allow.as_deref().is_none_or(listed) && !listed(&self.namespace_deny)
        }
    }

    /// Some pattern matches, and none with a leading `!` does.
    #[must_use]
    pub fn permits_namespace(&self, namespace: &str) -> bool {
        let is_match = |pattern: &str| pattern == "*" || glob::matches(pattern, namespace, Dialect::Text);
        let mut denied = self.namespaces.iter().filter_map(|pattern| pattern.strip_prefix('!'));
        let mut allowed = self.namespaces.iter().filter(|pattern| !pattern.starts_with('!'));
        allowed.any(|pattern| is_match(pattern)) && !denied.any(is_match)
    }
}

impl KindPattern {
    /// Whether the pattern names this kind; both parts are globs (Go's `filepath.Match`).
    #[must_use]
    pub fn matches(&self, group: &str, kind: &str) -> bool {
        glob::matches(&self.kind, kind, Dialect::GoPath) && glob::matches(&self.group, group, Dialect::GoPath)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(group: &str, kind: &str) -> KindPattern {
        KindPattern { group: group.into(), kind: kind.into() }
    }

    fn permitted() -> Permitted {
        Permitted {
            project: "p".into(),
            cluster_allow: vec![kind("", "Namespace"), kind("*.example.com", "*")],
            cluster_deny: vec![kind("*", "Secret*")],
            namespace_allow: None,
            namespace_deny: vec![kind("", "ResourceQuota")],
            namespaces: vec!["team-*".into(), "!team-x".into()],
        }
    }

    #[test]
    fn argos_sentences() {
        let rule = permitted();
        assert_eq!(rule.check("", "Namespace", true, ""), Ok(()));
        assert_eq!(rule.check("apps", "Deployment", false, "team-a"), Ok(()));
        let text = |group, kind, scope, namespace| rule.check(group, kind, scope, namespace).unwrap_err().to_string();
        assert_eq!(text("apps", "Deployment", false, "team-x"), "namespace team-x is not permitted in project 'p'");
        assert_eq!(text("apps", "Deployment", false, "other"), "namespace other is not permitted in project 'p'");
        assert_eq!(text("", "ResourceQuota", false, "team-a"), "resource :ResourceQuota is not permitted in project p");
        assert_eq!(
            text("a.example.com", "SecretStore", true, ""),
            "resource a.example.com:SecretStore is not permitted in project p"
        );
    }

    #[test]
    fn an_empty_white_list_permits_nothing_and_a_missing_one_everything() {
        let mut rule = permitted();
        assert!(rule.permits_kind("batch", "Job", false));
        rule.namespace_allow = Some(vec![]);
        assert!(!rule.permits_kind("batch", "Job", false));
        rule.cluster_allow = vec![];
        assert!(!rule.permits_kind("", "Namespace", true));
    }
}
