//! Rendering of Application sources, from the outside.

use serde_json::{Value, json};
use windlass_protocol::resource::ApplicationSource;
use windlass_render::{
    BuildEnvironment, KustomizeFlags, Limits, MemoryTree, ProblemKind, RenderError, Rendered, Request, SourceType,
    kustomize_build, render,
};

const CONFIG_MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: one\ndata:\n  on: yes\n";
const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 1
  selector:
    matchLabels:
      app: web
  template:
    metadata:
      labels:
        app: web
    spec:
      containers:
      - name: web
        image: shop/web:1.0
        env:
        - name: A
          value: \"1\"
        envFrom:
        - configMapRef:
            name: settings
";

fn source(value: Value) -> ApplicationSource {
    serde_json::from_value(value).expect("a source")
}

fn environment() -> BuildEnvironment {
    BuildEnvironment {
        app_name: "shop".to_owned(),
        app_namespace: "prod".to_owned(),
        revision: "0123456789abcdef0123456789abcdef01234567".to_owned(),
        ..BuildEnvironment::default()
    }
}

fn run(files: &[(&str, &str)], value: Value) -> Result<Rendered, RenderError> {
    let tree = MemoryTree::new(files.iter().map(|(path, content)| (*path, content.as_bytes())));
    let (source, environment, limits) = (source(value), environment(), Limits::default());
    render(&Request { tree: &tree, source: &source, environment: &environment, limits: &limits })
}

fn names(rendered: &Rendered) -> Vec<String> {
    let name = |manifest: &Value| {
        let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).unwrap_or("?").to_owned();
        format!("{}/{}", text("/kind"), text("/metadata/name"))
    };
    rendered.manifests.iter().map(name).collect()
}

fn problem(files: &[(&str, &str)], value: Value) -> (ProblemKind, String) {
    let error = run(files, value).expect_err("a problem");
    (error.problems.first().expect("one at least").kind, error.to_string())
}

#[test]
fn directories_follow_argo_rules() {
    let files = [
        (
            "app/b.yml",
            "---\n# nothing\n---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  metadata: {name: two}\n",
        ),
        ("app/a.yaml", CONFIG_MAP),
        ("app/c.json", r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"three"}}"#),
        ("app/values.yaml", "replicas: 3\nimage: {{ nope }}\n"),
        ("app/skipped.yaml", "# +argocd:skip-file-rendering\nthis: is: not: yaml\n"),
        ("app/readme.md", "# hello"),
        ("app/sub/d.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: four}\n"),
        ("app/.argocd-source-other.yaml", "directory: {recurse: true}\n"),
    ];
    let rendered = run(&files, json!({"repoURL": "r", "path": "app"})).expect("rendered");
    assert_eq!(rendered.source_type, SourceType::Directory);
    assert_eq!(names(&rendered), ["ConfigMap/one", "Secret/two", "Service/three"]);
    assert_eq!(rendered.manifests.first().and_then(|manifest| manifest.pointer("/data")), Some(&json!({"true": true})));
    assert!(rendered.warnings.iter().any(|warning| warning.contains("app/values.yaml")));
    assert!(rendered.read.get("app/a.yaml").is_some_and(Option::is_some));
    assert_eq!(rendered.read.get("app/Chart.yaml"), Some(&None));

    let all = run(&files, json!({"repoURL": "r", "path": "app", "directory": {"recurse": true, "exclude": "{a,b}.*"}}));
    assert_eq!(names(&all.expect("rendered")), ["Service/three", "Namespace/four"]);
    let only = run(&files, json!({"repoURL": "r", "path": "app", "directory": {"recurse": true, "include": "sub/*"}}));
    assert_eq!(names(&only.expect("rendered")), ["Namespace/four"]);
}

#[test]
fn files_in_the_repository_override_the_source() {
    let files = [
        ("app/a.yaml", CONFIG_MAP),
        ("app/sub/d.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: four}\n"),
        ("app/.argocd-source.yaml", "path: elsewhere\ndirectory: {recurse: true}\n"),
        ("app/.argocd-source-shop.yaml", "directory: {exclude: a.yaml}\n"),
    ];
    // The two files hold no manifests themselves: they are ignored as such.
    let rendered = run(&files, json!({"repoURL": "r", "path": "app"})).expect("rendered");
    assert_eq!(names(&rendered), ["Namespace/four"]);
}

#[test]
fn kustomize_sources_take_overrides() {
    let files = [
        (
            "app/kustomization.yaml",
            "resources: [web.yaml]\nimages:\n- {name: shop/web, newTag: '2'}\ncommonAnnotations: {team: a}\nconfigMapGenerator:\n- {name: settings, literals: [X=1]}\n",
        ),
        ("app/web.yaml", DEPLOYMENT),
    ];
    let rendered = run(
        &files,
        json!({"repoURL": "r", "path": "app", "kustomize": {
            "namePrefix": "p-", "namespace": "blue", "images": ["shop/web=reg/web:$ARGOCD_APP_REVISION_SHORT"],
            "commonLabels": {"app.kubernetes.io/instance": "$ARGOCD_APP_NAME"},
            "commonAnnotations": {"team": "b", "raw": "$ARGOCD_APP_NAME"},
            "replicas": [{"name": "web", "count": "3"}],
            "patches": [{"patch": "- {op: add, path: /spec/paused, value: true}", "target": {"kind": "Deployment"}}],
            "buildOptions": "--load-restrictor=LoadRestrictionsNone --enable-helm",
        }}),
    )
    .expect("rendered");
    assert_eq!(rendered.source_type, SourceType::Kustomize);
    let deployment =
        rendered.manifests.iter().find(|manifest| manifest["kind"] == "Deployment").expect("the deployment");
    assert_eq!(deployment["metadata"]["name"], "p-web");
    assert_eq!(deployment["metadata"]["namespace"], "blue");
    assert_eq!(deployment["metadata"]["annotations"], json!({"team": "b", "raw": "$ARGOCD_APP_NAME"}));
    assert_eq!(deployment["spec"]["replicas"], 3);
    assert_eq!(deployment["spec"]["paused"], true);
    assert_eq!(deployment["spec"]["selector"]["matchLabels"]["app.kubernetes.io/instance"], "shop");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "reg/web:0123456");
    let settings = rendered.manifests.iter().find(|manifest| manifest["kind"] == "ConfigMap").expect("the settings");
    assert_eq!(container["envFrom"][0]["configMapRef"]["name"], settings["metadata"]["name"]);
    let warnings = rendered.warnings.join("\n");
    for expected in
        ["'team' of the overlay is overridden", "LoadRestrictionsNone is ignored", "--enable-helm is ignored"]
    {
        assert!(warnings.contains(expected), "{expected}: {warnings}");
    }
}

#[test]
fn labels_without_selector_leave_selectors_alone() {
    let files = [("app/kustomization.yaml", "resources: [web.yaml]\n"), ("app/web.yaml", DEPLOYMENT)];
    let options = json!({"commonLabels": {"x": "y"}, "labelWithoutSelector": true, "labelIncludeTemplates": true});
    let rendered = run(&files, json!({"repoURL": "r", "path": "app", "kustomize": options})).expect("rendered");
    let deployment = rendered.manifests.first().expect("one manifest");
    assert_eq!(deployment["metadata"]["labels"]["x"], "y");
    assert_eq!(deployment["spec"]["template"]["metadata"]["labels"]["x"], "y");
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], json!({"app": "web"}));
}

#[test]
fn other_source_types_are_refused_clearly() {
    let chart = [("app/Chart.yaml", "name: x\n")];
    let (kind, text) = problem(&chart, json!({"repoURL": "r", "path": "app"}));
    assert_eq!((kind, text.contains("Helm")), (ProblemKind::Unsupported, true));
    let (kind, _) =
        problem(&[("app/a.yaml", CONFIG_MAP)], json!({"repoURL": "r", "path": "app", "plugin": {"name": "x"}}));
    assert_eq!(kind, ProblemKind::Unsupported);
    let both = json!({"repoURL": "r", "path": "app", "directory": {}, "kustomize": {}});
    let (kind, text) = problem(&[("app/a.yaml", CONFIG_MAP)], both);
    assert_eq!((kind, text.contains("multiple application sources")), (ProblemKind::Field, true));
    let (kind, text) = problem(&[("app/x.jsonnet", "{}")], json!({"repoURL": "r", "path": "app"}));
    assert_eq!((kind, text.starts_with("app/x.jsonnet")), (ProblemKind::Unsupported, true));
}

#[test]
fn bad_input_is_named_with_its_place() {
    let at = |path: &str| json!({"repoURL": "r", "path": path});
    let app = |files: &[(&str, &str)]| problem(files, at("app"));
    let check = |found: (ProblemKind, String), kind: ProblemKind, parts: &[&str]| {
        assert_eq!(found.0, kind, "{}", found.1);
        assert!(parts.iter().all(|part| found.1.contains(part)), "{parts:?}: {}", found.1);
    };
    check(problem(&[("a", "")], at("../x")), ProblemKind::Escape, &["../x", "leads out of the repository"]);
    check(problem(&[("a/b", "")], at("nowhere")), ProblemKind::NotFound, &["nowhere", "does not exist"]);
    check(problem(&[("a/b", "")], at("a/b")), ProblemKind::NotFound, &["a/b", "not a directory"]);
    check(
        app(&[("app/a.yaml", "kind: X\napiVersion: v1\nmetadata:\n  name: a\n  name: b\n")]),
        ProblemKind::Syntax,
        &["app/a.yaml:5", "mapping key \"name\" already defined at line 4"],
    );
    check(
        app(&[(
            "app/a.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nmetadata: {name: b}\n",
        )]),
        ProblemKind::Object,
        &["app/a.yaml:5", "'Kind' is missing", "'b'"],
    );
    check(
        app(&[("app/kustomization.yaml", "resources: [a.yaml]\nnamPrefix: x\nreplicas: 3\n")]),
        ProblemKind::Field,
        &[
            "app/kustomization.yaml:2: namPrefix: unknown field",
            "app/kustomization.yaml:3: replicas: cannot unmarshal number into a list",
        ],
    );
    check(
        app(&[("app/kustomization.yaml", "resources: [../../x.yaml]\n")]),
        ProblemKind::Escape,
        &["app/kustomization.yaml", "leads out of the repository"],
    );
    check(
        app(&[("app/kustomization.yaml", "resources: [../b]\n"), ("b/kustomization.yaml", "resources: [../app]\n")]),
        ProblemKind::Cycle,
        &["b/kustomization.yaml", "cycle detected"],
    );
    check(
        app(&[
            ("app/kustomization.yaml", "resources: [a.yaml]\n"),
            ("app/a.yaml", "apiVersion: v1\nmetadata: {name: a}\n"),
        ]),
        ProblemKind::Object,
        &["app/a.yaml:1", "missing kind"],
    );
    check(
        app(&[
            ("app/kustomization.yaml", "resources: [a.yaml]\nhelmCharts: [{name: x}]\n"),
            ("app/a.yaml", CONFIG_MAP),
        ]),
        ProblemKind::Unsupported,
        &["helmCharts"],
    );
    check(
        app(&[("app/kustomization.yaml", "resources: ['https://example.com/x.yaml']\n")]),
        ProblemKind::Unsupported,
        &["https://example.com/x.yaml", "remote"],
    );
}

#[test]
fn several_broken_files_are_reported_together() {
    let broken = "apiVersion: v1\nkind: X\nmetadata: {name: [}\n";
    let error = run(
        &[("app/a.yaml", broken), ("app/b.yaml", broken), ("app/c.yaml", CONFIG_MAP)],
        json!({"repoURL": "r", "path": "app"}),
    )
    .expect_err("two problems");
    let files: Vec<_> = error.problems.iter().filter_map(|problem| problem.file.as_deref()).collect();
    assert_eq!(files, ["app/a.yaml", "app/b.yaml"]);
}

#[test]
fn limits_are_refused_by_name() {
    let big = "x".repeat(2000);
    let manifest = format!("{CONFIG_MAP}  big: {big}\n");
    let tree = MemoryTree::new([
        ("app/a.yaml", manifest.clone()),
        ("k/kustomization.yaml", "resources: [a.yaml]\n".to_owned()),
        ("k/a.yaml", manifest),
    ]);
    let (app, kustomized, environment) =
        (source(json!({"repoURL": "r", "path": "app"})), source(json!({"repoURL": "r", "path": "k"})), environment());
    let check = |source: &ApplicationSource, limits: Limits, name: &str| {
        let error =
            render(&Request { tree: &tree, source, environment: &environment, limits: &limits }).expect_err(name);
        assert_eq!(error.problems.first().map(|problem| problem.kind), Some(ProblemKind::Limit));
        assert!(error.to_string().contains(&format!("limit `{name}`")), "{error}");
    };
    for source in [&app, &kustomized] {
        check(source, Limits { file: 1000, ..Limits::default() }, "file");
        check(source, Limits { bytes_read: 1000, ..Limits::default() }, "bytes_read");
        check(source, Limits { manifest: 1000, ..Limits::default() }, "manifest");
        check(source, Limits { bundle: 1000, ..Limits::default() }, "bundle");
        check(source, Limits { resources: 0, ..Limits::default() }, "resources");
    }
}

#[test]
fn the_paths_read_are_the_key_of_the_memo() {
    let files = [
        ("app/kustomization.yaml", "resources: [../base]\n"),
        ("base/kustomization.yml", "resources: [a.yaml]\nconfigMapGenerator: [{name: x, files: [f.txt]}]\n"),
        ("base/a.yaml", CONFIG_MAP),
        ("base/f.txt", "text"),
        ("base/unused.yaml", "x: y"),
    ];
    let rendered = run(&files, json!({"repoURL": "r", "path": "app"})).expect("rendered");
    let present: Vec<&str> =
        rendered.read.iter().filter(|(_, id)| id.is_some()).map(|(path, _)| path.as_str()).collect();
    assert_eq!(present, ["app/kustomization.yaml", "base/a.yaml", "base/f.txt", "base/kustomization.yml"]);
    assert_eq!(rendered.read.get("base/kustomization.yaml"), Some(&None));
}

#[test]
fn a_list_of_patches_merges_by_keys_and_prepends() {
    let tree = MemoryTree::new([
        ("kustomization.yaml", "resources: [web.yaml]\npatches:\n- path: patch.yaml\n"),
        ("web.yaml", DEPLOYMENT),
        (
            "patch.yaml",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: null\n  template:\n    spec:\n      containers:\n      - name: web\n        env:\n        - {name: B, value: '2'}\n      - {name: side, image: x}\n",
        ),
    ]);
    let built = kustomize_build(&tree, ".", &KustomizeFlags::default(), &Limits::default()).expect("built");
    let spec = built.manifests.first().and_then(|manifest| manifest.pointer("/spec")).expect("a spec");
    assert_eq!(spec.get("replicas"), None);
    let containers = spec.pointer("/template/spec/containers").expect("containers");
    assert_eq!(containers[0]["env"], json!([{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]));
    assert_eq!(containers[1], json!({"name": "side", "image": "x"}));
}
