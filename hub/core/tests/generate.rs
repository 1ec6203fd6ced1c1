//! ApplicationSets as people write them, and what generation says about bad ones.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use windlass_hub_core::generate::{
    ClusterView, GenerateError, GenerateLimits, Generated, SourceFile, SourceUnavailable, Sources, conditions, generate,
};
use windlass_protocol::{
    ids::NamespacedName,
    resource::{ApplicationSetSpec, GitItem, parse},
};

/// A repository in memory; every URL but `gone` is this one.
#[derive(Default)]
struct Repository(BTreeMap<&'static str, &'static str>);

impl Repository {
    fn check(repo_url: &str, revision: &str) -> Result<(), SourceUnavailable> {
        if repo_url != "gone" {
            return Ok(());
        }
        Err(SourceUnavailable {
            repo_url: repo_url.into(),
            revision: revision.into(),
            message: "not fetched yet".into(),
        })
    }
}

impl Sources for Repository {
    fn files(&self, repo_url: &str, revision: &str, _: &[GitItem]) -> Result<Vec<SourceFile>, SourceUnavailable> {
        Self::check(repo_url, revision)?;
        let file =
            |(path, text): (&&str, &&str)| SourceFile { path: (*path).into(), content: Arc::from(text.as_bytes()) };
        Ok(self.0.iter().map(file).collect())
    }

    fn directories(&self, repo_url: &str, revision: &str, _: &[GitItem]) -> Result<Vec<String>, SourceUnavailable> {
        Self::check(repo_url, revision)?;
        Ok(self.0.keys().filter_map(|path| Some(path.rsplit_once('/')?.0.to_owned())).collect())
    }
}

fn clusters() -> Vec<ClusterView> {
    let cluster = |name: &str, env: &str| ClusterView {
        name: name.into(),
        server: format!("https://{name}"),
        project: String::new(),
        labels: BTreeMap::from([("env".into(), env.into())]),
        annotations: BTreeMap::from([("team".into(), "t".into())]),
    };
    vec![cluster("West_1", "prod"), cluster("east", "prod"), cluster("lab", "dev")]
}

/// A set with these generators and a template that names what they give.
fn run(generators: Value, name: &str, repository: &Repository) -> Result<Vec<Generated>, GenerateError> {
    run_spec(json!({ "generators": generators, "template": template(name, "{{x}}") }), repository)
}

fn template(name: &str, path: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"project": "p", "source": {"repoURL": "r", "path": path}, "destination": {"name": "c"}},
    })
}

fn run_spec(spec: Value, repository: &Repository) -> Result<Vec<Generated>, GenerateError> {
    let spec = parse::<ApplicationSetSpec>("spec", &spec).unwrap().value;
    let set = NamespacedName::new("argocd", "set");
    generate(&set, &spec, &clusters(), repository, &GenerateLimits::default())
}

#[track_caller]
fn names(result: Result<Vec<Generated>, GenerateError>) -> Vec<String> {
    result.unwrap().into_iter().map(|one| one.name).collect()
}

#[track_caller]
fn error(generators: Value, name: &str, repository: &Repository) -> String {
    run(generators, name, repository).unwrap_err().to_string()
}

#[test]
fn a_list_renders_the_template_once_per_element() {
    let generators = json!([{"list": {"elements": [{"x": "a"}, {"x": "b", "values": {"y": "z"}}],
                                      "elementsYaml": "[{\"x\": 7, \"n\": {\"m\": true}}]"}}]);
    let made = run(generators, "app-{{x}}", &Repository::default()).unwrap();
    assert_eq!(made.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["app-a", "app-b", "app-7"]);
    assert_eq!(made[0].spec["source"]["path"], "a");
    assert_eq!(made[0].finalizers, ["resources-finalizer.argocd.argoproj.io"]);
    assert_eq!((made[0].namespace.as_str(), made[0].project.as_str()), ("argocd", "p"));
    assert_eq!(made[0].warnings, Vec::<String>::new());
}

#[test]
fn clusters_are_selected_by_their_labels() {
    let nothing = Repository::default();
    let all = json!([{"clusters": {}}]);
    assert_eq!(names(run(all, "a-{{nameNormalized}}", &nothing)), ["a-west-1", "a-east", "a-lab"]);
    let prod = json!([{"clusters": {"selector": {"matchLabels": {"env": "prod"}}, "values": {"k": "{{name}}-{{metadata.labels.env}}"}},
                       "selector": {"matchExpressions": [{"key": "name", "operator": "NotIn", "values": ["West_1"]}]}}]);
    assert_eq!(names(run(prod, "{{values.k}}-{{metadata.annotations.team}}", &nothing)), ["east-prod-t"]);
    let flat = json!([{"clusters": {"flatList": true}}]);
    assert_eq!(names(run(flat, "{{clusters.1.name}}", &nothing)), ["east"]);
    let none = json!([{"clusters": {"selector": {"matchLabels": {"env": "none"}}}}]);
    assert_eq!(run(none, "{{name}}", &nothing), Ok(vec![]));
}

#[test]
fn git_files_give_flattened_parameters_and_their_path() {
    let repository = Repository(BTreeMap::from([
        ("tenants/a/config.json", r#"{"t": {"n": "one", "limit": 1000000}, "path": "mine"}"#),
        ("tenants/b/deep/config.json", r#"[{"t": {"n": "two"}}, {"t": {"n": "three"}}]"#),
        ("tenants/c/config.json", r#"{"t": {"n": "out"}}"#),
        ("tenants/d/my_Conf.yaml", "t:\n  \"n\": four\n  limit: 2.50\n"),
        ("other.json", "{"),
    ]));
    let git = |files: Value| json!([{"git": {"repoURL": "r", "revision": "main", "files": files}}]);
    let globs = json!([{"path": "tenants/*/config.json"}, {"path": "tenants/c/*", "exclude": true}]);
    assert_eq!(names(run(git(globs), "{{t.n}}", &repository)), ["one", "two", "three"]);
    let one = run(
        git(json!([{"path": "tenants/a/config.json"}])),
        "{{t.n}}-{{t.limit}}-{{path.basename}}-{{path[0]}}",
        &repository,
    );
    assert_eq!(names(one), ["one-1000000-a-tenants"]);
    let four = run(git(json!([{"path": "tenants/d"}])), "{{t.n}}-{{t.limit}}-{{path.filenameNormalized}}", &repository);
    assert_eq!(names(four), ["four-2.5-my-conf.yaml"]);
    let prefixed = json!([{"git": {"repoURL": "r", "files": [{"path": "tenants/a/config.json"}], "pathParamPrefix": "mine",
                                   "values": {"v": "{{mine.path.basename}}-{{t.n}}"}}}]);
    assert_eq!(names(run(prefixed, "{{values.v}}", &repository)), ["a-one"]);
}

#[test]
fn git_directories_stop_at_a_slash() {
    let files = ["apps/a/x", "apps/b/x", "apps/b/c/x", "apps/.hidden/x", "apps/no/x"];
    let repository = Repository(files.into_iter().map(|path| (path, "")).collect());
    let items = json!([{"path": "apps/*"}, {"path": "apps/no", "exclude": true}]);
    let generators = json!([{"git": {"repoURL": "r", "directories": items}}]);
    assert_eq!(names(run(generators, "{{path.basename}}-{{path[0]}}", &repository)), ["a-apps", "b-apps"]);
}

#[test]
fn a_generators_template_wins_over_the_sets() {
    let own = json!({"metadata": {"labels": {"a": "own"}}, "spec": {"project": "", "source": {"path": "own"}}});
    let mut spec = json!({"generators": [{"list": {"elements": [{"x": "1"}], "template": own}}], "template": template("n", "set")});
    spec["template"]["metadata"]["labels"] = json!({"a": "set", "b": "{{x}}"});
    let made = run_spec(spec, &Repository::default()).unwrap();
    assert_eq!(made[0].labels, BTreeMap::from([("a".into(), "own".into()), ("b".into(), "1".into())]));
    assert_eq!(made[0].spec["source"], json!({"repoURL": "r", "path": "own"}));
    assert_eq!(made[0].project, "p");
}

#[test]
fn finalizers_follow_the_policy_and_the_template() {
    let generators = json!([{"list": {"elements": [{"x": "1"}]}}]);
    let policy = json!({"preserveResourcesOnDeletion": true});
    let spec = json!({"generators": generators, "template": template("n", "p"), "syncPolicy": policy});
    assert_eq!(run_spec(spec, &Repository::default()).unwrap()[0].finalizers, Vec::<String>::new());
    let mut spec = json!({"generators": generators, "template": template("n", "p")});
    spec["template"]["metadata"]["finalizers"] = json!(["own/{{x}}"]);
    assert_eq!(run_spec(spec, &Repository::default()).unwrap()[0].finalizers, ["own/1"]);
}

#[test]
fn unknown_fields_and_a_missing_project_are_warnings() {
    let mut spec = json!({"generators": [{"list": {"elements": [{"x": "1"}]}}], "template": template("n", "p")});
    spec["template"]["spec"]["project"] = json!("");
    spec["template"]["spec"]["source"]["pth"] = json!("x");
    spec["template"]["metadata"]["namespace"] = json!("elsewhere");
    let made = run_spec(spec, &Repository::default()).unwrap();
    assert_eq!(made[0].project, "default");
    assert_eq!(made[0].namespace, "argocd");
    let expect = [
        "metadata.namespace: elsewhere is ignored: Applications live in their set's namespace argocd",
        "unknown field \"spec.source.pth\" is ignored",
        "spec.project is missing: project default is used",
    ];
    assert_eq!(made[0].warnings, expect);
}

#[test]
fn errors_name_the_generator_the_file_and_the_line() {
    let repository = Repository(BTreeMap::from([("a.yaml", "a: 1\nb: [\nc: 2\n"), ("b.json", "[1]"), ("c.json", "7")]));
    let file = |path: &str| json!([{"list": {}}, {"git": {"repoURL": "r", "files": [{"path": path}]}}]);
    let text = error(file("a.yaml"), "n", &repository);
    assert!(text.starts_with("generators[1] (git): unable to process file 'a.yaml', line "), "{text}");
    let text = error(file("b.json"), "n", &repository);
    assert_eq!(
        text,
        "generators[1] (git): unable to process file 'b.json', line 1: unable to parse file: entry 0 of the list is no object"
    );
    assert!(error(file("c.json"), "n", &repository).ends_with("expected an object or a list of objects, found 7"));
    let gone = json!([{"git": {"repoURL": "gone", "revision": "v1", "files": [{"path": "*"}]}}]);
    assert_eq!(error(gone, "n", &repository), "generators[0] (git): repository gone at v1: not fetched yet");
    let number = json!([{"list": {"elements": [{"x": 1}]}}]);
    assert_eq!(
        error(number, "n", &repository),
        "generators[0] (list): elements[0].x: error parsing value as string: put it in quotes"
    );
    assert_eq!(
        error(json!([{"git": {"repoURL": "r"}}]), "n", &repository),
        "generators[0] (git): one of `files` and `directories` is required"
    );
}

#[test]
fn what_is_not_run_yet_changes_nothing_and_says_so() {
    let nothing = Repository::default();
    let text = error(json!([{"pullRequest": {}}]), "n", &nothing);
    assert_eq!(
        text,
        "generators[0] (pullRequest): generators of this kind arrive with a later version; nothing is changed"
    );
    let text = error(json!([{}]), "n", &nothing);
    assert_eq!(text, "generators[0] (unknown): the entry names no known generator; nothing is changed");
    let spec = json!({"goTemplate": true, "generators": [], "template": template("n", "p")});
    let result = run_spec(spec, &nothing);
    assert!(result.as_ref().unwrap_err().to_string().contains("Go templates arrive with a later version"));
    let found: Vec<_> = conditions(&result).into_iter().map(|one| (one.kind, one.status, one.reason)).collect();
    let expect = [
        ("ErrorOccurred", "True", "ApplicationGenerationFromParamsError"),
        ("ParametersGenerated", "False", "ErrorOccurred"),
        ("ResourcesUpToDate", "False", "ErrorOccurred"),
    ];
    assert_eq!(found, expect.map(|(kind, status, reason)| (kind.into(), status.into(), reason.into())));
}

#[test]
fn bad_applications_are_errors_with_the_field() {
    let nothing = Repository::default();
    let list = json!([{"list": {"elements": [{"x": "a"}, {"x": "b"}]}}]);
    assert_eq!(
        error(list.clone(), "same", &nothing),
        "ApplicationSet set contains applications with duplicate name: same"
    );
    assert!(error(list.clone(), "{{y}}", &nothing).contains("template.metadata.name: Invalid value"));
    let broken = |edit: &dyn Fn(&mut Value)| {
        let mut spec = json!({"generators": list, "template": template("app-{{x}}", "p")});
        edit(&mut spec["template"]);
        run_spec(spec, &nothing).unwrap_err().to_string()
    };
    let start = "generators[0] (list): application \"app-a\": template.";
    assert_eq!(
        broken(&|template| template["spec"]["destination"] = Value::Null),
        format!("{start}spec.destination: Required value")
    );
    assert_eq!(broken(&|template| template["spec"] = Value::Null), format!("{start}spec: Required value"));
    assert_eq!(
        broken(&|template| template["metadata"]["labels"] = json!({"a": 1})),
        format!("{start}metadata.labels.a: must be a text, not 1: put it in quotes")
    );
    let text = broken(&|template| template["spec"]["syncPolicy"] = json!({"automated": {"prune": "{{x}}"}}));
    assert!(text.starts_with(&format!("{start}spec.syncPolicy.automated.prune: ")), "{text}");
    let text = broken(&|template| template["spec"]["source"]["path"] = json!("{{x}} {{"));
    assert!(text.starts_with("generators[0] (list): template.spec.source.path: cannot find the end tag"), "{text}");
}

#[test]
fn conditions_of_a_good_set_are_argos() {
    let result = run(json!([{"list": {"elements": []}}]), "n", &Repository::default());
    assert_eq!(result, Ok(vec![]));
    let text = serde_json::to_value(conditions(&result)).unwrap();
    let done = "All applications have been generated successfully";
    assert_eq!(
        text,
        json!([
            {"type": "ErrorOccurred", "status": "False", "reason": "ApplicationSetUpToDate", "message": done},
            {"type": "ParametersGenerated", "status": "True", "reason": "ParametersGenerated",
             "message": "Successfully generated parameters for all Applications"},
            {"type": "ResourcesUpToDate", "status": "True", "reason": "ApplicationSetUpToDate", "message": done},
        ])
    );
}
