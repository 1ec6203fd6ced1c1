//! AppProjects: every rule that denies, in Argo CD's words.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use proptest::prelude::*;
use serde_json::{Value, json};
use windlass_hub_core::policy::{Denial, ResolvedDestination, Rule, check_application, check_kind, permitted};
use windlass_protocol::{
    ids::NamespacedName,
    resource::{AppProjectSpec, ApplicationSpec, parse},
};

fn project(spec: Value) -> AppProjectSpec {
    parse("spec", &spec).unwrap().value
}

fn to(server: &str, name: &str) -> ResolvedDestination {
    ResolvedDestination { server: server.into(), name: name.into(), project: String::new() }
}

fn check(project: Option<&AppProjectSpec>, app: &str, spec: Value, destination: &ResolvedDestination) -> Vec<Denial> {
    let (namespace, name) = app.split_once('/').unwrap();
    let spec: ApplicationSpec = parse("spec", &spec).unwrap().value;
    check_application("p", project, &NamespacedName::new(namespace, name), "argocd", &spec, destination)
}

fn app(repo_url: &str, namespace: &str) -> Value {
    json!({"source": {"repoURL": repo_url, "path": "x"}, "destination": {"namespace": namespace}})
}

#[test]
fn every_rule_that_denies_is_listed() {
    let rules = project(
        json!({"sourceRepos": ["https://git/a/*"], "destinations": [{"server": "https://a", "namespace": "n"}],
                               "sourceNamespaces": ["team-*", "/^ops-[0-9]+$/"]}),
    );
    let denials = check(Some(&rules), "other/app", app("https://git/b/c", "m"), &to("https://a", "a"));
    let messages: Vec<_> = denials.iter().map(|denial| denial.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "application 'app' in namespace 'other' is not allowed to use project 'p'",
            "application repo https://git/b/c is not permitted in project 'p'",
            "application destination server 'https://a' and namespace 'm' do not match any of the allowed destinations in project 'p'",
        ]
    );
    for namespace in ["argocd/app", "team-x/app", "ops-7/app"] {
        assert_eq!(check(Some(&rules), namespace, app("https://git/a/c", "n"), &to("https://a", "a")), []);
    }
    assert_eq!(check(Some(&rules), "ops-x/app", app("https://git/a/c", "n"), &to("https://a", "a")).len(), 1);
}

#[test]
fn an_undefined_project_denies_and_default_allows() {
    let denials = check(None, "argocd/app", app("r", "n"), &to("https://a", "a"));
    assert_eq!(denials[0].message, "Application referencing project p which does not exist");
    assert_eq!(denials[0].condition().kind, "InvalidSpecError");
    let all = AppProjectSpec::allow_all();
    assert_eq!(check(Some(&all), "argocd/app", app("git@host:a/b", "n"), &to("https://a", "a")), []);
    assert_eq!(check(Some(&all), "argocd/app", app("r", ""), &to("", "a")), []);
}

#[test]
fn incomplete_sources_are_named() {
    let all = AppProjectSpec::allow_all();
    let first = |spec: Value| check(Some(&all), "argocd/app", spec, &to("https://a", "a")).remove(0);
    let missing = "spec.source.repoURL and either spec.source.path or spec.source.chart are required";
    assert_eq!(first(json!({})).message, missing);
    assert_eq!(first(json!({"source": {"repoURL": "r"}})).message, missing);
    let chart = json!({"source": {"repoURL": "r", "chart": "c"}});
    assert_eq!(first(chart).message, "spec.source.targetRevision is required if the manifest source is a helm chart");
    let several = json!({"sources": [{"repoURL": "r", "ref": "v"}, {"repoURL": "r"}]});
    assert_eq!(first(several).rule, Rule::Source);
}

#[test]
fn destinations_match_by_server_or_name_and_deny_with_a_mark() {
    let check_one = |destinations: Value, destination: &ResolvedDestination, namespace: &str| {
        let rules = project(json!({"sourceRepos": ["*"], "destinations": destinations}));
        let allowed = check(Some(&rules), "argocd/app", app("r", namespace), destination).is_empty();
        assert_eq!(permitted("p", &rules, destination).permits_namespace(namespace), allowed, "{rules:?} {namespace}");
        allowed
    };
    let here = to("https://a.example.com", "a");
    assert!(check_one(json!([{"name": "a", "namespace": "n"}]), &here, "n"));
    assert!(check_one(json!([{"server": "https://*", "namespace": "team-*"}]), &here, "team-x"));
    assert!(!check_one(json!([{"server": "https://b", "namespace": "*"}]), &here, "n"));
    let not_system = json!([{"server": "*", "namespace": "*"}, {"server": "*", "namespace": "!kube-system"}]);
    assert!(check_one(not_system.clone(), &here, "n"));
    assert!(!check_one(not_system, &here, "kube-system"));
    let only_denial = json!([{"server": "https://a.example.com", "namespace": "!kube-*"}]);
    assert!(check_one(only_denial.clone(), &here, "n"));
    assert!(!check_one(only_denial, &here, "kube-system"));
    let not_here = json!([{"server": "*", "namespace": "*"}, {"server": "!https://a*", "namespace": "*"}]);
    assert!(!check_one(not_here.clone(), &here, "n"));
    assert!(check_one(not_here, &to("https://b", "b"), "n"));
    assert!(!check_one(json!([]), &here, "n"));
}

#[test]
fn a_clusters_project_makes_it_a_destination() {
    let scoped = ResolvedDestination { project: "p".into(), ..to("https://a", "a") };
    let rules = project(json!({"sourceRepos": ["*"], "destinations": []}));
    assert_eq!(check(Some(&rules), "argocd/app", app("r", "n"), &scoped), []);
    let only = project(json!({"sourceRepos": ["*"], "destinations": [{"server": "*", "namespace": "*"}],
                              "permitOnlyProjectScopedClusters": true}));
    assert_eq!(check(Some(&only), "argocd/app", app("r", "n"), &scoped), []);
    assert_eq!(check(Some(&only), "argocd/app", app("r", "n"), &to("https://a", "a"))[0].rule, Rule::Destination);
    assert!(permitted("p", &only, &to("https://a", "a")).namespaces.is_empty());
}

#[test]
fn kinds_are_checked_with_argos_sentences() {
    let rules = project(json!({"destinations": [{"name": "a", "namespace": "n"}],
                               "namespaceResourceWhitelist": [{"group": "apps", "kind": "Deployment"}]}));
    let permitted = permitted("p", &rules, &to("", "a"));
    assert_eq!(check_kind(&permitted, "apps", "Deployment", false, "n"), Ok(()));
    let denial = check_kind(&permitted, "argoproj.io", "Application", false, "n").unwrap_err();
    assert_eq!(
        (denial.rule, denial.message.as_str()),
        (Rule::Kind, "resource argoproj.io:Application is not permitted in project p")
    );
    let denial = check_kind(&permitted, "apps", "Deployment", false, "m").unwrap_err();
    assert_eq!(
        (denial.rule, denial.message.as_str()),
        (Rule::Namespace, "namespace m is not permitted in project 'p'")
    );
    assert_eq!(check_kind(&permitted, "", "Namespace", true, "").unwrap_err().rule, Rule::Kind);
}

/// A pattern of `destinations`: a text, a glob, a denial, or nothing.
fn pattern() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "*", "a", "b", "a*", "!a", "!b", "!*"])
}

proptest! {
    /// What the agent is told permits a namespace exactly where the hub does; it may be stricter for an entry that contradicts
    /// itself, never more lenient.
    #[test]
    fn hub_and_agent_judge_alike(
        items in prop::collection::vec((pattern(), pattern(), pattern()), 0..4),
        only_scoped: bool,
        scoped: bool,
        namespace in prop::sample::select(vec!["a", "b", "ab"]),
    ) {
        let destinations: Vec<Value> =
            items.iter().map(|(server, name, namespace)| json!({"server": server, "name": name, "namespace": namespace})).collect();
        let rules = project(json!({"sourceRepos": ["*"], "destinations": destinations, "permitOnlyProjectScopedClusters": only_scoped}));
        let destination = ResolvedDestination { project: if scoped { "p".into() } else { String::new() }, ..to("a", "b") };
        let hub = check(Some(&rules), "argocd/app", app("r", namespace), &destination).is_empty();
        let agent = permitted("p", &rules, &destination).permits_namespace(namespace);
        let is_denied = |pattern: &str, text: &str| pattern == "!*" || pattern.strip_prefix('!') == Some(text);
        let contradicts = items.iter().any(|(server, name, _)| is_denied(server, "a") || is_denied(name, "b"));
        if contradicts { prop_assert!(hub || !agent) } else { prop_assert_eq!(hub, agent) }
    }
}
