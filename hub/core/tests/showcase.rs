//! The reference guide's ApplicationSets and projects, read from `../shared/showcase` beside the checkout.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::de::DeserializeOwned;
use serde_json::Value;
use windlass_hub_core::{
    generate::{GenerateLimits, Generated, SourceFile, SourceUnavailable, Sources, generate, wants_file},
    policy::{ResolvedDestination, check_application, check_kind, permitted},
};
use windlass_protocol::{
    ids::NamespacedName,
    json,
    resource::{AppProjectSpec, ApplicationSetSpec, ApplicationSpec, GitItem, parse},
    yaml,
};

/// The showcase, or `None` with a clear word when it is not there.
fn showcase() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/showcase");
    if path.is_dir() {
        return Some(path);
    }
    println!("SKIPPED: ../shared/showcase is not beside this checkout");
    None
}

/// The one object of a file.
fn object(path: &Path) -> Value {
    let options = yaml::Options { duplicates: yaml::DuplicateKeys::MergeInArgo, ..yaml::Options::default() };
    let mut documents = yaml::values(&fs::read(path).unwrap(), &options).unwrap();
    assert_eq!(documents.len(), 1, "{path:?}");
    documents.remove(0).value
}

fn spec<T: DeserializeOwned>(path: &Path) -> T {
    let parsed = parse::<T>("spec", &object(path)["spec"]).unwrap();
    assert_eq!(parsed.unknown, Vec::<String>::new(), "{path:?}");
    parsed.value
}

/// The showcase as a repository.
struct Folder(PathBuf);

impl Sources for Folder {
    fn files(&self, _: &str, _: &str, items: &[GitItem]) -> Result<Vec<SourceFile>, SourceUnavailable> {
        let mut files = Vec::new();
        collect(&self.0, "", &mut files);
        files.retain(|file| wants_file(items, &file.path));
        Ok(files)
    }

    fn directories(&self, _: &str, _: &str, _: &[GitItem]) -> Result<Vec<String>, SourceUnavailable> {
        Ok(Vec::new())
    }
}

fn collect(folder: &Path, prefix: &str, files: &mut Vec<SourceFile>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &format!("{path}/"), files);
        } else {
            files.push(SourceFile { path, content: Arc::from(fs::read(entry.path()).unwrap()) });
        }
    }
}

fn run(showcase: &Path, file: &str) -> Vec<Generated> {
    let path = showcase.join("applicationsets").join(file);
    let name = json::text(&object(&path), &["metadata", "name"]).to_owned();
    let set: ApplicationSetSpec = spec(&path);
    let sources = Folder(showcase.to_owned());
    generate(&NamespacedName::new("argocd", name), &set, &[], &sources, &GenerateLimits::default()).unwrap()
}

fn limits_of(one: &Generated) -> Value {
    let patch = one.spec["source"]["kustomize"]["patches"][0]["patch"].as_str().unwrap();
    assert!(!patch.contains("{{"), "{patch}");
    let patch = yaml::value(patch).unwrap();
    patch["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"].clone()
}

#[test]
fn the_multi_cluster_set_makes_four_applications_with_their_profiles() {
    let Some(showcase) = showcase() else { return };
    // The guide's own file repeats `syncPolicy`: both are merged, so both files give the same.
    let made = run(&showcase, "chatgpt-mcp-multi-cluster.yaml");
    let as_in_guide = run(&showcase, "chatgpt-mcp-multi-cluster.as-in-guide.yaml");
    assert_eq!(made, as_in_guide);
    let expect = [
        ("chatgpt-mcp-production-us-east", "production", "us-east-1", "5", "4000m", "8Gi"),
        ("chatgpt-mcp-production-eu-west", "production", "eu-west-1", "5", "4000m", "8Gi"),
        ("chatgpt-mcp-staging-us-east", "staging", "us-east-1", "2", "2000m", "4Gi"),
        ("chatgpt-mcp-development", "development", "us-east-1", "1", "500m", "1Gi"),
    ];
    assert_eq!(made.len(), expect.len());
    for (one, (name, environment, region, replicas, cpu, memory)) in made.iter().zip(expect) {
        assert_eq!(one.name, name);
        assert_eq!(one.labels["environment"], environment);
        assert_eq!(one.labels["region"], region);
        assert_eq!(one.spec["source"]["path"], format!("apps/mcp-server/overlays/{environment}"));
        assert_eq!(one.spec["source"]["kustomize"]["replicas"][0]["count"], replicas);
        assert_eq!(one.spec["destination"]["namespace"], format!("chatgpt-{environment}"));
        assert_eq!(limits_of(one), serde_json::json!({"cpu": cpu, "memory": memory}), "{name}");
        assert_eq!(one.project, "chatgpt-apps");
        assert_eq!(one.warnings, Vec::<String>::new());
        assert_eq!(one.spec["syncPolicy"]["syncOptions"].as_array().map(Vec::len), Some(4));
    }
}

#[test]
fn the_tenant_set_makes_an_application_per_file() {
    let Some(showcase) = showcase() else { return };
    let made = run(&showcase, "chatgpt-tenant-generator.yaml");
    let names: Vec<_> = made.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["chatgpt-tenant-acme", "chatgpt-tenant-globex", "chatgpt-tenant-initech"]);
    assert_eq!(made[0].labels["tier"], "enterprise");
    let patch = made[0].spec["source"]["kustomize"]["patches"][0]["patch"].as_str().unwrap();
    let data = yaml::value(patch).unwrap()["data"].clone();
    let expect = serde_json::json!({"TENANT_ID": "tenant-001", "TENANT_NAME": "acme", "API_RATE_LIMIT": "6000", "MAX_CONNECTIONS": "500"});
    assert_eq!(data, expect);
}

/// The Applications that the guide's project denies, each with its sentence.
fn denied(made: &[Generated], project_name: &str, project: &AppProjectSpec) -> Vec<(String, String)> {
    let mut denied = Vec::new();
    for one in made {
        let spec: ApplicationSpec = parse("spec", &one.spec).unwrap().value;
        let destination = ResolvedDestination::as_written(&spec.destination);
        let app = NamespacedName::new(&*one.namespace, &*one.name);
        for denial in check_application(project_name, Some(project), &app, "argocd", &spec, &destination) {
            denied.push((one.name.clone(), denial.message));
        }
    }
    denied
}

#[test]
fn the_guides_project_denies_what_oddities_b3_says() {
    let Some(showcase) = showcase() else { return };
    let project: AppProjectSpec = spec(&showcase.join("projects/chatgpt-apps.yaml"));
    let made = run(&showcase, "chatgpt-mcp-multi-cluster.yaml");
    let found = denied(&made, "chatgpt-apps", &project);
    let expect = [
        ("chatgpt-mcp-production-us-east", "https://prod-us-east.company.com", "chatgpt-production"),
        ("chatgpt-mcp-production-eu-west", "https://prod-eu-west.company.com", "chatgpt-production"),
        ("chatgpt-mcp-staging-us-east", "https://staging-us-east.company.com", "chatgpt-staging"),
    ];
    let sentence = |(name, server, namespace): (&str, &str, &str)| {
        let text = format!(
            "application destination server '{server}' and namespace '{namespace}' do not match any of the allowed destinations in \
             project 'chatgpt-apps'"
        );
        (name.to_owned(), text)
    };
    assert_eq!(found, expect.map(sentence));
}

#[test]
fn the_guides_project_denies_the_kinds_of_oddities_b4() {
    let Some(showcase) = showcase() else { return };
    let project: AppProjectSpec = spec(&showcase.join("projects/chatgpt-apps.yaml"));
    let destination =
        ResolvedDestination { server: "https://kubernetes.default.svc".into(), ..ResolvedDestination::default() };
    let permitted = permitted("chatgpt-apps", &project, &destination);
    let check = |group: &str, kind: &str, scope| check_kind(&permitted, group, kind, scope, "chatgpt-production");
    assert_eq!(check("apps", "Deployment", false), Ok(()));
    assert_eq!(check("", "Namespace", true), Ok(()));
    let sentence = "resource argoproj.io:Application is not permitted in project chatgpt-apps";
    assert_eq!(check("argoproj.io", "Application", false).unwrap_err().message, sentence);
    for (group, kind) in [
        ("", "ServiceAccount"),
        ("bitnami.com", "SealedSecret"),
        ("", "PersistentVolumeClaim"),
        ("policy", "PodDisruptionBudget"),
        ("batch", "Job"),
        ("", "ResourceQuota"),
    ] {
        assert!(check(group, kind, false).is_err(), "{kind}");
    }
}

#[test]
fn the_tenants_fit_their_project() {
    let Some(showcase) = showcase() else { return };
    let project: AppProjectSpec = spec(&showcase.join("projects/chatgpt-tenants.yaml"));
    let made = run(&showcase, "chatgpt-tenant-generator.yaml");
    assert_eq!(denied(&made, "chatgpt-tenants", &project), []);
}
