//! The build environment: what an Application tells its manifests about itself.

use windlass_protocol::resource::ApplicationSource;

/// What is known about the Application being rendered, and what the hub allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildEnvironment {
    /// `ARGOCD_APP_NAME`; it also names `.argocd-source-<app>.yaml`.
    pub app_name: String,
    /// `ARGOCD_APP_NAMESPACE`: the destination's namespace.
    pub app_namespace: String,
    /// `ARGOCD_APP_PROJECT_NAME`
    pub project_name: String,
    /// `ARGOCD_APP_REVISION`: the commit.
    pub revision: String,
    /// `kustomize.buildOptions` of the hub's configuration, used before those of the source.
    pub kustomize_build_options: String,
    /// Whether a source may lift the load restrictions of Kustomize.
    pub allow_load_restrictions_none: bool,
}

impl BuildEnvironment {
    /// Expands `$NAME` and `${NAME}` as Go's `os.Expand` does; `$$` is a dollar, unknown names are empty.
    pub(crate) fn expand(&self, text: &str, source: &ApplicationSource) -> String {
        let mut result = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            result.push_str(before);
            let (name, tail) = shell_name(after);
            match name {
                Name::Variable(name) => result.push_str(&self.variable(name, source)),
                Name::Dollar => result.push('$'),
                Name::Invalid => {}
                Name::None => result.push('$'),
            }
            rest = tail;
        }
        result.push_str(rest);
        result
    }

    fn variable(&self, name: &str, source: &ApplicationSource) -> String {
        let short = |length: usize| self.revision.chars().take(length).collect::<String>();
        match name {
            "ARGOCD_APP_NAME" => self.app_name.clone(),
            "ARGOCD_APP_NAMESPACE" => self.app_namespace.clone(),
            "ARGOCD_APP_PROJECT_NAME" => self.project_name.clone(),
            "ARGOCD_APP_REVISION" => self.revision.clone(),
            "ARGOCD_APP_REVISION_SHORT" => short(7),
            "ARGOCD_APP_REVISION_SHORT_8" => short(8),
            "ARGOCD_APP_SOURCE_PATH" => source.path.clone(),
            "ARGOCD_APP_SOURCE_REPO_URL" => source.repo_url.clone(),
            "ARGOCD_APP_SOURCE_TARGET_REVISION" => source.target_revision.clone(),
            _ => String::new(),
        }
    }
}

enum Name<'t> {
    Variable(&'t str),
    /// `$$`
    Dollar,
    /// `${` without an end, or nothing inside: it is dropped.
    Invalid,
    /// A dollar before something that is no name.
    None,
}

fn shell_name(text: &str) -> (Name<'_>, &str) {
    if let Some(inner) = text.strip_prefix('{') {
        return match inner.split_once('}') {
            None | Some(("", _)) => (Name::Invalid, inner.strip_prefix('}').unwrap_or(inner)),
            Some(("$", tail)) => (Name::Dollar, tail),
            Some((name, tail)) => (Name::Variable(name), tail),
        };
    }
    if let Some(tail) = text.strip_prefix('$') {
        return (Name::Dollar, tail);
    }
    let special = |byte: u8| matches!(byte, b'*' | b'#' | b'@' | b'!' | b'?' | b'-' | b'0'..=b'9');
    let length = match text.as_bytes().first() {
        Some(first) if special(*first) => 1,
        _ => text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count(),
    };
    match text.split_at_checked(length) {
        Some((name, tail)) if length > 0 => (Name::Variable(name), tail),
        _ => (Name::None, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_expanded_as_go_does() {
        let environment = BuildEnvironment {
            app_name: "shop".to_owned(),
            revision: "0123456789abcdef".to_owned(),
            ..BuildEnvironment::default()
        };
        let source = ApplicationSource { path: "a/b".to_owned(), ..ApplicationSource::default() };
        let check = |text: &str, expect: &str| assert_eq!(environment.expand(text, &source), expect, "{text}");
        check("x-$ARGOCD_APP_NAME-${ARGOCD_APP_REVISION_SHORT}", "x-shop-0123456");
        check("$ARGOCD_APP_REVISION_SHORT_8/${ARGOCD_APP_SOURCE_PATH}", "01234567/a/b");
        check("$$HOME $UNKNOWN. $ ${", "$HOME . $ ");
    }
}
