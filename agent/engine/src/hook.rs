//! Hooks: objects that run at a point of a sync instead of being part of the comparison. Argo CD's annotations, and Helm's where
//! Argo CD's are absent.

use serde_json::Value;
use windlass_protocol::{ids::Digest, json, manifest};

use crate::order::Phase;

/// Argo CD's hook annotation.
pub const HOOK_ANNOTATION: &str = "argocd.argoproj.io/hook";
/// Argo CD's delete policy annotation.
pub const DELETE_POLICY_ANNOTATION: &str = "argocd.argoproj.io/hook-delete-policy";
/// Marks a hook object with the attempt of the operation that made it: found again after a restart, replaced by a later one.
pub const RUN_ANNOTATION: &str = "windlass.io/hook-run";

/// What an object is to a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// An ordinary resource.
    Resource,
    /// A hook of these phases.
    Hook(Vec<Phase>),
    /// Neither applied nor compared nor pruned: `Skip`, Helm tests, hooks of a deletion.
    Skipped,
}

/// The role of a manifest.
#[must_use]
pub fn role(manifest: &Value) -> Role {
    if let Some(list) = manifest::annotation(manifest, HOOK_ANNOTATION) {
        return phases(list, argo_phase);
    }
    match manifest::annotation(manifest, "helm.sh/hook") {
        None => Role::Resource,
        Some(list) if list.split(',').any(|hook| hook.trim() == "crd-install") => Role::Resource,
        Some(list) => phases(list, helm_phase),
    }
}

fn phases(list: &str, phase: fn(&str) -> Option<Phase>) -> Role {
    let mut phases: Vec<_> = list.split(',').filter_map(|name| phase(name.trim())).collect();
    phases.sort_unstable();
    phases.dedup();
    if phases.is_empty() { Role::Skipped } else { Role::Hook(phases) }
}

fn argo_phase(name: &str) -> Option<Phase> {
    match name {
        "PreSync" => Some(Phase::PreSync),
        "Sync" => Some(Phase::Sync),
        "PostSync" => Some(Phase::PostSync),
        "SyncFail" => Some(Phase::SyncFail),
        _ => None,
    }
}

fn helm_phase(name: &str) -> Option<Phase> {
    match name {
        "pre-install" | "pre-upgrade" => Some(Phase::PreSync),
        "post-install" | "post-upgrade" => Some(Phase::PostSync),
        _ => None,
    }
}

/// When a hook object is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletePolicy {
    /// After its phase succeeded.
    pub succeeded: bool,
    /// After it failed.
    pub failed: bool,
    /// Before a new one is created.
    pub before_creation: bool,
}

/// The delete policy of a hook; without one, it is deleted before the next is created.
#[must_use]
pub fn delete_policy(manifest: &Value) -> DeletePolicy {
    let list = manifest::annotation(manifest, DELETE_POLICY_ANNOTATION);
    let list = list.or_else(|| manifest::annotation(manifest, "helm.sh/hook-delete-policy")).unwrap_or_default();
    let has = |argo: &str, helm: &str| list.split(',').map(str::trim).any(|entry| entry == argo || entry == helm);
    let succeeded = has("HookSucceeded", "hook-succeeded");
    let failed = has("HookFailed", "hook-failed");
    let before = has("BeforeHookCreation", "before-hook-creation");
    DeletePolicy { succeeded, failed, before_creation: before || !(succeeded || failed) }
}

/// The hook object of one run: marked, and named from `generateName` and the run where it has no name of its own.
///
/// `run` names the application, the operation, its attempt and the place of the hook: the same run has the same name whatever
/// dies, so "already exists" means that it was made before.
#[must_use]
pub fn instance(manifest: &Value, run: &str) -> Value {
    let mut object = manifest.clone();
    json::set(&mut object, &["metadata", "annotations", RUN_ANNOTATION], Value::from(run));
    if manifest::name(manifest).is_empty() {
        let prefix = json::text(manifest, &["metadata", "generateName"]);
        let name = format!("{prefix}{}", Digest::of(run.as_bytes()).short());
        json::remove(&mut object, &["metadata", "generateName"]);
        json::set(&mut object, &["metadata", "name"], Value::from(name));
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(annotations: Value) -> Value {
        json!({"metadata": {"generateName": "migrate-", "annotations": annotations}})
    }

    #[test]
    fn roles_follow_argo_then_helm() {
        assert_eq!(role(&json!({})), Role::Resource);
        assert_eq!(
            role(&with(json!({HOOK_ANNOTATION: "PostSync, PreSync"}))),
            Role::Hook(vec![Phase::PreSync, Phase::PostSync])
        );
        assert_eq!(role(&with(json!({HOOK_ANNOTATION: "Skip"}))), Role::Skipped);
        assert_eq!(role(&with(json!({"helm.sh/hook": "pre-install,pre-upgrade"}))), Role::Hook(vec![Phase::PreSync]));
        assert_eq!(role(&with(json!({"helm.sh/hook": "crd-install"}))), Role::Resource);
        assert_eq!(role(&with(json!({"helm.sh/hook": "test"}))), Role::Skipped);
        let both = with(json!({"helm.sh/hook": "pre-install", HOOK_ANNOTATION: "Sync"}));
        assert_eq!(role(&both), Role::Hook(vec![Phase::Sync]));
    }

    #[test]
    fn runs_name_their_objects() {
        let first = instance(&with(json!({})), "shop/7/0/0");
        assert_eq!(first, instance(&with(json!({})), "shop/7/0/0"));
        assert_ne!(manifest::name(&first), manifest::name(&instance(&with(json!({})), "shop/8/0/0")));
        assert!(manifest::name(&first).starts_with("migrate-"));
        assert!(delete_policy(&with(json!({}))).before_creation);
        assert!(!delete_policy(&with(json!({DELETE_POLICY_ANNOTATION: "HookSucceeded"}))).before_creation);
    }
}
